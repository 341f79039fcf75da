"""docker_engine_source: docker, from a signed repository on the machine itself, over what the other tests have left.

Docker's own repository is not asked here; README.md says what that leaves untested.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.scenario import Role

from .conftest import state

URL = "http://127.0.0.1:9970"
SOURCES = "/etc/apt/sources.list.d/docker.sources"
KEYRING = "/etc/apt/keyrings/docker.asc"
PACKAGES = ("docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin")


@pytest.fixture(scope="module")
def repository(host: Host) -> Iterator[dict[str, Any]]:
    """The variables that point the role to the repository, on a machine without Docker."""
    host.check_output("apt-get -qq --yes purge docker.io docker-cli docker-compose docker-buildx containerd runc")
    host.check_output("rm -rf /etc/docker")
    script = (Path(__file__).parent / "make_repository.sh").read_text(encoding="utf-8")
    host.check_output("printf %s %s > /tmp/make_repository.sh", "%s", script)
    host.check_output("sh /tmp/make_repository.sh /srv/repository trixie 9970")
    digest = host.check_output("sha256sum /srv/repository/debian/gpg").split()[0]
    yield {
        "docker_engine_source": "docker",
        "docker_engine_repository": URL,
        "docker_engine_repository_key_checksum": f"sha256:{digest}",
    }
    host.run("systemctl stop test-repository")


@pytest.fixture
def bare(host: Host, repository: dict[str, Any]) -> dict[str, Any]:
    assert not host.exists("dockerd")
    return repository


def apt(host: Host) -> dict[str, str]:
    return {
        "packages": host.check_output("dpkg-query -W | sha256sum"),
        "sources": host.check_output("find /etc/apt -type f -exec sha256sum {} + | sort"),
    }


def test_check_mode_on_a_bare_machine(host: Host, role: Role, bare: dict[str, Any]) -> None:
    before = apt(host)
    done = role("--check", "--diff", **bare)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"+URIs: {URL}/debian" in done.stdout
    assert "docker-ce-cli" in done.stdout
    assert apt(host) == before


def test_a_key_that_is_not_the_expected_one(host: Host, role: Role, bare: dict[str, Any]) -> None:
    before = apt(host)
    done = role(**{**bare, "docker_engine_repository_key_checksum": "sha256:" + "0" * 64})
    assert done.returncode != 0
    assert f"from {URL}/debian/gpg (docker_engine_repository_key); expected sha256:000" in " ".join(done.stdout.split())
    assert apt(host) == before


def test_a_repository_that_does_not_answer(host: Host, role: Role, bare: dict[str, Any]) -> None:
    before = apt(host)
    done = role(**{**bare, "docker_engine_repository": "http://127.0.0.1:9"})
    assert done.returncode != 0
    assert "http://127.0.0.1:9/debian/gpg" in done.stdout
    assert apt(host) == before


def test_a_repository_that_somebody_else_signed(host: Host, role: Role, bare: dict[str, Any]) -> None:
    stranger = {
        **bare,
        "docker_engine_repository_key": f"{URL}/debian/stranger.gpg",
        "docker_engine_repository_key_checksum": "",
    }
    try:
        done = role(**stranger)
        assert done.returncode != 0
        printed = " ".join(done.stdout.split())
        assert "apt could not install" in printed
        assert f"docker_engine_repository: {URL}" in printed
        assert f"{URL}/debian trixie InRelease" in printed
        assert not host.exists("dockerd")
    finally:
        host.check_output(f"rm -f {SOURCES} {KEYRING}")


def test_the_repository_in_a_second_file(host: Host, role: Role, bare: dict[str, Any]) -> None:
    host.check_output(f"echo 'deb [trusted=yes] {URL}/debian trixie stable' > /etc/apt/sources.list.d/docker.list")
    try:
        before = apt(host)
        done = role(**bare)
        assert done.returncode != 0
        printed = " ".join(done.stdout.split())
        assert f"docker_engine_repository: found {URL} in /etc/apt/sources.list.d/docker.list already" in printed
        assert apt(host) == before
    finally:
        host.check_output("rm /etc/apt/sources.list.d/docker.list")


def test_podman_under_the_name_of_docker(host: Host, role: Role, bare: dict[str, Any]) -> None:
    host.check_output("DEBIAN_FRONTEND=noninteractive apt-get -qq --yes --no-install-recommends install podman-docker")
    try:
        before = apt(host)
        for variables in (bare, {"docker_engine_source": "distro"}):
            done = role(**variables)
            assert done.returncode != 0
            printed = " ".join(done.stdout.split())
            assert re.search(r"these packages from elsewhere are installed: \S*.*podman-docker; remove them", printed)
            assert apt(host) == before
    finally:
        host.check_output("apt-get -qq --yes purge podman-docker && apt-get -qq --yes --purge autoremove")


def test_install(host: Host, role: Role, repository: dict[str, Any]) -> None:
    done = role("--diff", **repository)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(host.package(name).is_installed for name in PACKAGES)
    assert host.check_output("docker run --rm python:3.13-slim echo works") == "works"
    assert "2." in host.check_output("docker compose version")


def test_source_and_keyring(host: Host, role: Role, repository: dict[str, Any]) -> None:
    sources = host.file(SOURCES)
    assert (sources.user, sources.group, sources.mode) == ("root", "root", 0o644)
    lines = [line for line in sources.content_string.splitlines() if line and not line.startswith("#")]
    assert lines == [
        "Types: deb",
        f"URIs: {URL}/debian",
        "Suites: trixie",
        "Components: stable",
        "Architectures: amd64",
        f"Signed-By: {KEYRING}",
    ]
    keyring = host.file(KEYRING)
    assert (keyring.user, keyring.group, keyring.mode) == ("root", "root", 0o644)
    # Nothing that would make the key good for other repositories.
    assert host.check_output("ls /etc/apt/trusted.gpg.d | grep -i docker || true") == ""


def test_second_run_and_check_mode_change_nothing(role: Role, repository: dict[str, Any]) -> None:
    for options in ([], ["--check", "--diff"]):
        done = role(*options, **repository)
        assert re.search(r"changed=0 .*failed=0", done.stdout), done.stdout + done.stderr


def test_remote_tasks_of_a_run_without_a_change(role: Role, repository: dict[str, Any]) -> None:
    done = role("-vvv", **repository)
    # An action such as template asks more than once; the table of contents of the role names seven at most.
    tasks = re.split(r"^TASK ", done.stdout, flags=re.MULTILINE)
    assert sum("SSH: EXEC" in task for task in tasks) <= 3


def test_the_engine_of_the_other_source(host: Host, role: Role, repository: dict[str, Any]) -> None:
    before = state(host)
    done = role(docker_engine_source="distro")
    assert done.returncode != 0
    printed = " ".join(done.stdout.split())
    assert "found distro, but these packages from elsewhere are installed: docker-ce, docker-ce-cli" in printed
    assert "set docker_engine_source: docker" in printed
    assert state(host) == before
