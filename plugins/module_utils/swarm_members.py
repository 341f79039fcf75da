# SPDX-License-Identifier: Apache-2.0
"""A swarm of Docker's: one main machine that manages it, and workers.

https://docs.docker.com/reference/api/engine/version/v1.45/#tag/Swarm and …/#tag/Node
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import engine_api, files

PORT = 2377
# On a swarm, a network and a machine of this collection's.
LABEL = "dataops.dagster_gce"
# Runs go to machines that have it.
WORKER_LABEL = "dagster.worker"
# The inventory's name of a machine, whose own name may be another one.
HOST_LABEL = "dagster.host"
# Says on a worker which node this collection has made it: what is not written here is somebody else's swarm.
RECORD = "/etc/dagster-gce/swarm-node"
# In the folder that all machines share: the swarm's id. A worker that does not see it has another folder there.
MARKER = ".dagster-gce-swarm"

RUNNING = ("new", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running")


class SwarmError(Exception):
    """The machine is not what it should be; the message says what was found, what was expected and what to do."""


@dataclass(frozen=True)
class Member:
    """What an engine says of itself as a part of a swarm."""

    state: str = "inactive"
    node_id: str = ""
    address: str = ""
    manages: bool = False
    error: str = ""
    managers: tuple[str, ...] = ()
    swarm_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    autolock: bool = False
    live_restore: bool = False


@dataclass(frozen=True)
class Node:
    """A machine of the swarm, as its manager sees it."""

    id: str
    hostname: str
    address: str
    state: str
    message: str
    availability: str
    manages: bool
    labels: Mapping[str, str]
    cpus: float = 0.0
    memory: int = 0

    @property
    def name(self) -> str:
        """The inventory's name, or the machine's own."""
        return self.labels.get(HOST_LABEL) or self.hostname


def member(engine: engine_api.Engine) -> Member:
    """Ask the engine.

    Raises:
        engine_api.EngineError
    """
    info = engine.call("GET", "/info")
    swarm = info.get("Swarm") or {}
    cluster = swarm.get("Cluster") or {}
    spec = cluster.get("Spec") or {}
    return Member(
        state=swarm.get("LocalNodeState") or "inactive",
        node_id=swarm.get("NodeID") or "",
        address=swarm.get("NodeAddr") or "",
        manages=bool(swarm.get("ControlAvailable")),
        error=swarm.get("Error") or "",
        managers=tuple(each.get("Addr") or "" for each in swarm.get("RemoteManagers") or []),
        swarm_id=cluster.get("ID") or "",
        labels=spec.get("Labels") or {},
        autolock=bool((spec.get("EncryptionConfig") or {}).get("AutoLockManagers")),
        live_restore=bool(info.get("LiveRestoreEnabled")),
    )


def nodes(engine: engine_api.Engine) -> list[Node]:
    """Every machine of the swarm, by name; asked of its manager.

    Raises:
        engine_api.EngineError
    """
    return sorted((node(each) for each in engine.call("GET", "/nodes")), key=lambda each: each.name)


def node(found: Mapping[str, Any]) -> Node:
    """What the engine shows of a machine."""
    spec, status, description = found["Spec"], found.get("Status") or {}, found.get("Description") or {}
    resources = description.get("Resources") or {}
    manager = found.get("ManagerStatus") or {}
    address = status.get("Addr") or ""
    if address in ("", "0.0.0.0", "127.0.0.1"):  # noqa: S104  what a manager says of itself
        address = (manager.get("Addr") or address).rsplit(":", 1)[0]
    return Node(
        id=found["ID"],
        hostname=description.get("Hostname") or "",
        address=address,
        state=status.get("State") or "unknown",
        message=status.get("Message") or "",
        availability=spec.get("Availability") or "active",
        manages=spec.get("Role") == "manager",
        labels=spec.get("Labels") or {},
        cpus=(resources.get("NanoCPUs") or 0) / 1e9,
        memory=resources.get("MemoryBytes") or 0,
    )


def find(engine: engine_api.Engine, name: str) -> Node | None:
    """The machine with this id or this name; the one that is ready, where an old one of the same name is left.

    Raises:
        engine_api.EngineError
    """
    found = [each for each in nodes(engine) if name in (each.id, each.name)]
    return min(found, key=lambda each: each.state != "ready") if found else None


def set_node(
    engine: engine_api.Engine, node_id: str, labels: Mapping[str, str] | None = None, availability: str = ""
) -> bool:
    """Give a machine exactly these labels, and this availability; what is not given stays. Returns whether it changed.

    Raises:
        engine_api.EngineError
    """
    path = f"/nodes/{engine_api.part(node_id)}"
    for attempt in range(5):
        found = engine.call("GET", path)
        spec = dict(found["Spec"])
        wanted = {
            **spec,
            "Labels": dict(labels) if labels is not None else (spec.get("Labels") or {}),
            "Availability": availability or spec.get("Availability"),
        }
        if wanted == {**spec, "Labels": spec.get("Labels") or {}}:
            return False
        try:
            engine.call("POST", f"{path}/update", wanted, {"version": str(found["Version"]["Index"])})
        except engine_api.EngineError as error:
            # The swarm writes to a node as well, at each of its heartbeats.
            if "out of sequence" not in str(error) or attempt == 4:
                raise
            time.sleep(0.2)
            continue
        return True
    return True


def busy(engine: engine_api.Engine, node_id: str) -> list[dict[str, Any]]:
    """Tasks that a machine has or is to have, each with ``service`` (its name), ``state`` and ``run`` (its id, or "").

    Raises:
        engine_api.EngineError
    """
    tasks = engine.call("GET", "/tasks", query={"filters": {"node": [node_id], "desired-state": ["running"]}})
    names = {each["ID"]: each["Spec"] for each in engine.call("GET", "/services")} if tasks else {}
    found = []
    for task in tasks:
        state = (task.get("Status") or {}).get("State") or ""
        if state in RUNNING:
            spec = names.get(task.get("ServiceID"), {})
            found.append(
                {
                    "service": spec.get("Name") or task.get("ServiceID") or task["ID"],
                    "state": state,
                    "run": (spec.get("Labels") or {}).get("dagster/run_id", ""),
                }
            )
    return found


def own_address(towards: str = "192.0.2.1", port: int = PORT) -> str:
    """The address of this machine from which it reaches ``towards``; by default the one of its default route.

    Raises:
        SwarmError: it has none.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((towards, port))
        except OSError as error:
            raise SwarmError(
                f"found no route to {towards} ({error.strerror}); expected a private address of this machine: name it "
                "in dagster_swarm_address (dagster_worker_address on a worker)"
            ) from error
        return str(probe.getsockname()[0])


