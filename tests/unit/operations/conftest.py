"""A machine's settings and states in a folder of the test's own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config, jobs
from tests.unit.plugins.conftest import run_module  # noqa: F401 - a fixture

Configure = Callable[..., None]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which etc/, root/ and run/ stand for the machine's."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "root").mkdir()
    monkeypatch.setattr(config, "FOLDER", str(tmp_path / "etc"))
    monkeypatch.setattr(jobs, "LOCKS", str(tmp_path / "run"))
    # Tests run as anyone.
    monkeypatch.setattr(jobs, "STATE_FILE", files.Owner(os.getuid(), os.getgid(), 0o640))
    monkeypatch.setattr(jobs, "STATE_FOLDER", files.Owner(os.getuid(), os.getgid(), 0o750))
    stack = {"root": str(tmp_path / "root"), "webserver_url": "http://127.0.0.1:9"}
    (tmp_path / "etc/command.json").write_text(json.dumps(stack))
    return tmp_path


@pytest.fixture
def configure(here: Path) -> Configure:
    """Write a part's settings: configure("backup", {"backup": {"every_at_most": 60}}, keep=3)."""

    def write(part: str, listed: dict[str, Any] | None = None, **settings: Any) -> None:
        content = {**settings, config.JOBS_KEY: listed or {}}
        (here / f"etc/{part}.json").write_text(json.dumps(content))

    return write
