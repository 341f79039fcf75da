"""``tunnel.cloudproxy.app``: IAP's way to a port of an instance, as ``gcloud compute start-iap-tunnel`` goes it.

A WebSocket carries the subprotocol ``relay.tunnel.cloudproxy.app``: messages that begin with a tag of two bytes. What
Google refuses once the token is known is a close code of its own. A tunnel lives as long as its connection: nobody
finds it again (``/v4/reconnect``).
"""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from . import permissions, websocket
from .compute.common import path_of
from .errors import Refusal
from .handlers import Caller
from .state import Thing

if TYPE_CHECKING:
    from .proxy import Handler
    from .server import Google

HOST = "tunnel.cloudproxy.app"
SUBPROTOCOL = "relay.tunnel.cloudproxy.app"
PERMISSION = "iap.tunnelInstances.accessViaIAP"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
# Where IAP's connections come from.
SOURCES = ipaddress.ip_network("35.235.240.0/20")
CONNECTED, DATA, ACKNOWLEDGED = 0x0001, 0x0004, 0x0007
SID = b"lab"  # no tunnel is found again by its name
PIECE = 16384  # the most that one message of data holds
WINDOW = 2 * PIECE
WAITING = 1 << 18  # bytes for one side until the other is not read any more
LATER = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)

SID_UNKNOWN = (4001, "sid unknown")
NO_BACKEND = (4003, "failed to connect to backend")
INVALID_OPCODE = (4007, "invalid websocket opcode")
INVALID_TAG = (4008, "invalid tag")
READ_FAILED = (4010, "destination read failed")
INVALID_DATA = (4013, "invalid data")
NOT_AUTHORIZED = (4033, "not authorized")
NOT_FOUND = (4047, "Failed to lookup instance")


class Closed(Exception):
    """The tunnel ends, with a close code and a reason."""

    def __init__(self, why: tuple[int, str]) -> None:
        super().__init__(why[1])
        self.why = why


def answer(handler: Handler, headers: dict[str, str]) -> None:
    """Answer a request; the connection is used up by it."""
    handler.close_connection = True
    try:
        _answer(handler, headers)
    finally:
        # The server closes what it has accepted, which TLS has taken from it.
        with contextlib.suppress(OSError):
            handler.connection.shutdown(socket.SHUT_RDWR)


def _answer(handler: Handler, headers: dict[str, str]) -> None:
    google, parts = handler.server.google, urlsplit(handler.path)
    query = {name: texts[-1] for name, texts in parse_qs(parts.query).items()}
    try:
        key = _check_request(parts.path, query, headers)
        caller = _caller(google, headers)
    except Refusal as refusal:
        text = refusal.message.encode()
        head = f"HTTP/1.1 {refusal.status} {handler.responses[refusal.status][0]}\r\nContent-Length: {len(text)}\r\n"
        handler.wfile.write(f"{head}Connection: close\r\n\r\n".encode() + text)
        return
    handler.wfile.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {websocket.accept(key)}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n".encode()
    )
    google.tunnels.append(query)
    if google.keep:
        del google.tunnels[:-100]
    reader = websocket.Reader()
    try:
        if parts.path != "/v4/connect":
            raise Closed(SID_UNKNOWN)
        with _connect(google, caller, query) as backend:
            Tunnel(handler.connection, backend, reader).run()
    except Closed as closed:
        _close(handler.connection, reader, closed.why)


def _close(client: Any, reader: websocket.Reader, why: tuple[int, str]) -> None:
    """Say why it ends and read until the client has understood: closed at once, the connection would lose the word."""
    client.settimeout(5)
    with contextlib.suppress(OSError, websocket.ProtocolError):
        client.sendall(websocket.closing(*why))
        while data := client.recv(PIECE):
            if any(opcode == websocket.CLOSE for opcode, _ in reader.messages(data)):
                return


