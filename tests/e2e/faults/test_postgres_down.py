"""PostgreSQL is away for a while, with runs in flight; then everything goes on without a hand."""

from __future__ import annotations

import time

from tests.e2e import rows
from tests.e2e.faults import health
from tests.e2e.faults.conftest import TIMES
from tests.e2e.faults.load import FaultLoad
from tests.e2e.harness import Machine

DOWN = 300 if TIMES > 1 else 30


def test_postgres_down(machine: Machine) -> None:
    with FaultLoad(machine, long_seconds=DOWN + 60) as load:
        # Out of reach, and not stopped: what is stopped by a hand is nobody's to start but the hand's.
        machine.ssh("docker network disconnect dagster-network dagster-postgres")
        time.sleep(DOWN)
        machine.ssh("docker network connect dagster-network dagster-postgres")
        seconds = health.seconds_until_healthy(machine, time.time(), limit=120)
    outcome = load.outcome(patience=240)
    lost = load.writer.lost()
    note = f"{load.failed_launches} launches refused meanwhile; from its return"
    print(f"down {DOWN} s, healthy after {seconds:.1f} s", outcome.lost(), note)
    what = f"{len(lost)} events" if lost else outcome.lost()
    rows.write("faults", f"PostgreSQL down for {DOWN} s", 1, what, [seconds], note)
    assert lost == set()
    assert outcome.untrue() == []
    # Dagster tries for some 12 s to write an event; then the step that wanted to fails, and is not tried again.
    assert {outcome.reason(run) for run in outcome.undone()} <= {"STEP_FAILURE"}
