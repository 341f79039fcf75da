"""The socket side: a CONNECT proxy that ends TLS itself, one thread a connection, connections kept alive."""

from __future__ import annotations

import contextlib
import http.server
import socket
import socketserver
import ssl
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from . import iap_tunnel, registry

if TYPE_CHECKING:
    from .dispatch import Answer
    from .server import Google

# What is served besides the APIs of the discovery documents: (host, HTTP method, path), as patterns.
Route = Callable[["Google", str, str, str, dict[str, str], bytes], "Answer"]
ROUTES: list[tuple[str, str, str, Route]] = []
SERVED = ["*.googleapis.com", "googleapis.com", "*.pkg.dev", "accounts.google.com", iap_tunnel.HOST]
TLS_HANDSHAKE = b"\x16"


def serves(host: str, method: str, path: str) -> Callable[[Route], Route]:
    """Say that a function answers requests outside the discovery documents."""

    def register(function: Route) -> Route:
        ROUTES.append((host, method, path, function))
        return function

    return register


def route(host: str, method: str, path: str) -> Route | None:
    """The function that answers, if there is one."""
    for wanted_host, wanted_method, wanted_path, function in ROUTES:
        if fnmatch(host, wanted_host) and fnmatch(method, wanted_method) and fnmatch(path, wanted_path):
            return function
    return None


class Listener(socketserver.ThreadingTCPServer):
    """The listening socket."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], google: Google, context: ssl.SSLContext) -> None:
        self.google = google
        self.context = context
        super().__init__(address, Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    server: Listener
    protocol_version = "HTTP/1.1"
    tunnel = ""

    def setup(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Machines of the lab come here through a relay, without CONNECT: TLS from the first byte.
        if self.request.recv(1, socket.MSG_PEEK) == TLS_HANDSHAKE:
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def do_CONNECT(self) -> None:
        """End TLS for Google's names, refuse all others."""
        host = self.path.rpartition(":")[0]
        if not any(fnmatch(host, pattern) for pattern in SERVED):
            self.send_error(502, f"The lab's Google does not lead to {host}")
            return
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.tunnel = host
        self.connection = self.request = self.server.context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb", self.rbufsize)
        self.wfile = socketserver._SocketWriter(self.connection)  # type: ignore[attr-defined]
        self.close_connection = False

    def _any(self) -> None:
        # A header may stand there more than once: an engine names each type that it takes in a line of its own.
        headers = {name.lower(): ", ".join(self.headers.get_all(name, [])) for name in self.headers}
        target, host = self.path, headers.get("host", "").partition(":")[0] or self.tunnel
        if target.startswith("http://"):
            parts = urlsplit(target)
            target, host = target[len(f"http://{parts.netloc}") :] or "/", parts.hostname or host
        if registry.serves(host):
            registry.answer(self, host, headers)
            return
        if host == iap_tunnel.HOST:
            iap_tunnel.answer(self, headers)
            return
        payload = self._body(headers)
        answer = self.server.google.respond(host, self.command, target, headers, payload)
        if answer.drop:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        length = "" if "Content-Length" in answer.headers else f"Content-Length: {len(answer.body)}\r\n"
        lines = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
        head = f"HTTP/1.1 {answer.status} {self.responses.get(answer.status, ('',))[0]}\r\n{lines}{length}\r\n"
        self.wfile.write(head.encode() + (b"" if self.command == "HEAD" else answer.body))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _any

    def _body(self, headers: dict[str, str]) -> bytes:
        # Clients that use a proxy send a body only when their headers are acknowledged, which Linux delays by 40 ms.
        if hasattr(socket, "TCP_QUICKACK"):
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return b"".join(self.pieces(headers))

    def pieces(self, headers: dict[str, str], size: int = 1 << 20) -> Iterator[bytes]:
        """A request's body, piece by piece."""
        if headers.get("transfer-encoding", "").lower() != "chunked":
            left = int(headers.get("content-length") or 0)
            while left and (piece := self.rfile.read(min(left, size))):
                left -= len(piece)
                yield piece
            return
        while length := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(length)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the calls are kept by Google itself."""
