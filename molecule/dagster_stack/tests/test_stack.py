"""The stack as it stands on the machine after converge and side effects."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.scenario import inspect

SERVICES = ("dagster-postgres", "dagster-webserver", "dagster-daemon", "dagster-engine-proxy")
CANARY = "s3ntinel"


@pytest.fixture(params=SERVICES)
def container(host: Any, request: pytest.FixtureRequest) -> dict[str, Any]:
    """`docker inspect` of one service."""
    return inspect(host, request.param)


def inside(host: Any, name: str, program: str) -> Any:
    """Run a Python program in a container."""
    return host.run("docker exec %s python3 -c %s", name, program)


def test_healthy(container: dict[str, Any]) -> None:
    assert container["State"]["Status"] == "running"
    assert container["State"]["Health"]["Status"] == "healthy"
    assert container["RestartCount"] == 0


def test_hardening(container: dict[str, Any]) -> None:
    """The published rules of the CIS Docker benchmark, section 5, as `docker inspect` shows them."""
    host = container["HostConfig"]
    assert host["Privileged"] is False
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges=true"]
    assert host["ReadonlyRootfs"] is True
    assert host["PidMode"] == ""
    assert host["IpcMode"] == "private"
    assert host["UTSMode"] == ""
    assert host["UsernsMode"] == ""
    assert host["CgroupParent"] == ""
    assert not host["Devices"]
    assert host["Memory"] > 0
    assert 0 < host["PidsLimit"] <= 1000
    assert host["RestartPolicy"]["Name"] == "always"
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "3", "max-size": "10m"}}
    assert set(container["NetworkSettings"]["Networks"]) <= {"dagster-network", "dagster-engine"}
    assert container["Config"]["Labels"]["dataops.dagster_gce"] == "stack"
    assert not any(mount.get("Propagation") in ("shared", "rshared") for mount in container["Mounts"])


def test_processes_have_no_privileges(host: Any, container: dict[str, Any]) -> None:
    """What the kernel says, not what was asked for."""
    # A health check's process may be gone by the time it is looked at.
    shown = host.check_output(
        "for pid in $(docker top %s -o pid | tail -n +2); do cat /proc/$pid/status 2>/dev/null && echo; done; true",
        container["Id"],
    )
    processes = shown.strip().split("\n\n")
    for process in processes:
        status = dict(line.split(":\t", 1) for line in process.splitlines())
        assert "0" not in status["Uid"].split()
        assert (status["CapEff"], status["CapBnd"]) == ("0" * 16, "0" * 16)
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"


def test_the_root_file_system_is_read_only(host: Any, container: dict[str, Any]) -> None:
    name = container["Name"].lstrip("/")
    assert host.run("docker exec %s touch /canary", name).rc != 0
    assert host.run("docker exec %s touch /tmp/canary", name).rc == 0 or name == "dagster-engine-proxy"


def test_only_the_proxy_has_the_engines_socket(container: dict[str, Any]) -> None:
    sockets = [mount for mount in container["Mounts"] if "docker.sock" in mount["Source"]]
    assert bool(sockets) == (container["Name"] == "/dagster-engine-proxy")
    assert not any(mount["RW"] for mount in sockets)


def test_only_127_0_0_1_3000_is_bound(host: Any) -> None:
    bindings = {
        (binding["HostIp"], binding["HostPort"])
        for name in SERVICES
        for bound in (inspect(host, name)["NetworkSettings"]["Ports"] or {}).values()
        for binding in bound or []
    }
    assert bindings == {("127.0.0.1", "3000")}
    addresses = {line.split()[3] for line in host.check_output("ss -Hlnt").splitlines()}
    ports = {address.rsplit(":", 1)[1] for address in addresses}
    assert "127.0.0.1:3000" in addresses
    assert not {address for address in addresses if address.endswith(":3000")} - {"127.0.0.1:3000"}
    assert not ports & {"4000", "2375", "5432"}


def test_the_webserver_answers(host: Any) -> None:
    said = host.check_output("curl -fsS http://127.0.0.1:3000/server_info || python3 -c %s", CURL)
    assert json.loads(said)["dagster_webserver_version"]


CURL = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:3000/server_info').read().decode())"


def test_secrets_stay_where_they_are_needed(host: Any, container: dict[str, Any]) -> None:
    assert CANARY not in json.dumps(container)
    assert ("/database" in json.dumps(container["Mounts"])) is (container["Name"] == "/dagster-postgres")
    assert CANARY not in host.file("/opt/dagster/docker-compose-GCE.yml").content_string
    assert CANARY not in host.check_output("ps axww -o args")


def test_a_password_of_every_character_arrives(host: Any) -> None:
    program = "from dagster import DagsterInstance; print(DagsterInstance.get().get_runs_count())"
    done = inside(host, "dagster-daemon", program)
    assert (done.rc, done.stdout) == (0, "0\n"), done.stderr


def test_no_container_but_the_runs_sees_the_service_account(host: Any) -> None:
    for name in ("dagster-webserver", "dagster-daemon"):
        assert host.check_output("docker exec %s ls -A /opt/dagster/dagster_home/secrets", name) == ""


def test_the_compose_file(host: Any) -> None:
    file = host.file("/opt/dagster/docker-compose-GCE.yml")
    assert (file.user, file.group, file.mode) == ("root", "root", 0o644)
    assert file.content_string.startswith("#\n# Ansible managed\n#\n")
    done = host.run("docker compose --project-directory /opt/dagster -f /opt/dagster/docker-compose-GCE.yml config -q")
    assert (done.rc, done.stderr) == (0, "")


def test_max_connections_follow_the_queue(host: Any) -> None:
    query = "docker exec dagster-postgres psql -U dagster -d dagster -Atc 'show max_connections'"
    assert host.check_output(query) == "160"


def test_memory_at_rest(host: Any) -> None:
    """Without page cache, as `docker stats` counts."""
    used = {}
    for line in host.check_output("docker stats --no-stream --format '{{.Name}} {{.MemUsage}}'").splitlines():
        name, amount = line.split()[:2]
        number, unit = re.fullmatch(r"([0-9.]+)([KMG]iB)", amount).groups()  # type: ignore[union-attr]
        used[name] = float(number) * {"KiB": 1 / 1024, "MiB": 1, "GiB": 1024}[unit]
    assert used["dagster-engine-proxy"] <= 25
    assert sum(used[name] for name in SERVICES) <= 600, used


# --- The engine proxy, from where an attacker would sit ---

CONNECT = """
import socket, sys
for address in sys.argv[1:]:
    try:
        socket.create_connection((address, 2375), 3)
    except OSError:
        continue
    sys.exit("connected to " + address)
