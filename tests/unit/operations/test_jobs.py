"""A job writes down what it found however it ends, and runs once at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import jobs
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.jobs import Metric, Problem, Result
from tests.unit.operations.conftest import Configure

ROOT = Path(__file__).resolve().parents[3]


def fail(error: BaseException) -> Result:
    raise error


def test_a_result_is_written_as_the_contract_says(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    configure("backup", {"backup": {"every_at_most": 7200}})
    result = Result(
        "312 MB in 4.2 s",
        details={"bytes": 312},
        problems=[Problem("backup_bucket", jobs.WARNING, "no bucket")],
        metrics=[Metric("dagster_gce_backup_size_bytes", 312.0, "Size.", labels={"target": "directory"})],
    )
    started = time.time()
    assert jobs.run("backup", lambda: result) == 0
    assert capsys.readouterr().out == "312 MB in 4.2 s\n"
    with open(jobs.state_path("backup"), encoding="utf-8") as stream:
        state = json.load(stream)
    assert started - 0.01 <= state.pop("started") <= state["ended"] <= time.time() + 0.01
    assert state.pop("last_success") == state.pop("ended")
    assert state == {
        "job": "backup",
        "ok": True,
        "summary": "312 MB in 4.2 s",
        "details": {"bytes": 312},
        "every_at_most": 7200,
        "problems": [{"name": "backup_bucket", "severity": "warning", "text": "no bucket"}],
        "metrics": [
            {
                "name": "dagster_gce_backup_size_bytes", "value": 312.0, "help": "Size.", "type": "gauge",
                "labels": {"target": "directory"},
            }
        ],
    }  # fmt: skip
    assert os.stat(jobs.state_path("backup")).st_mode & 0o777 == 0o640
    assert jobs.states().keys() == {"backup"}


def test_a_failure_keeps_the_time_of_the_last_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert jobs.run("backup", Result) == 0
    before = jobs.state("backup")["last_success"]
    assert jobs.run("backup", lambda: fail(jobs.JobError("no room"))) == 1
    state = jobs.state("backup")
    assert (state["ok"], state["summary"], state["last_success"]) == (False, "no room", before)
    printed = capsys.readouterr()
    assert "backup: no room" in printed.err
    assert "Traceback" not in printed.err


def test_a_defect_leaves_its_place_in_the_journal(capsys: pytest.CaptureFixture[str]) -> None:
    assert jobs.run("backup", lambda: fail(KeyError("x"))) == 1
    assert "Traceback" in capsys.readouterr().err
    assert jobs.state("backup")["ok"] is False


def test_not_ok_without_an_exception() -> None:
    assert jobs.run("drill", lambda: Result("2 rows are missing", ok=False)) == 1
    assert (jobs.state("drill")["ok"], jobs.state("drill")["last_success"]) == (False, None)


def test_the_same_job_once_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    inside, leave = threading.Event(), threading.Event()

    def work() -> Result:
        inside.set()
        leave.wait(10)
        return Result("the first")

    first = threading.Thread(target=jobs.run, args=("backup", work))
    first.start()
    assert inside.wait(10)
    assert jobs.run("backup", lambda: fail(AssertionError("ran twice"))) == 0
    assert "running already" in capsys.readouterr().out
    assert jobs.run("drill", Result) == 0  # another job is not kept waiting
    waiting = threading.Thread(target=jobs.run, args=("backup", lambda: Result("the second")), kwargs={"wait": True})
    waiting.start()
    time.sleep(0.1)
    assert jobs.state("backup") == {}
    leave.set()
    first.join(10)
    waiting.join(10)
    assert jobs.state("backup")["summary"] == "the second"


def test_what_systemd_ends_is_a_failure_and_not_silence(here: Path) -> None:
    program = f"""
import sys, time
sys.path[:0] = [{str(ROOT / ".collections")!r}]
from ansible_collections.dataops.dagster_gce.plugins.module_utils import files
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config, jobs
config.FOLDER, jobs.LOCKS = {str(here / "etc")!r}, {str(here / "run")!r}
jobs.STATE_FILE = files.Owner({os.getuid()}, {os.getgid()}, 0o640)
jobs.STATE_FOLDER = files.Owner({os.getuid()}, {os.getgid()}, 0o750)
def work():
    print("at work", flush=True)
    time.sleep(60)
sys.exit(jobs.run("backup", work))
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 1
    assert jobs.state("backup")["ok"] is False
    assert "SIGTERM" in jobs.state("backup")["summary"]


def test_a_state_that_cannot_be_read_is_none(here: Path) -> None:
    folder = here / "root/state"
    folder.mkdir()
    (folder / "backup.json").write_text("{")
    (folder / "actions.json").write_text('{"not": "a job"}')
    assert jobs.state("backup") == {}
    assert jobs.states() == {}


def test_a_state_that_cannot_be_written_is_said(
    capsys: pytest.CaptureFixture[str], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "root/state").write_text("a file where the folder should be")
    assert jobs.run("backup", lambda: Result("done")) == 0
    assert "cannot be written" in capsys.readouterr().err
