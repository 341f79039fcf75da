"""dagster_jobs: settings and units come, change and go; check mode foretells it. With systemd: tests/e2e/operations."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config, units
from ansible_collections.dataops.dagster_gce.plugins.modules import dagster_jobs
from tests.unit.plugins.conftest import RunModule

BACKUP = {"name": "backup", "command": "backup", "schedule": "*-*-* *:07:00", "timeout": 3600, "every_at_most": 7200}
SERVICE = {
    "name": "metrics",
    "command": "metrics --serve",
    "service": {"NoNewPrivileges": True, "IPAddressAllow": ["a", "b"]},
}
# Remembers what is enabled, and what it was asked for. Written for the questions that the module asks.
SYSTEMCTL = """#!/usr/bin/env python3
import os, sys
folder = os.path.dirname(os.path.abspath(__file__))
enabled = os.path.join(folder, "enabled")
known = set(open(enabled).read().split()) if os.path.exists(enabled) else set()
words = [each for each in sys.argv[1:] if not each.startswith("-")]
if words[0] == "show":
    for name in words[1:]:
        state = ("active", "enabled") if name in known else ("inactive", "disabled")
        print(f"Id={name}\\nActiveState={state[0]}\\nSubState=x\\nUnitFileState={state[1]}\\n")
    sys.exit()
open(os.path.join(folder, "calls"), "a").write(" ".join(words) + "\\n")
known = known | set(words[1:]) if words[0] == "enable" else known - set(words[1:]) if words[0] == "disable" else known
open(enabled, "w").write(" ".join(known))
"""


class Host:
    """A machine's folders, and a systemctl that notes what it is asked for."""

    def __init__(self, folder: Path, run_module: RunModule) -> None:
        self.units, self.settings, self.programs = folder / "system", folder / "etc", folder / "bin"
        self._run_module = run_module

    def run(self, check: bool = False, part: str = "backup", **options: Any) -> dict[str, Any]:
        return self._run_module(dagster_jobs.main, check, part=part, **options)

    def calls(self) -> list[str]:
        path = self.programs / "calls"
        found = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return found

    def files(self) -> dict[str, str]:
        return {path.name: path.read_text() for folder in (self.units, self.settings) for path in folder.glob("*")}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_module: RunModule) -> Host:
    found = Host(tmp_path, run_module)
    for folder in (found.units, found.settings, found.programs):
        folder.mkdir()
    (found.programs / "systemctl").write_text(SYSTEMCTL)
    (found.programs / "systemctl").chmod(0o755)
    (found.programs / "python3").symlink_to("/usr/bin/python3")
    monkeypatch.setenv("PATH", str(found.programs), prepend=None)
    monkeypatch.setattr(config, "FOLDER", str(found.settings))
    monkeypatch.setattr(units, "FOLDER", str(found.units))
    for name in ("FOLDER", "SETTINGS", "UNIT"):
        owner = getattr(dagster_jobs, name)
        monkeypatch.setattr(dagster_jobs, name, files.Owner(os.getuid(), os.getgid(), owner.mode))
    return found


def test_from_nothing_to_a_timer_and_back(host: Host) -> None:
    predicted = host.run(check=True, jobs=[BACKUP], settings={"keep": 3})
    assert (predicted["changed"], host.files(), host.calls()) == (True, {}, [])
    made = host.run(jobs=[BACKUP], settings={"keep": 3})
    assert made["diff"] == predicted["diff"]
    assert made["units"] == ["dagster-gce-backup.timer"]
    assert host.calls() == ["daemon-reload", "enable dagster-gce-backup.timer"]
    found = host.files()
    assert sorted(found) == ["backup.json", "dagster-gce-backup.service", "dagster-gce-backup.timer"]
    assert "OnCalendar=*-*-* *:07:00\nPersistent=yes\n" in found["dagster-gce-backup.timer"]
    assert "Type=oneshot\nExecStart=/usr/local/bin/dagster-gce backup\n" in found["dagster-gce-backup.service"]
    assert "TimeoutStartSec=3600\n" in found["dagster-gce-backup.service"]
    assert json.loads(found["backup.json"])["keep"] == 3
    assert config.jobs()["backup"].every_at_most == 7200
    assert stat.S_IMODE((host.settings / "backup.json").stat().st_mode) == 0o600

    again = host.run(jobs=[BACKUP], settings={"keep": 3})
    assert (again["changed"], again["diff"], host.calls()) == (False, [], [])

    gone = host.run(check=True, state="absent")
    assert gone["changed"]
    assert sorted(host.files()) == sorted(found)
    assert host.run(state="absent")["diff"] == gone["diff"]
    assert host.files() == {}
    assert host.calls() == [
        "disable dagster-gce-backup.timer dagster-gce-backup.service",
        "daemon-reload",
        "reset-failed dagster-gce-backup.service dagster-gce-backup.timer",
    ]
    assert host.run(state="absent")["changed"] is False


