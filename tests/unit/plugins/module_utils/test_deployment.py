"""What is left after a step has failed: real files, an engine and a webserver that only answer."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    code_server,
    deployment,
    deployment_cutover,
    deployment_housekeeping,
    docker_api,
    docker_cli,
    files,
    graphql,
    image_pull,
    releases,
    workspace,
)

IDENTITY = "sha256:" + "ab" * 32
OLD, NEW = "20260101T000000-abababababab", "20260102T000000-abababababab"
OLD_HOST, NEW_HOST = releases.container_name(OLD), releases.container_name(NEW)


class Webserver(graphql.Webserver):
    """Serves what workspace.yaml said at its last reload."""

    def __init__(self, host: Callable[[], str | None]) -> None:
        super().__init__("http://127.0.0.1:9")
        self._host = host
        self.served = host() or ""

    def reload_workspace(self, timeout: float = 120) -> dict[str, graphql.Location]:
        self.served = self._host() or ""
        return self.locations()

    def locations(self) -> dict[str, graphql.Location]:
        return {"dagster_core": graphql.Location("dagster_core", True, "", self.served, IDENTITY)}

    def run_counts(self) -> dict[str, int]:
        return {"in_flight": 0, "waiting": 0}


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Containers that were removed."""
    found: list[str] = []

    def container(name: str) -> code_server.Container:
        return code_server.Container(
            name=name, release=releases.release_of(name) or "", identity=IDENTITY, config="", running=True,
            status="running", pid=os.getpid(), addresses=(), exit_code=0, oom_killed=False, restarts=0, started="",
            image_id=IDENTITY,
        )  # fmt: skip

    monkeypatch.setattr(code_server, "container", container)
    monkeypatch.setattr(code_server, "containers", list)
    monkeypatch.setattr(code_server, "workers", lambda _: 0)
    monkeypatch.setattr(code_server, "remove", found.append)
    monkeypatch.setattr(code_server, "start", lambda *_: None)
    monkeypatch.setattr(code_server, "gate", lambda *_: {})
    monkeypatch.setattr(docker_cli, "run", lambda *_, **__: docker_cli.Result(0, "", ""))
    monkeypatch.setattr(docker_api, "ask", lambda *_, **__: [])
    monkeypatch.setattr(workspace, "OWNER", files.Owner(os.geteuid(), os.getegid(), 0o644))
    return found


@pytest.fixture
def task(tmp_path: Path, removed: list[str]) -> deployment.Deployment:
    (tmp_path / "dagster_home").mkdir()
    found = deployment.Deployment(deployment.Options(root=str(tmp_path)), code_server.Settings())
    Path(found.workspace_path).write_text(workspace.with_core_location(None, OLD_HOST))
    found.store.save(releases.Release(OLD, IDENTITY, state=releases.LIVE, served=[10.0]))
    found.store.point_current(OLD)
    found.webserver = Webserver(found.intended_host)
    return found


def activate(task: deployment.Deployment) -> None:
    release = releases.Release(NEW, IDENTITY)
    with task.running("core:v2"):
        task.store.save(release)
        task._start(release, [])
        task._activate(release, fresh=True)


def refused(task: deployment.Deployment) -> str:
    with pytest.raises(deployment.DeploymentError) as caught:
        activate(task)
    return str(caught.value)


