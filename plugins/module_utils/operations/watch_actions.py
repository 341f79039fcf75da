# SPDX-License-Identifier: Apache-2.0
"""What the watch did: a line each in ``/opt/dagster/state/actions.jsonl``, newest last, bounded."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files, releases
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config, jobs

# Beyond this many bytes the older half goes.
LIMIT = 512 << 10
# Evidence files that stay.
EVIDENCE_FILES = 20


@dataclass(frozen=True)
class Action:
    """One thing that was done.

    Attributes:
        action: what, in a word (``restart``, ``fail_run``, ``start`` …).
        target: to whom: a container, a run, a code location.
        why: what was found.
        ok: whether it worked; ``error`` says why not.
        evidence: the file with what the target said last, where there is one.
    """

    action: str
    target: str
    why: str
    ok: bool = True
    error: str = ""
    evidence: str = ""
    time: str = ""

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.action} {self.target}: {self.why}" + ("" if self.ok else f" (failed: {self.error})")


def path() -> str:
    """The file."""
    return os.path.join(config.stack().state, "actions.jsonl")


def write(action: Action) -> None:
    """Add a line; a disk without room is said and does not end the watch."""
    line = json.dumps({**asdict(action), "time": action.time or releases.stamp()}, ensure_ascii=False) + "\n"
    try:
        if not os.path.isdir(config.stack().state):
            files.make_folder(config.stack().state, jobs.STATE_FOLDER)
        handle = os.open(path(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            os.write(handle, line.encode())
            size = os.fstat(handle).st_size
        finally:
            os.close(handle)
        if size > LIMIT:
            _halve()
    except OSError as error:
        print(f"{path()} cannot be written: {error.strerror}", file=sys.stderr)


def _halve() -> None:
    with open(path(), "rb") as stream:
        lines = stream.read().splitlines(keepends=True)
    files.replace(path(), b"".join(lines[len(lines) // 2 :]), jobs.STATE_FILE)


def last(count: int) -> list[Action]:
    """The newest ``count`` actions, newest first; lines that cannot be read are left out."""
    found: list[Action] = []
    try:
        with open(path(), encoding="utf-8", errors="replace") as stream:
            lines = stream.readlines()
    except OSError:
        return []
    for line in reversed(lines):
        with contextlib.suppress(ValueError, TypeError):
            found.append(Action(**json.loads(line)))
        if len(found) == count:
            break
    return found


def evidence(name: str, text: str) -> str:
    """Keep what a service said before it was restarted; returns the file, empty where it cannot be written."""
    folder = os.path.join(config.stack().state, "evidence")
    place = os.path.join(folder, f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{name}.txt")
    try:
        if not os.path.isdir(folder):
            files.make_folder(folder, jobs.STATE_FOLDER)
        files.replace(place, text.encode(), jobs.STATE_FILE)
        for old in sorted(os.listdir(folder))[:-EVIDENCE_FILES]:
            os.unlink(os.path.join(folder, old))
    except OSError as error:
        print(f"{place} cannot be written: {error.strerror}", file=sys.stderr)
        return ""
    return place
