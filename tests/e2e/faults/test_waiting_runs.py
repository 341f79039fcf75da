"""Thousands of runs wait in the queue: the webserver and the daemon answer as before, and the queue is worked off."""

from __future__ import annotations

import base64
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import rows
from tests.e2e.faults import database, health
from tests.e2e.faults.conftest import TIMES
from tests.e2e.harness import Machine, wait

WAITING = 10_000
DRAINED = 300
PLACES = 5
# What the pages of the UI ask for.
QUERIES = {
    "runs": """{ runsOrError(limit: 25) { ... on Runs { results { runId status jobName creationTime startTime endTime
        tags { key value } } } } }""",
    "queue": """{ runsOrError(filter: {statuses: [QUEUED]}, limit: 25) { ... on Runs { results { runId status jobName
        creationTime tags { key value } } count } } }""",
    "feed": """{ runsFeedOrError(limit: 30, view: RUNS) { ... on RunsFeedConnection { hasMore results { id runStatus
        creationTime tags { key value } } } } }""",
    "overview": """{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { ... on
        RepositoryLocation { repositories { jobs { name runs(limit: 5) { runId status } } } } } } } } }""",
    "health": """{ instance { daemonHealth { allDaemonStatuses { daemonType healthy lastHeartbeatTime } } } }""",
}


def _latencies(machine: Machine, times: int = 9) -> dict[str, float]:
    """Medians in milliseconds."""
    found: dict[str, list[float]] = {name: [] for name in QUERIES}
    for _ in range(times):
        for name, query in QUERIES.items():
            start = time.monotonic()
            machine.graphql(query, timeout=60)
            found[name].append((time.monotonic() - start) * 1000)
    return {name: statistics.median(each) for name, each in found.items()}


def _count(machine: Machine, *statuses: str) -> int:
    query = """query ($statuses: [RunStatus!]) { runsOrError(filter: {statuses: $statuses,
        tags: [{key: "e2e/waiting", value: "yes"}]}, limit: 1) { ... on Runs { count } } }"""
    return int(machine.graphql(query, statuses=list(statuses))["runsOrError"]["count"])


@pytest.fixture
def full_queue(machine: Machine) -> Iterator[list[str]]:
    """The runs that hold all places of the queue; whatever still waits in the end is removed."""
    seconds = {"ops": {"sleep": {"config": {"seconds": 3600}}}}
    holders = [machine.launch("sleepy", seconds) for _ in range(PLACES)]
    yield holders
    for run in holders:
        if machine.run_status(run) not in ("CANCELED", "FAILURE"):
            machine.terminate(run)
    tagged = "select run_id from run_tags where key = 'e2e/waiting'"
    database.sql(machine, f"delete from runs where status = 'QUEUED' and run_id in ({tagged})")


@pytest.mark.skipif(TIMES == 1, reason="long form only: make test-faults")
def test_a_long_queue_slows_nobody_and_is_worked_off(machine: Machine, full_queue: list[str]) -> None:
    for run in full_queue:
        machine.wait_for_run(run, "STARTED", seconds=120)
    before = _latencies(machine)
    template = machine.launch("quick")
    code = base64.b64encode(Path(__file__).with_name("enqueue.py").read_bytes()).decode()
    machine.ssh(
        f"echo {code} | base64 -d | docker exec -i dagster-daemon python - {template} {WAITING}",
        timeout=WAITING / 10 + 120,
    )
    assert _count(machine, "QUEUED") == WAITING
    waiting = _latencies(machine)
    # Who comes last is first where its priority says so.
    urgent, start = machine.launch("quick", tags=health.FIRST), time.time()
    for run in full_queue:
        machine.terminate(run)
    machine.wait_for_run(urgent, "SUCCESS", seconds=180)
    first = time.time() - start
    start, done = time.time(), _count(machine, "SUCCESS")
    wait(
        lambda: _count(machine, "SUCCESS") >= done + DRAINED,
        DRAINED * 10 + 120,
        f"{DRAINED} of them done",
    )
    rate = DRAINED / (time.time() - start) * 60
    draining = _latencies(machine)
    ages = machine.graphql(QUERIES["health"])["instance"]["daemonHealth"]["allDaemonStatuses"]
    oldest = max(time.time() - each["lastHeartbeatTime"] for each in ages if each["lastHeartbeatTime"])
    texts = [f"{name} {before[name]:.0f}, {waiting[name]:.0f}, {draining[name]:.0f} ms" for name in QUERIES]
    note = f"queries before, waiting, while working off: {'; '.join(texts)}; an urgent run done after {first:.0f} s;"
    note += f" {DRAINED} worked off, {rate:.0f} a minute"
    print(note, f"oldest heartbeat {oldest:.0f} s")
    rows.write("faults", f"{WAITING:,} runs wait in the queue", 1, "nothing", [], note)
    assert _count(machine, "FAILURE", "CANCELED") == 0
    assert oldest < 120
    # A page that takes a second more than before is one that people wait for.
    assert all(waiting[name] < before[name] + 1000 for name in QUERIES), texts
