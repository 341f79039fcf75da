"""The disk guard: levels, margins, the reserve, and what a deploy is told."""

from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    guard,
    guard_disks,
    jobs,
    queue_pause,
    upkeep,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.guard_disks import Disk, Settings

GB = 10**9


def disk(free: float, total: float = 100, inodes: int = 0, inodes_free: int = 0, path: str = "/data") -> Disk:
    return Disk(1, [path], int(total * GB), int(free * GB), inodes, inodes_free)


@pytest.mark.parametrize(
    ("total", "free", "level"),
    [
        (100, 30, "ok"),
        (100, 19, "warn"),
        (100, 7, "refuse"),
        (100, 3, "pause"),
        (100, 0.5, "full"),
        # A share of a large disk is still much.
        (1000, 30, "ok"),
        (1000, 19, "warn"),
        # A size that a small disk never had is no reason.
        (10, 5, "ok"),
        (10, 1.9, "warn"),
        (10, 0.9, "refuse"),
        (10, 0.4, "pause"),
        (10, 0.1, "full"),
    ],
)
def test_a_level_needs_both_a_small_share_and_a_small_size(total: float, free: float, level: str) -> None:
    assert guard_disks.judge(disk(free, total), "ok", Settings()) == level


def test_few_inodes_are_little_room() -> None:
    assert guard_disks.judge(disk(90, inodes=1000, inodes_free=90), "ok", Settings()) == "warn"
    assert guard_disks.judge(disk(90, inodes=1000, inodes_free=20), "ok", Settings()) == "pause"
    assert guard_disks.judge(disk(90, inodes=0, inodes_free=0), "ok", Settings()) == "ok"


def test_a_level_is_left_with_a_margin() -> None:
    paused = guard_disks.judge(disk(3.9), "ok", Settings())
    assert paused == "pause"
    assert guard_disks.judge(disk(4.9), paused, Settings()) == "pause"
    assert guard_disks.judge(disk(5.1), paused, Settings()) == "refuse"
    assert guard_disks.judge(disk(9), "refuse", Settings()) == "refuse"
    assert guard_disks.judge(disk(9), "ok", Settings()) == "warn"
    assert guard_disks.judge(disk(11), "refuse", Settings()) == "warn"
    assert guard_disks.judge(disk(26), "warn", Settings()) == "ok"


