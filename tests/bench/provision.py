"""Provisioning when there is nothing to do: how long it takes, and what is asked of Google.

The machine is there in the lab's Google only (driver ``none``): a run that changes nothing makes the same calls, and
nobody has to boot. Google's own answers take longer than the lab's, so the calls count, too.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from lab.google import Google
from tests.bench.measure import row, seconds, spread
from tests.e2e.cloud import Cloud

PLAYBOOK = "playbooks/provision.yml"


def measure(rounds: int) -> None:
    """Make everything once, and run again ``rounds`` times."""
    google = Google().start()
    try:
        google.seed_project("example-e2e", services=[])
        with tempfile.TemporaryDirectory() as folder:
            cloud = Cloud(google, Path(folder))
            row("provision_first_seconds", seconds(lambda: cloud.play(PLAYBOOK).ok()), "s", "no machine boots")
            times = []
            for _ in range(rounds):
                cloud.forget_calls()
                played = cloud.play(PLAYBOOK).ok()
                if played.changed or cloud.writes():
                    raise AssertionError(f"it is not the same again: {cloud.writes()}\n{played.output}")
                times.append(played.seconds)
            reads = cloud.reads()
            row("provision_nochange_seconds", statistics.median(times), "s", spread(times))
            row(
                "provision_api_calls",
                len(google.requests),
                "calls",
                f"{len(reads)} resources; token requests not counted",
            )
            row("provision_reads_per_resource", max(reads.values()), "reads")
        if google.violations:
            raise AssertionError(google.violations)
    finally:
        google.stop()
