"""`make demo` before it has begun."""

from __future__ import annotations

import socket
import time

import pytest

from lab import demo
from lab.shell import LabError


def test_a_taken_port_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("DEMO_PORT", str(port))
        with pytest.raises(LabError, match=f"port {port} of 127.0.0.1 is in use; choose another one"):
            demo.run(time.monotonic())
