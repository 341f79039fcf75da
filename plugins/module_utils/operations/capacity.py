# SPDX-License-Identifier: Apache-2.0
"""The machines of the swarm: what they are, what room they have, and which runs wait for it, and why."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import code_server, engine_api, swarm, swarm_members
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.jobs import CRITICAL, WARNING, Problem

# A run that has no machine for so long waits for room, or for a machine that there is not.
WAITS_LONG = 300
ENDED = ("complete", "shutdown", "failed", "rejected", "remove", "orphaned")


@dataclass
class Machine:
    """One machine. ``cpus_reserved`` and ``memory_reserved`` are what its runs have asked for, not what they take."""

    name: str
    address: str
    state: str
    availability: str
    manages: bool
    labels: dict[str, str]
    cpus: float
    memory: int
    message: str = ""
    cpus_reserved: float = 0.0
    memory_reserved: int = 0
    runs: list[str] = field(default_factory=list)

    @property
    def takes_runs(self) -> bool:
        """Whether a run could begin there."""
        return (
            self.state == "ready"
            and self.availability == "active"
            and self.labels.get(swarm_members.WORKER_LABEL) == "true"
        )


@dataclass
class Waiting:
    """A run that no machine has begun; ``why`` is Swarm's word for it, empty while it says none."""

    run_id: str
    state: str
    why: str
    seconds: float


@dataclass
class Capacity:
    """All machines, and the runs that wait."""

    machines: list[Machine]
    waiting: list[Waiting]


def look(engine: engine_api.Engine | None = None) -> Capacity | None:
    """Ask the engine; None where it manages no swarm.

    Raises:
        engine_api.EngineError
    """
    engine = engine or engine_api.Engine(timeout=20)
    if not swarm_members.member(engine).manages:
        return None
    return of(
        swarm_members.nodes(engine),
        engine.call("GET", "/services", query={"filters": {"label": [f"{code_server.LABEL}=run"]}}),
        engine.call("GET", "/tasks"),
    )


def of(
    nodes: Sequence[swarm_members.Node],
    services: Sequence[Mapping[str, Any]],
    tasks: Sequence[Mapping[str, Any]],
    now: float | None = None,
) -> Capacity:
    """What the engine's answers mean; ``now`` in seconds since the epoch."""
    machines = {
        each.id: Machine(
            each.name, each.address, each.state, each.availability, each.manages, dict(each.labels), each.cpus,
            each.memory, each.message,
        )
        for each in nodes
    }  # fmt: skip
    runs = {each["ID"]: (each["Spec"].get("Labels") or {}).get(swarm.LABEL_RUN, "") for each in services}
    waiting = []
    for task in tasks:
        status = task.get("Status") or {}
        state = status.get("State") or "new"
        if state in ENDED or task.get("DesiredState") in ENDED:
            continue
        run = runs.get(task.get("ServiceID", ""), "")
        machine = machines.get(task.get("NodeID") or "")
        if machine is not None:
            asked = ((task.get("Spec") or {}).get("Resources") or {}).get("Reservations") or {}
            machine.cpus_reserved += (asked.get("NanoCPUs") or 0) / 1e9
            machine.memory_reserved += asked.get("MemoryBytes") or 0
            if run:
                machine.runs.append(run)
        if run and state in swarm.WAITING:
            why = str(status.get("Err") or (status.get("Message") if state != "pending" else "") or "").strip()
            seconds = (now or time.time()) - _moment(task.get("CreatedAt"))
            waiting.append(Waiting(run, state, why, max(0.0, seconds)))
    return Capacity(list(machines.values()), sorted(waiting, key=lambda each: -each.seconds))


def problems(found: Capacity) -> list[Problem]:
    """Machines that are down, runs that wait for long, and a swarm in which no run could begin."""
    wrong = [
        Problem(
            f"machine_{each.name}",
            WARNING,
            f"machine {each.name} is {each.state}{f' ({each.message})' if each.message else ''}; its runs are started "
            "again elsewhere. remove_worker.yml takes it out if it does not come back",
        )
        for each in found.machines
        if each.state != "ready"
    ]
    if not any(each.takes_runs for each in found.machines):
        wrong.append(Problem("machines", CRITICAL, "no machine of the swarm takes runs; site.yml labels its workers"))
    long = [each for each in found.waiting if each.seconds > WAITS_LONG]
    if long:
        why = "; ".join(dict.fromkeys(each.why or "Swarm gives no reason" for each in long))
        wrong.append(
            Problem("runs_wait", WARNING, f"{len(long)} runs have waited for a machine for over 5 minutes: {why}")
        )
    return wrong


def _moment(text: Any) -> float:
    with contextlib.suppress(ValueError):
        return code_server.instant(str(text))
    return time.time()


def lines(found: Capacity) -> list[str]:
    """For people: a line a machine, then what waits."""
    shown = []
    for each in found.machines:
        state = each.state if each.availability == "active" else f"{each.state}, {each.availability}"
        labels = " ".join(
            f"{name}={value}" for name, value in sorted(each.labels.items()) if not name.startswith("dagster.")
        )
        takes = "" if each.labels.get(swarm_members.WORKER_LABEL) == "true" else "takes no runs"
        room = f"{each.cpus_reserved:.3g} of {each.cpus:.3g} CPUs, {_gb(each.memory_reserved)} of {_gb(each.memory)} GB"
        shown.append(
            f"   {each.name:<24} {state:<14} {len(each.runs):>3} runs  {room} reserved  {labels} {takes}".rstrip()
        )
    shown += [
        f"   waits {each.seconds:.0f} s  {each.run_id}  {each.state}{f': {each.why}' if each.why else ''}"
        for each in found.waiting[:10]
    ]
    return shown


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f}"
