"""Images and containers of runs that go, and when."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    deployment,
    deployment_leftovers,
    docker_api,
    docker_cli,
    releases,
)
from tests.unit.plugins.module_utils.deployment_records import IDENTITY, name, save, task_in

DIGEST = "sha256:" + "cd" * 32


@pytest.fixture
def task(tmp_path: Path) -> deployment.Deployment:
    return task_in(tmp_path)


def test_a_run_container_is_as_old_as_its_end(task: deployment.Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    def stamp(hours: float) -> str:
        return releases.stamp(time.time() - hours * 3600).replace("Z", ".123456789Z")

    # A long run that has just ended, one that ended long ago, one that was made just now and never ran, and one that
    # is Swarm's.
    never = "0001-01-01T00:00:00Z"
    moments = {"long": (1, 60), "old": (50, 60), "never": (None, 1), "task": (50, 60)}
    found = {
        name: {"Id": name, "State": {"FinishedAt": stamp(end) if end else never}, "Created": stamp(made)}
        for name, (end, made) in moments.items()
    }
    labels = {"task": {"com.docker.swarm.service.id": "1"}}
    removed: list[str] = []

    def run(args: list[str], **_: object) -> docker_cli.Result:
        if args[0] == "rm":
            removed.extend(args[2:])
        return docker_cli.Result(0, "", "")

    monkeypatch.setattr(docker_cli, "run", run)
    listed = [{"Id": name, "Labels": labels.get(name)} for name in found]
    monkeypatch.setattr(docker_api, "containers", lambda **_: listed)
    monkeypatch.setattr(docker_api, "container", found.get)
    monkeypatch.setattr(task.webserver, "runs", lambda *_, **__: [])
    assert deployment_leftovers.remove_run_containers(task) == 1
    assert removed == ["old"]


class Images:
    """Stands in for the engine's images: as it lists them, and who was tagged when."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *listed: tuple[str, list[str] | None, list[str] | None]
    ) -> None:
        self.listed = list(listed)
        self.tagged: dict[str, str] = {}
        self.removed: list[str] = []
        monkeypatch.setattr(docker_cli, "run", self.run)
        monkeypatch.setattr(docker_cli, "inspect", self.inspect)
        monkeypatch.setattr(docker_api, "ask", self.ask)

    def ask(self, method: str, path: str) -> list[dict[str, object]]:
        assert (method, path) == ("GET", "/images/json")
        return [{"Id": identity, "RepoTags": tags, "RepoDigests": digests} for identity, tags, digests in self.listed]

    def run(self, args: list[str], **_: object) -> docker_cli.Result:
        if args[0] == "rmi":
            self.removed.append(args[1])
        return docker_cli.Result(0, "", "")

    def inspect(self, _kind: str, name: str) -> dict[str, object]:
        return {"Metadata": {"LastTagTime": self.tagged.get(name, "0001-01-01T00:00:00Z")}}


def test_an_image_that_is_no_release_goes_a_day_after_it_was_first_seen(
    task: deployment.Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = save(task, 1, 10.0)
    found.reference = "docker.io/acme/core:v1"
    task.store.save(found)
    images = Images(
        monkeypatch,
        (IDENTITY, [f"docker_dagster_core:{name(1)}"], []),
        ("sha256:1", ["docker_dagster_core:built"], None),
        ("sha256:2", None, [f"acme/core@{DIGEST}"]),
        ("sha256:3", ["acme/core:next"], [f"acme/core@{DIGEST}"]),
        ("sha256:4", ["somebody/else:1"], []),
        ("sha256:5", ["<none>:<none>"], ["<none>@<none>"]),
    )
    # Whatever the images' own dates say, none is removed when it is seen for the first time.
    deployment_leftovers.remove_strays(task)
    assert images.removed == []
    images.tagged["acme/core:next"] = releases.stamp(time.time() - 3600).replace("Z", ".123456789+00:00")
    now = time.time()
    monkeypatch.setattr(releases, "now", lambda: now + 23 * 3600)
    deployment_leftovers.remove_strays(task)
    assert images.removed == []
    monkeypatch.setattr(releases, "now", lambda: now + 25 * 3600)
    deployment_leftovers.remove_strays(task)
    assert images.removed == ["docker_dagster_core:built", f"acme/core@{DIGEST}"]
    # Those that are gone are forgotten.
    images.listed = images.listed[:1]
    deployment_leftovers.remove_strays(task)
    assert task.store.strays() == {}
