"""Retries that were promised and never began, and volumes that the watch does not make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    watch_act,
    watch_memory,
    watch_retries,
    watch_settings,
)
from tests.unit.operations import watching

SETTINGS = watch_settings.Settings()


def test_a_promise_is_kept_once(tmp_path: Path) -> None:
    clock = watching.Time(tmp_path)
    look = watching.look(unretried=["r1"])

    def judge(memory: watch_memory.Memory) -> list[str]:
        return watch_retries.forgotten(look, memory, SETTINGS)

    assert clock.look(judge) == [], "one look is not enough"
    assert clock.look(judge) == ["r1"]
    assert clock.look(judge) == [], "Dagster has decided; it is not asked every half minute"
    look.unretried.clear()
    assert clock.look(judge) == []


def test_dagster_is_asked_in_the_daemons_container(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def run(args: list[str], **given: Any) -> docker_cli.Result:
        asked.update(given, args=args)
        return docker_cli.Result(0, 'a line of a library\n{"r1": "r2", "r3": ""}\n', "")

    monkeypatch.setattr(docker_cli, "run", run)
    assert watch_retries.begin(["r1", "r3"], "dagster-daemon") == {"r1": "r2", "r3": ""}
    assert asked["args"][:3] == ["exec", "-i", "dagster-daemon"]
    assert json.loads(asked["input"]) == ["r1", "r3"]


def test_no_empty_database_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(docker_cli, "inspect", lambda *_: None)
    monkeypatch.setattr(docker_cli, "run", lambda args, **_: ran.append(args))
    with pytest.raises(docker_cli.DockerError, match="volume dagster-postgres, which holds PostgreSQL's data, is not"):
        watch_act._compose_up("dagster-postgres")
    assert ran == []
