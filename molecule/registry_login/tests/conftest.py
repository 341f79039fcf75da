"""The role, as the tests call it, and a registry and a metadata server on the machine itself."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.scenario import PROJECT, Role, role_of

SCENARIO = Path(__file__).resolve().parents[1]
KEY = '{"type": "service_account", "canary": "c4n4ry"}'
SERVERS = (
    SCENARIO / "tests/servers.py",
    PROJECT / "tests/unit/plugins/modules/small_registry.py",
    PROJECT / "tests/unit/roles/registry_login/metadata_server.py",
)


@pytest.fixture(scope="session")
def role(tmp_path_factory: pytest.TempPathFactory) -> Role:
    """Run the role with extra variables; positional arguments go to ansible-playbook."""
    return role_of(SCENARIO, tmp_path_factory.mktemp("variables"))


@pytest.fixture(scope="module", autouse=True)
def servers(host: Host) -> Iterator[None]:
    """Both servers, at the addresses where a machine of Compute Engine has them."""
    host.check_output("mkdir -p /tmp/servers")
    for path in SERVERS:
        text = base64.b64encode(path.read_bytes()).decode()
        host.check_output("echo %s | base64 -d > %s", text, f"/tmp/servers/{path.name}")
    host.check_output(
        "grep -q metadata.google.internal /etc/hosts || echo 127.0.0.1 metadata.google.internal >> /etc/hosts"
    )
    host.check_output("systemd-run --unit test-servers --working-directory /tmp/servers python3 servers.py %s", KEY)
    host.check_output("timeout 20 sh -c 'until ss -ltn | grep -q 127.0.0.1:5000; do sleep 0.2; done'")
    yield
    host.run("systemctl stop test-servers; rm -r /tmp/servers; sed -i /metadata.google.internal/d /etc/hosts")
