"""The lab's Google as a process of this computer, for ``make demo``: it goes on when the command ends.

Everything that it keeps is in ``.lab/google``: the state, so that it goes on where it was after a restart, disks, its
certificate, ``log``, ``pid``, and ``environment.json`` with the variables that lead a client here.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import docker

from .. import machine
from ..shell import LabError, say, wait_until

FOLDER = machine.STATE / "google"
ENVIRONMENT = FOLDER / "environment.json"
PIDFILE = FOLDER / "pid"
LOG = FOLDER / "log"
PROJECT = "dagster-lab"
# What a project that was just made can be asked: everything else is for the playbooks to enable.
SERVICES = ["cloudresourcemanager.googleapis.com", "serviceusage.googleapis.com"]
PREFIX = "google"
COMMAND = ["-m", "lab", "google", "serve"]


def up() -> None:
    """Have it running. Raises LabError with the log's last lines if it does not start."""
    if pid():
        return
    FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
    say("starting the lab's Google")
    with LOG.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *COMMAND], cwd=machine.STATE.parent, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    wait_until(lambda: pid() == process.pid or process.poll() is not None, 60, "an answer of the lab's Google")
    if process.poll() is not None:
        last = "\n  ".join(LOG.read_text(errors="replace").splitlines()[-15:])
        raise LabError(f"the lab's Google does not start ({LOG}):\n  {last}")


def pid() -> int | None:
    """The process that serves, once it does; None where there is none (a pid file of a killed one does not count)."""
    try:
        number = int(PIDFILE.read_text())
        command = Path(f"/proc/{number}/cmdline").read_bytes().decode().split("\0")
        folder = Path(f"/proc/{number}/cwd").resolve()
    except (OSError, ValueError):
        return None
    return number if command[1:5] == COMMAND and folder == machine.STATE.parent else None


def environment() -> dict[str, str]:
    """The variables that lead a client here. Raises LabError where it does not run."""
    if not pid():
        raise LabError("the lab's Google does not run: python -m lab google up")
    found: dict[str, str] = json.loads(ENVIRONMENT.read_text())
    return found


def down(client: docker.DockerClient | None) -> None:
    """End it and remove all that it has made: machines, disks, state. ``client``: None where no engine runs."""
    number = pid()
    if number:
        say("stopping the lab's Google")
        os.kill(number, signal.SIGTERM)
        wait_until(lambda: not pid(), 30, "the end of the lab's Google")
    if not FOLDER.exists():
        return
    from .drivers import container, loops

    if client is not None:
        container.remove_machines(client, FOLDER)
    loops.Disks(FOLDER / "disks").detach_all(keep=set())
    shutil.rmtree(FOLDER, ignore_errors=True)


def status() -> str:
    """What it has, in a few lines."""
    if not pid():
        return "the lab's Google does not run"
    things = json.loads((FOLDER / "state.json").read_text())["things"]
    lines = [f"the lab's Google runs (process {pid()}, {environment()['HTTPS_PROXY']})"]
    for key, thing in sorted(things.items()):
        if "/operations/" not in key:
            lines.append(f"  {key} {thing.get('status', '')}".rstrip())
    return "\n".join(lines)


def serve() -> None:
    """Be that process; ends with SIGTERM."""
    from . import drivers
    from .server import Google

    os.umask(0o077)
    with (FOLDER / "serving").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError("another process serves the lab's Google already") from None
        google = Google(FOLDER, driver="container", options={"prefix": PREFIX}, port=_last_port())
        if PROJECT not in google.state.note("projects"):
            google.seed_project(PROJECT, services=SERVICES)
        google.registry = machine.registry_address(docker.from_env())
        driver = drivers.of(google)
        google.start()
        google.state.save()
        machine.replace(ENVIRONMENT, json.dumps(google.environment(), indent=2) + "\n")
        machine.replace(PIDFILE, f"{os.getpid()}\n")
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        ended.wait()
        PIDFILE.unlink(missing_ok=True)
        google.stop()
        driver.close()
        google.state.save()


def _last_port() -> int:
    """The port of the last time, which inventories and shells may know; 0 where somebody else has it by now."""
    try:
        port = int(json.loads(ENVIRONMENT.read_text())["HTTPS_PROXY"].rsplit(":", 1)[1])
    except (OSError, ValueError, KeyError):
        return 0
    return port if machine.port_is_free(port) else 0
