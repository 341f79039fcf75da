"""The Engine's API over a socket: a small HTTP server on a real one answers."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import engine_api


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    asked: list[tuple[str, str, Any]]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.asked.append((self.command, self.path, body))
        status, text = {
            "/info": (200, '{"Swarm": {}}'),
            "/swarm/init": (200, '"node"'),
            "/swarm/leave": (200, ""),
            "/networks/none": (404, '{"message": "network none not found"}'),
        }.get(self.path.split("?")[0], (503, '{"message": "This node is not a swarm manager. "}'))
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = do_DELETE = _answer

    def address_string(self) -> str:
        return "socket"

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[_Server]:
    with _Server(str(tmp_path / "docker.sock"), _Handler) as found:
        found.asked = []
        threading.Thread(target=found.serve_forever, args=(0.05,), daemon=True).start()
        yield found
        found.shutdown()


@pytest.fixture
def engine(server: _Server) -> engine_api.Engine:
    return engine_api.Engine(str(server.server_address), timeout=10)


def test_what_is_sent_and_what_comes_back(engine: engine_api.Engine, server: _Server) -> None:
    assert engine.call("GET", "/info") == {"Swarm": {}}
    assert engine.call("POST", "/swarm/init", {"JoinToken": "SWMTKN"}) == "node"
    assert engine.call("POST", "/swarm/leave", query={"force": "true"}) is None
    assert engine.find("/networks/none") is None
    assert server.asked == [
        ("GET", "/info", None),
        ("POST", "/swarm/init", {"JoinToken": "SWMTKN"}),
        ("POST", "/swarm/leave?force=true", None),
        ("GET", "/networks/none", None),
    ]


def test_filters_go_as_json(engine: engine_api.Engine, server: _Server) -> None:
    with pytest.raises(engine_api.EngineError):
        engine.call("GET", "/tasks", query={"filters": {"node": ["a"]}})
    assert server.asked[0][1] == "/tasks?filters=%7B%22node%22%3A+%5B%22a%22%5D%7D"


def test_the_engine_s_own_words(engine: engine_api.Engine) -> None:
    with pytest.raises(engine_api.EngineError, match=r"^This node is not a swarm manager\.$") as told:
        engine.call("GET", "/nodes")
    assert told.value.status == 503


def test_no_engine(tmp_path: Path) -> None:
    with pytest.raises(
        engine_api.EngineError, match=r"does not answer on .*gone\.sock .*systemctl status docker"
    ) as told:
        engine_api.Engine(str(tmp_path / "gone.sock")).call("GET", "/info")
    assert told.value.status == 0
