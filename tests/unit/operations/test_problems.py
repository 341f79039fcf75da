"""The list of problems says what is wrong in each state, and nothing where nothing is."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import status, workspace
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    command,
    health,
    jobs,
    problems,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.jobs import CRITICAL, WARNING, Problem
from tests.unit.operations.conftest import Configure

HEALTHY = health.Service("dagster-daemon", "running", "healthy", "always")


def names(found: Sequence[Problem]) -> list[tuple[str, str]]:
    return [(each.name, each.severity) for each in found]


@pytest.mark.parametrize(
    ("service", "expected", "says"),
    [
        (HEALTHY, [], ""),
        (health.Service("x", "running", "", "unless-stopped"), [], ""),
        (health.Service("x", "running", "starting", "always"), [], ""),
        (health.Service("dagster-daemon"), [("container_dagster_daemon", CRITICAL)], "is gone"),
        (
            health.Service("dagster-daemon", "exited", "", "always"),
            [("container_dagster_daemon", CRITICAL)], "is exited",
        ),
        (
            health.Service("dagster-daemon", "running", "unhealthy", "always"),
            [("container_dagster_daemon", CRITICAL)], "fails its health check",
        ),
        (
            health.Service("dagster-daemon", "running", "healthy", "no"),
            [("restart_policy_dagster_daemon", WARNING)], "docker update --restart always dagster-daemon",
        ),
    ],
)  # fmt: skip
def test_containers(service: health.Service, expected: list[tuple[str, str]], says: str) -> None:
    found = health.of_services([service])
    assert names(found) == expected
    assert all(says in each.text for each in found)


def test_the_stack_is_what_the_compose_file_names(here: Path) -> None:
    assert health.service_names(str(here / "root")) == []
    (here / "root/docker-compose-GCE.yml").write_text(
        "services:\n  a:\n    container_name: dagster-postgres\n  b:\n    container_name: 'dagster-daemon'\n"
    )
    assert health.service_names(str(here / "root")) == ["dagster-postgres", "dagster-daemon"]


def result(**content: Any) -> jobs.Result:
    return jobs.Result("fine", **content)


def long_up() -> float:
    return 1e6


def test_what_a_job_found(configure: Configure) -> None:
    configure("backup", {"backup": {"every_at_most": 7200}})
    assert health.of_jobs(long_up) == []
    jobs.run("backup", lambda: result(problems=[Problem("backup_bucket", WARNING, "no bucket")]), quiet=True)
    assert health.of_jobs(long_up) == [Problem("backup_bucket", WARNING, "no bucket")]
    jobs.run("backup", lambda: jobs.Result("pg_dump: no space left", ok=False), quiet=True)
    (failed,) = health.of_jobs(long_up)
    assert (failed.name, failed.severity) == ("job_failed_backup", CRITICAL)
    assert "pg_dump: no space left" in failed.text
    assert "journalctl -u dagster-gce-backup" in failed.text
    jobs.run("backup", result, quiet=True)
    assert health.of_jobs(long_up) == []


def age(name: str, seconds: float) -> None:
    """As if the job had last succeeded so long ago."""
    state = jobs.state(name)
    state["last_success"] -= seconds
    Path(jobs.state_path(name)).write_text(json.dumps(state))


def test_an_overdue_job(configure: Configure, here: Path) -> None:
    configure("backup", {"backup": {"every_at_most": 7200}})
    jobs.run("backup", result, quiet=True)
    age("backup", 7100)
    assert health.of_jobs(long_up) == []
    age("backup", 200)
    (overdue,) = health.of_jobs(long_up)
    assert (overdue.name, overdue.severity) == ("job_overdue_backup", CRITICAL)
    assert "last succeeded 2 h ago, expected every 2 h" in overdue.text
    # A machine that was off catches up first.
    assert health.of_jobs(lambda: 60.0) == []


def test_a_job_that_never_ran_is_overdue_in_time(configure: Configure, here: Path) -> None:
    configure("backup", {"backup": {"every_at_most": 7200}})
    assert health.of_jobs(long_up) == []
    before = time.time() - 8000
    os.utime(here / "etc/backup.json", (before, before))
    (overdue,) = health.of_jobs(long_up)
    assert "never succeeded" in overdue.text


def test_a_part_that_is_switched_off_is_no_problem_any_more(configure: Configure, here: Path) -> None:
    configure("backup", {"backup": {"every_at_most": 7200}})
    jobs.run("backup", lambda: jobs.Result("no", ok=False), quiet=True)
    assert len(health.of_jobs(long_up)) == 1
    (here / "etc/backup.json").unlink()
    assert health.of_jobs(long_up) == []


def test_what_a_person_ran_and_what_failed(here: Path) -> None:
    jobs.run("restore", lambda: jobs.Result("no such backup", ok=False), quiet=True)
    assert names(health.of_jobs(long_up)) == [("job_failed_restore", CRITICAL)]


def test_a_settings_file_that_cannot_be_read(here: Path) -> None:
    (here / "etc/backup.json").write_text("{")
    assert names(health.of_jobs(long_up)) == [("settings", WARNING)]


def test_the_disk(monkeypatch: pytest.MonkeyPatch, configure: Configure, here: Path) -> None:
    root = str(here / "root")
    found = os.statvfs(root)
    shape = [found.f_bsize, found.f_frsize, 1000, 500, 500, 1000, 500, 500, 0, 255]
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(shape))
    assert health.of_disk(root) == []
    shape[4], shape[7] = 90, 40
    assert names(health.of_disk(root)) == [("disk", CRITICAL), ("disk_inodes", CRITICAL)]
    assert "91 % full" in health.of_disk(root)[0].text
    shape[5] = 0  # a file system without a fixed number of inodes
    assert names(health.of_disk(root)) == [("disk", CRITICAL)]
    configure("upkeep", {"guard": {"every_at_most": 300}})
    assert health.of_disk(root) == []


def test_no_disk(here: Path) -> None:
    assert names(health.of_disk(str(here / "nothing"))) == [("disk", CRITICAL)]


@pytest.mark.parametrize(("synchronised", "count"), [(True, 0), (False, 1), (None, 0)])
def test_the_clock(synchronised: bool | None, count: int) -> None:
    assert len(health.of_clock(lambda: synchronised)) == count


def test_the_kernel_tells_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_CONTAINER_MARK", "/nowhere")
    assert health.clock_is_synchronised() in (True, False, None)
    monkeypatch.setattr(health, "_CONTAINER_MARK", "/")
    assert health.clock_is_synchronised() is None


def test_timers_that_somebody_stopped(configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert health.of_units() == []
    configure("backup", {"backup": {"schedule": "daily"}, "drill": {"schedule": "weekly"}})
    configure("monitoring", {"metrics": {"stays": True}})
    program = tmp_path / "systemctl"
    program.write_text(
        "#!/bin/sh\nprintf 'Id=dagster-gce-backup.timer\\nActiveState=active\\n\\n"
        "Id=dagster-gce-metrics.service\\nActiveState=failed\\n\\nId=dagster-gce-drill.timer\\nActiveState=inactive\\n'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = health.of_units()
    assert names(found) == [("unit_drill", WARNING), ("unit_metrics", WARNING)]
    assert "systemctl start dagster-gce-drill.timer" in found[0].text
    monkeypatch.setenv("PATH", "/nowhere")
    assert names(health.of_units()) == [("systemd", WARNING)]


def test_one_problem_a_name_and_the_worst_first() -> None:
    found = health.unique(
        [
            Problem("a", WARNING, "1"),
            Problem("b", WARNING, "2"),
            Problem("a", CRITICAL, "3"),
            Problem("b", WARNING, "4"),
        ]
    )
    assert found == [Problem("a", CRITICAL, "3"), Problem("b", WARNING, "2")]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (121, "2 min"), (7300, "2 h"), (1e6, "12 d")]
)
def test_durations(seconds: float, text: str) -> None:
    assert health.duration(seconds) == text


def test_status_of_a_machine_without_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["status", "--json"]) == 1
    state = json.loads(capsys.readouterr().out)
    assert "webserver" in [each["name"] for each in state["problems"]]
    assert [Problem(**each) for each in state["problems"]] == problems.of(state)
    assert command.main(["status"]) == 1
    text = capsys.readouterr().out
    assert " !! http://127.0.0.1:9 does not answer" in text


def test_status_shows_the_jobs(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    configure("backup", {"backup": {"every_at_most": 7200, "schedule": "hourly"}, "drill": {"schedule": "weekly"}})
    configure("monitoring", {"metrics": {"stays": True}})
    jobs.run("backup", lambda: jobs.Result("312 MB in 4.2 s"), quiet=True)
    command.main(["status"])
    text = capsys.readouterr().out
    assert "backup   ok     0 s ago    312 MB in 4.2 s" in text
    assert "drill           never ran" in text
    assert "metrics  " not in text.split("problems")[0]


def test_who_may_not_read_the_settings_is_told_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert command.main(["status"]) == 2
    assert "sudo" in capsys.readouterr().err


def test_without_pyyaml_the_package_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "yaml", None)
    assert command.main(["status"]) == 2
    assert "python3-yaml" in capsys.readouterr().out


def test_a_silent_daemon_says_since_when() -> None:
    assert "2 min ago" in status._silence({"last_heartbeat": time.time() - 130})
    assert "no heartbeat" in status._silence({"last_heartbeat": 0})
