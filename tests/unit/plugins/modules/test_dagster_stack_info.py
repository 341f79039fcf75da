"""Facts of the machine, taken from real sockets and real containers."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli, upgrade_image
from ansible_collections.dataops.dagster_gce.plugins.modules import dagster_stack_info as module

IMAGE = "python:3.13-slim"


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def start() -> Iterator[Callable[..., str]]:
    """Start containers that are removed at the end."""
    try:
        docker("image", "inspect", IMAGE)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"no Docker engine with the image {IMAGE} on this machine")
    made = []

    def run(*arguments: str) -> str:
        name = f"stack-info-test-{secrets.token_hex(4)}"
        made.append(name)
        docker("run", "-d", "--name", name, *arguments)
        return name

    yield run
    for name in made:
        subprocess.run(["docker", "rm", "-f", "-v", name], capture_output=True, check=False)


@pytest.fixture
def project() -> str:
    return f"stack-info-test-{secrets.token_hex(4)}"


def listen(family: socket.AddressFamily, address: str) -> socket.socket:
    server = socket.socket(family, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Docker's proxy and every other server
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind((address, 0))
    server.listen()
    return server


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]
)
def test_a_listener_is_named(family: socket.AddressFamily, address: str) -> None:
    try:
        server = listen(family, address)
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with server:
        port = server.getsockname()[1]
        assert str(os.getpid()) in module.port_user(port, engine=False)
    assert module.port_user(port, engine=False) == ""


def test_a_port_that_was_used_a_moment_ago_is_free() -> None:
    with listen(socket.AF_INET, "127.0.0.1") as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # the server's side closes first and stays in TIME_WAIT
        client.close()
    assert module.port_user(port, engine=False) == ""


def test_no_port_is_asked_for() -> None:
    assert module.port_user(0, engine=True) == ""


def test_the_stacks_own_port_is_free_for_it(start: Callable[..., str]) -> None:
    serve = (IMAGE, "python3", "-m", "http.server", "80")
    ours = start("-p", "127.0.0.1::80", "--label", "dataops.dagster_gce=stack", *serve)
    other = start("-p", "127.0.0.1::80", *serve)
    ports = [int(docker("port", name, "80").rsplit(":", 1)[1]) for name in (ours, other)]
    assert module.port_user(ports[0], engine=True) == ""
    assert module.port_user(ports[1], engine=True) == f"container {other}"


def test_the_version_that_made_the_data(start: Callable[..., str]) -> None:
    volume = f"stack-info-test-{secrets.token_hex(4)}"
    assert module.postgres_major(volume) == ""
    container = start("-v", f"{volume}:/data", IMAGE, "sleep", "60")
    assert module.postgres_major(volume) == ""
    docker("exec", container, "sh", "-c", "echo 17 > /data/PG_VERSION")
    try:
        assert module.postgres_major(volume) == "17"
    finally:
        docker("rm", "-f", "-v", container)
        docker("volume", "rm", volume)


def test_checksums(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert module.sha256(str(tmp_path / "a")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert module.sha256(str(tmp_path / "missing")) == ""
    assert module.sha256(str(tmp_path / "a" / "b")) == ""


def test_the_sockets_group(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert module.socket_group(str(path)) == path.stat().st_gid
    (tmp_path / "file").touch()
    assert module.socket_group(str(tmp_path / "file")) is None
    assert module.socket_group(str(tmp_path / "missing")) is None


def test_the_container_at_fault_is_named_with_its_cause(start: Callable[..., str], project: str) -> None:
    label = ("--label", f"com.docker.compose.project={project}")
    dead = start(*label, IMAGE, "sh", "-c", "echo the cause; exit 3")
    sick = start(
        *label,
        "--health-cmd=echo no heartbeat; exit 1",
        "--health-interval=100ms",
        "--health-retries=1",
        IMAGE,
        "sh",
        "-c",
        "echo still here; sleep 60",
    )
    hungry = start(*label, "--memory=16m", IMAGE, "python3", "-c", "x = bytearray(1 << 28)")
    fine = start(*label, "--health-cmd=true", "--health-interval=100ms", IMAGE, "sleep", "60")
    # Whatever the machine is busy with: all four states, and not only what the health checks say.
    expected = {
        dead: ("exited", "none"),
        hungry: ("exited", "none"),
        sick: ("running", "unhealthy"),
        fine: ("running", "healthy"),
    }
    states: dict[str, tuple[str, str]] = {}
    deadline = time.monotonic() + 60
    while states != expected and time.monotonic() < deadline:
        time.sleep(0.2)
        found = {item["name"]: item for item in module.project_containers(project, log_lines=5)}
        states = {name: (item["state"], item["health"]) for name, item in found.items()}
    assert states == expected
    said = module.summarize(list(found.values()))
    assert f"{dead} is exited, exit code 3\nIts last log lines:\nthe cause" in said
    assert f"{sick} is running and unhealthy. Its health check said: no heartbeat\n" in said
    assert "still here" in said
    assert f"{hungry} is exited, exit code 137, killed because it reached its memory limit" in said
    assert fine not in said
    assert said.index(dead) < said.index(sick)
    assert found[fine]["logs"] == ""


def test_a_container_that_runs_again_after_it_was_killed_for_memory(start: Callable[..., str], project: str) -> None:
    program = "test -e /again && exec sleep 60; touch /again; exec python3 -c 'x = bytearray(1 << 28)'"
    name = start(
        *("--label", f"com.docker.compose.project={project}", "--restart", "always", "--memory", "16m"),
        *(IMAGE, "sh", "-c", program),
    )
    deadline = time.monotonic() + 30
    while docker("inspect", "-f", "{{.RestartCount}} {{.State.Status}}", name) != "1 running":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert docker("inspect", "-f", "{{.State.OOMKilled}}", name) == "false"
    said = module.summarize(module.project_containers(project, log_lines=5))
    assert said == f"{name} is running, killed because it reached its memory limit, started again 1 times"


def test_nobody_is_at_fault(start: Callable[..., str], project: str) -> None:
    start("--label", f"com.docker.compose.project={project}", IMAGE, "sleep", "60")
    assert (
        module.summarize(module.project_containers(project, log_lines=5)) == "No container of the project is at fault."
    )
    assert module.project_containers(f"{project}-none", log_lines=5) == []


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (None, ""),
        ({"Config": {"Labels": {"dataops.dagster_gce": "stack"}}}, ""),
        ({"Config": {"Labels": None}}, "no Compose project (started by hand)"),
        (
            {"Config": {"Labels": {
                "com.docker.compose.project": "article", "com.docker.compose.project.working_dir": "/srv/article",
            }}},
            "article (/srv/article)",
        ),
    ],
)  # fmt: skip
def test_a_database_that_is_not_ours_is_named(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, Any] | None, expected: str
) -> None:
    monkeypatch.setattr(docker_cli, "inspect", lambda *_: found)
    assert module.foreign() == expected


@pytest.mark.parametrize(
    ("container", "image", "expected"),
    [
        (None, "new", {}),
        ("old", "missing", {}),
        ("old", "old", {}),
        ("old", "rebuilt", {}),
        ("old", "new", {"found": "1.9.13", "image": "1.13.27"}),
    ],
)
def test_another_dagster_than_the_one_that_runs_is_named(
    monkeypatch: pytest.MonkeyPatch, container: str | None, image: str, expected: dict[str, str]
) -> None:
    versions = {"sha256:old": "1.9.13", "rebuilt": "1.9.13", "new": "1.13.27"}

    def inspect(kind: str, name: str) -> dict[str, Any] | None:
        if kind == "container":
            return {"Image": f"sha256:{container}"} if container else None
        return None if name == "missing" else {"Id": f"sha256:{name}"}

    def look(reference: str) -> upgrade_image.Dagster:
        return upgrade_image.Dagster(reference, reference, versions[reference], "", "", "")

    monkeypatch.setattr(docker_cli, "inspect", inspect)
    monkeypatch.setattr(upgrade_image, "dagster", look)
    assert module.other_dagster(image) == expected
