"""When all is healthy again: containers, webserver, daemons, code location, and a run launched after the fault."""

from __future__ import annotations

import subprocess
import time
from typing import Any

from lab.shell import LabError
from tests.e2e.harness import Machine
from tests.webserver import LOST, PATIENCE

# What a question may end with while the machine is off, or its webserver.
UNREACHABLE = (*LOST, subprocess.SubprocessError, LabError)
# Before what the load has put into the queue.
FIRST = {"dagster/priority": "100"}
_ASK = """{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy lastHeartbeatTime } } } }"""
_CONTAINERS = """docker ps --all --filter label=dataops.dagster_gce=stack --format '{{.Names}} {{.Status}}'
docker ps --all --filter name=^docker_dagster_core_$(basename $(readlink /opt/dagster/releases/current))$ \\
  --format '{{.Names}} {{.Status}}'"""


def problems(machine: Machine, heartbeats_since: float = 0, clock: float = 0) -> list[str]:
    """What is wrong now; with ``heartbeats_since`` also daemons that have given no sign since that time.time().

    ``clock``: by how many seconds the machine's is ahead. Of a sign from its future nobody knows when it was given.
    """
    found = []
    try:
        location = machine.locations(timeout=5).get("dagster_core")
        if location is None or not location.loaded:
            found.append(f"dagster_core: {location and location.error}")
        daemons = machine.graphql(_ASK, timeout=5)["instance"]["daemonHealth"]["allDaemonStatuses"]
    except UNREACHABLE as error:
        return [f"webserver: {error!r}"]
    found += [
        f"daemon {each['daemonType']}: last heartbeat {each['lastHeartbeatTime']}"
        for each in daemons
        if each["required"] and not (each["healthy"] and heartbeats_since <= _given(each, clock) <= time.time() + 60)
    ]
    if found:
        return found
    shown = _ssh(machine, _CONTAINERS)
    return [line for line in shown or ["no answer over SSH"] if not _is_well(line)]


def _given(daemon: dict[str, Any], clock: float) -> float:
    return float(daemon["lastHeartbeatTime"] or clock) - clock


def _is_well(container: str) -> bool:
    # A release has no health check of Docker's: the webserver has just said whether it serves.
    name, _, status = container.partition(" ")
    return status.startswith("Up") if name.startswith("docker_dagster_core_") else "(healthy)" in status


def _ssh(machine: Machine, command: str) -> list[str]:
    try:
        return machine.ssh(command, check=False, timeout=20).splitlines()
    except subprocess.SubprocessError:
        return []


def seconds_until_healthy(
    machine: Machine, fault: float, limit: float = 90, heartbeats: bool = False, clock: float = 0
) -> float:
    """Wait until all is healthy and a run launched after the fault has succeeded; fails after ``limit`` seconds.

    :param fault: when it was, as time.time() says.
    :param heartbeats: every daemon has to have given a sign since then.
    :param clock: by how many seconds the machine's is ahead.
    :returns: seconds since the fault.
    """
    limit *= PATIENCE
    run, found, status = "", ["nothing asked yet"], ""
    while found or status != "SUCCESS":
        assert time.time() < fault + limit, f"expected healthy within {limit:.0f} s; found {found}, a run {status!r}"
        time.sleep(0.5)
        try:
            run = run or machine.launch("quick", tags=FIRST)
            status = machine.run_status(run)
        except UNREACHABLE as error:
            found = [repr(error)]
            continue
        if status in ("FAILURE", "CANCELED"):
            run = ""
        found = problems(machine, fault if heartbeats else 0, clock)
    return time.time() - fault


def in_flight(machine: Machine) -> list[dict[str, Any]]:
    """Runs that have not ended."""
    query = """{ runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING]}, limit: 100) {
        ... on Runs { results { runId status jobName } } } }"""
    found: list[dict[str, Any]] = machine.graphql(query)["runsOrError"]["results"]
    return found
