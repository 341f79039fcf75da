"""What the role refuses: one clear error, and the machine as it was."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from testinfra.host import Host

from tests.scenario import Role

from .conftest import state

Refused = Callable[..., str]


def text_of(done: subprocess.CompletedProcess[str]) -> str:
    """What the run printed, on one line: a terminal's line breaks are not part of an error."""
    return " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def refused(host: Host, role: Role) -> Refused:
    """Run the role with these variables; it must fail and change nothing. Returns what it printed."""

    def run(**variables: Any) -> str:
        before = state(host)
        done = role(**variables)
        assert done.returncode != 0, done.stdout
        assert state(host) == before
        return text_of(done)

    return run


@contextmanager
def program(host: Host, path: str, text: str) -> Iterator[None]:
    """An executable on the machine, for a while."""
    host.check_output("mkdir -p $(dirname %s) && printf %s %s > %s && chmod 0755 %s", path, "%s", text, path, path)
    try:
        yield
    finally:
        host.check_output("rm %s", path)


@contextmanager
def os_release(host: Host, name: str, release: str) -> Iterator[None]:
    """The machine gives itself out as another distribution, for a while."""
    text = f'ID={name}\nVERSION_ID="{release}"\nPRETTY_NAME="{name} {release}"\n'
    host.check_output("cp /usr/lib/os-release /root/os-release && printf %s %s > /usr/lib/os-release", "%s", text)
    try:
        yield
    finally:
        host.check_output("mv /root/os-release /usr/lib/os-release")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("docker_engine_source", "podman"),
        ("docker_engine_source", ""),
        ("docker_engine_packages", [{"docker.io": "26"}]),
        ("docker_engine_host_packages", "git"),
        ("docker_engine_repository", "download.docker.com"),
        ("docker_engine_repository_key_checksum", "1500c1"),
        ("docker_engine_registry_mirrors", "http://registry.lab:5000"),
        ("docker_engine_daemon_overrides", "live-restore"),
        ("docker_engine_daemon_config", None),
        ("docker_engine_minimum_free_mb", "3 GB"),
        ("docker_engine_minimum_compose", "newest"),
        ("docker_engine_start_timeout", 0),
    ],
)
def test_inputs(refused: Refused, variable: str, value: object) -> None:
    printed = refused(**{variable: value})
    assert variable in printed
    assert "Inspect" not in printed  # the machine was not even looked at


def test_every_wrong_input_is_named_at_once(refused: Refused) -> None:
    printed = refused(docker_engine_repository="nowhere", docker_engine_minimum_compose="newest")
    assert "3 inputs are wrong" in printed  # the key's URL follows the repository's
    assert "docker_engine_repository: found 'nowhere'; expected a URL" in printed
    assert "docker_engine_minimum_compose: found 'newest'; expected a version" in printed


def test_unsupported_distribution(host: Host, refused: Refused) -> None:
    with os_release(host, "fedora", "43"):
        printed = refused()
    assert "found fedora 43; expected one of debian-12, debian-13, ubuntu-24.04" in printed


def test_debian_12_has_no_compose_v2(host: Host, refused: Refused) -> None:
    with os_release(host, "debian", "12"):
        printed = refused()
    assert "docker_engine_source: found distro on debian 12, which has no Compose v2; expected docker there" in printed


def test_engine_of_the_other_source(refused: Refused) -> None:
    printed = refused(docker_engine_source="docker")
    assert "docker_engine_source: found docker, but these packages from elsewhere are installed: docker.io" in printed
    assert "set docker_engine_source: distro" in printed


@pytest.mark.parametrize("path", ["/usr/local/bin/dockerd", "/opt/bin/docker", "/snap/bin/docker"])
def test_docker_that_no_package_owns(host: Host, refused: Refused, path: str) -> None:
    with program(host, path, "#!/bin/sh\nexit 1\n"):
        printed = refused()
    assert f"no Debian package owns it: found {path}; remove it first" in printed


def test_compose_that_is_too_old(host: Host, refused: Refused) -> None:
    answer = '{"SchemaVersion":"0.1.0","Vendor":"Docker Inc.","Version":"v2.3.3"}'
    path = "/usr/local/lib/docker/cli-plugins/docker-compose"
    with program(host, path, f"#!/bin/sh\necho '{answer}'\n"):
        printed = refused()
    assert f"docker_engine_minimum_compose: found Compose v2.3.3 in {path}; expected 2.24.0 or newer" in printed


def test_too_little_space(refused: Refused) -> None:
    printed = refused(docker_engine_minimum_free_mb=2**30)
    assert re.search(
        r"docker_engine_minimum_free_mb: found \d+ MB free for /var/lib/docker .*expected 1073741824", printed
    )