def test_a_timer_that_somebody_stopped_is_started_again(host: Host) -> None:
    host.run(jobs=[BACKUP])
    (host.programs / "enabled").write_text("")
    host.calls()
    assert host.run(check=True, jobs=[BACKUP])["changed"] is True
    assert host.calls() == []
    assert host.run(jobs=[BACKUP])["changed"] is True
    assert host.calls() == ["enable dagster-gce-backup.timer"]


def test_new_settings_alone_touch_no_timer_and_restart_a_service(host: Host) -> None:
    host.run(jobs=[BACKUP], settings={"keep": 3})
    host.run(part="monitoring", jobs=[SERVICE], settings={"port": 1})
    host.calls()
    assert host.run(jobs=[BACKUP], settings={"keep": 4})["changed"] is True
    assert host.calls() == []
    host.run(part="monitoring", jobs=[SERVICE], settings={"port": 2})
    assert host.calls() == ["restart dagster-gce-metrics.service"]


def test_a_service_that_stays(host: Host) -> None:
    host.run(part="monitoring", jobs=[SERVICE])
    found = host.files()["dagster-gce-metrics.service"]
    assert "Type=exec\nExecStart=/usr/local/bin/dagster-gce metrics --serve\n" in found
    assert "Restart=always\n" in found
    assert "NoNewPrivileges=yes\nIPAddressAllow=a\nIPAddressAllow=b\n" in found
    assert "TimeoutStartSec" not in found


def test_another_schedule_takes_effect_at_once(host: Host) -> None:
    host.run(jobs=[BACKUP])
    host.calls()
    host.run(jobs=[{**BACKUP, "schedule": "*-*-* 03:00:00"}])
    assert host.calls() == ["daemon-reload", "restart dagster-gce-backup.timer"]


def test_a_job_that_is_no_longer_listed_goes_and_others_stay(host: Host) -> None:
    drill = {"name": "drill", "command": "drill", "every": "30s", "after_boot": "1min"}
    host.run(jobs=[BACKUP, drill])
    host.run(part="monitoring", jobs=[SERVICE])
    assert "OnActiveSec=1min\nOnUnitInactiveSec=30s\n" in host.files()["dagster-gce-drill.timer"]
    host.calls()
    assert host.run(jobs=[BACKUP])["changed"] is True
    assert "dagster-gce-drill.timer" not in host.files()
    assert {"dagster-gce-backup.timer", "dagster-gce-metrics.service"} <= host.files().keys()
    assert host.calls()[0] == "disable dagster-gce-drill.timer dagster-gce-drill.service"


def test_a_secret_is_written_and_shown_nowhere(host: Host) -> None:
    # As with -vvv, which shows what a module was given.
    options: dict[str, Any] = {"_ansible_inject_invocation": True, "jobs": [BACKUP]}
    options["settings"] = {"mail": {"host": "smtp"}}
    first = host.run(secret_settings={"mail": {"password": "c4n4ry-one"}}, **options)
    assert config.load("backup") == {"mail": {"host": "smtp", "password": "c4n4ry-one"}}
    assert host.run(secret_settings={"mail": {"password": "c4n4ry-one"}}, **options)["changed"] is False
    second = host.run(secret_settings={"mail": {"password": "c4n4ry-two"}}, **options)
    assert second["changed"] is True
    last = host.run(jobs=[BACKUP])
    assert config.load("backup") == {}
    for result in (first, second, last):
        assert "c4n4ry" not in result["text"]
    assert "smtp" in first["text"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"part": "Back up"}, "part: found 'Back up'; expected lower case"),
        ({"jobs": [{**BACKUP, "name": "../x"}]}, "jobs: found the name '../x'"),
        ({"jobs": [{**BACKUP, "every": "30s"}]}, "job backup: found both schedule and every"),
    ],
)
def test_bad_input_touches_nothing(host: Host, options: dict[str, Any], says: str) -> None:
    result = host.run(**options)
    assert result["failed"]
    assert says in result["msg"]
    assert host.files() == {}


def test_a_percent_sign_is_no_specifier_of_systemds(host: Host) -> None:
    host.run(jobs=[{**BACKUP, "command": "backup --free 10%"}])
    assert "--free 10%%\n" in host.files()["dagster-gce-backup.service"]


def test_no_systemd(host: Host) -> None:
    (host.programs / "systemctl").unlink()
    assert host.run(check=True, jobs=[BACKUP])["changed"] is True
    result = host.run(jobs=[BACKUP])
    assert result["failed"]
    assert "systemctl: found no such command" in result["msg"]
    assert host.files() == {}
