"""The role, as the tests call it: the real ansible-playbook against the scenario's machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.scenario import Role, role_of

SCENARIO = Path(__file__).resolve().parents[1]
IMAGE = "python:3.13-slim"


@pytest.fixture(scope="session")
def role(tmp_path_factory: pytest.TempPathFactory) -> Role:
    """Run the role with extra variables; positional arguments go to ansible-playbook."""
    return role_of(SCENARIO, tmp_path_factory.mktemp("variables"))


@pytest.fixture
def container(host: Host) -> Iterator[Callable[..., str]]:
    """Start containers of the lab's python image, pulled through the mirror; removed after the test."""
    names: list[str] = []

    def start(options: str = "", command: str = "sleep 600") -> str:
        name = f"test-{len(names)}"
        names.append(name)
        host.check_output(f"docker run --detach --name {name} {options} {IMAGE} {command}")
        return name

    yield start
    for name in names:
        host.run(f"docker rm --force {name}")


def state(host: Host) -> dict[str, str]:
    """What no failed run may change: packages, apt's sources, daemon.json, the daemon's process."""
    return {
        "packages": host.check_output("dpkg-query -W | sha256sum"),
        "sources": host.check_output("find /etc/apt -type f -exec sha256sum {} + | sort"),
        "daemon.json": host.check_output("stat -c '%a %U:%G' /etc/docker/daemon.json; cat /etc/docker/daemon.json"),
        "daemon": host.check_output("systemctl show --property MainPID docker.service"),
    }
