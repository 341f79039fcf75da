# SPDX-License-Identifier: Apache-2.0
"""A job: one at a time, and what it found is written down, whether it ended well or not."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config

LOCKS = "/run/dagster-gce"

CRITICAL = "critical"
WARNING = "warning"

STATE_FILE = files.Owner(0, 0, 0o640)
STATE_FOLDER = files.Owner(0, 0, 0o750)


class JobError(Exception):
    """A job cannot do its work; the text says what was found and what to do. Anything else is a defect."""


@dataclass(frozen=True)
class Problem:
    """Something that a person has to know: ``text`` is one sentence with what, what was found, what to do.

    ``name`` is a short identifier that stays the same while the problem lasts (``backup_bucket``): notifications and
    metrics tell one problem from another by it.
    """

    name: str
    severity: str
    text: str


@dataclass(frozen=True)
class Metric:
    """One sample for the metrics endpoint."""

    name: str
    value: float
    help: str = ""
    type: str = "gauge"
    labels: dict[str, str] = field(default_factory=dict)


@dataclass
class Result:
    """What a job found and did. ``ok=False`` is a failure without an exception (the state is written as it stands)."""

    summary: str = ""
    ok: bool = True
    details: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)


class EndedError(BaseException):
    """Somebody ends this process (systemd, after the job's timeout). Like KeyboardInterrupt, no `except Exception`."""


class BusyError(Exception):
    """The same job is running already."""


def state_path(name: str) -> str:
    """The file with the last result of a job."""
    return os.path.join(config.stack().state, f"{name}.json")


def state(name: str) -> dict[str, Any]:
    """The last result of a job; ``{}`` where it never ran or what is there cannot be read."""
    try:
        with open(state_path(name), encoding="utf-8") as stream:
            found = json.load(stream)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def states() -> dict[str, dict[str, Any]]:
    """The last result of every job that ever ran here."""
    try:
        names = sorted(name[: -len(".json")] for name in os.listdir(config.stack().state) if name.endswith(".json"))
    except OSError:
        return {}
    return {name: found for name in names if (found := state(name)).get("job") == name}


def current_states() -> dict[str, dict[str, Any]]:
    """The same without what is only the past: jobs that had a timer and have none any more."""
    known = config.jobs()
    return {name: found for name, found in states().items() if name in known or found.get("every_at_most") is None}


@contextlib.contextmanager
def lock(name: str, wait: bool = False) -> Iterator[None]:
    """Hold the job's lock; the kernel gives it up when the process ends, however it ends.

    Raises:
        BusyError: somebody else holds it and ``wait`` is false.
    """
    os.makedirs(LOCKS, mode=0o700, exist_ok=True)
    with open(os.path.join(LOCKS, f"{name}.lock"), "w", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise BusyError(f"{name} is running already; --wait waits for its end") from error
        yield


def run(name: str, work: Callable[[], Result], *, wait: bool = False, quiet: bool = False) -> int:
    """Run a job under its lock and replace its state file; returns the exit code of the command.

    A job that is running already is no failure: this says so and returns 0. What ``work`` raises is a failure: its
    text becomes the summary and a problem, and the traceback of anything but a `JobError` goes to standard error
    (the journal).

    Args:
        name: the job's name, also that of its state file.
        work: does the work.
        wait: wait for a running one instead.
        quiet: print nothing when all is well.
    """
    try:
        with lock(name, wait):
            return _run(name, work, quiet)
    except BusyError as error:
        print(error)
        return 0


def _run(name: str, work: Callable[[], Result], quiet: bool) -> int:
    before = state(name)
    started, clock = time.time(), time.monotonic()
    try:
        with _ended_by_a_signal():
            result = work()
    except KeyboardInterrupt:
        result = Result("interrupted", ok=False)
    except EndedError:
        took = time.monotonic() - clock
        result = Result(f"ended by SIGTERM after {took:.0f} s: by its timeout, a stop or a shutdown", ok=False)
    except Exception as error:
        # One line for people; where it is a defect, the place in the code for who mends it.
        if not isinstance(error, JobError):
            traceback.print_exc()
        result = Result(str(error) or type(error).__name__, ok=False)
        with contextlib.suppress(AttributeError):
            result.details = dict(error.details)  # type: ignore[attr-defined]  # an error may bring some
    # The duration by the clock that nobody sets.
    ended = started + time.monotonic() - clock
    known = config.jobs().get(name)
    write_state(
        name,
        {
            "job": name,
            "started": round(started, 3),
            "ended": round(ended, 3),
            "ok": result.ok,
            "summary": result.summary,
            "details": result.details,
            "last_success": round(ended, 3) if result.ok else before.get("last_success"),
            "every_at_most": known.every_at_most if known else None,
            "problems": [asdict(each) for each in result.problems],
            "metrics": [asdict(each) for each in result.metrics],
        },
    )
    if not result.ok:
        print(f"{name}: {result.summary}", file=sys.stderr)
        return 1
    if not quiet:
        print(result.summary)
    return 0


@contextlib.contextmanager
def _ended_by_a_signal() -> Iterator[None]:
    """SIGTERM becomes an exception, so that what was begun is tidied up and the state says what happened."""

    def end(_number: int, _frame: object) -> None:
        raise EndedError

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def write_state(name: str, content: dict[str, Any]) -> None:
    """Replace a job's state file; a disk without room is said and does not end the job."""
    try:
        if not os.path.isdir(config.stack().state):
            files.make_folder(config.stack().state, STATE_FOLDER)
        files.replace(state_path(name), (json.dumps(content, indent=1) + "\n").encode(), STATE_FILE)
    except OSError as error:
        print(f"{state_path(name)} cannot be written: {error.strerror}", file=sys.stderr)