def test_a_file_system_is_counted_once(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    found = guard_disks.look([str(tmp_path), str(tmp_path / "below"), "/not/there", "/proc"])
    assert [each.paths for each in found] == [[str(tmp_path), str(tmp_path / "below")], ["/proc"]]
    about = os.statvfs(tmp_path)
    assert found[0].free == pytest.approx(about.f_bavail * about.f_frsize, rel=0.2)


def test_settings_name_only_what_is_other() -> None:
    found = guard_disks.settings({"thresholds": {"pause": {"percent": 7}}, "margin": 2})
    assert found.thresholds["pause"] == guard_disks.Threshold(7, 4000, 3)
    assert found.thresholds["warn"] == guard_disks.DEFAULTS["warn"]
    assert found.margin == 2


@pytest.fixture
def machine(here: Path, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A disk of 100 GB whose free gigabytes the test sets, no Docker, and a small reserve."""
    state = {"free": 50.0, "emergencies": 0, "restarts": 0}
    configure("upkeep", guard={"reserve_megabytes": 0.01})
    home = here / "root" / "dagster_home"
    home.mkdir()
    (home / "dagster.yaml").write_text("concurrency:\n  runs:\n    max_concurrent_runs: 5\n")
    monkeypatch.setattr(guard, "watched", lambda: [str(here / "root")])
    monkeypatch.setattr(guard, "data_folder", lambda: str(here / "root"))
    monkeypatch.setattr(guard_disks, "look", lambda paths: [disk(state["free"], path=str(here / "root"))])

    def restart() -> bool:
        state["restarts"] += 1
        return True

    def emergency() -> tuple[bool, str]:
        state["emergencies"] += 1
        return True, "emergency upkeep: removed nothing"

    monkeypatch.setattr(queue_pause, "_restart_if_older", restart)
    monkeypatch.setattr(queue_pause, "_OWNER", jobs.STATE_FILE)
    monkeypatch.setattr(guard, "_emergency", emergency)
    return state


def look() -> dict[str, Any]:
    assert jobs.run("guard", guard.work, quiet=True) == 0
    return jobs.state("guard")


def number(here: Path) -> str:
    return (here / "root/dagster_home/dagster.yaml").read_text().splitlines()[-1].strip()


def test_what_it_does_while_a_disk_fills_and_empties(machine: dict[str, float], here: Path) -> None:
    reserve = here / "root/state/reserve"
    before = (here / "root/dagster_home/dagster.yaml").read_text()
    assert look()["problems"] == []
    assert reserve.stat().st_size == 10_000

    machine["free"] = 15
    (problem,) = look()["problems"]
    assert problem["severity"] == "warning"
    assert "15.0 GB of 100.0 GB free" in problem["text"]
    assert guard_disks.refusal() == ""

    machine["free"] = 7
    (problem,) = look()["problems"]
    assert problem["severity"] == "critical"
    assert "deploys are refused" in problem["text"]
    assert "the disk guard refuses deploys" in guard_disks.refusal()
    assert machine["emergencies"] == 1
    assert number(here) == "max_concurrent_runs: 5"

    machine["free"] = 3
    look()
    assert number(here) == "max_concurrent_runs: 0  # paused (disk guard), was 5"
    assert reserve.exists()
    assert machine["emergencies"] == 1, "one an hour is enough"

    machine["free"] = 0.5
    look()
    assert not reserve.exists()
    assert number(here) == "max_concurrent_runs: 0  # paused (disk guard), was 5"

    machine["free"] = 4.5
    look()
    assert number(here) == "max_concurrent_runs: 0  # paused (disk guard), was 5", "the margin"

    machine["free"] = 6
    restarts = machine["restarts"]
    look()
    assert (here / "root/dagster_home/dagster.yaml").read_text() == before
    assert machine["restarts"] == restarts + 1
    assert guard_disks.refusal()

    machine["free"] = 60
    assert guard_disks.refusal() == "", "a deploy sees at once that there is room"
    assert look()["problems"] == []
    assert reserve.exists()


def test_site_yml_written_over_a_pause_is_no_end_of_it(machine: dict[str, float], here: Path) -> None:
    machine["free"] = 3
    look()
    fresh = "concurrency:\n  runs:\n    max_concurrent_runs: 5\n"
    (here / "root/dagster_home/dagster.yaml").write_text(fresh)
    look()
    assert number(here).startswith("max_concurrent_runs: 0")
    # Written anew in the very minute in which there is room again: the daemon still runs with the 0.
    (here / "root/dagster_home/dagster.yaml").write_text(fresh)
    machine["free"] = 60
    restarts = machine["restarts"]
    look()
    assert machine["restarts"] == restarts + 1
    look()
    assert machine["restarts"] == restarts + 1


def test_somebody_elses_pause_is_left_alone(machine: dict[str, float], here: Path) -> None:
    queue_pause.pause("upgrade")
    look()
    assert queue_pause.state() == queue_pause.State("upgrade", 5)


def test_a_dagster_yaml_without_the_number_is_a_problem_only_when_it_matters(
    machine: dict[str, float], here: Path
) -> None:
    (here / "root/dagster_home/dagster.yaml").write_text("run_coordinator: {module: mine, class: Mine}\n")
    machine["free"] = 3
    texts = [problem["text"] for problem in look()["problems"]]
    assert any("found 0 lines max_concurrent_runs" in each for each in texts)


def test_a_deploy_does_not_depend_on_the_guard(here: Path) -> None:
    assert guard_disks.refusal() == ""
    (here / "root/state").mkdir()
    (here / "root/state/guard.json").write_text("{")
    assert guard_disks.refusal() == ""
    (here / "root/state/guard.json").write_text(
        json.dumps({"details": {"level": "full", "disks": [{"paths": ["/no"]}]}})
    )
    assert guard_disks.refusal() == ""


def test_an_emergency_waits_for_no_upkeep(here: Path) -> None:
    with jobs.lock(upkeep.JOB):
        done, said = guard._emergency()
    assert done is False
    assert "running already" in said


def test_the_daemon_is_restarted_once_also_where_the_clock_went_back(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = here / "root" / "dagster_home"
    home.mkdir()
    (home / "dagster.yaml").write_text("max_concurrent_runs: 5\n")
    started = [time.time() - 100]
    restarts: list[object] = []

    def inspect(_kind: str, _name: str) -> dict[str, object]:
        moment = datetime.datetime.fromtimestamp(started[0], datetime.UTC).isoformat().replace("+00:00", "Z")
        return {"State": {"Running": True, "StartedAt": moment}}

    def run(arguments: object, **_options: object) -> None:
        restarts.append(arguments)
        started[0] = time.time() + 1

    monkeypatch.setattr(queue_pause, "_OWNER", jobs.STATE_FILE)
    monkeypatch.setattr(docker_cli, "inspect", inspect)
    monkeypatch.setattr(docker_cli, "run", run)
    assert queue_pause.pause("test") is True
    assert queue_pause.pause("test") is False
    assert len(restarts) == 1
    future = time.time() + 5000
    os.utime(home / "dagster.yaml", (future, future))
    queue_pause.pause("test")
    assert queue_pause.pause("test") is False
    assert len(restarts) == 2
    assert queue_pause.state() == queue_pause.State("test", 5)


@pytest.mark.parametrize(("started", "restarted"), [(".4", True), (".92", False)])
def test_a_daemon_that_started_in_the_second_of_the_pause_is_restarted_once(
    here: Path, monkeypatch: pytest.MonkeyPatch, started: str, restarted: bool
) -> None:
    paused = here / "root" / "dagster_home" / "dagster.yaml"
    paused.parent.mkdir()
    paused.write_text("concurrency:\n  runs:\n    max_concurrent_runs: 0  # paused (disk guard), was 5\n")
    os.utime(paused, (1795377662.5, 1795377662.5))
    calls = []
    monkeypatch.setattr(docker_cli, "run", lambda arguments, **_: calls.append(arguments))
    state = {"Running": True, "StartedAt": f"2026-11-22T20:01:02{started}Z"}
    monkeypatch.setattr(docker_cli, "inspect", lambda *_: {"State": state})
    assert queue_pause.pause("disk guard") is restarted
    assert calls == ([["restart", "dagster-daemon"]] if restarted else [])
