"""WebSocket's handshake and frames (RFC 6455) as a server needs them, without the socket."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterator

CONTINUATION, BINARY, CLOSE, PING, PONG = 0x0, 0x2, 0x8, 0x9, 0xA
# The constant of RFC 6455, section 1.3.
SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
LARGEST = 1 << 20


class ProtocolError(Exception):
    """The client breaks the protocol: a close code and what is wrong."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def accept(key: str) -> str:
    """The answer to a client's ``Sec-WebSocket-Key``."""
    return base64.b64encode(hashlib.sha1(key.encode() + SALT, usedforsecurity=False).digest()).decode()


def frame(opcode: int, payload: bytes = b"") -> bytes:
    """One whole message, as a server sends it: not masked."""
    size = len(payload)
    if size < 126:
        head = struct.pack(">BB", 0x80 | opcode, size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, 127, size)
    return head + payload


def closing(code: int, reason: str) -> bytes:
    """The frame that ends a connection."""
    return frame(CLOSE, struct.pack(">H", code) + reason.encode())


class Reader:
    """Puts messages together from the bytes of a client."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._message = bytearray()
        self._opcode = CONTINUATION

    def messages(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take bytes; give each message that they complete: its opcode and its content."""
        self._buffer += data
        while (found := self._frame()) is not None:
            last, opcode, payload = found
            if opcode >= CLOSE:
                yield opcode, payload
                continue
            if (opcode == CONTINUATION) != (self._opcode != CONTINUATION):
                raise ProtocolError(1002, "unexpected frame")
            self._opcode = self._opcode or opcode
            self._message += payload
            if last:
                opcode, payload = self._opcode, bytes(self._message)
                self._opcode, self._message = CONTINUATION, bytearray()
                yield opcode, payload

    def _frame(self) -> tuple[bool, int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, start = buffer[1] & 0x7F, 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(buffer[2:start])
        if not buffer[1] & 0x80 or size + len(self._message) > LARGEST:
            raise ProtocolError(1002, "a frame that is not masked or too large")
        if len(buffer) < start + 4 or len(buffer) < start + 4 + size:
            return None
        mask = bytes(buffer[start : start + 4]) * (size // 4 + 1)
        masked = buffer[start + 4 : start + 4 + size]
        payload = (int.from_bytes(masked) ^ int.from_bytes(mask[:size])).to_bytes(size)
        last, opcode = bool(buffer[0] & 0x80), buffer[0] & 0x0F
        del buffer[: start + 4 + size]
        return last, opcode, payload