"""


def test_user_code_cannot_reach_the_proxy(host: Any) -> None:
    proxy = inspect(host, "dagster-engine-proxy")
    image, address = proxy["Config"]["Image"], proxy["NetworkSettings"]["Networks"]["dagster-engine"]["IPAddress"]
    gateway = proxy["NetworkSettings"]["Networks"]["dagster-engine"]["Gateway"] or "127.0.0.1"
    arguments = ("python3", "-c", CONNECT, "dagster-engine-proxy", address, gateway)
    run = "docker run --rm --network dagster-network --entrypoint env %s" + " %s" * len(arguments)
    done = host.run(run, image, *arguments)
    assert (done.rc, done.stderr) == (0, "")
    # The same program does find it from where it is allowed: the test can fail.
    allowed = inside(host, "dagster-webserver", CONNECT.replace("sys.argv[1:]", repr([address])))
    assert f"connected to {address}" in allowed.stderr


SEND = """
import json, socket
found = []
for request in json.loads(REQUESTS):
    connection = socket.create_connection(("dagster-engine-proxy", 2375), 10)
    connection.sendall(request.encode())
    answer = b""
    while piece := connection.recv(65536):
        answer += piece
    found.append(int(answer.split()[1]))
print(json.dumps(found))
"""


def send(host: Any, *requests: str) -> list[int]:
    """Statuses of raw requests that the webserver's container sends to the proxy."""
    done = inside(host, "dagster-webserver", SEND.replace("REQUESTS", repr(json.dumps(requests))))
    assert done.rc == 0, done.stderr
    statuses: list[int] = json.loads(done.stdout)
    return statuses


def post(path: str, body: str = "") -> str:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head + body


def test_the_proxy_answers_the_webserver(host: Any) -> None:
    assert send(host, "GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n", "GET /version HTTP/1.1\r\nHost: x\r\n\r\n") == [
        200,
        200,
    ]


def test_the_proxy_refuses_attacks(host: Any) -> None:
    image = '"Image": "docker_dagster_core:1", '
    bodies = [
        '"HostConfig": {"Privileged": true}',
        '"HostConfig": {"Priv\\u0069leged": true}',
        '"HostConfig": {"privileged": true}',
        '"hostconfig": {"PRIVILEGED": true}',
        '"HostConfig": {"Privileged": false, "Privileged": true}',
        '"HostConfig": {"Binds": ["/:/host"]}',
        '"HostConfig": {"NetworkMode": "host"}',
        '"HostConfig": {"PidMode": "host"}',
        '"User": "0"',
    ]
    before = host.check_output("docker ps -aq")
    creates = [post("/v1.45/containers/create", "{" + image + body + "}") for body in bodies]
    statuses = send(
        host,
        *creates,
        post("/v1.45/containers/dagster-postgres/stop"),
        post(f"/v1.45/containers/{inspect(host, 'dagster-postgres')['Id']}/stop"),
        post("/v1.45/containers/dagster-postgres/exec", '{"Cmd": ["id"]}'),
        "GET /v1.45/containers/json HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://docker/info HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    assert set(statuses) <= {400, 403}, statuses
    assert host.check_output("docker ps -aq") == before
    assert inspect(host, "dagster-postgres")["State"]["Running"] is True
