"""What virtual machines are called, and how their program turns settings into qemu's words."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lab import images
from lab.google.drivers import vm

SETTINGS: dict[str, Any] = {
    "address": "10.128.2.2", "gateway": "10.128.0.1", "subnetmask": "255.255.240.0", "mac": "42:01:0a:80:02:02",
    "hostname": "dagster", "kernel": vm.ROOT, "memory_mb": 1024, "metadata": "10.128.0.1:1", "api": "10.128.0.1:2",
    "boot": {"node": "boot", "name": "persistent-disk-0", "size_gb": 10},
    "disks": [{"node": "disk-1", "name": "data", "file": "/disks/data.raw", "read_only": True}],
}  # fmt: skip


@pytest.fixture
def program() -> ModuleType:
    # Not imported: the interpreter would leave its cache in the folder that the image is built from.
    path, module = images.HERE / "vm" / "lab-vm", ModuleType("lab_vm")
    exec(compile(path.read_text(), path, "exec"), module.__dict__)
    return module


def test_the_hardware_address_holds_the_internal_one() -> None:
    assert vm.mac("10.128.2.2") == "42:01:0a:80:02:02"


def test_a_disk_has_a_name_that_qemu_takes() -> None:
    """At most 31 characters, the same each time, and another one for another disk."""
    path = "projects/example/zones/europe-west3-c/disks/" + "d" * 63
    assert len(vm.node(path)) <= 31
    assert vm.node(path) == vm.node(path) != vm.node(path + "e")


def test_a_disk_is_seen_as_googles(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "virtualises", lambda: False)
    line = program.qemu(SETTINGS, Path("/boot.qcow2"))
    files = [json.loads(line[at + 1]) for at, word in enumerate(line) if word == "-blockdev"]
    assert [(each["driver"], each["file"]["filename"], each["read-only"]) for each in files] == [
        ("qcow2", "/boot.qcow2", False),
        ("raw", "/disks/data.raw", True),
    ]
    devices = [json.loads(line[at + 1]) for at, word in enumerate(line) if word == "-device" and "{" in line[at + 1]]
    assert [(each["vendor"], each["product"], each["device_id"]) for each in devices] == [
        ("Google", "PersistentDisk", "persistent-disk-0"),
        ("Google", "PersistentDisk", "data"),
    ]


@pytest.mark.parametrize(
    ("said", "works"),
    [
        ("Probing EDD (edd=off to disable)... ok\n", False),
        ("Probing EDD (edd=off to disable)... ok\n[    0.000000] Linux version 6.12.48+deb13-cloud-amd64\n", True),
        ("", False),
    ],
)
def test_kvm_works_where_the_kernel_speaks_and_not_only_its_loader(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, works: bool
) -> None:
    qemu = tmp_path / "qemu"
    qemu.write_text(f"#!/bin/sh\nprintf '%s' '{said}' >{tmp_path}/said\nexec sleep 20\n")
    qemu.chmod(0o755)
    monkeypatch.setattr(program, "KVM", tmp_path)
    monkeypatch.setattr(program, "KVM_SAYS", tmp_path / "said")
    monkeypatch.setattr(program, "KVM_SECONDS", 1.0)
    monkeypatch.setattr(program, "QEMU", [str(qemu)])
    assert program.virtualises() is works


def test_without_a_device_kvm_is_not_tried(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(program, "KVM", tmp_path / "none")
    monkeypatch.setattr(program, "QEMU", ["no-such-program"])
    assert not program.virtualises()


@pytest.mark.parametrize(("works", "expected"), [(True, "kvm"), (False, "tcg,thread=multi")])
def test_it_emulates_only_where_it_has_to(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, works: bool, expected: str
) -> None:
    monkeypatch.setattr(program, "virtualises", lambda: works)
    line = program.qemu(SETTINGS, Path("/boot.qcow2"))
    assert line[line.index("-accel") + 1] == expected
