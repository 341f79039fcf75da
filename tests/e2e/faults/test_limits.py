"""Runs and a code server that take what there is: memory, processes, time."""

from __future__ import annotations

import time

from tests.e2e import rows
from tests.e2e.faults import health
from tests.e2e.faults.conftest import TIMES
from tests.e2e.harness import Machine, wait

_RELEASE = "docker_dagster_core_$(basename $(readlink /opt/dagster/releases/current))"
_NO_RETRY = {"dagster/max_retries": "0"}


def test_runs_that_take_all_there_is_end_with_the_reason(machine: Machine) -> None:
    """Memory and processes have a limit; a run that never ends is ended by a cancel, and by its limit of time."""
    memory, cancels = zip(*(_take_all(machine) for _ in range(TIMES)), strict=True)
    note = "FAILURE with the reason; seconds from its launch until it says so"
    rows.write("faults", "a run out of memory", TIMES, "that run", memory, note)
    note = "the limit of processes holds; seconds of the cancel; another one is ended by max_runtime"
    rows.write("faults", "a run that forks and never ends", TIMES, "that run", cancels, note)


def _take_all(machine: Machine) -> tuple[float, float]:
    start = time.time()
    hoards = machine.launch("hoards", tags=_NO_RETRY)
    cancelled = machine.launch("spawns", tags=_NO_RETRY)
    timed_out = machine.launch("spawns", tags=_NO_RETRY | {"dagster/max_runtime": "5"})
    beside = machine.launch("marked", {"ops": {"work": {"config": {"seconds": 5.0}}}})
    _wait_for(machine, hoards, "FAILURE")
    memory = time.time() - start
    assert any('"OOMKilled": true' in each or "memory" in each for each in _messages(machine, hoards))
    wait(lambda: _spawned(machine, cancelled), 60, "as many processes as may be")
    cancel = time.time()
    machine.terminate(cancelled)
    _wait_for(machine, cancelled, "CANCELED")
    seconds = time.time() - cancel
    # Dagster cancels it and then calls it a failure; the run itself may be quicker to say that it was cancelled.
    _wait_for(machine, timed_out, "FAILURE", "CANCELED")
    assert any("maximum runtime" in each for each in _messages(machine, timed_out))
    _wait_for(machine, beside, "SUCCESS")
    wait(lambda: not _living(machine, hoards, cancelled, timed_out), 60, "that their containers end")
    return memory, seconds


def test_a_code_server_out_of_memory_comes_back(machine: Machine) -> None:
    started = f"docker inspect -f '{{{{.State.StartedAt}}}}' {_RELEASE}"
    seconds = []
    for _ in range(TIMES):
        before = machine.ssh(started)
        machine.ssh(
            "docker exec dagster-daemon sh -c 'mkdir -p /opt/dagster/storage/e2e; touch /opt/dagster/storage/e2e/eat'"
        )
        wait(lambda before=before: machine.ssh(started) != before, 60, "that it starts again")  # type: ignore[misc]
        fault = time.time()
        seconds.append(health.seconds_until_healthy(machine, fault))
    rows.write("faults", "the code server out of memory", TIMES, "nothing", seconds)


def _wait_for(machine: Machine, run: str, *statuses: str) -> None:
    found = machine.wait_for_run(run, "FAILURE", "SUCCESS", "CANCELED", seconds=120)
    assert found in statuses, _messages(machine, run)


def _messages(machine: Machine, run: str) -> list[str]:
    return [str(event.get("message")) for event in machine.events(run)]


def _spawned(machine: Machine, run: str) -> bool:
    return any("processes until" in each for each in _messages(machine, run))


def _living(machine: Machine, *runs: str) -> set[str]:
    shown = "docker ps --filter label=dagster/run_id --format '{{.Label \"dagster/run_id\"}}'"
    return set(machine.ssh(shown).split()) & set(runs)
