# SPDX-License-Identifier: Apache-2.0
"""The list of problems as samples."""

from __future__ import annotations

from collections import Counter

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import jobs, problems
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.jobs import Metric
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.metrics_sample import metric


def wrong() -> list[Metric]:
    """The list of problems.

    Raises:
        config.ConfigError: where Dagster stands cannot be read.
    """
    found = problems.all()
    severities = Counter(each.severity for each in found)
    samples = [
        metric("problems", severities[severity], "Problems, as dagster-gce status lists them.", severity=severity)
        for severity in (jobs.CRITICAL, jobs.WARNING)
    ]
    text = "1 for each problem; dagster-gce status says more."
    return samples + [metric("problem", 1, text, name=each.name, severity=each.severity) for each in found]
