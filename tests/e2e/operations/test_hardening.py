"""What the role host_hardening closes is closed, tried from where an attacker would stand; and nobody is locked out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from lab import images
from lab import machine as lab_machine
from tests.e2e.harness import LONG, ROOT, Machine, long_form, wait

HERE = Path(__file__).parent
# `make test-faults` takes the long form.
METADATA = "169.254.169.254"


@pytest.fixture(scope="module")
def harden(machine: Machine) -> Any:
    """The role alone, with variables."""
    playbook = ROOT / "build" / "host_hardening.yml"
    role = {"ansible.builtin.import_role": {"name": "dataops.dagster_gce.host_hardening"}}
    playbook.write_text(
        json.dumps([{"hosts": "dagster", "become": True, "gather_facts": False, "tasks": [role]}]), encoding="utf-8"
    )

    def run(*arguments: str, **variables: Any) -> Any:
        return machine.play(str(playbook), *arguments, **variables)

    return run


def run_here(machine: Machine, program: str, *arguments: str, timeout: float = 120) -> str:
    """Run a program of this folder on the machine."""
    source = (HERE / program).read_text(encoding="utf-8")
    return machine.ssh(f"python3 - {' '.join(arguments)} <<'E'\n{source}\nE", timeout=timeout)


# --- the metadata server -------------------------------------------------------------------------------------------


@pytest.fixture
def metadata(machine: Machine) -> Iterator[None]:
    """Something that answers at the metadata server's address, beyond the machine."""
    run_here(machine, "neighbour.py", "up")
    wait(
        lambda: "token" in machine.ssh(f"curl -s -m 2 http://{METADATA}/", check=False),
        20,
        "an answer of the neighbour",
    )
    yield
    run_here(machine, "neighbour.py", "down")


def reaches(machine: Machine, port: int = 80) -> dict[str, bool]:
    """Which containers can open a connection to the metadata server."""
    connect = f'timeout 4 bash -c "</dev/tcp/{METADATA}/{port}" 2>/dev/null'
    script = f"""
    served=$(docker ps --filter label=dataops.dagster_gce=release --format '{{{{.Names}}}}' | tail -1)
    for name in dagster-webserver dagster-daemon dagster-postgres dagster-engine-proxy $served; do
        docker exec $name {connect} && echo $name yes || echo $name no
    done
    image=$(docker inspect -f '{{{{.Image}}}}' $served)
    for network in dagster-network bridge; do
        docker run --rm --network $network --entrypoint sh $image -c '{connect}' \
            && echo $network yes || echo $network no
    done
    """
    found = dict(line.split() for line in machine.ssh(script).splitlines())
    return {("release" if name.startswith("docker_") else name): answer == "yes" for name, answer in found.items()}


CLOSED = {
    "dagster-webserver": False,
    "dagster-daemon": False,
    "dagster-postgres": False,
    "dagster-engine-proxy": False,
    "bridge": False,
}


@pytest.mark.usefixtures("metadata")
def test_the_metadata_server_is_closed_to_who_does_not_need_it(machine: Machine, harden: Any) -> None:
    # A container like a run's is on dagster-network: it needs the token, in mode `attached`.
    assert reaches(machine) == {**CLOSED, "release": True, "dagster-network": True}
    # Name resolution comes from the same address at Google.
    names = reaches(machine, 53)
    assert names.pop("dagster-engine-proxy") is False
    assert all(names.values()), names
    try:
        if LONG:
            machine.ssh("systemctl restart docker && until docker info >/dev/null 2>&1; do sleep 0.2; done")
            assert reaches(machine) == {**CLOSED, "release": True, "dagster-network": True}
            harden(host_hardening_metadata="none").ok()
            assert not any(reaches(machine).values())
        # The test can fail: without the rules everybody but the proxy gets through.
        harden(host_hardening_metadata="all").ok()
        found = reaches(machine)
        assert found.pop("dagster-engine-proxy") is False
        assert all(found.values()), found
    finally:
        harden().ok()


def test_rules_that_somebody_flushed_come_back(machine: Machine, harden: Any) -> None:
    # Docker's own would come back with its next start: ours alone.
    machine.ssh("nft delete table inet dagster_gce")
    checked = harden("--check", "--diff").ok()
    assert (checked.changed, "the rules are not loaded" in checked.output) == (1, True)
    assert harden().ok().changed == 1
    assert "chain metadata" in machine.ssh("nft list table inet dagster_gce")
    assert harden().ok().changed == 0


# --- ports ---------------------------------------------------------------------------------------------------------


def test_only_ssh_is_open_to_another_machine(machine: Machine) -> None:
    """All TCP ports, from another container of the lab's network."""
    client = docker.from_env()
    networks = client.containers.get(lab_machine.container_name(machine.name)).attrs["NetworkSettings"]["Networks"]
    address = networks[lab_machine.NETWORK]["IPAddress"]
    source = (HERE / "scan.py").read_text(encoding="utf-8")
    said = client.containers.run(
        images.MACHINE, ["python3", "-c", source, address], network=lab_machine.NETWORK, entrypoint="", remove=True,
        labels={lab_machine.LABEL: "scan"},
    )  # fmt: skip
    assert json.loads(said) == {"tcp": [22], "udp": []}


@long_form
@pytest.mark.usefixtures("metadata")
def test_only_ssh_is_open_over_ipv6(machine: Machine) -> None:
    """The lab's network has no IPv6; a namespace beside the machine has."""
    source = (HERE / "scan.py").read_text(encoding="utf-8")
    said = machine.ssh(f"ip netns exec metadata python3 - fd20:ce::1 <<'E'\n{source}\nE", timeout=180)
    assert json.loads(said) == {"tcp": [22], "udp": []}


