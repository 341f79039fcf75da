"""Which release is still needed, and what is removed with it. Files are real, the engine only answers."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    code_server,
    deployment,
    deployment_housekeeping,
    docker_api,
    docker_cli,
    graphql,
    releases,
)
from tests.unit.plugins.module_utils.deployment_records import IDENTITY, name, save, task_in


@pytest.fixture
def task(tmp_path: Path) -> deployment.Deployment:
    return task_in(tmp_path)


def container(day: int, running: bool = True) -> code_server.Container:
    return code_server.Container(
        name=releases.container_name(name(day)), release=name(day), identity=IDENTITY, config="", running=running,
        status="running" if running else "exited", pid=os.getpid(), addresses=("127.0.0.1",), exit_code=0,
        oom_killed=False, restarts=0, started="", image_id=IDENTITY,
    )  # fmt: skip


@dataclass
class Engine:
    """Stands in for the engine where only the decision is tested: what is there, and what was removed."""

    containers: list[code_server.Container]
    workers: dict[str, int | None] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = Engine([])
    monkeypatch.setattr(code_server, "containers", lambda: found.containers)
    monkeypatch.setattr(code_server, "workers", lambda each: found.workers.get(each, 0))
    monkeypatch.setattr(code_server, "remove", found.removed.append)
    monkeypatch.setattr(docker_cli, "run", lambda *_, **__: docker_cli.Result(0, "", ""))
    monkeypatch.setattr(docker_api, "ask", lambda *_, **__: [])
    return found


def test_only_a_known_candidate_without_runs_is_removed(task: deployment.Deployment, engine: Engine) -> None:
    engine.containers = [container(day) for day in range(1, 8)]
    engine.workers = {releases.container_name(name(5)): 1, releases.container_name(name(6)): None}
    save(task, 1, 10.0)
    for day in (3, 4, 5, 6, 7):
        save(task, day, state=releases.CANDIDATE)
    # 2 has a record that cannot be read, 4 served when workspace.yaml was lost, 7 is to be used again.
    save(task, 2)
    Path(task.store.path(name(2))).write_text("{ half")
    task.store.point_current(name(4))
    left = deployment_housekeeping.remove_candidates(task, engine.containers, keep=name(7))
    assert engine.removed == [releases.container_name(name(3))]
    assert [each.release for each in left] == [name(day) for day in (1, 2, 4, 5, 6, 7)]
    assert [each.release for each in task.store.all()] == [name(1), *(name(day) for day in (4, 5, 6, 7))]


def test_what_cannot_be_told_keeps_a_release(task: deployment.Deployment, engine: Engine) -> None:
    found, daemon = container(1), task.options.daemon_container
    gone = 4_000_000_000
    assert deployment_housekeeping.needed_by(task, found, {daemon: os.getpid()}) == ""
    assert deployment_housekeeping.needed_by(task, found, {daemon: gone}).startswith(f"used by {daemon}")
    assert "cannot be read" in deployment_housekeeping.needed_by(
        task, dataclasses.replace(found, pid=gone), {daemon: os.getpid()}
    )
    engine.workers[found.name] = None
    assert "docker top" in deployment_housekeeping.needed_by(task, found, {daemon: os.getpid()})
    # One that does not run has neither runs nor clients.
    assert deployment_housekeeping.needed_by(task, container(1, running=False), {}) == ""


@pytest.mark.parametrize("waiting", [1, graphql.RUNS_LIMIT])
def test_with_more_runs_than_can_be_asked_for_nothing_is_forgotten(
    task: deployment.Deployment, engine: Engine, monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    task.options = dataclasses.replace(task.options, keep_releases=1)
    save(task, 1, 10.0)
    save(task, 2, 20.0)
    run = graphql.Run("id", "QUEUED", "job", "dagster_core", "sha256:other", "elsewhere", "", 0.0)
    monkeypatch.setattr(task.webserver, "runs", lambda *_, **__: [run] * waiting)
    deployment_housekeeping.forget_old(task, task.store.all(), name(2))
    assert (task.store.load(name(1)) is None) == (waiting < graphql.RUNS_LIMIT)


def test_an_engine_that_does_not_end_a_container_is_said(
    task: deployment.Deployment, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(name: str) -> None:
        raise docker_cli.DockerTimeoutError(f"`docker rm {name}` did not end within 120 s")

    engine.containers = [container(day) for day in (1, 2, 3)]
    for day in (1, 2, 3):
        save(task, day, 10.0 * day)
    task.store.point_current(name(3))
    monkeypatch.setattr(code_server, "client_pids", lambda _: {task.options.daemon_container: os.getpid()})
    monkeypatch.setattr(code_server, "remove", late)
    with pytest.raises(docker_cli.DockerTimeoutError, match=releases.container_name(name(1))):
        deployment_housekeeping.retire(task)
