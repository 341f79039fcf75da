# SPDX-License-Identifier: Apache-2.0
"""``dagster-gce metrics``: the samples once, or an endpoint for Prometheus.

The endpoint is read-only, knows one path and takes nothing from who asks. It listens on 127.0.0.1 unless told
otherwise: what it says (job names, versions) is nobody else's business.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    config,
    metrics_collect,
    metrics_text,
)

ADDRESS, PORT = "127.0.0.1", 9520

# How many may ask at once; more are refused by closing, and cost nothing.
AT_ONCE = 8

_INDEX = b"dagster-gce: the metrics are at /metrics\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``dagster-gce metrics``."""
    parser.add_argument("--serve", action="store_true", help="stay, and answer on the address of the settings")


def main(arguments: argparse.Namespace) -> int:
    """Print the samples, or serve them until somebody ends the process."""
    if not arguments.serve:
        print(metrics_collect.Collector(deadline=30).collect(), end="")
        return 0
    settings = config.load("monitoring")
    address, port = str(settings.get("address") or ADDRESS), int(settings.get("port") or PORT)
    try:
        server = Server((address, port), metrics_collect.Collector())
    except OSError as error:
        print(f"cannot listen on {address}:{port}: {error.strerror}", file=sys.stderr)
        return 1
    threading.Thread(target=_end_when_replaced, args=(server, sys.argv[0]), daemon=True).start()
    print(f"metrics on http://{address}:{port}/metrics", flush=True)
    server.serve_forever()
    return _begin_again(server)


def _begin_again(server: Server) -> NoReturn:
    """There is a new version, or there are new settings: in this process's place, so that hardly a scrape is lost."""
    server.server_close()
    os.execv(sys.argv[0], sys.argv)  # noqa: S606  the command itself, as systemd has started it


class Server(ThreadingHTTPServer):
    """Answers GET /metrics."""

    daemon_threads = True
    # A restart of the service must not wait for connections that were closed a moment ago.
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], collector: metrics_collect.Collector) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.collector = collector
        self.slots = threading.BoundedSemaphore(AT_ONCE)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self.slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asked went away, or sent what is no HTTP; that is no news for the journal."""


class _Handler(BaseHTTPRequestHandler):
    # Who connects and says nothing goes after this.
    timeout = 15
    server: Server
    server_version, sys_version = "dagster-gce", ""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] == "/metrics":
            self._answer(200, metrics_text.CONTENT_TYPE, self.server.collector.collect().encode())
        elif self.path == "/":
            self._answer(200, "text/plain; charset=utf-8", _INDEX)
        else:
            self._answer(404, "text/plain; charset=utf-8", _INDEX)

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Four lines a minute in the journal would tell nobody anything."""


def _end_when_replaced(server: Server, program: str) -> None:
    """End when there is a new version of the command or of the settings."""
    watched = [program, config.path("command"), config.path("monitoring")]
    before = [_identity(each) for each in watched]
    while [_identity(each) for each in watched] == before:
        time.sleep(15)
    server.shutdown()


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
