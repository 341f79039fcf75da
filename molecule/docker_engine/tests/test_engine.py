"""The engine that the role leaves behind, asked itself: what is in effect, not what is written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.scenario import Role, inspect

from .conftest import IMAGE

Container = Callable[..., str]


@pytest.fixture
def info(host: Host) -> dict[str, Any]:
    return dict(json.loads(host.check_output("docker info --format '{{json .}}'")))


def restart(host: Host) -> None:
    # docker.service allows three starts a minute.
    host.check_output("systemctl reset-failed docker.service && systemctl restart docker.service && docker version")


def test_service_runs_and_starts_at_boot(host: Host) -> None:
    service = host.service("docker")
    assert service.is_running
    assert service.is_enabled


def test_daemon_json(host: Host) -> None:
    file = host.file("/etc/docker/daemon.json")
    assert (file.user, file.group, file.mode) == ("root", "root", 0o644)
    content = json.loads(file.content_string)
    assert content["insecure-registries"] == ["registry.lab:5000"]  # of docker_engine_daemon_overrides
    assert content["live-restore"] is True


def test_daemon_json_is_in_effect(info: dict[str, Any]) -> None:
    assert info["LiveRestoreEnabled"] is True
    assert info["LoggingDriver"] == "json-file"
    assert "name=no-new-privileges" in info["SecurityOptions"]
    assert info["RegistryConfig"]["Mirrors"] == ["http://registry.lab:5000/"]


def test_plugins(info: dict[str, Any]) -> None:
    plugins = {plugin["Name"]: plugin["Version"] for plugin in info["ClientInfo"]["Plugins"]}
    major, minor = re.match(r"v?(\d+)\.(\d+)", plugins["compose"]).groups()  # type: ignore[union-attr]
    assert (int(major), int(minor)) >= (2, 18)
    assert "buildx" in plugins


def test_compose_and_buildx_work(host: Host) -> None:
    host.check_output(f"docker pull --quiet {IMAGE}")
    host.check_output(
        f"""mkdir -p /tmp/build && cd /tmp/build
        printf 'FROM {IMAGE}\\nRUN --mount=type=cache,target=/c echo built > /built\\n' > Dockerfile
        printf 'services:\\n  one:\\n    build: .\\n    image: test-build:1\\n    command: cat /built\\n' > compose.yml
        docker compose --progress quiet build && docker compose run --rm one | grep -qx built
        docker compose down && docker image rm test-build:1 && rm -r /tmp/build"""
    )


def test_host_packages(host: Host) -> None:
    assert host.package("ca-certificates").is_installed
    host.check_output("/usr/bin/python3 -c 'import yaml'")


def test_logs_are_rotated_and_bounded(host: Host, container: Container) -> None:
    # 130 MB of lines are more than the five files of 20 MB that are allowed.
    name = container(command="""python -c 'for _ in range(130_000): print("x" * 980)'""")
    host.check_output(f"docker wait {name}")
    log = Path(inspect(host, name)["LogPath"])
    sizes = [int(size) for size in host.check_output(f"stat -c %s {log}*").split()]
    assert len(sizes) == 5
    assert sum(sizes) < 5 * 20 * 1_050_000
    assert max(sizes) > 15_000_000


def test_no_process_of_a_container_gains_rights(host: Host, container: Container) -> None:
    name = container()
    assert re.search(r"NoNewPrivs:\s+1", host.check_output(f"docker exec {name} cat /proc/1/status"))


def test_memory_limits_hold(host: Host, container: Container) -> None:
    # Under cgroup v1 and v2 alike.
    name = container("--memory 64m --memory-swap 64m", "python -c 'bytearray(256 * 2**20)'")
    host.check_output(f"docker wait {name}")
    assert inspect(host, name)["State"]["OOMKilled"] is True


def test_containers_survive_a_restart_of_the_daemon(host: Host, container: Container) -> None:
    before = inspect(host, name := container())["State"]
    restart(host)
    after = inspect(host, name)["State"]
    assert after["Running"] is True
    assert (after["Pid"], after["StartedAt"]) == (before["Pid"], before["StartedAt"])


def test_containers_survive_the_role_on_a_daemon_without_live_restore(
    host: Host, container: Container, role: Role
) -> None:
    """Somebody's own engine, with containers in it, is what a first run may meet."""
    ours = host.file("/etc/docker/daemon.json").content_string
    host.check_output('echo \'{"registry-mirrors": ["http://registry.lab:5000"]}\' > /etc/docker/daemon.json')
    restart(host)
    assert host.check_output("docker info --format '{{.LiveRestoreEnabled}}'") == "false"
    before = inspect(host, name := container())["State"]
    done = role()
    assert done.returncode == 0, done.stdout + done.stderr
    after = inspect(host, name)["State"]
    assert (after["Pid"], after["Running"]) == (before["Pid"], True)
    assert host.file("/etc/docker/daemon.json").content_string == ours


