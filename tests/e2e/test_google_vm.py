"""A virtual machine behind the lab's Google: Debian's cloud kernel, real SCSI disks, and Google's agent as the judge.

What containers show faster is in test_google_lab.py and test_provision_machine.py; here is what they cannot show.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import machine as lab_machine
from lab.google import Google, drivers
from tests.e2e.cloud import Cloud
from tests.e2e.harness import ROOT, long_form, wait
from tests.webserver import PATIENCE

PREFIX = "e2e-vm"
DISK = "dagster-e2e-data"
DEVICE = "/dev/disk/by-id/google-dagster-data"
STARTUP = '#!/bin/sh\necho "by $(id -un)" >>/var/started\n'
PLACES = ["/mnt/disks/dagster", "/opt/dagster", "/var/lib/containerd", "/var/lib/docker"]
# Stands in for the engine.
ENGINE = """[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
[Install]
WantedBy=multi-user.target
"""
# An emulated processor, and other tests beside it.
BOOT_SECONDS = 300
DATA_DISK = """- hosts: dagster
  gather_facts: false
  become: true
  tasks:
    - ansible.builtin.import_role: {name: dataops.dagster_gce.gce_instance, tasks_from: data_disk}
"""
READY = """- hosts: dagster
  gather_facts: false
  connection: local
  environment: "{{ gce_api_environment }}"
  tasks:
    - dataops.dagster_gce.gce_instance_ready:
        {project: "{{ gcp_project }}", zone: "{{ gce_zone }}", name: never, wait: 15, console_lines: 12}
      vars: {ansible_python_interpreter: "{{ ansible_playbook_python }}"}
"""

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the lab's virtual machines are x86_64 only")


class VirtualMachine(Cloud):
    """The cloud with its one machine."""

    def ssh_command(self, user: str = "", key: Path | None = None) -> list[str]:
        """With the files that the play has written; ``user`` and ``key`` in place of its own."""
        own = ["-o", "IdentitiesOnly=yes", "-o", f"IdentityFile={key}", "-l", user] if key else []
        # Google's agent restarts sshd a second after it has made a user: connections are refused for a moment.
        patience = ["-o", "ConnectTimeout=30", "-o", "ConnectionAttempts=10"]
        return ["ssh", "-F", f"{self.folder}/.ssh/ssh_config", "-o", "BatchMode=yes", *patience, *own, self.host]

    def ssh(self, script: str) -> str:
        """Run a script as root; returns its standard output."""
        done = subprocess.run(
            [*self.ssh_command(), "sudo", "bash", "-euo", "pipefail", "-s"],
            input=script, text=True, capture_output=True, timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}\n{self.console()[-2000:]}"
        return done.stdout

    def lets_in(self, user: str = "", key: Path | None = None) -> bool:
        """Whether it does, with host keys that are known."""
        return subprocess.run([*self.ssh_command(user, key), "true"], capture_output=True).returncode == 0

    def boots(self) -> None:
        """Wait until it lets us in."""
        wait(self.lets_in, BOOT_SECONDS, "an SSH session", lambda: self.console()[-3000:])

    def call(self, method: str, body: Any = None, **parameters: str) -> dict[str, Any]:
        """A method of compute's, in this machine's zone."""
        given = {"project": self.project, "zone": self.zone, **parameters}
        return self.google.call(f"compute.{method}", given, body)

    def console(self, instance: str = "") -> str:
        """What came out of the serial port."""
        found: str = self.call("instances.getSerialPortOutput", instance=instance or self.host)["contents"]
        return found

    def data_disk(self) -> str:
        """Run the entry point data_disk; returns what was printed, with what has changed."""
        playbook = self.folder / "data_disk.yml"
        playbook.write_text(DATA_DISK)
        return self.play(str(playbook), "--diff").ok().output

    def mounts(self) -> list[str]:
        """Where the data disk is seen."""
        return sorted(
            self.ssh(f"findmnt --noheadings --output TARGET --source $(readlink -f {DEVICE}) || true").split()
        )


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMachine]:
    subprocess.run([sys.executable, "-m", "lab", "up"], cwd=ROOT, check=True)
    google = Google(tmp_path_factory.mktemp("google"), driver="vm", options={"prefix": PREFIX}).start()
    google.seed_project("example-e2e", services=[])
    try:
        found = VirtualMachine(google, tmp_path_factory.mktemp("inventory"))
        found.write(
            gce_network_cidr=lab_machine.SUBNET,
            gce_instance_data_disk_gb=10,
            gce_instance_boot_disk_gb=10,
            gce_instance_metadata={"startup-script": STARTUP},
            gce_instance_deletion_protection=False,
            gce_instance_ready_timeout=int(BOOT_SECONDS * PATIENCE),
        )
        found.play("playbooks/provision.yml").ok()
        found.boots()
        yield found
        assert google.violations == []
    finally:
        drivers.of(google).remove_all()  # type: ignore[attr-defined]  # the container driver's own
        google.stop()
        subprocess.run([sys.executable, "-m", "lab", "down"], cwd=ROOT, check=True)


def test_it_boots_a_kernel_of_its_own(vm: VirtualMachine) -> None:
    assert "-cloud-amd64" in vm.ssh("uname -r")
    assert platform.release() not in vm.ssh("uname -r")
    assert vm.ssh("hostname; id -un") == f"{vm.host}\nroot\n"
    # The prompt may come after the first session.
    wait(lambda: f"{vm.host} login:" in vm.console(), 60, "a login prompt", lambda: vm.console()[-3000:])
    for words in ("Linux version 6.", "Reached target"):
        assert words in vm.console()


def test_googles_agent_does_what_the_metadata_says(vm: VirtualMachine) -> None:
    # Nobody but the user of the key, whom the agent has made.
    assert vm.ssh("awk -F: '$3 >= 1000 && $3 < 60000 {print $1}' /etc/passwd") == "ansible\n"
    wait(lambda: "by root" in vm.ssh("cat /var/started || true"), 60, "what the startup script writes")
    wait(
        lambda: "startup-script exit status 0" in vm.console(),
        30,
        "the script's end on the console",
        lambda: vm.console()[-3000:],
    )
    assert "Creating user ansible" in vm.console()


def test_its_host_keys_are_those_that_it_told(vm: VirtualMachine) -> None:
    """The agent made them at this boot; the image has none."""
    items = vm.call("instances.getGuestAttributes", instance=vm.host, queryPath="hostkeys/")["queryValue"]["items"]
    own = vm.ssh("cut -d' ' -f1,2 /etc/ssh/ssh_host_*_key.pub").splitlines()
    assert sorted(f"{item['key']} {item['value']}" for item in items) == sorted(own)
    known = vm.folder / ".ssh/known_hosts"
    kept = known.read_text()
    known.write_text("\n".join(line[:-8] + "AAAAAAAA" for line in kept.splitlines()) + "\n")
    try:
        assert not vm.lets_in()
    finally:
        known.write_text(kept)


def test_the_data_disk_is_formatted_and_mounted(vm: VirtualMachine) -> None:
    by_id = vm.ssh("cd /dev/disk/by-id && ls").split()
    assert {"google-dagster-data", "scsi-0Google_PersistentDisk_dagster-data"} <= set(by_id)
    assert "changed=1" in vm.data_disk()
    assert vm.mounts() == PLACES
    # The folders are mounted at a boot for the services that need them.
    vm.ssh(f"echo '{ENGINE}' >/etc/systemd/system/docker.service && systemctl enable --quiet --now docker.service")
    vm.ssh("echo kept >/opt/dagster/file && sync")
    assert "changed=0" in vm.data_disk()


def test_the_data_disk_grows_in_use(vm: VirtualMachine) -> None:
    """Mounted all the time: here root may do what in a container it often may not."""
    vm.call("disks.resize", {"sizeGb": "12"}, disk=DISK)
    wait(lambda: vm.ssh(f"blockdev --getsize64 {DEVICE}").strip() == str(12 * 2**30), 30, "a disk of 12 GiB")
    assert "changed=1" in vm.data_disk()
    assert int(vm.ssh("df --output=size --block-size=1G /opt/dagster | tail -1")) >= 11
    assert vm.ssh("cat /opt/dagster/file") == "kept\n"


def test_a_disk_comes_and_goes(vm: VirtualMachine) -> None:
    vm.call("disks.insert", {"name": "more", "sizeGb": "10"})
    source = f"projects/{vm.project}/zones/{vm.zone}/disks/more"
    vm.call("instances.attachDisk", {"source": source, "deviceName": "more"}, instance=vm.host)
    link = "/dev/disk/by-id/google-more"
    wait(lambda: vm.ssh(f"ls {link} || true") == f"{link}\n", 30, "the disk")
    vm.call("instances.detachDisk", instance=vm.host, deviceName="more")
    wait(lambda: vm.ssh(f"ls {link} || true") == "", 30, "the disk's end")
    vm.call("disks.delete", disk="more")


def test_a_key_in_the_metadata_lets_in(vm: VirtualMachine) -> None:
    second = vm.folder / "second"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(second)], check=True)
    assert not vm.lets_in("eve", second)
    metadata = vm.instance["metadata"]
    items = {item["key"]: item["value"] for item in metadata["items"]}
    items["ssh-keys"] += f"\neve:{second.with_suffix('.pub').read_text().strip()}"
    body = {"fingerprint": metadata["fingerprint"], "items": [{"key": k, "value": v} for k, v in items.items()]}
    vm.call("instances.setMetadata", body, instance=vm.host)
    wait(lambda: vm.lets_in("eve", second), 60, "an SSH session with the new key", lambda: vm.console()[-3000:])


def test_a_server_that_was_killed_finds_its_machine(vm: VirtualMachine) -> None:
    """Listening on other ports, to which the machine is led anew."""
    drivers.of(vm.google).close()
    before = dict(vm.google.state.note("driver"))
    vm.google.state.note("driver").clear()
    vm.google.driver = None
    drivers.of(vm.google)
    assert vm.google.state.note("driver") != before
    token = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
    assert "access_token" in vm.ssh(f"curl -sf --max-time 20 -H 'Metadata-Flavor: Google' {token}")


@long_form
def test_it_comes_back_after_a_stop(vm: VirtualMachine) -> None:
    """Shut down in order, with the power button; mounts and host keys are those of before."""
    vm.call("instances.stop", instance=vm.host)
    assert vm.instance["status"] == "TERMINATED"
    vm.call("instances.start", instance=vm.host)
    vm.boots()
    wait(lambda: vm.mounts() == PLACES, 60, str(PLACES), vm.mounts)
    assert vm.ssh("cat /opt/dagster/file") == "kept\n"
    assert "recovering journal" not in vm.console()


def test_what_a_machine_leaves(vm: VirtualMachine) -> None:
    folder = str(vm.google.folder)
    before = processes(folder)
    assert len(before) == 1
    assert "qemu-system" in before[0]
    vm.call("instances.delete", instance=vm.host)
    assert processes(folder) == []
    for kind in (["ps", "-a"], ["volume", "ls"]):
        label = f"label=dataops.dagster_gce.lab.google={folder}"
        done = subprocess.run(["docker", *kind, "-q", "--filter", label], capture_output=True, text=True, check=True)
        assert done.stdout == ""
    # Its interface and its routes were in the container; this computer never had them.
    assert not [found for found in Path("/sys/class/net").iterdir() if found.name.startswith("tap")]
    assert [file.name for file in (vm.google.folder / "disks").iterdir()] == [
        f"projects.{vm.project}.zones.{vm.zone}.disks.{DISK}.raw"
    ]


@long_form
def test_a_machine_that_does_not_boot_is_told_by_its_console(vm: VirtualMachine) -> None:
    vm.google.state.note("machines")["boot"] = "never"
    body = {
        "name": "never",
        "machineType": f"zones/{vm.zone}/machineTypes/e2-small",
        "disks": [{"boot": True, "autoDelete": True,
                   "initializeParams": {"sourceImage": "projects/debian-cloud/global/images/family/debian-13"}}],
        "networkInterfaces": [{"subnetwork": f"regions/{vm.zone[:-2]}/subnetworks/dagster-subnetwork-e2e"}],
        "metadata": {"items": [{"key": "enable-guest-attributes", "value": "TRUE"}]},
    }  # fmt: skip
    vm.call("instances.insert", body)
    wait(
        lambda: "Dropping to a shell" in vm.console("never"),
        120,
        "a kernel without a root",
        lambda: vm.console("never"),
    )
    playbook = vm.folder / "ready.yml"
    playbook.write_text(READY)
    vm.play(str(playbook)).refused(
        "instance never in europe-west3-c runs, but has not published its SSH host keys within 15 s",
        "ALERT!",
        "LABEL=nowhere does not exist",
    )
    vm.call("instances.delete", instance="never")


def processes(folder: str) -> list[str]:
    """The command lines that name a folder, but this test's own."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if folder in line and "qemu" in line:
            found.append(line)
    return found
