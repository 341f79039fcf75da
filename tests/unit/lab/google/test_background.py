"""The process of the lab's Google, and its disks' files, as far as neither an engine nor root is needed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from lab import demo, machine
from lab.google import background
from lab.google.drivers.container import _rules, archive
from lab.google.drivers.loops import GIGABYTE, Disks
from lab.shell import LabError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, file in (("FOLDER", "."), ("ENVIRONMENT", "environment.json"), ("PIDFILE", "pid"), ("LOG", "log")):
        monkeypatch.setattr(background, name, tmp_path / file)
    return tmp_path


@pytest.mark.parametrize("text", ["", "nonsense", "999999999", "-1"])
def test_a_pid_file_that_means_nothing(folder: Path, text: str) -> None:
    (folder / "pid").write_text(text)
    assert background.pid() is None


def test_a_number_that_another_process_has_now(folder: Path) -> None:
    (folder / "pid").write_text(str(os.getpid()))
    assert background.pid() is None


def test_another_checkouts_process_is_not_ours(folder: Path) -> None:
    (folder / "lab").mkdir()
    (folder / "lab" / "__main__.py").write_text("import time\nprint('on', flush=True)\ntime.sleep(60)\n")
    command = [sys.executable, *background.COMMAND]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        (folder / "pid").write_text(str(other.pid))
        try:
            assert background.pid() is None
        finally:
            other.kill()


def test_what_does_not_run_says_how_to_start_it(folder: Path) -> None:
    with pytest.raises(LabError, match="does not run: python -m lab google up"):
        background.environment()
    assert background.status() == "the lab's Google does not run"


def test_the_machines_of_the_demo_are_reached_as_provisioning_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = tmp_path / "ssh_config"
    monkeypatch.setattr(machine, "PROVISIONED", written)
    assert machine.ssh_config_of(demo.NAME) == machine.ssh_config()
    written.write_text(f"Host {demo.NAME}-2\n  HostName 10.128.2.9\n")
    assert machine.ssh_config_of(demo.NAME) == machine.ssh_config()
    written.write_text(f"# Written\nHost {demo.NAME}\n  HostName 10.128.2.2\n")
    assert machine.ssh_config_of(demo.NAME) == written
    assert machine.ssh_config_of("other") == machine.ssh_config()


def test_disks_are_sparse_and_copied_as_such(tmp_path: Path) -> None:
    disks = Disks(tmp_path / "disks")
    disks.create("projects/p/zones/z/disks/a", 100)
    file = disks.file("projects/p/zones/z/disks/a")
    with file.open("r+b") as stream:
        stream.seek(50 * GIGABYTE)
        stream.write(b"content")
    size = disks.copy("projects/p/zones/z/disks/a", "projects/p/global/snapshots/s")
    assert 0 < size < 2**20
    disks.create("projects/p/zones/z/disks/b", 200, "projects/p/global/snapshots/s")
    restored = disks.file("projects/p/zones/z/disks/b")
    with restored.open("rb") as stream:
        stream.seek(50 * GIGABYTE)
        assert stream.read(7) == b"content"
    assert (restored.stat().st_size, restored.stat().st_blocks * 512 < 2**20) == (200 * GIGABYTE, True)
    disks.delete("projects/p/zones/z/disks/a")
    assert not file.exists()


def test_rules_name_a_machines_own_disks_only() -> None:
    rules = _rules({"loop3": "data"})
    assert 'KERNEL=="loop3", SYMLINK+="disk/by-id/google-data disk/by-id/scsi-0Google_PersistentDisk_data"' in rules
    assert rules.splitlines()[1] == 'SUBSYSTEM!="block", GOTO="lab_end"'
    assert "KERNEL" not in _rules({})


def test_files_for_a_machine_are_new() -> None:
    """A name server ignores a list of servers that is as old as the epoch."""
    with tarfile.open(fileobj=io.BytesIO(archive({"/etc/a/b": "text\n"}))) as files:
        entry = files.getmember("etc/a/b")
        assert (entry.mode, entry.size) == (0o644, 5)
        assert entry.mtime > time.time() - 60
