# SPDX-License-Identifier: Apache-2.0
"""Samples from the machine itself: disks, deploys, the last results of jobs. Files only."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator

from ansible_collections.dataops.dagster_gce.plugins.module_utils import code_server, releases
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config, jobs, metrics_text
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.jobs import Metric
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.metrics_sample import metric

# What a deploy or rollback may end with.
RESULTS = ("ok", "failed", "rolled_back")


def machine() -> list[Metric]:
    """Disk, deploys, the last results of the jobs: files only."""
    stack = config.stack()
    return [*_disks(stack.root), *_deploys(stack.root), *_jobs()]


def _disks(root: str) -> Iterator[Metric]:
    seen = set()
    for path in (root, "/var/lib/docker"):
        try:
            found, device = os.statvfs(path), os.stat(path).st_dev
        except OSError:
            continue
        if device in seen:
            continue
        seen.add(device)
        yield metric("disk_size_bytes", found.f_blocks * found.f_frsize, "Size of the file system.", path=path)
        yield metric("disk_free_bytes", found.f_bavail * found.f_frsize, "What is free for use on it.", path=path)
        yield metric("disk_inodes", found.f_files, "How many files the file system can hold.", path=path)
        yield metric("disk_inodes_free", found.f_favail, "How many more files it can hold.", path=path)


def _deploys(root: str) -> Iterator[Metric]:
    # Zeros, too: Prometheus sees no increase in a series that begins with 1.
    counts = Counter({(operation, result): 0 for operation in ("deploy", "rollback") for result in RESULTS})
    last = ""
    with contextlib.suppress(OSError), open(releases.Store(root).audit_path, encoding="utf-8", errors="replace") as log:
        for line in log:
            with contextlib.suppress(ValueError, AttributeError):
                entry = json.loads(line)
                counts[str(entry.get("operation")), str(entry.get("result"))] += 1
                last = str(entry.get("time") or last)
    for (operation, result), count in sorted(counts.items()):
        yield metric("deploys_total", count, "Deploys and rollbacks so far.", operation=operation, result=result)
    with contextlib.suppress(ValueError):
        yield metric("deploy_last_timestamp_seconds", code_server.instant(last), "When the last one ended.")


def _jobs() -> Iterator[Metric]:
    # The label is not `job`, which Prometheus gives to whom it scrapes.
    known, states = config.jobs(), jobs.current_states()
    for name, job in known.items():
        if job.every_at_most is not None:
            text = "Seconds without a success after which the job is overdue."
            yield metric("job_every_at_most_seconds", job.every_at_most, text, task=name)
    for name, state in states.items():
        yield metric("job_ok", bool(state.get("ok")), "Whether the job's last run ended well.", task=name)
        for key, text in (("ended", "When the job last ended."), ("last_success", "When it last ended well.")):
            if state.get(key):
                label = "last_end" if key == "ended" else key
                yield metric(f"job_{label}_timestamp_seconds", float(state[key]), text, task=name)
        if state.get("ended") and state.get("started"):
            took = float(state["ended"]) - float(state["started"])
            yield metric("job_duration_seconds", round(took, 3), "How long its last run took.", task=name)
        yield from metrics_text.of_state(state.get("metrics"))
