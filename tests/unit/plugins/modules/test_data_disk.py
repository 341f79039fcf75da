"""data_disk on real disks (loop devices), with the machine's own mkfs, mount and resize2fs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import block_device, mount_table
from ansible_collections.dataops.dagster_gce.plugins.modules import data_disk

RunModule = Callable[..., dict[str, Any]]


def sh(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


class Disk:
    """A loop device and the places that the module is to use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image = folder / "disk.img"
        with self.image.open("wb") as stream:
            stream.truncate(300 * 2**20)
        self.device = sh("losetup", "--find", "--show", str(self.image))
        self.path = folder / "mnt"
        self.docker = folder / "var-lib-docker"
        self.home = folder / "opt/dagster"
        self.fstab = folder / "fstab"
        self.fstab.write_text("/dev/root / ext4 defaults 0 1\n")

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "device": self.device, "path": str(self.path), "required_by": ["docker.service"],
            "folders": {"docker": str(self.docker), "dagster": str(self.home)},
        }  # fmt: skip

    def unmount(self) -> None:
        for path in (self.home, self.docker, self.path):
            while os.path.ismount(path):
                sh("umount", str(path))


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    if os.geteuid() or not os.path.exists("/dev/loop-control") or not shutil.which("mkfs.ext4"):
        pytest.skip("needs root, loop devices and e2fsprogs")
    try:
        disk = Disk(tmp_path)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no loop device: {error.stderr}")
    monkeypatch.setattr(data_disk, "FSTAB", str(disk.fstab))
    yield disk
    disk.unmount()
    sh("losetup", "--detach", disk.device)


def test_a_blank_disk_holds_the_folders_afterwards(run_module: RunModule, disk: Disk) -> None:
    predicted = run_module(data_disk.main, check=True, **disk.arguments)
    assert predicted["changed"] is True
    assert predicted["steps"][0] == "make an ext4 file system (dagster-data) of 300 MiB"
    assert block_device.signatures(disk.device) == {}
    assert not disk.path.exists()
    assert mount_table.BEGIN not in disk.fstab.read_text()

    done = run_module(data_disk.main, **disk.arguments)
    assert done["steps"] == predicted["steps"]
    assert done["diff"] == predicted["diff"]
    (disk.docker / "volume").write_text("kept")
    assert (disk.path / "docker/volume").read_text() == "kept"
    assert block_device.ext4(disk.device).label == "dagster-data"
    lines = disk.fstab.read_text().splitlines()
    assert f"{disk.device} {disk.path} ext4 defaults,nofail 0 2" in lines
    options = f"bind,nofail,x-systemd.requires-mounts-for={disk.path}"
    unit = "x-systemd.required-by=docker.service,x-systemd.before=docker.service"
    assert f"{disk.path}/docker {disk.docker} none {options},{unit} 0 0" in lines

    again = run_module(data_disk.main, **disk.arguments)
    assert (again["changed"], again["steps"]) == (False, [])


def test_another_machine_gets_what_the_first_has_left(run_module: RunModule, disk: Disk) -> None:
    run_module(data_disk.main, **disk.arguments)
    (disk.home / ".env").write_text("POSTGRES_PASSWORD=kept")
    disk.unmount()
    disk.fstab.write_text("")

    moved = run_module(data_disk.main, **disk.arguments)
    assert not [step for step in moved["steps"] if "make an" in step]
    assert (disk.home / ".env").read_text() == "POSTGRES_PASSWORD=kept"


