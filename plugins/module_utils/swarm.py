# SPDX-License-Identifier: Apache-2.0
"""Docker Swarm as the engine of runs: whether this machine can launch them so, and what became of those that it did.

Asked through the docker command, on the main machine, which is the swarm's manager. What is not asked of a machine
without a swarm costs it nothing; see docs/scale.md.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import code_server, docker_cli

# On it are the runs and what they need; the role dagster_swarm makes it.
NETWORK = "dagster-swarm"
LABEL_RUN = "dagster/run_id"
# The run's own service; files/docker/dagster_gce_launcher.py names it so.
SERVICE_PREFIX = "dagster-run-"

# Swarm's words for a task that has not begun, and for one that has ended.
WAITING = ("new", "pending", "assigned", "accepted", "preparing", "ready", "starting")
_NO_MANAGER = ("this node is not a swarm manager", "this node is not part of a swarm", "has no leader")


def service_name(run_id: str) -> str:
    """The service of a run."""
    return SERVICE_PREFIX + run_id


def network_id(name: str = NETWORK) -> str:
    """The id of the swarm's network, empty without one. Where there is one, PostgreSQL is on it, whatever the launcher.

    Raises:
        docker_cli.DockerError: the engine does not answer.
    """
    return str((docker_cli.inspect("network", name) or {}).get("Id") or "")


def problem(network: str = NETWORK) -> str:
    """Why runs cannot be launched as services from here; empty if they can.

    Raises:
        docker_cli.DockerError: the engine does not answer.
    """
    found = json.loads(docker_cli.run(["info", "--format", "{{json .Swarm}}"]).stdout or "{}") or {}
    state = str(found.get("LocalNodeState") or "inactive")
    if state != "active" or not found.get("ControlAvailable"):
        what = "a worker of a swarm" if state == "active" else f"not in a swarm (its state is {state!r})"
        return (
            f"dagster_run_launcher: found swarm, but this machine's Docker Engine is {what}; expected the manager of"
            " one. The role dagster_swarm makes it (site.yml does); by hand: docker swarm init --advertise-addr <the"
            " machine's private address>. Nothing has been changed."
        )
    there = docker_cli.inspect("network", network)
    if there is None or there.get("Driver") != "overlay" or not there.get("Attachable"):
        seen = (
            "no such network"
            if there is None
            else f"driver {there.get('Driver')}, attachable {there.get('Attachable')}"
        )
        return (
            f"dagster_run_launcher: found swarm, but the network {network} is not as runs need it ({seen}); expected an"
            " attachable overlay network. The role dagster_swarm makes it (site.yml does); by hand: docker network"
            f" create --driver overlay --attachable {network}. Nothing has been changed."
        )
    return ""


@dataclass(frozen=True)
class Task:
    """The one task of a run's service, and the machine that it is on.

    ``updated`` is when its state was last told, in seconds since the epoch; ``container`` is empty before it has one.
    """

    service: str
    name: str
    run_id: str
    state: str
    desired: str
    image: str = ""
    said: str = ""
    exit_code: int = 0
    container: str = ""
    node: str = ""
    hostname: str = ""
    node_state: str = ""
    created: float = 0.0
    updated: float = 0.0

    @property
    def waits(self) -> bool:
        """Whether it has not begun."""
        return self.state in WAITING and not self.lost

    @property
    def goes(self) -> bool:
        """Whether the run's process goes on, as far as anybody can know."""
        return self.state == "running" and not self.lost

    @property
    def lost(self) -> str:
        """Why nobody will say any more what becomes of it; empty while that is not so.

        A machine that goes says nothing: the last word of its tasks stays `running` for ever.
        """
        if self.state not in (*WAITING, "running"):
            return ""
        where = f"machine {self.hostname or self.node}"
        if self.node and not self.node_state:
            return f"{where}, on which this run was, is no part of the swarm any more"
        if self.node_state == "down":
            return f"{where}, on which this run was, is down"
        if self.desired in ("shutdown", "remove", "orphaned"):
            return f"the run's container on {where} was {self.state} and is to be shut down"
        return ""

    @property
    def ended(self) -> str:
        """How it ended or was lost; empty while it goes on."""
        if self.lost:
            return self.lost
        if self.state in (*WAITING, "running"):
            return ""
        where = f" on machine {self.hostname or self.node}" if self.node else ""
        said = f": {self.said}" if self.said and self.state != "complete" else ""
        code = f" (exit code {self.exit_code})" if self.exit_code or self.state == "complete" else ""
        return f"the run's container{where} is {self.state}{code}{said}"


@dataclass(frozen=True)
class Service:
    """A run's service, as the list shows it. ``goes``: its one task runs, as far as its machine has said."""

    id: str
    run_id: str
    goes: bool


