"""When the watch takes a release back. The deaths are counted by the engine; here they are given."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import code_server, deployment, guard

RELEASE = "20260101T000000-abababababab"
CONTAINER = code_server.Container(
    name=f"docker_dagster_core_{RELEASE}", release=RELEASE, identity="", config="", running=True, status="running",
    pid=1, addresses=(), exit_code=0, oom_killed=False, restarts=0, started="", image_id="",
)  # fmt: skip


class Watched(deployment.Deployment):
    """A release that serves, and remembers whether it was taken back."""

    taken_back = ""
    forced = False

    def serving_release(self) -> str | None:
        return RELEASE

    def take_back(self, release: str, why: str) -> bool:
        self.taken_back = why
        self.forced = self.options.force_unlock
        return True


@pytest.fixture
def task(tmp_path: Path) -> Watched:
    return Watched(deployment.Options(root=str(tmp_path), force_unlock=True), code_server.Settings())


def restarts(monkeypatch: pytest.MonkeyPatch, counts: Iterable[int]) -> None:
    seen = iter(counts)
    monkeypatch.setattr(code_server, "container", lambda _: dataclasses.replace(CONTAINER, restarts=next(seen)))
    monkeypatch.setattr("time.sleep", lambda _: None)


def test_a_release_that_dies_twice_is_taken_back(task: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    restarts(monkeypatch, itertools.count())
    assert guard.watch(task, RELEASE, 5)
    assert task.taken_back.startswith("it died 2 times")
    # It waits for the lock like everybody, also when the deploy that it watches did not.
    assert not task.forced


def test_deaths_before_the_watch_do_not_count(task: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    restarts(monkeypatch, itertools.chain([7, 7, 8], itertools.repeat(8)))
    assert not guard.watch(task, RELEASE, 0.05)
    assert task.taken_back == ""


def test_a_start_by_hand_begins_the_count_again(task: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    restarts(monkeypatch, itertools.chain([7, 0, 1], itertools.repeat(2)))
    assert guard.watch(task, RELEASE, 5)
    assert task.taken_back.startswith("it died 2 times")
