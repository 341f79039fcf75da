"""From an empty project to a machine that really boots, and what of it outlives it: the data disk."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import machine as lab_machine
from lab.google import Google, drivers
from tests.e2e.cloud import Cloud
from tests.e2e.harness import wait
from tests.e2e.judges.gcloud import Gcloud

PLAYBOOK = "playbooks/provision.yml"
DISK = "dagster-e2e-data"
# Stands in for the engine: it notes on its data disk that it was started.
ENGINE = """[Unit]
Description=Notes its starts
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'date >> /var/lib/docker/starts'
[Install]
WantedBy=multi-user.target
"""
# Stands in for gcloud's tunnel: bytes from standard input to port 22 and back. It notes how it was called.
GCLOUD = """#!/usr/bin/env python3
import os, pathlib, socket, sys, threading
with pathlib.Path(__file__).with_name("calls").open("a") as calls:
    calls.write(" ".join(sys.argv[1:]) + chr(10))
there = socket.create_connection(("ADDRESS", 22))
def forth():
    while data := os.read(0, 65536):
        there.sendall(data)
    there.shutdown(socket.SHUT_WR)
threading.Thread(target=forth, daemon=True).start()
while data := there.recv(65536):
    os.write(1, data)
"""
DATA_DISK = """- hosts: dagster
  gather_facts: false
  become: true
  tasks:
    - ansible.builtin.wait_for_connection: {timeout: 60}
    - ansible.builtin.import_role: {name: dataops.dagster_gce.gce_instance, tasks_from: data_disk}
