"""The login to a registry that services of a swarm are made with: the host's side, and the engine proxy's."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.engine_proxy.conftest import engine_proxy

PROGRAM = Path(__file__).resolve().parents[4] / "roles" / "dagster_swarm" / "files" / "registry_auth.py"
DIGEST = "@sha256:" + "0" * 64
STORED = base64.b64encode(b"user:pass:word").decode()

Ask = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Asks the program for a host, with a configuration that has a login of every kind."""
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        "#!/bin/sh\nread host\n"
        'case $host in\n  token.example) echo \'{"Username": "<token>", "Secret": "t"}\' ;;\n'
        '  helped.example) echo \'{"Username": "oauth2accesstoken", "Secret": "s"}\' ;;\n'
        "  *) echo credentials not found in native keychain; exit 1 ;;\nesac\n"
    )
    helper.chmod(0o755)
    helped = {"helped.example": "test", "token.example": "test", "empty.example": "test", "odd.example": "../../sh"}
    stored = {
        "registry.example:5000": {"auth": STORED},
        "https://index.docker.io/v1/": {"auth": STORED},
        "none.example": {},
    }
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"credHelpers": helped, "auths": stored}))

    def run(host: str, path: Path = config) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", str(PROGRAM), str(path)],
            input=f"{host}\n", text=True, capture_output=True, check=False,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        )  # fmt: skip

    return run


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("helped.example", {"username": "oauth2accesstoken", "password": "s", "serveraddress": "helped.example"}),
        ("token.example", {"identitytoken": "t", "serveraddress": "token.example"}),
        (
            "registry.example:5000",
            {"username": "user", "password": "pass:word", "serveraddress": "registry.example:5000"},
        ),
        ("docker.io", {"username": "user", "password": "pass:word", "serveraddress": "https://index.docker.io/v1/"}),
        ("none.example", {}),
        ("empty.example", {}),
        ("other.example", {}),
        # A helper's name is a part of a program's name, and no way to another one.
        ("odd.example", {}),
    ],
)
def test_a_login_is_what_docker_on_the_machine_would_use(ask: Ask, host: str, expected: dict[str, str]) -> None:
    answered = ask(host)
    assert answered.returncode == 0, answered.stderr
    assert json.loads(answered.stdout) == expected


@pytest.mark.parametrize("host", ["", "a b", "../x", "https://x.example", "x" * 400])
def test_what_is_no_host_is_refused(ask: Ask, host: str) -> None:
    answered = ask(host)
    assert (answered.returncode, answered.stdout) == (1, "")
    assert "expected a registry's host" in answered.stderr


def test_without_a_configuration_there_is_no_login(tmp_path: Path) -> None:
    answered = subprocess.run(
        [sys.executable, "-I", str(PROGRAM), str(tmp_path / "none.json")],
        input="x.example\n", text=True, capture_output=True, check=True,
    )  # fmt: skip
    assert answered.stdout == "{}\n"


# --- The proxy's side -------------------------------------------------------------------------------------------------


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Callable[[bytes], tuple[str, list[str]]]]:
    """Listens as systemd does, and answers with what it is given; returns the socket and the hosts asked for."""
    path = str(tmp_path / "auth.sock")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    asked: list[str] = []

    def answers(text: bytes) -> tuple[str, list[str]]:
        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                asked.append(connection.makefile().readline())
                connection.sendall(text)

        threading.Thread(target=serve, daemon=True).start()
        return path, asked

    yield answers
    server.close()


@pytest.mark.parametrize(
    ("image", "host"),
    [
        (f"europe-west1-docker.pkg.dev/p/r/docker_dagster_core{DIGEST}", "europe-west1-docker.pkg.dev"),
        (f"registry.lab:5000/docker_dagster_core:1{DIGEST}", "registry.lab:5000"),
        (f"localhost/core{DIGEST}", "localhost"),
        (f"someone/core{DIGEST}", "docker.io"),
        (f"postgres{DIGEST}", "docker.io"),
    ],
)
def test_the_proxy_asks_for_the_image_s_registry(listening: Any, image: str, host: str) -> None:
    login = {"username": "u", "password": "ü?>"}
    path, asked = listening(json.dumps(login).encode())
    header = engine_proxy.registry_login(path, image)
    assert asked == [f"{host}\n"]
    assert json.loads(base64.urlsafe_b64decode(header)) == login


@pytest.mark.parametrize("answer", [b"{}\n", b"", b"no JSON"])
def test_no_login_is_no_header(listening: Any, answer: bytes) -> None:
    path, _ = listening(answer)
    assert engine_proxy.registry_login(path, f"registry.lab:5000/core{DIGEST}") == ""


def test_nobody_is_asked_for_an_image_that_is_here_only(tmp_path: Path) -> None:
    assert engine_proxy.registry_login("", f"registry.lab:5000/core{DIGEST}") == ""
    assert engine_proxy.registry_login(str(tmp_path / "none"), "sha256:" + "0" * 64) == ""


def test_a_socket_that_nobody_listens_on_is_no_reason_to_stop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert engine_proxy.registry_login(str(tmp_path / "none"), f"registry.lab:5000/core{DIGEST}") == ""
    assert "no login for registry.lab:5000" in capsys.readouterr().out
