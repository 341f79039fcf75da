"""One project that provision.yml has filled, and others' programs that look at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.google import Google
from tests.e2e.cloud import Cloud
from tests.e2e.judges.gcloud import Gcloud
from tests.unit.plugins.conftest import run_module  # noqa: F401 - a fixture

PROJECT, ZONE = "example-e2e", "europe-west3-c"


@pytest.fixture(scope="session")
def server() -> Iterator[Google]:
    google = Google().start()
    yield google
    google.stop()


@pytest.fixture(scope="session")
def filled(server: Google, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder of the inventory, and Google's state after provision.yml, which runs once."""
    folder = tmp_path_factory.mktemp("inventory")
    server.reset()
    server.seed_project(PROJECT, services=[])
    Cloud(server, folder, project=PROJECT).play("playbooks/provision.yml").ok()
    assert server.violations == []
    return folder, server.state.copy()


@pytest.fixture
def led(server: Google, monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    """The server, with this process led to it. No answer of ours may be one that Google would not give."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    yield server
    assert server.violations == []


@pytest.fixture
def cloud(led: Google, filled: tuple[Path, Any]) -> Cloud:
    """What provision.yml has made, as if it had just run."""
    folder, state = filled
    led.state.restore(state)
    return Cloud(led, folder, project=PROJECT)


@pytest.fixture
def gcloud(led: Google, tmp_path: Path) -> Gcloud:
    """gcloud as the project's owner; to be asked for after the state."""
    if not Gcloud.there():
        pytest.skip("gcloud is not on PATH")
    return Gcloud(led, tmp_path / "gcloud", PROJECT, ZONE)