"""


class Machine(Cloud):
    """The cloud with its one machine."""

    def ssh(self, command: str, check: bool = True) -> str:
        """Run a shell command as root, over the play's own SSH files; returns its standard output."""
        done = subprocess.run(
            ["ssh", "-F", f"{self.folder}/.ssh/ssh_config", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", self.host,
             "sudo", "bash", "-s"],
            input=command, text=True, capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def data_disk(self, *arguments: str) -> tuple[int, str]:
        """Run the entry point data_disk; returns how many tasks changed something, and what was printed."""
        playbook = self.folder / "data_disk.yml"
        playbook.write_text(DATA_DISK)
        played = self.play(str(playbook), "--diff", *arguments).ok()
        return played.changed, played.flat

    def boots(self) -> None:
        """Wait until it answers again; systemd alone waits 90 s for a disk that is not there."""

        def state() -> str:
            return self.ssh("systemctl is-system-running || true", check=False).strip()

        wait(lambda: state() in ("running", "degraded"), 240, "a machine that has booted", state)

    def mounts(self) -> dict[str, str]:
        """What of the data disk is seen where."""
        link = "/dev/disk/by-id/google-dagster-data"
        number = self.ssh(f"test ! -e {link} || stat --dereference --format=%Hr:%Lr {link}").strip()
        found = json.loads(self.ssh("findmnt --json --list --output TARGET,FSROOT,MAJ:MIN"))["filesystems"]
        return {entry["target"]: entry["fsroot"] for entry in found if entry["maj:min"] == number}


PLACES = {
    "/mnt/disks/dagster": "/",
    "/var/lib/docker": "/docker",
    "/var/lib/containerd": "/containerd",
    "/opt/dagster": "/dagster",
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    google = Google(tmp_path_factory.mktemp("google"), driver="container", options={"prefix": "e2e-provision"}).start()
    google.seed_project("example-e2e", services=[])
    try:
        machine = Machine(google, tmp_path_factory.mktemp("inventory"))
        machine.write(gce_network_cidr=lab_machine.SUBNET, gce_instance_data_disk_gb=10, gce_instance_boot_disk_gb=10)
        machine.play(PLAYBOOK).ok()
        yield machine
        assert google.violations == []
    finally:
        drivers.of(google).remove_all()  # type: ignore[attr-defined]  # the container driver's own
        google.stop()


@pytest.fixture(scope="module")
def mounted(machine: Machine) -> Machine:
    changed, output = machine.data_disk("--check")
    assert changed == 1
    assert "file system: ext4 of 10.0 GiB" in output
    assert "/var/lib/docker" not in machine.mounts()
    machine.data_disk()
    machine.ssh(f"cat > /etc/systemd/system/docker.service <<'E'\n{ENGINE}E\nsystemctl enable --now docker.service")
    machine.ssh("echo POSTGRES_PASSWORD=kept > /opt/dagster/.env && chmod 600 /opt/dagster/.env; sync")
    return machine


def test_it_is_reached_with_the_keys_that_google_told(machine: Machine) -> None:
    assert machine.ssh("whoami").strip() == "root"
    known = machine.folder / ".ssh/known_hosts"
    kept = known.read_text()
    known.write_text("\n".join(line[:-8] + "AAAAAAAA" for line in kept.splitlines()) + "\n")
    try:
        with pytest.raises(AssertionError, match="Host key verification failed"):
            machine.ssh("true")
    finally:
        known.write_text(kept)


def test_a_play_through_iap_takes_one_tunnel(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(GCLOUD.replace("ADDRESS", machine.instance["networkInterfaces"][0]["networkIP"]))
    gcloud.chmod(0o755)
    # A folder of its own: the connection that other tests have left open would do. (Names of sockets have to be short.)
    with tempfile.TemporaryDirectory(prefix="cp") as sockets:
        monkeypatch.setenv("ANSIBLE_SSH_CONTROL_PATH_DIR", sockets)
        machine.play("playbooks/reach.yml", gce_ssh_via="iap", gce_instance_gcloud=str(gcloud)).ok()
        machine.data_disk("--check")
        for control in Path(sockets).iterdir():
            subprocess.run(["ssh", "-o", f"ControlPath={control}", "-O", "exit", machine.host], check=False)
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"compute start-iap-tunnel {machine.host} 22 --listen-on-stdin --project=example-e2e --zone=europe-west3-c "
        "--verbosity=warning"
    ]
    machine.play("playbooks/reach.yml").ok()


def test_gcloud_itself_leads_ssh_and_ansible_through_iap(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Gcloud.there():
        pytest.skip("gcloud is not on PATH")
    for name, value in Gcloud(machine.google, tmp_path / "gcloud", machine.project, machine.zone).environment.items():
        monkeypatch.setenv(name, value)
    before = len(machine.google.tunnels)
    with tempfile.TemporaryDirectory(prefix="cp") as sockets:
        monkeypatch.setenv("ANSIBLE_SSH_CONTROL_PATH_DIR", sockets)
        try:
            machine.play("playbooks/reach.yml", gce_ssh_via="iap").ok()
            assert machine.ssh("whoami").strip() == "root"
            machine.data_disk("--check")
            for control in Path(sockets).iterdir():
                subprocess.run(["ssh", "-o", f"ControlPath={control}", "-O", "exit", machine.host], check=False)
        finally:
            machine.play("playbooks/reach.yml").ok()
    tunnels = machine.google.tunnels[before:]
    # Ansible's and that of ssh itself.
    assert len(tunnels) == 2
    assert {tunnel["instance"] for tunnel in tunnels} == {machine.host}


def test_the_second_run_changes_nothing(mounted: Machine) -> None:
    assert mounted.play(PLAYBOOK, "--diff").ok().changed == 0
    assert mounted.data_disk()[0] == 0
    assert mounted.mounts() == PLACES


def test_everything_is_there_after_a_reboot_before_the_engine_starts(mounted: Machine) -> None:
    before = len(mounted.ssh("cat /var/lib/docker/starts").splitlines())
    mounted.behind_our_back("compute.instances.reset")
    mounted.boots()
    assert mounted.mounts() == PLACES
    assert len(mounted.ssh("cat /var/lib/docker/starts").splitlines()) == before + 1
    assert mounted.data_disk()[0] == 0


def test_the_engine_does_not_start_with_empty_folders(mounted: Machine) -> None:
    disk = {"deviceName": "dagster-data"}
    mounted.behind_our_back("compute.instances.stop")
    mounted.behind_our_back("compute.instances.detachDisk", **disk)
    mounted.behind_our_back("compute.instances.start")
    mounted.boots()
    assert mounted.mounts() == {}
    assert mounted.ssh("systemctl is-active docker.service || true").strip() == "inactive"
    assert mounted.ssh("ls -A /var/lib/docker /opt/dagster | grep -v :$ || true").strip() == ""
    # The next run attaches it again.
    assert mounted.play(PLAYBOOK).ok().changed >= 1
    assert mounted.data_disk()[0] == 1
    assert mounted.ssh("cat /opt/dagster/.env").strip() == "POSTGRES_PASSWORD=kept"


def test_another_machine_comes_up_with_what_the_first_has_left(mounted: Machine) -> None:
    first = mounted.instance["id"]
    mounted.play("playbooks/destroy.yml", gce_destroy="e2e").ok()
    assert mounted.thing("instances", mounted.host) is None
    assert mounted.thing("disks", DISK)
    mounted.play(PLAYBOOK).ok()
    assert mounted.instance["id"] != first
    assert mounted.data_disk()[0] == 1
    assert mounted.mounts() == PLACES
    assert mounted.ssh("cat /opt/dagster/.env").strip() == "POSTGRES_PASSWORD=kept"


def test_a_lost_disk_comes_back_from_the_last_snapshot(mounted: Machine) -> None:
    mounted.play("playbooks/destroy.yml", gce_destroy="e2e", gce_destroy_data=DISK).ok()
    assert mounted.thing("disks", DISK) is None
    snapshots = [key.rsplit("/", 1)[1] for key in mounted.google.state.copy()[0] if "/snapshots/" in key]
    last = sorted(snapshots)[-1]
    # The disk comes back larger than it was: the file system grows before it is mounted.
    mounted.play(PLAYBOOK, gce_instance_data_disk_snapshot=last, gce_instance_data_disk_gb=12).ok()
    changed, output = mounted.data_disk()
    assert changed == 1
    assert "file system: ext4 of 12.0 GiB" in output
    assert mounted.ssh("cat /opt/dagster/.env").strip() == "POSTGRES_PASSWORD=kept"


def test_data_that_would_be_hidden_is_refused(mounted: Machine, tmp_path: Path) -> None:
    mounted.ssh(
        "systemctl disable --now docker.service; umount /var/lib/docker; mkdir /var/lib/docker/overlay2; sleep 0.5"
    )
    playbook = tmp_path / "data_disk.yml"
    playbook.write_text(DATA_DISK)
    mounted.play(str(playbook)).refused(
        "The data disk cannot be used as it is. Nothing was changed.", "/var/lib/docker: found data (overlay2)"
    )
