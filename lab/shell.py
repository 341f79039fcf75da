"""Run commands, and say what is going on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class LabError(Exception):
    """Something that the user has to know; its text is the whole message."""


def say(message: str) -> None:
    """One line of progress on standard error, so that standard output stays machine-readable."""
    print(f"lab: {message}", file=sys.stderr, flush=True)


def run(
    *args: str,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = 600,
    cwd: Path | None = None,
) -> str:
    """Run a command (in the folder ``cwd``) and return its standard output.

    Raises LabError with the command's last lines when it fails or takes longer than ``timeout`` seconds.
    """
    try:
        done = subprocess.run(args, input=input, capture_output=True, env=env, timeout=timeout, cwd=cwd, check=False)
    except FileNotFoundError as missing:
        if cwd and not cwd.is_dir():
            raise LabError(f"{cwd} is not there, where {args[0]} was to run") from None
        raise LabError(f"{missing.filename} is not installed") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(args)} did not end within {timeout:.0f} s") from None
    if done.returncode:
        last = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()[-15:]
        raise LabError(f"{' '.join(args)} failed ({done.returncode}):\n  " + "\n  ".join(last))
    return done.stdout.decode(errors="replace")


def succeeds(*args: str, timeout: float = 60, cwd: Path | None = None) -> bool:
    """Whether a command ends with 0 (in the folder ``cwd``)."""
    try:
        return subprocess.run(args, capture_output=True, timeout=timeout, cwd=cwd, check=False).returncode == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


def wait_until(probe: Callable[[], bool], seconds: float, what: str, pause: float = 0.3) -> None:
    """Call ``probe`` until it is true. Raises LabError that names ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > deadline:
            raise LabError(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(pause)


def apt_install(packages: Sequence[str], options: Sequence[str] = ()) -> None:
    """Install Debian packages without questions and without what they merely recommend."""
    run(
        "apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *options, *packages,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        timeout=900,
    )  # fmt: skip
