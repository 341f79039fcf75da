"""A registry's answers, and when it is spoken to in the open."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils.registry import Registry, RegistryError, is_secure

DIGEST = "sha256:" + "0d2b" * 16
BASIC = "Basic cm9ib3Q6YzRuNHJ5"  # robot:c4n4ry


class Hub(BaseHTTPRequestHandler):
    """A registry of the kind that wants a token first, and hands it out itself."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        headers, body, status = {}, b"", 404
        host = self.headers["Host"]
        if self.path.startswith("/token"):
            good = self.headers.get("Authorization") == BASIC and "scope=repository:team/core:pull" in self.path
            status, body = (200, json.dumps({"access_token": "t0ken"}).encode()) if good else (401, b"{}")
        elif self.headers.get("Authorization") != "Bearer t0ken":
            status = 401
            headers["WWW-Authenticate"] = (
                f'Bearer realm="http://{host}/token",service="{host}",scope="repository:team/core:pull"'
            )
        elif self.path == "/v2/team/core/manifests/1":
            status, headers["Docker-Content-Digest"] = 200, DIGEST
        elif self.path == "/v2/team/core/manifests/odd":
            status = 200
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def host() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_digest_by_way_of_a_token(host: str) -> None:
    registry = Registry(host, ("robot", "c4n4ry"), secure=False)
    assert registry.digest("team/core", "1") == DIGEST
    assert registry.digest("team/core", "2") is None
    with pytest.raises(RegistryError, match="without a digest"):
        registry.digest("team/core", "odd")


@pytest.mark.parametrize("login", [None, ("robot", "wrong")])
def test_no_token_without_the_login(host: str, login: tuple[str, str] | None) -> None:
    with pytest.raises(RegistryError, match=r"gives no token (as robot|without a login) \(HTTP 401\)"):
        Registry(host, login, secure=False).digest("team/core", "1")


def test_the_login_does_not_leave_https() -> None:
    registry = Registry("registry.example.com", ("robot", "c4n4ry"))
    with pytest.raises(RegistryError, match="expected an https:// address"):
        registry._token('realm="http://evil.example.com/token"')


ENGINE = {
    "IndexConfigs": {"docker.io": {"Secure": True}, "registry.lab:5000": {"Secure": False}},
    "InsecureRegistryCIDRs": ["127.0.0.0/8", "10.1.0.0/16"],
}


@pytest.mark.parametrize(
    ("host", "secure"),
    [
        ("europe-west1-docker.pkg.dev", True),
        ("registry.lab:5000", False),
        ("registry.example.com:5000", True),
        ("127.0.0.1:5000", False),
        ("localhost:5000", False),
        ("10.1.2.3", False),
        ("10.2.2.3:5000", True),
    ],
)
def test_the_engines_view_of_a_registry(host: str, secure: bool) -> None:
    assert is_secure(host, ENGINE) is secure
    assert is_secure("127.0.0.1:5000", {}) is False