def test_a_container_cannot_reach_what_listens_on_the_hosts_loopback(host: Host, container: Container) -> None:
    """With userland-proxy off, Docker sets route_localnet on the bridge, and this SYN to 127.0.0.1 is answered."""
    host.check_output("systemd-run --unit test-loopback python3 -m http.server 9999 --bind 127.0.0.1")
    try:
        host.check_output("timeout 20 sh -c 'until ss -ltn | grep -q 127.0.0.1:9999; do sleep 0.2; done'")
        name = container("--publish 127.0.0.1:9998:8000", "python -m http.server 8000")
        host.check_output(
            "timeout 20 sh -c 'until python3 -c \"from urllib.request import urlopen as u; "
            'u(\\"http://127.0.0.1:9998\\", timeout=2)" 2>/dev/null; do sleep 0.2; done\''
        )
        network = inspect(host, name)["NetworkSettings"]
        script = (Path(__file__).parent / "knock_on_loopback.py").read_text(encoding="utf-8")
        answer = host.check_output(
            "printf %s %s | docker exec --interactive %s python - %s %s 9999",
            "%s",
            script,
            name,
            network["IPAddress"],
            network["Gateway"],
        )
        assert answer == "silence"
    finally:
        host.run("systemctl stop test-loopback")


def test_a_run_without_a_change_is_one_look(role: Role) -> None:
    done = role("-vvv")
    assert re.search(r"changed=0 .*failed=0", done.stdout), done.stdout + done.stderr
    # Ansible's own search for Python is among them when nothing tells it the path.
    assert len(re.findall(r"SSH: EXEC", done.stdout)) <= 3


def test_a_daemon_that_has_not_read_its_configuration_is_restarted_once(host: Host, role: Role) -> None:
    """A play that was killed between daemon.json and the restart leaves this behind."""
    host.check_output("touch /etc/docker/daemon.json")
    first, second = role(), role()
    assert re.search(r"changed=1 .*failed=0", first.stdout), first.stdout + first.stderr
    assert re.search(r"changed=0 .*failed=0", second.stdout), second.stdout + second.stderr


def test_packets_are_no_larger_than_the_networks(host: Host, role: Role) -> None:
    """New networks, Compose's among them, take the size over; a network that is there keeps its own."""

    def size(command: str) -> str:
        return host.check_output(f"{command} cat /sys/class/net/eth0/mtu").strip()

    run = f"docker run --rm --network test-%s {IMAGE}"
    host.check_output("docker network create test-before")
    compose = (
        f"services: {{one: {{image: {IMAGE}}}}}\\nnetworks: {{default: {{name: test-compose, driver: bridge}}}}\\n"
    )
    host.check_output(f"mkdir -p /tmp/mtu && cd /tmp/mtu && printf '{compose}' > compose.yml")
    try:
        done = role(docker_engine_mtu=1460)
        assert done.returncode == 0, done.stdout + done.stderr
        host.check_output("docker network create test-after && cd /tmp/mtu && docker compose --progress quiet create")
        assert size(run % "before") == "1500"
        assert size(run % "after") == size(run % "compose") == size(f"docker run --rm {IMAGE}") == "1460"
        again = role(docker_engine_mtu=1460)
        assert re.search(r"changed=0 .*failed=0", again.stdout), again.stdout + again.stderr
    finally:
        host.run("cd /tmp/mtu && docker compose down; rm -r /tmp/mtu; docker network rm test-before test-after")
        done = role()
        assert done.returncode == 0, done.stdout + done.stderr
    assert size(f"docker run --rm {IMAGE}") == "1500"
