"""dagster-webserver --read-only, started again when workspace.yaml names another host.

A deploy has the other webserver read workspace.yaml again by a mutation, which a read-only one refuses. Without this it
would go on with a release that is retired. Usage: python webserver_read_only.py [arguments of dagster-webserver]
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

LOOK_SECONDS = 1.0
# Open websockets never end by themselves; the UI connects again.
STOP_SECONDS = 5.0


def mark(path: str) -> tuple[int, int] | None:
    """What differs after a file was replaced; None where there is none for the moment."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


class Server:
    """The webserver's process."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
        self.process = subprocess.Popen(self.command)

    def stop(self) -> int:
        """End it; returns its exit status."""
        self.process.terminate()
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def follow(command: Sequence[str], workspace: str, stopped: Callable[[], bool]) -> int:
    """Keep the server on the workspace file as it is now; returns the exit status of a server that ended by itself."""
    known, server = mark(workspace), Server(command)
    while not stopped():
        time.sleep(LOOK_SECONDS)
        status = server.process.poll()
        if status is not None:
            return status
        now = mark(workspace)
        if now is not None and now != known:
            print(f"{workspace} has changed: starting again", flush=True)
            server.stop()
            known, server = now, Server(command)
    server.stop()
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run until a signal, or until the server ends."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-w", dest="workspace", default="workspace.yaml")
    workspace = parser.parse_known_args(arguments)[0].workspace
    signals: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        signals.append(number)

    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGINT, note)
    return follow(["dagster-webserver", "--read-only", *arguments], workspace, lambda: bool(signals))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
