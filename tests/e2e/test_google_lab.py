"""Machines behind the lab's Google: what the API says happens to a real systemd, real disks and Google's own agent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from lab import images, machine
from lab.google import Google, Refusal, drivers
from tests.e2e.harness import ROOT, wait

PROJECT, ZONE = "example-lab", "europe-west3-c"
PLACE = {"project": PROJECT, "zone": ZONE}
VM = {**PLACE, "instance": "vm"}
DISK = "/dev/disk/by-id/google-data"
ACCOUNT = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default"
TOKEN, EMAIL = f"{ACCOUNT}/token", f"{ACCOUNT}/email"
# The token out of the metadata server's answer.
TAKE = "python3 -c 'import json, sys; print(json.load(sys.stdin)[\"access_token\"])'"
CAP_SYS_RESOURCE = 1 << 24


class World:
    """A Google with one network; ``vm`` is its machine."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder, self.prefix = folder, prefix
        self.google = self.open()
        self.google.seed_project(PROJECT)
        self.key = folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        self.call("networks.insert", {"project": PROJECT}, {"name": "net", "autoCreateSubnetworks": False})
        subnetwork = {"name": "sub", "network": "global/networks/net", "ipCidrRange": "10.128.0.0/20"}
        self.call("subnetworks.insert", {"project": PROJECT, "region": "europe-west3"}, subnetwork)

    def open(self) -> Google:
        """A Google that goes on from what is in the folder."""
        google = Google(self.folder, driver="container", options={"prefix": self.prefix})
        drivers.of(google)
        return google.start()

    def call(self, method: str, parameters: dict[str, str], body: Any = None) -> dict[str, Any]:
        return self.google.call(f"compute.{method}", parameters, body)

    def insert(self, *disks: dict[str, Any], **items: str) -> None:
        """Have the instance ``vm``."""
        image = {"sourceImage": "projects/debian-cloud/global/images/family/debian-13"}
        given = {"ssh-keys": f"ada:{self.public()}", "enable-guest-attributes": "TRUE"}
        given |= {name.replace("_", "-"): value for name, value in items.items()}
        body = {
            "name": "vm",
            "machineType": f"zones/{ZONE}/machineTypes/e2-small",
            "disks": [{"boot": True, "autoDelete": True, "initializeParams": image}, *disks],
            "networkInterfaces": [{"subnetwork": "regions/europe-west3/subnetworks/sub"}],
            "metadata": {"items": [{"key": key, "value": value} for key, value in given.items()]},
            "serviceAccounts": [{"email": "default", "scopes": ["https://www.googleapis.com/auth/cloud-platform"]}],
        }
        self.call("instances.insert", PLACE, body)

    def public(self) -> str:
        return self.key.with_suffix(".pub").read_text().strip()

    @property
    def address(self) -> str:
        found: str = self.call("instances.get", VM)["networkInterfaces"][0]["networkIP"]
        return found

    def host_keys(self) -> list[dict[str, str]]:
        """What the machine itself has told, and nobody else."""
        try:
            found = self.call("instances.getGuestAttributes", {**VM, "queryPath": "hostkeys/"})
        except Refusal:
            return []
        items: list[dict[str, str]] = found["queryValue"]["items"]
        return items

    def ssh_command(self, user: str = "ada", key: Path | None = None) -> list[str]:
        known = self.folder / "known_hosts"
        known.write_text("".join(f"{self.address} {item['key']} {item['value']}\n" for item in self.host_keys()))
        options = [f"UserKnownHostsFile={known}", "StrictHostKeyChecking=yes", "BatchMode=yes", "ConnectTimeout=5"]
        flags = [part for option in options for part in ("-o", option)]
        return ["ssh", "-F", "/dev/null", "-i", str(key or self.key), *flags, f"{user}@{self.address}"]

    def ready(self, user: str = "ada", key: Path | None = None) -> None:
        """Wait until the machine has told its keys and lets the user in."""
        wait(lambda: bool(self.host_keys()), 60, "host keys in the guest attributes")
        wait(
            lambda: subprocess.run([*self.ssh_command(user, key), "true"], capture_output=True).returncode == 0,
            60,
            "an SSH session",
            lambda: self.call("instances.getSerialPortOutput", VM)["contents"][-2000:],
        )

    def run(self, script: str) -> str:
        """Run a script as root on the machine."""
        # A second apart: Google's guest agent starts sshd again once, shortly after the first login is possible.
        ssh = ["ssh", "-o", "ConnectionAttempts=6", *self.ssh_command()[1:]]
        done = subprocess.run(
            [*ssh, "sudo", "bash", "-euo", "pipefail", "-s"],
            input=script, text=True, capture_output=True, timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def close(self) -> None:
        """Remove everything."""
        driver = drivers.of(self.google)
        driver.remove_all()  # type: ignore[attr-defined]  # the container driver's
        driver.close()
        self.google.stop()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    subprocess.run([sys.executable, "-m", "lab", "up"], cwd=ROOT, check=True)
    found = World(tmp_path_factory.mktemp("google"), f"e2e{os.getpid()}")
    found.call("disks.insert", PLACE, {"name": "data", "sizeGb": "10"})
    data = {"source": f"zones/{ZONE}/disks/data", "deviceName": "data"}
    found.insert(data, startup_script='#!/bin/sh\necho "by $(id -un)" >>/var/started\n')
    found.ready()
    found.run(f"mkfs.ext4 -q {DISK} && mkdir /data && mount {DISK} /data && echo first >/data/file && sync")
    yield found
    found.close()
    assert found.google.violations == []
    subprocess.run([sys.executable, "-m", "lab", "down"], cwd=ROOT, check=True)


def test_the_agent_makes_the_user_and_runs_the_script(world: World) -> None:
    assert world.run("getent passwd ansible || echo none") == "none\n"  # nobody whom the metadata does not name
    wait(lambda: "by root" in world.run("cat /var/started || true"), 30, "what the startup script writes")
    console = world.call("instances.getSerialPortOutput", VM)["contents"]
    assert "Creating user ada" in console
    assert "startup-script exit status 0" in console


def test_a_disk_has_googles_names(world: World) -> None:
    names = world.run("cd /dev/disk/by-id && ls").split()
    assert names == ["google-data", "scsi-0Google_PersistentDisk_data"]
    assert world.run(f"blockdev --getsize64 {DISK}").strip() == str(10 * 2**30)
    # systemd knows it, so it can be named in fstab.
    assert world.run(f'systemctl is-active "$(systemd-escape --path --suffix=device {DISK})"') == "active\n"


def test_a_disk_grows_while_it_is_in_use(world: World) -> None:
    world.call("disks.resize", {**PLACE, "disk": "data"}, {"sizeGb": "12"})
    assert (
        world.run(f"findmnt --noheadings --output TARGET {DISK}; blockdev --getsize64 {DISK}")
        == f"/data\n{12 * 2**30}\n"
    )
    capabilities = int(world.run("awk '/CapEff/ {print $2}' /proc/1/status"), 16)
    if capabilities & CAP_SYS_RESOURCE:
        world.run(f"resize2fs {DISK}")
    else:
        # What root of this computer may not do, a container may not either: the file system grows unmounted.
        world.run(f"umount /data && e2fsck -fp {DISK} && resize2fs {DISK} && mount {DISK} /data")
    assert int(world.run("df --output=size --block-size=1G /data | tail -1")) >= 11
    assert world.run("cat /data/file") == "first\n"


def test_a_snapshot_is_what_was_there(world: World) -> None:
    world.run("echo second >/data/file && sync")
    world.call("disks.createSnapshot", {**PLACE, "disk": "data"}, {"name": "kept"})
    world.run("echo third >/data/file && sync")
    world.call("disks.insert", PLACE, {"name": "copy", "sourceSnapshot": "global/snapshots/kept"})
    world.call("instances.attachDisk", VM, {"source": f"zones/{ZONE}/disks/copy", "deviceName": "copy"})
    copy = "/dev/disk/by-id/google-copy"
    assert world.run(f"mkdir /copy && mount {copy} /copy && cat /copy/file /data/file") == "second\nthird\n"
    # Pulled out in use: the name goes, and the disk is free for others.
    world.call("instances.detachDisk", {**VM, "deviceName": "copy"})
    assert world.run(f"ls {copy} 2>/dev/null || echo gone") == "gone\n"
    world.call("disks.delete", {**PLACE, "disk": "copy"})


def test_a_disk_goes_and_comes_back(world: World) -> None:
    world.run("umount /data")
    world.call("instances.detachDisk", {**VM, "deviceName": "data"})
    assert world.run(f"ls {DISK} 2>/dev/null || echo gone") == "gone\n"
    world.call("instances.attachDisk", VM, {"source": f"zones/{ZONE}/disks/data", "deviceName": "data"})
    assert world.run(f"mount {DISK} /data && cat /data/file") == "third\n"


def test_a_machine_type_is_changed_between_stop_and_start(world: World) -> None:
    world.run(f"echo '{DISK} /data ext4 nofail,x-systemd.device-timeout=30 0 2' >>/etc/fstab")
    before = world.host_keys()
    world.call("instances.stop", VM)
    assert world.call("instances.get", VM)["status"] == "TERMINATED"
    assert subprocess.run([*world.ssh_command(), "true"], capture_output=True).returncode == 255
    world.call("instances.setMachineType", VM, {"machineType": f"zones/{ZONE}/machineTypes/e2-medium"})
    world.call("instances.start", VM)
    world.ready()
    assert world.host_keys() == before
    wait(lambda: world.run("cat /data/file 2>/dev/null || true") == "third\n", 60, "the disk of fstab, mounted")
    url = "http://metadata.google.internal/computeMetadata/v1/instance/machine-type"
    assert world.run(f"curl -sf -H 'Metadata-Flavor: Google' {url}").endswith("/machineTypes/e2-medium")
    wait(lambda: world.run("cat /var/started") == "by root\nby root\n", 30, "the startup script's second run")


def test_a_key_in_the_metadata_lets_in_at_once(world: World) -> None:
    second = world.folder / "second"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(second)], check=True)
    metadata = world.call("instances.get", VM)["metadata"]
    items = {item["key"]: item["value"] for item in metadata["items"]}
    items["ssh-keys"] += f"\neve:{second.with_suffix('.pub').read_text().strip()}"
    body = {"fingerprint": metadata["fingerprint"], "items": [{"key": k, "value": v} for k, v in items.items()]}
    world.call("instances.setMetadata", VM, body)
    world.ready("eve", second)


