"""SIGKILL to each container's first process and to the engine, at random moments, under load."""

from __future__ import annotations

import random
import time

import pytest

from tests.e2e import rows
from tests.e2e.faults import health
from tests.e2e.faults.conftest import TIMES
from tests.e2e.faults.load import FaultLoad
from tests.e2e.harness import Machine

_RELEASE = "docker_dagster_core_$(basename $(readlink /opt/dagster/releases/current))"
_CONTAINERS = {
    "dagster-postgres": "dagster-postgres",
    "dagster-webserver": "dagster-webserver",
    "dagster-daemon": "dagster-daemon",
    "dagster-engine-proxy": "dagster-engine-proxy",
    "the release that serves": _RELEASE,
}
KILLS = {
    name: f"kill -9 $(docker inspect -f '{{{{.State.Pid}}}}' {container})" for name, container in _CONTAINERS.items()
} | {"dockerd": "kill -9 $(systemctl show --property MainPID --value docker)"}
# In rounds, all of a round at once. A load for each alone says what each costs; the short form has no time for that.
_SHORT = [
    ["dagster-postgres"],
    ["dagster-webserver", "the release that serves"],
    ["dagster-daemon", "dagster-engine-proxy"],
    ["dockerd"],
]
ROUNDS = {"in turn": _SHORT} if TIMES == 1 else {name: [[name]] for name in KILLS}


@pytest.mark.parametrize("rounds", ROUNDS)
def test_what_is_killed_comes_back_and_no_run_is_lost(machine: Machine, rounds: str) -> None:
    seconds: dict[str, list[float]] = {}
    refused: dict[str, int] = {}
    with FaultLoad(machine) as load:
        for _ in range(TIMES):
            for victims in random.sample(ROUNDS[rounds], k=len(ROUNDS[rounds])):
                load.keep_in_flight()
                time.sleep(random.uniform(0.5, 6))
                fault, before = time.time(), load.failed_launches
                machine.ssh("\n".join(KILLS[victim] for victim in victims))
                healthy = health.seconds_until_healthy(machine, fault, heartbeats="dagster-daemon" in victims)
                for victim in victims:
                    seconds.setdefault(victim, []).append(healthy)
                    refused[victim] = refused.get(victim, 0) + load.failed_launches - before
    outcome = load.outcome()
    print({victim: [round(each, 1) for each in found] for victim, found in seconds.items()}, outcome.lost())
    lost = load.writer.lost()
    for victim, found in seconds.items():
        what = f"{len(lost)} events" if lost else outcome.lost()
        rows.write(
            "faults", f"kill -9 of {victim}", TIMES, what, found, f"{refused[victim]} launches refused meanwhile"
        )
    assert lost == set(), len(load.writer.acknowledged)
    assert len(load.writer.acknowledged) > 20
    assert outcome.untrue() == []
    assert outcome.undone() == []
