"""Looks at a machine that is not there, for the tests of what the watch concludes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import graphql
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import watch_look, watch_memory

RELEASE = "20260101T000000-abababababab"
OLDER = "20251231T000000-cdcdcdcdcdcd"
SERVER = f"docker_dagster_core_{RELEASE}"
STACK = ("dagster-postgres", "dagster-webserver", "dagster-daemon")
WALL = 1_800_000_000.0


def container(name: str, **given: Any) -> watch_look.Container:
    """A container of the stack that runs well, unless something else is given."""
    base: dict[str, Any] = {
        "id": given.get("id", f"id-{name}"), "name": name, "part": "stack", "status": "running", "policy": "always",
        "started": WALL - 1000, "started_text": "first",
    }  # fmt: skip
    return watch_look.Container(**{**base, **given})


def server(**given: Any) -> watch_look.Container:
    """The container of the release that serves."""
    return container(given.pop("name", SERVER), **{"part": "release", "policy": "unless-stopped", **given})


def worker(run_id: str, **given: Any) -> watch_look.Container:
    """The container of a run."""
    return container(f"worker-{run_id}", **{"part": "run", "run_id": run_id, "policy": "no", **given})


def run(run_id: str = "r1", status: str = "STARTED", **given: Any) -> watch_look.Run:
    """A run in flight, begun after its container."""
    base = {"begun": WALL - 500, "container_id": "", "server": "", "has_started": status == "STARTED"}
    return watch_look.Run(run_id, status, **{**base, **given})


def look(*containers: watch_look.Container, runs: Iterable[watch_look.Run] = (), **given: Any) -> watch_look.Look:
    """A look that found these containers (by name or, of runs, by id) and these runs, beside a stack that is well."""
    found = watch_look.Look(
        containers={name: container(name) for name in STACK}, runs=list(runs), heartbeats={}, locations={}
    )
    for each in containers:
        if each.run_id:
            found.workers[each.id] = each
        else:
            found.containers[each.name] = each
    for key, value in given.items():
        setattr(found, key, value)
    return found


def location(host: str = SERVER, error: str = "") -> dict[str, graphql.Location]:
    """What the webserver serves."""
    return {
        "dagster_core": graphql.Location(
            "dagster_core", loaded=not error, error=error, host=host, image="", load_status="LOADED"
        )
    }


class Time:
    """The looks of a watch, one after the other, with the memory on a real file system."""

    def __init__(self, folder: Path) -> None:
        self.place = str(folder / "watch-memory.json")
        self.now = 1000.0
        self.wall = WALL

    def memory(self) -> watch_memory.Memory:
        """What the looks before left."""
        return watch_memory.load(self.place, clock=lambda: self.now, wall=lambda: self.wall)

    def look(self, judge: Callable[[watch_memory.Memory], Any], after: float = 30.0, wall: float | None = None) -> Any:
        """One more look; returns what ``judge`` concludes from it."""
        self.now += after
        self.wall += after if wall is None else wall
        memory = self.memory()
        found = judge(memory)
        memory.save(self.place)
        return found

    def looks(self, count: int, judge: Callable[[watch_memory.Memory], Any], after: float = 30.0) -> list[Any]:
        """Several looks that find the same."""
        return [self.look(judge, after) for _ in range(count)]