def test_the_service_accounts_token(world: World) -> None:
    """In the machine and in a container in it; Google's API takes it, found by its own name and over verified TLS."""
    ask = f"curl -sf -H 'Metadata-Flavor: Google' {TOKEN}"
    token = world.run(f"{ask} | {TAKE}").strip()
    account = world.google.state.note("tokens")[token]["email"]
    assert account.endswith("-compute@developer.gserviceaccount.com")
    url = f"https://compute.googleapis.com/compute/v1/projects/{PROJECT}"
    shown = world.run(f"curl -sS -o /dev/null -w '%{{http_code}}' -H 'Authorization: Bearer {token}' {url}")
    assert shown == "403"  # known, but without a role
    packages = "docker.io docker-cli busybox-static"
    world.run(f"apt-get update -qq && apt-get install -qq --yes --no-install-recommends {packages} >/dev/null")
    world.run("tar -C /bin -c busybox | docker import - box >/dev/null && docker network create --driver bridge own")
    for network in ("bridge", "own"):
        wget = f"/busybox wget -q -O - --header 'Metadata-Flavor: Google' {TOKEN}"
        assert world.run(f"docker run --rm --network {network} box {wget} | {TAKE}").strip() == token


def test_an_image_from_artifact_registry(world: World) -> None:
    """The machine's engine finds the registry by Google's name, trusts it, and is let in as the service account."""
    place, repositories = (
        f"projects/{PROJECT}/locations/europe-west3",
        "artifactregistry.projects.locations.repositories",
    )
    world.google.registry = machine.registry_address(docker.from_env())
    world.google.call(f"{repositories}.create", {"parent": place, "repositoryId": "code"}, {"format": "DOCKER"})
    pushed = f"{world.google.registry}/europe-west3/{PROJECT}/code/base:1"
    for command in (["tag", images.DEBIAN, pushed], ["push", "-q", pushed], ["rmi", pushed]):
        subprocess.run(["docker", *command], check=True, capture_output=True)
    host = "europe-west3-docker.pkg.dev"
    login = (
        f"curl -sf -H 'Metadata-Flavor: Google' {TOKEN} | {TAKE} | docker login -u oauth2accesstoken --password-stdin"
    )
    pull = f"docker pull {host}/{PROJECT}/code/base:1 2>&1"
    world.run(f"{login} {host} 2>/dev/null")
    assert "denied" in world.run(f"{pull} || true").lower()
    account = "serviceAccount:" + world.run(f"curl -sf -H 'Metadata-Flavor: Google' {EMAIL}")
    policy = {"bindings": [{"role": "roles/artifactregistry.reader", "members": [account]}]}
    world.google.call(f"{repositories}.setIamPolicy", {"resource": f"{place}/repositories/code"}, {"policy": policy})
    assert f"Downloaded newer image for {host}/{PROJECT}/code/base:1" in world.run(pull)