def capable(number: int) -> bool:
    """Whether this process has a capability."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    return bool(int(line.split()[1], 16) >> number & 1)


def grow_to(disk: Disk, mebibytes: int) -> None:
    with disk.image.open("r+b") as stream:
        stream.truncate(mebibytes * 2**20)
    sh("losetup", "--set-capacity", disk.device)


def test_a_disk_that_has_grown_is_used_whole_without_an_interruption(run_module: RunModule, disk: Disk) -> None:
    run_module(data_disk.main, **disk.arguments)
    grow_to(disk, 700)
    predicted = run_module(data_disk.main, check=True, **disk.arguments)
    assert predicted["steps"] == ["grow the file system from 300 MiB to 700 MiB"]
    assert block_device.ext4(disk.device).size == 300 * 2**20
    if not capable(24):
        # What the kernel says to a root without CAP_SYS_RESOURCE, as in many containers.
        refused = run_module(data_disk.main, **disk.arguments)
        assert "cannot grow the file system from 300 MiB to 700 MiB" in refused["msg"]
        assert "Permission denied" in refused["msg"]
        assert "it grows when it is not mounted" in refused["msg"]
        pytest.skip("without CAP_SYS_RESOURCE nothing grows while it is mounted")
    with (disk.docker / "in-use").open("w"):
        grown = run_module(data_disk.main, **disk.arguments)
    assert (grown["failed"], grown["steps"]) == (False, predicted["steps"])
    assert block_device.ext4(disk.device).size == 700 * 2**20
    assert run_module(data_disk.main, **disk.arguments)["changed"] is False


def test_a_disk_that_has_grown_while_it_was_nowhere(run_module: RunModule, disk: Disk) -> None:
    run_module(data_disk.main, **disk.arguments)
    (disk.docker / "volume").write_text("kept")
    disk.unmount()
    grow_to(disk, 700)
    grown = run_module(data_disk.main, **disk.arguments)
    assert grown["steps"][0] == "grow the file system from 300 MiB to 700 MiB"
    assert block_device.ext4(disk.device).size == 700 * 2**20
    assert (disk.docker / "volume").read_text() == "kept"


def partitioned(disk: Disk) -> None:
    """A classic partition table with one entry, written by hand: sfdisk is not everywhere."""
    with open(disk.device, "r+b") as stream:
        stream.seek(446)
        stream.write(bytes([0, 0, 2, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") + (20480).to_bytes(4, "little"))
        stream.seek(510)
        stream.write(b"\x55\xaa")


def unknown(disk: Disk) -> None:
    with open(disk.device, "r+b") as stream:
        stream.seek(2**20)
        stream.write(b"a raw dump")


FOREIGN: dict[str, tuple[Callable[[Disk], object], str]] = {
    "swap": (lambda disk: sh("mkswap", disk.device), "found swap; expected ext4, or a blank disk"),
    "ext4": (lambda disk: sh("mkfs.ext4", "-q", "-L", "theirs", disk.device), "an ext4 with the label 'theirs'"),
    "partitions": (partitioned, "found a partition table (dos)"),
    "unknown": (unknown, "found data of a kind that blkid does not know"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_not_ours_is_refused(kind: str, run_module: RunModule, disk: Disk) -> None:
    prepare, expected = FOREIGN[kind]
    prepare(disk)
    before = disk.image.read_bytes()
    refused = run_module(data_disk.main, **disk.arguments)
    assert refused["failed"] is True
    assert expected in refused["msg"]
    assert disk.image.read_bytes() == before
    assert not disk.path.exists()


def test_data_that_a_mount_would_hide_is_refused_with_all_other_mistakes(run_module: RunModule, disk: Disk) -> None:
    (disk.docker / "overlay2").mkdir(parents=True)
    disk.home.parent.mkdir()
    disk.home.symlink_to("/nowhere")
    disk.fstab.write_text(f"/dev/sdz {disk.path} ext4 defaults 0 2\n")
    refused = run_module(data_disk.main, **disk.arguments)
    assert f"{disk.docker}: found data (overlay2) where the disk's folder would hide it" in refused["msg"]
    assert f"{disk.home}: found a link; expected a folder, or nothing" in refused["msg"]
    assert f"found the line '/dev/sdz {disk.path} ext4 defaults 0 2'" in refused["msg"]
    assert block_device.signatures(disk.device) == {}


def test_a_place_that_something_else_has_is_refused(run_module: RunModule, disk: Disk) -> None:
    disk.docker.mkdir()
    sh("mount", "-t", "tmpfs", "tmpfs", str(disk.docker))
    refused = run_module(data_disk.main, **disk.arguments)
    assert f"{disk.docker}: found tmpfs (/) mounted there; expected /docker of the data disk" in refused["msg"]


def test_a_step_that_fails_says_what_was_done_before(
    run_module: RunModule, disk: Disk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "bin/mount"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'no such luck' >&2\nexit 32\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")
    failed = run_module(data_disk.main, **disk.arguments)
    assert f"cannot mount {disk.device} at {disk.path}: no such luck" in failed["msg"]
    assert "Done before: make an ext4 file system" in failed["msg"]
    monkeypatch.undo()
    monkeypatch.setattr(data_disk, "FSTAB", str(disk.fstab))
    assert run_module(data_disk.main, **disk.arguments)["changed"] is True, "the next run goes on from there"


def test_a_disk_that_is_not_there(run_module: RunModule) -> None:
    arguments = {"device": "no-such-disk", "path": "/mnt/x", "wait": 0}
    missing = run_module(data_disk.main, **arguments)
    assert "found no /dev/disk/by-id/google-no-such-disk or /dev/disk/by-id/scsi-0Google" in missing["msg"]
    assert "Is it attached under that device name?" in missing["msg"]
    predicted = run_module(data_disk.main, check=True, **arguments)
    assert (predicted["failed"], predicted["changed"], predicted["device"]) == (False, True, "")


def test_a_file_is_no_disk(run_module: RunModule, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = run_module(data_disk.main, device=str(tmp_path / "file"), path="/mnt/x")
    assert "found no block device" in refused["msg"]


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ({"../etc": "/srv/x"}, "folders: found the name '../etc'"),
        ({"docker": "var/lib/docker"}, "found 'var/lib/docker'; expected absolute paths"),
        ({"a": "/srv/x", "b": "/srv/x/"}, "found '/srv/x'; expected absolute paths other than /, each of them once"),
        ({"a": "/mnt/x"}, "found '/mnt/x'; expected absolute paths other than /, each of them once"),
        ({"a": "/"}, "found '/'; expected"),
    ],
)
def test_places_that_cannot_be(folders: dict[str, str], expected: str, run_module: RunModule) -> None:
    refused = run_module(data_disk.main, device="no-such-disk", path="/mnt/x", folders=folders, wait=0)
    assert refused["failed"] is True
    assert expected in refused["msg"]