def has_address(address: str) -> bool:
    """Whether this machine has the address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def check_reachable(manager: str, seconds: float = 10) -> None:
    """Look whether the main machine can be reached, since Docker's own error would be a timeout.

    Raises:
        SwarmError
    """
    host, _, port = manager.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=seconds).close()
    except OSError as error:
        raise SwarmError(
            f"the main machine does not answer on {manager} ({error}); expected TCP 2377 and 7946 and UDP 7946 and "
            "4789 open between the machines: see dagster_peer_ranges"
        ) from error


def wait_until_member(engine: engine_api.Engine, seconds: float = 60) -> Member:
    """Wait until the engine is an active part of its swarm.

    Raises:
        SwarmError, engine_api.EngineError
    """
    deadline = time.monotonic() + seconds
    while True:
        found = member(engine)
        if found.state == "active" and found.node_id:
            return found
        if time.monotonic() > deadline or found.state in ("error", "locked"):
            raise SwarmError(
                f"the engine does not become part of the swarm: found {found.state}; {found.error or 'it says nothing'}"
            )
        time.sleep(0.3)


def drain(
    engine: engine_api.Engine,
    node_id: str,
    seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> list[dict[str, Any]]:
    """No new tasks for a machine, wait for what it has, then none at all; returns what was ended at the deadline.

    Docker's own drain ends every task at once, so it comes last.

    Raises:
        engine_api.EngineError
    """
    set_node(engine, node_id, availability="pause")
    deadline = time.monotonic() + seconds
    left = busy(engine, node_id)
    while left and time.monotonic() < deadline:
        sleep(1)
        left = busy(engine, node_id)
    set_node(engine, node_id, availability="drain")
    return left


def remember(node_id: str) -> None:
    """Write down which node this collection has made of the machine.

    Raises:
        OSError
    """
    folder = os.path.dirname(RECORD)
    if not os.path.isdir(folder):
        files.make_folder(folder, files.Owner(0, 0, 0o755))
    files.replace(RECORD, f"{node_id}\n".encode(), files.Owner(0, 0, 0o644))


def remembered() -> str:
    """The node that this collection has made of the machine; empty where it has not."""
    return (files.read(RECORD) or b"").decode("utf-8", "replace").strip()


def forget() -> None:
    """Remove what `remember` wrote."""
    if os.path.exists(RECORD):
        os.unlink(RECORD)
