"""Who uses a code server: the kernel's own table, recorded and live."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from ansible_collections.dataops.dagster_gce.plugins.module_utils import connections

# Recorded in the namespace of a real dagster-daemon.
RECORDED = Path(__file__).parent / "recorded" / "proc_net_tcp6.txt"


def test_a_recorded_table_is_read() -> None:
    rows = connections.parse(RECORDED.read_text())
    assert rows[0].remote == ("172.23.0.9", 4000)
    assert rows[0].local[0] == "172.23.0.4"
    assert not rows[0].open
    # 0x9DD hundredths of a second are left of the minute.
    assert round(rows[0].age, 2) == 60 - 25.25


def test_a_connection_of_this_process_is_seen_open_and_then_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        addresses, port = (f"1{address[0]}", address[0]), address[1]
        assert connections.last_contact(os.getpid(), addresses, port) is None
        client = socket.create_connection(address)
        accepted, _peer = server.accept()
        assert connections.last_contact(os.getpid(), addresses, port) == 0
        assert connections.served_now(os.getpid(), port) == 1
        # Whoever closes first keeps the memory of it.
        client.close()
        accepted.close()
        age = connections.last_contact(os.getpid(), addresses, port)
        assert age is not None
        assert age < 2
        assert connections.served_now(os.getpid(), port) == 0


def test_an_ipv6_address_is_read() -> None:
    row = (
        "   0: 00000000000000000000000001000000:0FA0 B80D0120000000000000000001000000:1F90 01 0:0 00:00000000 0 0 0 0 1"
    )
    found = connections.parse("header\n" + row)[0]
    assert found.local == ("::1", 4000)
    assert found.remote == ("2001:db8::1", 8080)


def test_each_address_of_a_container_counts() -> None:
    rows = connections.parse(RECORDED.read_text())
    port = rows[0].remote[1]
    assert connections.ages(rows[:1], ("172.18.0.2", "172.23.0.9"), port) == [rows[0].age]
    assert connections.ages(rows[:1], ("172.18.0.2",), port) == []
    assert connections.ages(rows[:1], ("172.23.0.9",), port + 1) == []
