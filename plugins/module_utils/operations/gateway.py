# SPDX-License-Identifier: Apache-2.0
"""``dagster-gce gateway``: tells the gateway's nginx, request by request, who may in (the role dagster_gateway).

nginx asks over a Unix socket (auth_request) and lets nobody in without a 204: if this service is away, nobody is let
in. It runs as a user of its own without any right; systemd opens the file with the users and hands it over as standard
input.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import json
import os
import signal
import socket
import socketserver
import sys
from typing import Any, TextIO

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    config,
    gateway_basic,
    gateway_iap,
    gateway_place,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.gateway_answer import Answer, Judge

FILE = os.path.join(gateway_place.FOLDER, "login")
SOCKET = "/run/dagster-gce-gateway/login.sock"
# nginx asks at once and takes the answer at once.
TIMEOUT = 10.0


class Handler(http.server.BaseHTTPRequestHandler):
    """One question of nginx's."""

    server: Server
    timeout = TIMEOUT
    server_version = "dagster-gce"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer; whatever goes wrong is a refusal."""
        try:
            answer = self.server.judge.judge(self.headers, self.headers.get("X-Real-IP") or "")
        except Exception as error:
            # Nobody is let in by a mistake of ours; its kind tells where to look, its text may hold a secret.
            print(f"refused: {type(error).__name__} while looking at a request", file=sys.stderr, flush=True)
            answer = Answer(403)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def address_string(self) -> str:
        """A Unix socket has no address."""
        return "nginx"

    def log_message(self, format: str, *args: Any) -> None:
        """nginx writes the log of requests; what is refused and why, the judges write."""


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A thread for each question."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, path: str, judge: Judge) -> None:
        self.judge = judge
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        super().__init__(path, Handler)
        # For nginx's group, which the socket's folder and this process have.
        os.chmod(path, 0o660)

    def get_request(self) -> tuple[socket.socket, Any]:
        """BaseHTTPRequestHandler expects an address with two parts."""
        connection, _ = super().get_request()
        return connection, ("nginx", 0)


def judge_of(settings: dict[str, Any]) -> Judge:
    """Who judges, by the settings.

    Raises:
        config.ConfigError: they ask for what is not there.
    """
    try:
        kind = settings["authentication"]
        if kind == "basic":
            return gateway_basic.Basic(settings["users"], settings["realm"])
        if kind == "iap":
            return gateway_iap.Iap(settings["iap"]["audience"], gateway_iap.Keys(settings["iap"]["keys_url"]))
    except (ImportError, KeyError, TypeError) as error:
        raise config.ConfigError(f"the gateway lacks {error}; run site.yml, which brings what it needs") from error
    raise config.ConfigError(f"{FILE}: found authentication {kind!r}; expected basic or iap; run site.yml")


def read(stream: TextIO) -> dict[str, Any]:
    """The settings that systemd hands over.

    Raises:
        config.ConfigError: they are none.
    """
    try:
        found = json.load(stream)
    except ValueError as error:
        raise config.ConfigError(
            f"standard input: {error}; expected {FILE}, as dagster-gce-gateway.service has it"
        ) from error
    if not isinstance(found, dict):
        raise config.ConfigError(f"{FILE}: found {type(found).__name__}, expected a JSON object; run site.yml")
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where it listens."""
    parser.add_argument("--socket", default=SOCKET, help="the Unix socket on which nginx asks")


def main(arguments: argparse.Namespace) -> int:
    """Serve until a signal."""
    judge = judge_of(read(sys.stdin))
    with Server(arguments.socket, judge) as server:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        server.serve_forever()
    return 0
