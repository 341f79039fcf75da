"""What a restore refuses, and how it says what would be lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_files,
    backup_place,
    backup_settings,
    database,
    jobs,
    restore_plan,
    restore_swap,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.restore_plan import Wanted
from tests.unit.operations.test_backup_files import STAMP, make

RUN = {"run_id": "6329c41a-7701-495f-94a5-9d7e95d7885a", "status": "SUCCESS", "job": "quick", "id": 7, "created": 1}


class Machine:
    """What PostgreSQL and Docker say."""

    def __init__(self) -> None:
        self.postgres = "170006"
        self.dagster = "1.13.27"
        self.known: list[list[str]] = [["7"]]
        self.lost: list[list[str]] = []
        self.asked: list[str] = []

    def query(self, sql: str, **_: Any) -> list[list[str]]:
        self.asked.append(sql)
        answers: list[tuple[str, list[list[str]]]] = [
            ("server_version_num", [[self.postgres]]),
            ("system_identifier", [["7"]]),
            ("to_regclass('runs')", [["t"]]),
            ("SELECT id FROM runs", self.known),
            ("SELECT count(*)", [[str(len(self.lost))]]),
            ("ORDER BY id DESC LIMIT", self.lost[: restore_plan._SHOWN]),
        ]
        return next(rows for words, rows in answers if words in sql)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    monkeypatch.setattr(database, "query", found.query)
    monkeypatch.setattr(docker_cli, "inspect", lambda kind, name: {"Image": "sha256:1"})
    monkeypatch.setattr(restore_plan, "_check_room", lambda settings, manifest: None)
    monkeypatch.setattr(restore_swap, "heal", lambda: None)
    monkeypatch.setattr(restore_swap, "main_database", lambda: "dagster")
    monkeypatch.setattr(restore_swap, "dagster_version", lambda: found.dagster)
    return found


@pytest.fixture
def plan(machine: Machine, tmp_path: Path) -> Callable[..., restore_plan.Plan]:
    def of(**more: Any) -> restore_plan.Plan:
        contents = {"tables": {"runs": 7}, "newest_run": RUN, "newest_event": 9, "size": 1, "in_flight": 2}
        make(tmp_path, **{"database": contents, "host": "dagster-prod", **more})
        settings = backup_settings.make({"directory": str(tmp_path)})
        return restore_plan.make(settings, Wanted(STAMP))

    return of


def test_what_came_after_the_backup_would_be_lost(machine: Machine, plan: Callable[..., restore_plan.Plan]) -> None:
    machine.lost = [[f"run-{number}", "quick", "SUCCESS", "1795406370"] for number in range(12)]
    found = plan()
    assert found.lost == 12
    assert "r.id > 7" in machine.asked[-1]
    text = found.text()
    assert f"backup {STAMP} of dagster-prod" in text
    assert "2 runs were in flight when it was taken; they end as failed" in text
    assert "12 runs of this machine are not in it and would be lost:" in text
    assert "run-0  quick  SUCCESS  2026-11-23T03:59:30Z" in text
    assert "and 2 older ones" in text


def test_of_another_history_all_would_be_lost(machine: Machine, plan: Callable[..., restore_plan.Plan]) -> None:
    machine.known = []
    machine.lost = [["run", "quick", "SUCCESS", "1795406370"]]
    assert plan().lost == 1
    assert "WHERE true AND" in machine.asked[-1]
    assert "dataops.dagster_gce/proof" in machine.asked[-1], "what the plays launch as a proof is nobody's loss"


@pytest.mark.parametrize(
    ("system", "said"),
    [("7", "WHERE r.create_timestamp > to_timestamp(1795406370) AT TIME ZONE 'UTC' AND"), ("8", "WHERE true AND")],
)
def test_of_the_same_cluster_what_is_later_would_be_lost(
    machine: Machine, plan: Callable[..., restore_plan.Plan], system: str, said: str
) -> None:
    """Somebody has removed the last run that the recovered moment has."""
    machine.known = []
    plan(system=system)
    assert said in machine.asked[-1]


def test_nothing_would_be_lost(plan: Callable[..., restore_plan.Plan]) -> None:
    assert "no run of this machine would be lost" in plan().text()


@pytest.mark.parametrize(
    ("postgres", "dagster", "said"),
    [
        ("130021", "1.13.27", r"was made by PostgreSQL 17: found PostgreSQL 13 .*playbooks/upgrade\.yml"),
        ("170006", "1.9.1", r"was made by Dagster 1\.13\.27: found Dagster 1\.9\.1 .*expected 1\.13\.27 or newer"),
    ],
)
def test_what_cannot_take_it_refuses_it(
    machine: Machine, plan: Callable[..., restore_plan.Plan], postgres: str, dagster: str, said: str
) -> None:
    machine.postgres, machine.dagster = postgres, dagster
    with pytest.raises(jobs.JobError, match=said):
        plan()


@pytest.mark.parametrize(("postgres", "dagster"), [("180001", "1.13.27"), ("170006", "1.14.0"), ("170006", "")])
def test_what_is_newer_takes_it(
    machine: Machine, plan: Callable[..., restore_plan.Plan], postgres: str, dagster: str
) -> None:
    machine.postgres, machine.dagster = postgres, dagster
    assert plan().lost == 0


def test_without_the_key_it_says_whose(plan: Callable[..., restore_plan.Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_files, "need_age", lambda: None)
    with pytest.raises(jobs.JobError, match="found no private key; expected the one of age1abc"):
        plan(recipients=["age1abc"])


def test_only_databases_of_restores_are_ever_dropped() -> None:
    for name in ("dagster", "postgres", "dagster_restore_", 'dagster_before_1"; DROP DATABASE dagster; --'):
        with pytest.raises(ValueError, match="no database of a restore's"):
            restore_swap.drop(name)


def test_a_bucket_that_is_not_set(tmp_path: Path) -> None:
    settings = backup_settings.make({"directory": str(tmp_path)})
    with pytest.raises(jobs.JobError, match="found dagster_backup_bucket empty"):
        restore_plan.make(settings, Wanted("latest", place="bucket"))
    assert backup_place.Directory(str(tmp_path)).stamps() == []