def _check_request(path: str, query: dict[str, str], headers: dict[str, str]) -> str:
    """The key of the handshake."""
    wanted = {"/v4/connect": ("project", "zone", "instance", "interface", "port"), "/v4/reconnect": ("sid", "ack")}
    if path not in wanted:
        raise Refusal(404, f"The requested URL {path} was not found on this server.")
    missing = [name for name in wanted[path] if not query.get(name)]
    if missing or not query.get("port", "0").isdigit():
        raise Refusal(400, f"Found no {', '.join(missing) or 'port that is a number'}.")
    key = headers.get("sec-websocket-key", "")
    if headers.get("upgrade", "").lower() != "websocket" or not key:
        raise Refusal(400, "Expected a WebSocket handshake.")
    if SUBPROTOCOL not in headers.get("sec-websocket-protocol", ""):
        raise Refusal(400, f"Expected the subprotocol {SUBPROTOCOL}.")
    return key


def _caller(google: Google, headers: dict[str, str]) -> Caller:
    kind, _, text = headers.get("authorization", "").partition(" ")
    with google.state.lock:
        known = google.state.note("tokens").get(text.strip()) if kind.lower() == "bearer" else None
    if known is None or known["expires"] < time.time() or SCOPE not in known["scopes"]:
        raise Refusal(401, "The access token is missing, unknown or expired, or has not the scope cloud-platform.")
    return Caller(known["email"], frozenset(known["scopes"]))


def _connect(google: Google, caller: Caller, query: dict[str, str]) -> socket.socket:
    """The connection to the instance's port.

    :raises Closed: where Google refuses it, in Google's order: the caller, the instance, the way.
    """
    from . import drivers

    port = int(query["port"])
    with google.state.lock:
        project = google.project_id(query["project"])
        path = f"projects/{project}/zones/{query['zone']}/instances/{query['instance']}"
        tunnel = f"iap/projects/{project}/iap_tunnel"
        zone = f"{tunnel}/zones/{query['zone']}"
        resources = [f"cloudresourcemanager/projects/{project}", tunnel, zone, f"{zone}/instances/{query['instance']}"]
        if not permissions.has(google, caller.member, PERMISSION, resources):
            raise Closed(NOT_AUTHORIZED)
        instance = google.state.get(f"compute/{path}")
        interfaces = {found["name"]: found for found in (instance or {}).get("networkInterfaces", ())}
        if instance is None or instance["status"] != "RUNNING" or query["interface"] not in interfaces:
            raise Closed(NOT_FOUND)
        rules = [rule for _, rule in google.state.children(f"compute/projects/{project}/global/firewalls")]
        if not lets_in(rules, instance, interfaces[query["interface"]]["network"], port):
            raise Closed(NO_BACKEND)
        address = drivers.of(google).endpoint(path, port)
    try:
        if address is None:
            raise ConnectionRefusedError
        return socket.create_connection(address, timeout=10)
    except OSError:
        raise Closed(NO_BACKEND) from None


def lets_in(rules: list[Thing], instance: Thing, network: str, port: int) -> bool:
    """Whether firewall rules let IAP reach a TCP port: the first by priority decides, a denial before the rest."""
    tags = set(instance.get("tags", {}).get("items", ()))
    accounts = {account["email"] for account in instance.get("serviceAccounts", ())}
    for rule in sorted(rules, key=lambda rule: (rule["priority"], "denied" not in rule)):
        if rule["direction"] != "INGRESS" or rule.get("disabled") or path_of(rule["network"]) != path_of(network):
            continue
        if "targetTags" in rule and not tags & set(rule["targetTags"]):
            continue
        if "targetServiceAccounts" in rule and not accounts & set(rule["targetServiceAccounts"]):
            continue
        denied = "denied" in rule
        if not any(_holds_port(entry, port) for entry in rule["denied" if denied else "allowed"]):
            continue
        ranges = [ipaddress.ip_network(text) for text in rule.get("sourceRanges", ())]
        # An address of any part of IAP's range can be the one that connects.
        if denied and any(SOURCES.overlaps(found) for found in ranges):
            return False
        if not denied and any(found.version == 4 and SOURCES.subnet_of(found) for found in ranges):  # type: ignore[arg-type]
            return True
    return False


def _holds_port(entry: Thing, port: int) -> bool:
    if entry["IPProtocol"] not in ("all", "tcp", "6"):
        return False
    spans = [text.partition("-") for text in entry.get("ports", ())]
    return not spans or any(int(low) <= port <= int(high or low) for low, _, high in spans)