def services() -> list[Service]:
    """The services of runs; none where the engine is no manager of a swarm.

    Raises:
        docker_cli.DockerError: the engine does not answer, or the swarm has lost its managers.
    """
    form = "{{.ID}} {{.Name}} {{.Replicas}}"
    arguments = ["service", "ls", "--filter", f"label={code_server.LABEL}=run", "--format", form]
    listed = docker_cli.run(arguments, check=False, timeout=20)
    if not listed.ok:
        if any(words in listed.stderr.lower() for words in _NO_MANAGER):
            return []
        raise docker_cli.DockerError(f"`docker service ls` failed: {docker_cli.last_lines(listed.stderr, 3)}", listed)
    found = []
    for line in listed.stdout.splitlines():
        identifier, name, replicas, *_ = line.split()
        if name.startswith(SERVICE_PREFIX):
            found.append(Service(identifier, name.removeprefix(SERVICE_PREFIX), not replicas.startswith("0/")))
    return found


def tasks(listed: Sequence[Service] | None = None) -> list[Task]:
    """The tasks of runs that are services, newest first.

    Args:
        listed: only of these services; None for all.

    Raises:
        docker_cli.DockerError: the engine does not answer.
    """
    listed = services() if listed is None else listed
    if not listed:
        return []
    known = {str(each["ID"]): each for each in _inspect("service", [each.id for each in listed])}
    shown = docker_cli.run(["service", "ps", "--quiet", "--no-trunc", *known], check=False, timeout=60)
    nodes = _nodes()
    newest: dict[str, Task] = {}
    for each in _inspect("task", shown.stdout.split()):
        service = known.get(str(each.get("ServiceID")))
        if service is not None:
            task = _task(each, service, nodes)
            if task.service not in newest or newest[task.service].created < task.created:
                newest[task.service] = task
    for identifier, service in known.items():
        # One that was made a moment ago has none yet.
        newest.setdefault(identifier, _task({"CreatedAt": service.get("CreatedAt")}, service, nodes))
    return sorted(newest.values(), key=lambda each: each.created, reverse=True)


def nodes() -> list[dict[str, Any]]:
    """The machines of the swarm, as ``docker node inspect`` shows them; none without a swarm."""
    return list(_nodes().values())


def remove(services: Sequence[str]) -> None:
    """Remove services; a container that goes on gets SIGTERM, wherever it is.

    Raises:
        docker_cli.DockerError
    """
    if services:
        done = docker_cli.run(["service", "rm", *services], check=False, timeout=120)
        # One that went meanwhile is no failure.
        left = [line for line in done.stderr.splitlines() if line.strip() and "not found" not in line]
        if left:
            raise docker_cli.DockerError(f"`docker service rm` failed: {left[0]}", done)


def logs(service: str, lines: int) -> str:
    """The last lines that a run's container printed; empty where they cannot be had."""
    with contextlib.suppress(docker_cli.DockerError):
        # Waits for the machine that has them, which may be down.
        done = docker_cli.run(["service", "logs", "--raw", "--tail", str(lines), service], check=False, timeout=20)
        return docker_cli.last_lines(done.stdout + done.stderr, lines)
    return ""


def _nodes() -> dict[str, dict[str, Any]]:
    listed = docker_cli.run(["node", "ls", "--quiet"], check=False, timeout=20)
    return {str(each["ID"]): each for each in _inspect("node", listed.stdout.split())} if listed.ok else {}


def _inspect(kind: str, names: Sequence[str]) -> list[dict[str, Any]]:
    if not names:
        return []
    # What went meanwhile is left out.
    shown = docker_cli.run(["inspect", "--type", kind, *names], check=False, timeout=60)
    try:
        found: list[dict[str, Any]] = json.loads(shown.stdout or "[]")
    except ValueError as error:
        raise docker_cli.DockerError(f"`docker inspect --type {kind}` printed no JSON: {shown.stdout[:200]}") from error
    return found


def _task(found: Mapping[str, Any], service: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]]) -> Task:
    status = found.get("Status") or {}
    container = status.get("ContainerStatus") or {}
    node = nodes.get(str(found.get("NodeID") or ""), {})
    specification = service["Spec"]
    return Task(
        service=str(service["ID"]),
        name=str(specification["Name"]),
        run_id=str((specification.get("Labels") or {}).get(LABEL_RUN, "")),
        state=str(status.get("State") or "new"),
        desired=str(found.get("DesiredState") or "running"),
        image=str(specification["TaskTemplate"]["ContainerSpec"].get("Image", "")),
        said=str(status.get("Err") or status.get("Message") or "").strip(),
        exit_code=int(container.get("ExitCode") or 0),
        container=str(container.get("ContainerID") or ""),
        node=str(found.get("NodeID") or ""),
        hostname=str(node.get("Description", {}).get("Hostname") or ""),
        node_state=str(node.get("Status", {}).get("State") or ""),
        created=_moment(found.get("CreatedAt")),
        updated=_moment(status.get("Timestamp") or found.get("UpdatedAt")),
    )


def _moment(text: Any) -> float:
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, code_server.instant(str(text)))
    return 0.0
