"""files/docker/healthcheck_webserver.py against a real HTTP server."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers by path."""

    def do_GET(self) -> None:
        if self.path == "/slow":
            self.server.stop.wait(20)  # type: ignore[attr-defined]
            return
        status, body = {
            "/server_info": (200, b'{"dagster_webserver_version": "1.2.3", "dagster_version": "1.2.3"}'),
            "/other": (200, b"<html>nginx</html>"),
            "/list": (200, b"[]"),
        }.get(self.path, (503, b"down"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The server's address."""
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    httpd.stop = threading.Event()  # type: ignore[attr-defined]
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.stop.set()  # type: ignore[attr-defined]
    httpd.shutdown()


def check(root: Path, url: str, **environment: str) -> tuple[int, str]:
    """Run the helper; exit status and output."""
    result = subprocess.run(
        [sys.executable, str(root / "files/docker/healthcheck_webserver.py"), "--url", url, "--timeout", "1"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr == ""
    return result.returncode, result.stdout


def test_healthy(root: Path, server: str) -> None:
    assert check(root, f"{server}/server_info") == (0, "healthy: dagster-webserver 1.2.3\n")


def test_a_proxy_of_the_environment_is_not_asked(root: Path, server: str) -> None:
    assert check(root, f"{server}/server_info", http_proxy="http://127.0.0.1:9", no_proxy="")[0] == 0


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/broken", "expected HTTP 200, found 503"),
        ("/other", "expected JSON with dagster_webserver_version, found b'<html>"),
        ("/list", "expected JSON with dagster_webserver_version, found b'[]'"),
        ("/slow", "expected an answer within 1 s, found timed out"),
    ],
)
def test_unhealthy(root: Path, server: str, path: str, message: str) -> None:
    status, output = check(root, server + path)
    assert status == 1
    assert output.startswith("unhealthy: ")
    assert message in output


def test_nothing_listens(root: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    status, output = check(root, f"http://127.0.0.1:{port}/server_info")
    assert status == 1
    assert "Connection refused" in output