class Tunnel:
    """Bytes between a WebSocket and a connection, in one thread: a TLS connection must not be used by two at once."""

    def __init__(self, client: Any, backend: socket.socket, reader: websocket.Reader) -> None:
        self.client = client
        self.backend = backend
        self.reader = reader
        self.to_client = bytearray()
        self.to_backend = bytearray()
        self.received = self.acknowledged = self.sent = 0

    def run(self) -> None:
        """Carry bytes until one side ends.

        :raises Closed: if it is not the client that ends it.
        """
        self._say(struct.pack(">HI", CONNECTED, len(SID)) + SID)
        for side in (self.client, self.backend):
            side.setblocking(False)
        while True:
            self._wait()
            if len(self.to_backend) < WAITING and not self._take_from_client():
                return
            ended = len(self.to_client) < WAITING and self._take_from_backend()
            self._flush(self.client, self.to_client)
            self._flush(self.backend, self.to_backend)
            if ended:
                self.client.settimeout(10)
                self.client.sendall(self.to_client)
                raise Closed(ended)

    def _wait(self) -> None:
        reads = [self.client] * (len(self.to_backend) < WAITING) + [self.backend] * (len(self.to_client) < WAITING)
        writes = [self.client] * bool(self.to_client) + [self.backend] * bool(self.to_backend)
        # What TLS has decrypted already no select tells of.
        held = self.client in reads and isinstance(self.client, ssl.SSLSocket) and self.client.pending()
        select.select(reads, writes, [], 0 if held else None)

    def _take_from_client(self) -> bool:
        """Whether the client is still there."""
        try:
            data = self.client.recv(WAITING)
        except LATER:
            return True
        except OSError:
            return False
        if not data:
            return False
        try:
            for opcode, message in self.reader.messages(data):
                if opcode == websocket.CLOSE:
                    self._flush(self.backend, self.to_backend)
                    self.to_client += websocket.frame(websocket.CLOSE, message[:2])
                    self._flush(self.client, self.to_client)
                    return False
                if opcode == websocket.PING:
                    self.to_client += websocket.frame(websocket.PONG, message)
                elif opcode != websocket.PONG:
                    self._understand(opcode, message)
        except websocket.ProtocolError as error:
            raise Closed((error.code, error.reason)) from None
        return True

    def _understand(self, opcode: int, message: bytes) -> None:
        if opcode != websocket.BINARY:
            raise Closed(INVALID_OPCODE)
        tag = int.from_bytes(message[:2])
        if tag == DATA:
            if len(message) < 6 or int.from_bytes(message[2:6]) != len(message) - 6 or len(message) - 6 > PIECE:
                raise Closed(INVALID_DATA)
            self.to_backend += message[6:]
            self.received += len(message) - 6
            if self.received - self.acknowledged >= WINDOW:
                self.acknowledged = self.received
                self._say(struct.pack(">HQ", ACKNOWLEDGED, self.received))
        elif tag == ACKNOWLEDGED:
            if len(message) != 10 or int.from_bytes(message[2:]) > self.sent:
                raise Closed((4006, "invalid ack"))
        else:
            raise Closed(INVALID_TAG)

    def _take_from_backend(self) -> tuple[int, str] | None:
        """Why the tunnel ends, if it does."""
        try:
            data = self.backend.recv(WAITING)
        except LATER:
            return None
        except OSError:
            return READ_FAILED
        for piece in _pieces(data):
            self._say(struct.pack(">HI", DATA, len(piece)) + piece)
        self.sent += len(data)
        return None if data else READ_FAILED

    def _say(self, message: bytes) -> None:
        self.to_client += websocket.frame(websocket.BINARY, message)

    def _flush(self, side: Any, buffer: bytearray) -> None:
        """Send what goes without waiting."""
        try:
            while buffer:
                del buffer[: side.send(buffer)]
        except LATER:
            return
        except OSError:
            buffer.clear()  # the next read tells that it has ended


def _pieces(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PIECE] for start in range(0, len(data), PIECE))
