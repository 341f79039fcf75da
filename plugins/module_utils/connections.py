# SPDX-License-Identifier: Apache-2.0
"""Who still talks to which code server, read from the kernel.

The webserver and the daemon ask the code server that they use for its id once a second, each time over a new TCP
connection which they close themselves (dagster/_grpc/server_watcher.py, dagster/_grpc/client.py). Linux keeps a
closed connection for 60 s in TIME_WAIT on the side that closed it, together with the time that is left. So the
table of a container's network namespace tells, without asking Dagster anything, which code servers its process has
used and when it last did. The daemon has no API that would.

Format: https://docs.kernel.org/networking/proc_net_tcp.html
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass

_ESTABLISHED = 0x01
_TIME_WAIT = 0x06
_LISTEN = 0x0A
# TCP_TIMEWAIT_LEN of the kernel; no sysctl changes it.
_TIME_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Connection:
    """One row: both ends, the state, the seconds since it was closed (0 while it is open), the socket's inode."""

    local: tuple[str, int]
    remote: tuple[str, int]
    state: int
    age: float
    inode: int

    @property
    def open(self) -> bool:
        return self.state not in (_TIME_WAIT, _LISTEN)

    @property
    def listening(self) -> bool:
        return self.state == _LISTEN


def _address(text: str) -> tuple[str, int]:
    host, port = text.split(":")
    raw = bytes.fromhex(host)
    # Each 32-bit word stands in the machine's own byte order.
    words = b"".join(struct.pack(">I", struct.unpack("=I", raw[i : i + 4])[0]) for i in range(0, len(raw), 4))
    if len(words) == 4:
        return socket.inet_ntop(socket.AF_INET, words), int(port, 16)
    if words[:12] == b"\0" * 10 + b"\xff\xff":
        return socket.inet_ntop(socket.AF_INET, words[12:]), int(port, 16)
    return socket.inet_ntop(socket.AF_INET6, words), int(port, 16)


def parse(table: str, ticks_per_second: float = 100.0) -> list[Connection]:
    """The rows of a ``/proc/<pid>/net/tcp`` or ``tcp6``."""
    found = []
    for line in table.splitlines()[1:]:
        parts = line.split()
        if len(parts) < 10:
            continue
        state = int(parts[3], 16)
        left = int(parts[5].split(":")[1], 16) / ticks_per_second
        age = max(0.0, _TIME_WAIT_SECONDS - left) if state == _TIME_WAIT else 0.0
        found.append(Connection(_address(parts[1]), _address(parts[2]), state, age, int(parts[9])))
    return found


def of_process(pid: int) -> list[Connection]:
    """Every TCP connection of the network namespace that the process lives in.

    Raises:
        OSError: no such process, or not root.
    """
    ticks = float(os.sysconf("SC_CLK_TCK"))
    found = []
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{name}", encoding="ascii") as stream:
                found.extend(parse(stream.read(), ticks))
        except FileNotFoundError:
            # No IPv6 in this kernel; without the process, tcp is missing too.
            if name == "tcp":
                raise
    return found


def ages(rows: Iterable[Connection], addresses: Collection[str], port: int) -> list[float]:
    """The age of each connection to the port of one of these addresses (a container has one a network and protocol)."""
    return [each.age for each in rows if each.remote[0] in addresses and each.remote[1] == port]


def last_contact(pid: int, addresses: Collection[str], port: int) -> float | None:
    """Seconds since the process's container last used the port of one of the addresses: 0 while a connection is open,
    None if it did not within the last minute."""
    return min(ages(of_process(pid), addresses, port), default=None)


def served_now(pid: int, port: int) -> int:
    """How many connections to ``port`` are open on the server's side."""
    return sum(1 for each in of_process(pid) if each.local[1] == port and each.state == _ESTABLISHED)
