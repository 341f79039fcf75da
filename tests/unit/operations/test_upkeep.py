"""What upkeep tells, and how it waits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    database,
    jobs,
    upkeep,
    upkeep_docker,
    upkeep_files,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.upkeep_policy import Policy


@pytest.fixture
def nothing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Docker and no database; no program of the machine is called."""

    def fail(*_arguments: object, **_options: object) -> None:
        raise docker_cli.DockerUnreachableError("the Docker engine does not answer")

    monkeypatch.setattr(docker_cli, "run", fail)
    monkeypatch.setattr(upkeep_files, "_run", lambda command: "")
    monkeypatch.setattr(upkeep_files, "APT_CACHE", "/not/there")
    monkeypatch.setattr(upkeep, "Session", fail)


@pytest.mark.usefixtures("nothing_here")
def test_without_docker_nothing_goes_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_arguments: object, **_options: object) -> list[list[str]]:
        raise database.DatabaseError("PostgreSQL in dagster-postgres: the Docker engine does not answer")

    removed: list[object] = []
    monkeypatch.setattr(database, "query", unreachable)
    monkeypatch.setattr(upkeep_files, "remove_compute_logs", lambda *arguments: removed.append(arguments))
    monkeypatch.setattr(upkeep_docker, "clean_releases", lambda policy: ({}, "releases: no engine"))
    report = upkeep.keep_up(Policy(), emergency=True)
    assert removed == [], "nobody knows which runs there are"
    assert any("compute logs stay" in each for each in report.notes)
    assert report.summary() == "removed nothing"


def test_a_summary_says_what_and_how_much() -> None:
    report = upkeep.Report(dry=True)
    report.add({"runs": 3, "images": 0})
    report.add({"runs": 2})
    report.bytes_freed["compute logs"] = 5_000_000
    assert report.summary() == "would remove 5 runs, 5 MB of files"


def test_it_waits_as_long_as_a_batch_took_and_longer_on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert 0.2 <= upkeep.breathe(Policy(pause=2), 0.1) < 0.5
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    assert 1.9 <= upkeep.breathe(Policy(), 0.1) < 3


def test_ticks_that_nobody_removes_are_a_problem(here: Path) -> None:
    assert upkeep.ticks_are_removed()
    home = here / "root" / "dagster_home"
    home.mkdir()
    (home / "dagster.yaml").write_text("scheduler: {}\n")
    assert not upkeep.ticks_are_removed()
    (home / "dagster.yaml").write_text("scheduler: {}\nretention:\n  schedule: {purge_after_days: 90}\n")
    assert upkeep.ticks_are_removed()


def test_a_wrong_setting_fails_the_job_with_its_name(configure: object) -> None:
    configure("upkeep", event_days=3)  # type: ignore[operator]
    assert jobs.run("upkeep", upkeep.work) == 1
    assert "event_days" in jobs.state("upkeep")["summary"]