def test_a_server_that_was_killed_finds_its_machines(world: World) -> None:
    before = world.run("cat /proc/sys/kernel/random/boot_id; systemctl show --property=UserspaceTimestamp")
    drivers.of(world.google).close()
    world.google.stop()
    world.google = world.open()
    assert world.call("instances.get", VM)["status"] == "RUNNING"
    assert world.run("cat /proc/sys/kernel/random/boot_id; systemctl show --property=UserspaceTimestamp") == before
    assert "access_token" in world.run(f"curl -sf -H 'Metadata-Flavor: Google' {TOKEN}")


def test_two_googles_share_a_computer(world: World, tmp_path: Path) -> None:
    other = World(tmp_path, f"{world.prefix}-other")
    try:
        other.insert()
        assert other.address != world.address
        other.ready()
        assert other.run("hostname") == world.run("hostname") == "vm\n"
        assert {item["value"] for item in other.host_keys()}.isdisjoint(item["value"] for item in world.host_keys())
    finally:
        other.close()


def test_os_login(world: World, tmp_path: Path) -> None:
    """Google's NSS and PAM modules ask who there is and who may: an owner gets in, with sudo; a stranger does not."""
    other = World(tmp_path, f"{world.prefix}-oslogin")
    try:
        names = []
        for email in (other.google.owner, "stranger@example.com"):
            who = {"parent": f"users/{email}", "projectId": PROJECT}
            other.google.call("oslogin.users.importSshPublicKey", who, {"key": other.public()}, email=email)
            profile = other.google.call("oslogin.users.getLoginProfile", {"name": f"users/{email}"}, email=email)
            names.append(profile["posixAccounts"][0]["username"])
        other.insert(enable_oslogin="TRUE")
        other.ready(names[0])
        command = [*other.ssh_command(names[0]), "sudo -n id --user && id --user --name"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert shown == f"0\n{names[0]}\n"
        refused = subprocess.run([*other.ssh_command(names[1]), "true"], capture_output=True, text=True, check=False)
        assert (refused.returncode, "Permission denied" in refused.stderr) == (255, True)
    finally:
        other.close()


def test_what_an_instance_leaves(world: World) -> None:
    start = time.monotonic()
    world.call("instances.delete", VM)
    assert time.monotonic() - start < 60
    assert [disk["name"] for disk in world.call("disks.list", PLACE)["items"]] == ["data"]
    labelled = f"label=dataops.dagster_gce.lab.google={world.folder}"
    for kind in (["ps", "-a"], ["volume", "ls"]):
        found = subprocess.run(
            ["docker", *kind, "-q", "--filter", labelled], capture_output=True, text=True, check=True
        )
        assert found.stdout == ""
    devices = [path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    assert not [device for device in devices if device.startswith(str(world.folder))]
    assert list((world.folder / "disks").glob("*.disks.data.raw"))
