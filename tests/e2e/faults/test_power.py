"""The machine loses its power with runs in flight and a write load, and comes back by itself."""

from __future__ import annotations

import random
import time

from tests.e2e import rows
from tests.e2e.faults import health, power
from tests.e2e.faults.conftest import TIMES
from tests.e2e.faults.load import FaultLoad
from tests.e2e.harness import Machine

CUTS = max(1, TIMES // 2)
# The issue's.
LIMIT = 90


def test_nothing_committed_is_lost_when_the_power_goes(machine: Machine) -> None:
    seconds, in_flight = [], 0
    with FaultLoad(machine) as load:
        for number in range(CUTS):
            load.keep_in_flight()
            time.sleep(random.uniform(1, 8))
            in_flight += len(health.in_flight(machine))
            power.off(machine)
            load.writer.wait_until_it_ends()
            boot = power.on(machine)
            seconds.append(health.seconds_until_healthy(machine, boot, LIMIT, heartbeats=True))
            load.writer.start()
            # A run that is cut off twice is not started a third time (dagster_home_run_retries): let all end first.
            if number < CUTS - 1:
                load.outcome(patience=300)
    outcome = load.outcome(patience=300)
    lost = load.writer.lost()
    note = f"{len(load.writer.acknowledged)} acknowledged events, {in_flight} runs in flight; seconds from power on"
    print([round(each, 1) for each in seconds], outcome.lost(), note)
    rows.write("faults", "power off", CUTS, f"{len(lost)} events" if lost else outcome.lost(), seconds, note)
    assert in_flight > 0
    assert lost == set()
    assert outcome.untrue() == []
    assert outcome.undone() == []
