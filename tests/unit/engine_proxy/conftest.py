"""The proxy as it runs, in front of the real engine of this machine."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.unit.programs import load

SOURCE = Path(__file__).parents[3] / "files/docker/engine_proxy.py"
# Any of them has a shell and `sleep`; nothing is pulled for a unit test.
IMAGES = ("python:3.13-slim", "debian:trixie-slim", "postgres:17")
# Stands in for `dagster api execute_run`: runs until it is told to stop.
PROGRAM = "#!/bin/sh\ntrap 'exit 0' TERM\nsleep 300 &\nwait\n"


# As it was at the start: a test points DOCKER_HOST to the proxy.
ENVIRONMENT = dict(os.environ)


engine_proxy = load(SOURCE)


def docker(*arguments: str, check: bool = True) -> str:
    """Run the docker command and return what it printed."""
    done = subprocess.run(["docker", *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip()


@dataclass
class Proxy:
    """A running proxy and what its runs may be."""

    port: int
    repository: str
    network: str
    volume: str
    process: subprocess.Popen[str]
    log: Path

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    @property
    def image(self) -> str:
        return f"{self.repository}:1"

    def send(self, data: bytes) -> tuple[int, str]:
        """Send bytes as they are; status and body of the first answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(data)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    def post(self, path: str, body: Any, *headers: str) -> tuple[int, str]:
        """POST a body: a str goes out as it is, anything else as JSON."""
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        lines = [
            f"POST {path} HTTP/1.1",
            "Host: proxy",
            "Content-Type: application/json",
            f"Content-Length: {len(data)}",
            *headers,
        ]
        return self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + data)

    def body(self, **more: Any) -> dict[str, Any]:
        """A create body that is allowed, with more keys."""
        host = {"NetworkMode": self.network, **more.pop("HostConfig", {})}
        return {"Image": self.image, "Cmd": ["sleep", "300"], "HostConfig": host, **more}

    def containers(self) -> list[str]:
        """Containers on the proxy's network or of its image, running or not."""
        found = docker("ps", "-aq", "--no-trunc", "--filter", f"network={self.network}").split()
        return sorted({*found, *docker("ps", "-aq", "--no-trunc", "--filter", f"ancestor={self.image}").split()})


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def base_image() -> str:
    """An image that is here already."""
    try:
        docker("version")
    except (AssertionError, FileNotFoundError):
        pytest.skip("no Docker engine answers on this machine")
    for image in IMAGES:
        if docker("image", "inspect", "-f", "{{.Id}}", image, check=False):
            return image
    pytest.skip(f"none of the images {', '.join(IMAGES)} is on this machine")


@pytest.fixture(scope="session")
def proxy(base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy with a network, a volume and an image of its own; all of it is removed at the end."""
    name = f"engine-proxy-test-{secrets.token_hex(4)}"
    folder = tmp_path_factory.mktemp("proxy")
    port, log = free_port(), folder / "log"
    program = folder / "dagster"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    docker("network", "create", "--internal", name)
    maker = docker("create", base_image, "true")
    docker("cp", str(program), f"{maker}:/usr/local/bin/dagster")
    docker("commit", maker, f"{name}:1")
    docker("rm", "-v", maker)
    config = {
        "network": name,
        "user": "10001:10001",
        "images": [name],
        "binds": [f"{name}:/opt/dagster/storage:rw"],
        "pull": [],
        "listen": f"127.0.0.1:{port}",
    }
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", str(SOURCE)],
            env={"ENGINE_PROXY_CONFIG": json.dumps(config), "MALLOC_ARENA_MAX": "1", "PATH": os.environ["PATH"]},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
        running = Proxy(port, name, name, name, process, log)
        for _ in range(100):
            if "listening" in log.read_text():
                break
            time.sleep(0.05)
        try:
            yield running
        finally:
            process.terminate()
            process.wait()
            if left := running.containers():
                docker("rm", "-f", "-v", *left)
            docker("network", "rm", name)
            docker("volume", "rm", "-f", name)
            docker("rmi", f"{name}:1")
