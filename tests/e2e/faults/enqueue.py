"""Runs in the daemon's container: puts runs into the queue as the webserver does, by copying one that is there.

Usage: enqueue.py RUN COUNT [TAG]
"""

from __future__ import annotations

import sys


def main() -> None:
    """Each run gets a record and the event that enqueues it."""
    from dagster import DagsterEvent, DagsterInstance, DagsterRunStatus
    from dagster._core.utils import make_new_run_id
    from dagster_shared.record import copy

    instance = DagsterInstance.get()
    template = instance.get_run_by_id(sys.argv[1])
    assert template
    tags = {key: value for key, value in template.tags.items() if not key.startswith("docker/")}
    tags["e2e/waiting"] = "yes"
    for _ in range(int(sys.argv[2])):
        run = copy(template, run_id=make_new_run_id(), status=DagsterRunStatus.NOT_STARTED, tags=tags)
        instance.run_storage.add_run(run)
        instance.report_dagster_event(DagsterEvent.job_enqueue(run), run_id=run.run_id)


main()