def full(*_: Any, **__: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken(*_: Any, **__: Any) -> NoReturn:
    raise docker_cli.DockerTimeoutError("`docker x` did not end within 60 s")


def test_without_a_failure_the_new_release_serves(task: deployment.Deployment, removed: list[str]) -> None:
    activate(task)
    assert task.serving_release() == task.store.current() == NEW
    assert removed == []


def old_serves(task: deployment.Deployment) -> None:
    assert task.serving_release() == task.store.current() == OLD
    assert isinstance(task.webserver, Webserver)
    assert task.webserver.served == OLD_HOST
    assert releases.before(None, task.store.all()) == task.store.load(OLD)


@pytest.mark.parametrize(
    ("module", "name", "failure"),
    [
        (code_server, "start", full),
        (code_server, "gate", broken),
        (code_server, "keep_running", broken),
        (workspace, "update", full),
    ],
)
def test_before_the_cutover_the_candidate_goes(
    task: deployment.Deployment, removed: list[str], monkeypatch: pytest.MonkeyPatch,
    module: Any, name: str, failure: Callable[..., NoReturn],
) -> None:  # fmt: skip
    monkeypatch.setattr(module, name, failure)
    said = refused(task)
    assert "No space left on device" in said or "did not end within" in said
    assert f"The release that served goes on: {OLD}." in said
    old_serves(task)
    assert removed == [NEW_HOST]
    assert task.store.load(NEW) is None
    line = task.store.last_deploys(1)[0]
    assert (line["result"], line["from"] or OLD) == ("failed", OLD)


def test_an_image_that_gets_no_name_of_its_own_fails_the_candidate(
    task: deployment.Deployment, removed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(method: str, path: str, **_: Any) -> None:
        raise docker_cli.DockerError(f"{method} {path}: no")

    monkeypatch.setattr(docker_api, "ask", refuse)
    assert f"POST /images/{quote(IDENTITY, safe='')}/tag: no" in refused(task)
    old_serves(task)
    assert removed == [NEW_HOST]


def test_after_the_cutover_it_goes_back(
    task: deployment.Deployment, removed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment_cutover, "check_location", broken)
    said = refused(task)
    assert f"release {NEW} was rolled back: `docker x` did not end" in said
    old_serves(task)
    assert removed == [NEW_HOST]
    assert task.store.last_deploys(1)[0]["result"] == "rolled_back"


def test_a_way_back_that_is_blocked_still_reloads_and_says_what_serves(
    task: deployment.Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task.store, "point_current", full)
    monkeypatch.setattr(task.store, "audit", full)
    said = refused(task)
    assert f"release {NEW} failed: [Errno 28] No space left on device" in said
    assert "The way back failed too" in said
    assert f"workspace.yaml names {OLD_HOST}" in said
    assert f"The release that served goes on: {OLD}." in said
    old_serves(task)


def test_after_it_serves_a_failure_says_so(
    task: deployment.Deployment, removed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment_housekeeping, "retire", broken)
    assert refused(task).startswith(f"release {NEW} serves, but what comes after its cutover failed")
    assert task.serving_release() == NEW
    assert removed == []


def test_a_lock_that_cannot_be_opened_is_named(task: deployment.Deployment) -> None:
    os.mkdir(task.store.lock_path)
    assert refused(task).startswith(f"{task.store.lock_path}: ")
    assert task.store.load(NEW) is None


@pytest.mark.parametrize("name", ["PATH", "HOME", "DOCKER_HOST", "LD_PRELOAD"])
def test_a_variable_that_steers_the_docker_command_is_refused(task: deployment.Deployment, name: str) -> None:
    task.settings = code_server.Settings(extra={"LEVEL": "1", name: "x"})
    assert refused(task).startswith(f"dagster_core_environment: found {name}; expected no PATH")
    task.settings = code_server.Settings(environment={name: "x"})
    assert refused(task).startswith(f"dagster_core_env_names: found {name}; expected no PATH")
    assert not os.path.exists(task.store.lock_path)
    task.settings = code_server.Settings(extra={"A=B": "x"})
    assert refused(task).startswith("dagster_core_environment: found 'A=B'; expected names of letters")
    task.settings = code_server.Settings(extra={"PYTHONPATH": "x", "HOMEPAGE": "x", "HTTP_PROXY": "x"})
    activate(task)


DIGEST = "sha256:" + "cd" * 32
PULLED = {"Id": IDENTITY, "RepoDigests": [f"reg.example/core@{DIGEST}"]}


@pytest.mark.parametrize(
    ("policy", "reference", "there", "pulls"),
    [
        ("never", "reg.example/core:v2", False, False),
        ("missing", "reg.example/core:v2", True, False),
        ("missing", "reg.example/core:v2", False, True),
        ("always", "reg.example/core:v2", True, True),
        ("always", f"reg.example/core@{DIGEST}", True, False),
    ],
)
def test_the_registry_is_asked_where_the_policy_says_so(
    task: deployment.Deployment, monkeypatch: pytest.MonkeyPatch, policy: str, reference: str, there: bool, pulls: bool
) -> None:
    fetched = []

    def fetch(asked: str, *_: Any) -> dict[str, Any]:
        fetched.append(asked)
        return PULLED

    monkeypatch.setattr(docker_cli, "inspect", lambda *_: PULLED if there else None)
    monkeypatch.setattr(image_pull, "fetch", fetch)
    task.options = dataclasses.replace(task.options, pull=policy)
    task.outcome = deployment.Outcome("deploy")
    brought = task._brought(reference)
    assert fetched == ([reference] if pulls else [])
    assert brought == (reference if policy == "never" else f"reg.example/core@{DIGEST}")
    assert ("pull" in task.outcome.phases) is pulls


def test_a_pull_that_fails_is_said_and_leaves_what_serves(
    task: deployment.Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> NoReturn:
        raise image_pull.PullError("cannot pull reg.example/core:v2 from reg.example: not found.")

    monkeypatch.setattr(docker_cli, "inspect", lambda *_: None)
    monkeypatch.setattr(image_pull, "fetch", refuse)
    task.options = dataclasses.replace(task.options, pull="always")
    with pytest.raises(deployment.DeploymentError, match=r"^cannot pull .* not found\."):
        task.deploy("reg.example/core:v2")
    assert task.serving_release() == OLD
    with pytest.raises(deployment.DeploymentError, match=r"^image: found 'core:latest' with the tag latest"):
        task.deploy("core:latest")
