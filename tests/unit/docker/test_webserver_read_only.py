"""files/docker/webserver_read_only.py: a server that follows workspace.yaml, ends with it, and ends by a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[3] / "files/docker/webserver_read_only.py"
# What the real one does is seen in tests/browser/test_gateway.py; here it is a process that says how it was called.
SERVER = """#!/bin/sh
echo "$*" >>started
[ ! -e dies ] || exit 7
exec sleep 1000
"""


class Wrapped:
    """The wrapper in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        (folder / "bin/dagster-webserver").write_text(SERVER)
        (folder / "bin/dagster-webserver").chmod(0o755)
        (folder / "workspace.yaml").write_text("load_from: []\n")
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        command = [sys.executable, str(PROGRAM), "-h", "0.0.0.0", "-p", "3000", "-w", "workspace.yaml"]
        self.process = subprocess.Popen(command, cwd=self.folder, env=environment, text=True, stdout=subprocess.DEVNULL)
        return self.process

    def started(self, times: int) -> list[str]:
        """How the server was called, once it was so often."""
        deadline = time.monotonic() + 60
        while True:
            found = (self.folder / "started").read_text().splitlines() if (self.folder / "started").exists() else []
            if len(found) >= times:
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.1)

    def replace(self, text: str) -> None:
        """As a deploy does it: by rename."""
        (self.folder / "new").write_text(text)
        (self.folder / "new").rename(self.folder / "workspace.yaml")


@pytest.fixture
def wrapped(tmp_path: Path) -> Iterator[Wrapped]:
    found = Wrapped(tmp_path)
    yield found
    if found.process and found.process.poll() is None:
        found.process.send_signal(signal.SIGTERM)
        found.process.wait(20)


def test_it_changes_nothing_and_starts_again_with_another_workspace(wrapped: Wrapped) -> None:
    wrapped.start()
    assert wrapped.started(1) == ["--read-only -h 0.0.0.0 -p 3000 -w workspace.yaml"]
    wrapped.replace("load_from: [{}]\n")
    assert len(set(wrapped.started(2))) == 1
    # Away for a moment is no change.
    (wrapped.folder / "workspace.yaml").rename(wrapped.folder / "aside")
    time.sleep(2)
    (wrapped.folder / "aside").rename(wrapped.folder / "workspace.yaml")
    time.sleep(2)
    assert len(wrapped.started(2)) == 2


def test_it_ends_with_its_server_so_that_the_engine_starts_it_again(wrapped: Wrapped) -> None:
    (wrapped.folder / "dies").touch()
    assert wrapped.start().wait(60) == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_both(wrapped: Wrapped, number: signal.Signals) -> None:
    process = wrapped.start()
    wrapped.started(1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(number)
    assert process.wait(60) == 0
    assert not any(Path(f"/proc/{child}").exists() for child in children)
