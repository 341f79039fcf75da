# SPDX-License-Identifier: Apache-2.0
"""Start no more runs for a while, and lose none of those that wait.

Dagster's own way is ``max_concurrent_runs: 0`` ("set to 0 to stop any runs from launching"), which the daemon reads
when it starts. So the number in dagster.yaml is replaced and the daemon restarted, which takes seconds: runs in flight
are in other processes, the webserver goes on, schedules that came due meanwhile are caught up, and everything that is
launched waits in the queue. What the number was stands beside it in the file: nothing else has to be remembered, and a
kill between the two steps is made good by the next call.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass

from ansible_collections.dataops.dagster_gce.plugins.module_utils import code_server, docker_cli, files
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config

_LINE = re.compile(
    r"^(?P<head>[ \t]*max_concurrent_runs:[ \t]*)(?P<number>-?\d+)"
    r"(?P<note>[ \t]+# paused \((?P<by>.*)\), was (?P<was>-?\d+))?[ \t]*$",
    re.MULTILINE,
)
_OWNER = files.Owner(0, 0, 0o644)


class PauseError(Exception):
    """The queue cannot be paused or let go; the text says what was found and what to do."""


@dataclass(frozen=True)
class State:
    """What dagster.yaml says: paused by whom (empty for nobody), and what the number was."""

    by: str
    number: int


def path() -> str:
    """The file with the number."""
    return os.path.join(config.stack().root, "dagster_home", "dagster.yaml")


def _read() -> str:
    try:
        with open(path(), encoding="utf-8") as stream:
            return stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise PauseError(f"{path()} cannot be read: {error}; run site.yml") from error


def _line(text: str) -> re.Match[str]:
    found = list(_LINE.finditer(text))
    if len(found) != 1:
        raise PauseError(
            f"{path()}: found {len(found)} lines max_concurrent_runs, expected one with a number, without which nobody"
            " can pause the queue; set dagster_max_concurrent_runs"
        )
    return found[0]


def state() -> State:
    """Whether the queue is paused.

    Raises:
        PauseError: dagster.yaml does not say.
    """
    found = _line(_read())
    if found["note"]:
        return State(found["by"], int(found["was"]))
    return State("", int(found["number"]))


def pause(by: str) -> bool:
    """Start no more runs; returns whether anything had to be done.

    Args:
        by: who, a few words without parentheses, for whoever reads the file.

    Raises:
        PauseError: dagster.yaml has no such number, or the daemon cannot be restarted.
    """
    text = _read()
    found = _line(text)
    if found["note"]:
        return _restart_if_older()
    changed = f"{found['head']}0  # paused ({by}), was {found['number']}"
    _write(text[: found.start()] + changed + text[found.end() :])
    return _restart_if_older()


def resume() -> bool:
    """Start runs again, as many as before; returns whether anything had to be done.

    Raises:
        PauseError: dagster.yaml has no such number, or the daemon cannot be restarted.
    """
    text = _read()
    found = _line(text)
    if not found["note"]:
        # site.yml has written the file anew meanwhile, and did not restart the daemon for what it says anyway.
        return _restart_if_older()
    _write(text[: found.start()] + found["head"] + found["was"] + text[found.end() :])
    return _restart_if_older()


def _write(text: str) -> None:
    try:
        files.replace(path(), text.encode(), _OWNER)
    except OSError as error:
        raise PauseError(f"{path()} cannot be written: {error.strerror}") from error


def _restart_if_older() -> bool:
    """Restart the daemon where it started before the file changed."""
    name = config.stack().daemon_container
    try:
        found = docker_cli.inspect("container", name)
        if found is None or not found["State"]["Running"]:
            return True  # whoever starts it reads the file
        written = os.stat(path()).st_mtime
        if written > time.time():
            # The clock was set back. The file would stay newer than any start, and the daemon be restarted each time.
            os.utime(path())
        elif code_server.instant(found["State"]["StartedAt"]) > written:
            return False
        docker_cli.run(["restart", name], timeout=120)
    except (docker_cli.DockerError, OSError, ValueError) as error:
        raise PauseError(f"{name} cannot be restarted: {error}") from error
    return True