@long_form
def test_a_program_that_the_firewall_would_cut_off_is_named(machine: Machine, harden: Any) -> None:
    machine.ssh("systemd-run --quiet --unit=somebodys --collect python3 -m http.server 8443")
    try:
        wait(lambda: "8443" in machine.ssh("ss -Hltn"), 20, "a server on port 8443")
        harden(host_hardening_reboot_at="05:00", host_hardening_metadata="none").refused(
            "host_hardening_open_ports: found python3 on 0.0.0.0:8443", "Nothing was changed"
        )
        assert "05:00" not in machine.ssh("cat /etc/apt/apt.conf.d/52dagster-gce-upgrades")
        harden(host_hardening_open_ports=[8443]).ok()
        assert "tcp dport { 22, 8443 } accept" in machine.ssh("nft list table inet dagster_gce")
    finally:
        machine.ssh("systemctl stop somebodys")
        harden().ok()


# --- SSH -----------------------------------------------------------------------------------------------------------


def ssh(machine: Machine, *options: str, user: str = "") -> subprocess.CompletedProcess[str]:
    """A connection of its own, with options."""
    command = [*lab_machine.ssh_command(machine.name)]
    own = ["-o", "ControlPath=none", "-o", "ControlMaster=no", "-o", "ConnectTimeout=10", "-o", "BatchMode=yes"]
    who = ["-l", user] if user else []
    return subprocess.run(
        [command[0], *own, *options, *who, *command[1:], "true"],
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )


def test_what_ssh_refuses(machine: Machine) -> None:
    assert ssh(machine).returncode == 0
    passwords = ssh(
        machine, "-o", "PreferredAuthentications=password,keyboard-interactive", "-o", "PubkeyAuthentication=no"
    )
    assert (passwords.returncode, "Permission denied (publickey)" in passwords.stderr) == (255, True), passwords.stderr
    # Root has the same key, and may not come in with it.
    machine.ssh("mkdir -p /root/.ssh && cp /home/ansible/.ssh/authorized_keys /root/.ssh/")
    try:
        assert ssh(machine, user="root").returncode == 255
    finally:
        machine.ssh("rm /root/.ssh/authorized_keys")
    for old in ("KexAlgorithms=diffie-hellman-group14-sha256", "MACs=hmac-sha1", "Ciphers=aes128-cbc"):
        refused = ssh(machine, "-o", old, *(["-o", "Ciphers=aes128-ctr"] if old.startswith("MACs") else []))
        assert (refused.returncode, "no matching" in refused.stderr) == (255, True), (old, refused.stderr)
    remote = ssh(machine, "-o", "ExitOnForwardFailure=yes", "-R", "18080:127.0.0.1:3000")
    assert remote.returncode == 255, "a port of the machine was forwarded to the caller's side"
    # What the UI needs.
    assert machine.locations()["dagster_core"].loaded


def test_a_configuration_that_sshd_refuses_is_not_put_in_place(machine: Machine, harden: Any) -> None:
    before = machine.ssh("cat /etc/ssh/sshd_config.d/00-dagster-gce.conf")
    harden(host_hardening_ssh_options={"MACs": "nonsense"}).refused("sshd refuses", "nonsense", "Nothing was changed")
    assert machine.ssh("cat /etc/ssh/sshd_config.d/00-dagster-gce.conf") == before


def test_a_configuration_that_lets_nobody_in_takes_itself_back(machine: Machine, harden: Any) -> None:
    before = machine.ssh("cat /etc/ssh/sshd_config.d/00-dagster-gce.conf")
    played = harden(host_hardening_ssh_options={"AllowUsers": "nobody"}, host_hardening_ssh_undo_seconds=10)
    assert played.status != 0
    assert "unreachable=1" in played.output
    wait(lambda: ssh(machine).returncode == 0, 40, "a login after the old configuration is back")
    assert machine.ssh("cat /etc/ssh/sshd_config.d/00-dagster-gce.conf") == before
    assert harden().ok().changed == 0


# --- what it takes away again --------------------------------------------------------------------------------------


@long_form
def test_switched_off_it_leaves_nothing(machine: Machine, harden: Any) -> None:
    files = (
        "ls -d /etc/apt/apt.conf.d/52dagster-gce-upgrades /etc/systemd/system/*dagster-gce-firewall*"
        " /etc/*/*/00-dagster-gce.conf /etc/*/*/90-dagster-gce.conf /etc/systemd/*/80-dagster-gce-persistent.conf"
        " /etc/systemd/system/*/dagster-gce.conf /etc/sysctl.d/90-dagster-gce.conf 2>/dev/null"
    )
    assert len(machine.ssh(files, check=False).split()) >= 8
    try:
        harden(host_hardening_enabled=False).ok()
        assert machine.ssh(files, check=False).split() == []
        assert machine.ssh("nft list table inet dagster_gce 2>&1", check=False).startswith("Error")
        assert harden(host_hardening_enabled=False).ok().changed == 0
    finally:
        harden().ok()


def test_unattended_upgrades_accept_their_configuration(machine: Machine) -> None:
    said = machine.ssh("apt-config dump Unattended-Upgrade; unattended-upgrade --help >/dev/null && echo works")
    assert 'Unattended-Upgrade::Automatic-Reboot "false";' in said
    assert said.endswith("works\n")
    timer = machine.ssh("systemctl show apt-daily-upgrade.timer -p TimersCalendar -p Persistent -p RandomizedDelayUSec")
    assert "OnCalendar=*-*-* 03:30:00" in timer
    assert "Persistent=no" in timer
