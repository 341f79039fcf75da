# SPDX-License-Identifier: Apache-2.0
"""How samples of ours are called."""

from __future__ import annotations

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.jobs import Metric

PREFIX = "dagster_gce_"


def metric(name: str, value: float, help: str = "", /, **labels: str) -> Metric:
    """A gauge of ours; a name that ends in _total is a counter."""
    return Metric(PREFIX + name, value, help, "counter" if name.endswith("_total") else "gauge", labels)
