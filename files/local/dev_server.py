"""Serve the user code over gRPC, and serve it anew as soon as one of its files has been saved.

The container docker_dagster_core of docker-compose-local.yml runs this in place of `dagster api grpc`. Dagster itself
takes seconds to import; here that is done once, and an edit costs no more than the import of the user code: each server
is a fork of this process. The server before stops listening when the new one is ready to, and ends when its runs have
ended. Code that cannot be imported is served as the error that it is, so that the UI shows it.

Environment:
    DEV_DEBUG_PORT  port of the debugger (debugpy) to which an editor attaches, until the next edit; empty or 0: none
    DEV_POLLING     any text: look for edits instead of being told, where mounts tell nothing (NFS, virtual machines)
    DEV_WEBSERVER   address of the webserver, which is told of every new server
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.request
from pathlib import Path

import dagster_postgres  # noqa: F401  imported before the first fork, as what follows
from dagster._cli.api import api_cli
from dagster._grpc.server import DagsterGrpcServer  # noqa: F401
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.polling import PollingObserver

PACKAGE = "dagster_core"
FOLDER = Path("/opt/dagster/dagster_home")
PORT = 4000
EVERYWHERE = "0.0.0.0"  # noqa: S104  inside the container
SERVER = ["grpc", "--lazy-load-user-code", "-h", EVERYWHERE, "-p", str(PORT), "-m", PACKAGE, "-d", str(FOLDER)]
# An editor that saves several files, or one file in several steps, has made one edit.
QUIET_SECONDS = 0.1
DEBUGGER_SECONDS = 10


class Edits(FileSystemEventHandler):
    """Tells when files of the package have changed."""

    def __init__(self) -> None:
        self._happened = threading.Event()
        self._last = 0.0

    def on_any_event(self, event: FileSystemEvent) -> None:
        """To open or read a file is no edit, and caches are not what was edited."""
        if event.event_type in ("opened", "closed_no_write") or "__pycache__" in str(event.src_path):
            return
        self._last = time.monotonic()
        self._happened.set()

    def wait(self) -> None:
        """Return once something has changed and nothing else has for a moment."""
        self._happened.wait()
        while time.monotonic() - self._last < QUIET_SECONDS:
            time.sleep(QUIET_SECONDS / 2)
        self._happened.clear()


def listen_for_debugger(port: int) -> None:
    """Open the debugger's port; the server before may hold it for a moment still."""
    debugpy = importlib.import_module("debugpy")
    deadline = time.monotonic() + DEBUGGER_SECONDS
    while True:
        try:
            debugpy.listen((EVERYWHERE, port))
        except RuntimeError as error:
            if time.monotonic() > deadline:
                print(f"dev_server: no debugger on port {port}: {error}", file=sys.stderr, flush=True)
                return
            time.sleep(0.2)
        else:
            return


def end_debuggers() -> None:
    """End what holds the debugger's port: a process that debugpy starts beside the server."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"debugpy/adapter" in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


def tell_webserver(address: str) -> None:
    """Have it load the location anew. It would notice by itself, but not after an error, and a second later."""
    query = "mutation ($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }"
    body = json.dumps({"query": query, "variables": {"name": PACKAGE}}).encode()
    request = urllib.request.Request(f"{address}/graphql", body, {"Content-Type": "application/json"})
    # While the stack comes up, nobody has to be told.
    with contextlib.suppress(OSError):
        for _ in range(100):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", PORT), timeout=1).close()
                break
            time.sleep(0.05)
        urllib.request.urlopen(request, timeout=60).close()


def serve(ready: int, go_on: int) -> None:
    """Be a server until SIGTERM.

    Args:
        ready: file descriptor to which a byte is written once the user code is imported.
        go_on: file descriptor that is read before the port is opened.
    """
    for each in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(each, signal.SIG_DFL)
    sys.path.insert(0, str(FOLDER))
    # Dagster imports it again in a moment, from the cache; what is wrong with it is Dagster's to say.
    with contextlib.suppress(BaseException):
        importlib.import_module(PACKAGE)
    os.write(ready, b".")
    os.read(go_on, 1)
    port = int(os.environ.get("DEV_DEBUG_PORT") or 0)
    if port:
        threading.Thread(target=listen_for_debugger, args=(port,), daemon=True).start()
    api_cli(SERVER, standalone_mode=False)


def start(before: int | None) -> int:
    """Fork a server that takes over from the process ``before``; returns its id."""
    ready, tell_ready = os.pipe()
    go_on, tell_go_on = os.pipe()
    server = os.fork()
    if server == 0:
        os.close(ready)
        os.close(tell_go_on)
        try:
            serve(tell_ready, go_on)
        except BaseException as error:
            print(f"dev_server: {error!r}", file=sys.stderr, flush=True)
        finally:
            # Not os._exit: Python waits for the processes of runs on its way out.
            sys.exit(0)
    for end in (tell_ready, go_on):
        os.close(end)
    os.read(ready, 1)
    if before:
        with contextlib.suppress(ProcessLookupError):
            os.kill(before, signal.SIGTERM)
        end_debuggers()
    for end in (tell_go_on, ready):
        os.close(end)
    return server


def main() -> int:
    """Serve until SIGTERM."""
    edits = Edits()
    observer = PollingObserver(timeout=0.5) if os.environ.get("DEV_POLLING") else Observer()
    observer.schedule(edits, str(FOLDER / PACKAGE), recursive=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for servers that have ended
    server = start(None)
    observer.start()

    def stop(*_: object) -> None:
        os.kill(server, signal.SIGTERM)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    while True:
        edits.wait()
        began = time.monotonic()
        server = start(server)
        tell_webserver(os.environ.get("DEV_WEBSERVER", "http://dagster-webserver:3000"))
        print(f"dev_server: the webserver has the edit after {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