def test_hosts_in_daemon_json(refused: Refused) -> None:
    printed = refused(docker_engine_daemon_overrides={"hosts": ["tcp://0.0.0.0:2375"]})
    assert "docker_engine_daemon_overrides: found the key hosts; expected none" in printed


def test_live_restore_on_a_node_of_a_swarm(host: Host, refused: Refused, role: Role) -> None:
    assert role(docker_engine_live_restore=False).returncode == 0
    host.check_output("docker swarm init --advertise-addr 127.0.0.1")
    try:
        printed = refused(docker_engine_daemon_overrides={"live-restore": True})
        assert "found live-restore: true on a node of a swarm" in printed
        # The role's own default gives way.
        assert "changed=0" in text_of(role())
    finally:
        host.check_output("docker swarm leave --force")
        assert role().returncode == 0


def test_an_option_that_the_engine_does_not_know(refused: Refused) -> None:
    printed = refused(docker_engine_daemon_overrides={"log-drivr": "json-file"})
    assert "The engine refuses the daemon.json made of docker_engine_daemon_config" in printed
    assert "log-drivr" in printed


def test_an_option_that_the_engine_cannot_start_with(host: Host, container: Callable[..., str], role: Role) -> None:
    """dockerd --validate passes it, so this one costs a restart; containers and configuration are back as they were."""
    before = state(host)["daemon.json"]
    name = container()
    pid = host.check_output(f"docker inspect --format '{{{{.State.Pid}}}}' {name}")
    done = role(docker_engine_daemon_overrides={"storage-driver": "nonsense"})
    assert done.returncode != 0
    printed = text_of(done)
    assert "The engine does not start with the daemon.json made of" in printed
    assert "nonsense" in printed.split("The engine's last lines were")[1]
    assert host.check_output(f"docker inspect --format '{{{{.State.Pid}}}}' {name}") == pid
    assert state(host)["daemon.json"] == before
    assert "changed=0" in text_of(role())


def test_a_password_in_a_proxy_is_not_printed(role: Role) -> None:
    proxies = {"proxies": {"http-proxy": "http://user:canary-7f3a@127.0.0.1:9"}}
    try:
        done = role("--diff", docker_engine_daemon_overrides=proxies)
        assert done.returncode == 0, done.stdout
        assert "canary-7f3a" not in done.stdout + done.stderr
    finally:
        assert role().returncode == 0


def test_no_network(host: Host, role: Role) -> None:
    host.check_output("apt-get remove -qq --yes docker-buildx")
    host.check_output("echo 'Acquire::http::Proxy \"http://127.0.0.1:9\";' > /etc/apt/apt.conf.d/99test")
    try:
        before = state(host)
        done = role()
        assert done.returncode != 0, done.stdout
        assert state(host) == before
        printed = text_of(done)
        assert "apt could not install docker-buildx" in printed
        assert "(docker_engine_source: distro)" in printed
        assert re.search(r"E: Failed to fetch http://\S+ .*Could not connect to 127.0.0.1:9", printed)
    finally:
        host.check_output("rm /etc/apt/apt.conf.d/99test")
    assert role().returncode == 0
    assert host.package("docker-buildx").is_installed


def test_the_machine_is_still_good(role: Role) -> None:
    assert "changed=0" in text_of(role())


def test_overrides_reach_daemon_json(host: Host, role: Role) -> None:
    """One level deep, a key that is taken away, and back."""
    nofile = {"Name": "nofile", "Hard": 9999, "Soft": 9999}
    overrides = {"log-opts": {"max-size": "5m"}, "builder": None, "default-ulimits": {"nofile": nofile}}
    try:
        assert role(docker_engine_daemon_overrides=overrides).returncode == 0
        content = json.loads(host.file("/etc/docker/daemon.json").content_string)
        assert content["log-opts"] == {"max-size": "5m", "max-file": "5"}
        assert "builder" not in content
        assert host.check_output("docker run --rm python:3.13-slim sh -c 'ulimit -n'") == "9999"
    finally:
        assert role().returncode == 0


def test_an_engine_that_does_not_start_at_all(host: Host, role: Role) -> None:
    """Not for daemon.json's sake: the error may not say that the old file helped."""
    folder = "/etc/systemd/system/docker.service.d"
    host.check_output(f"mkdir -p {folder} && printf '[Service]\\nExecStartPre=/bin/false\\n' > {folder}/test.conf")
    host.check_output("systemctl daemon-reload")
    try:
        printed = text_of(role(docker_engine_daemon_overrides={"debug": True}))
        assert "The engine does not start, neither with the daemon.json" in printed
    finally:
        host.check_output(f"rm -r {folder} && systemctl daemon-reload")
    assert role().returncode == 0
    assert "debug" not in host.file("/etc/docker/daemon.json").content_string
