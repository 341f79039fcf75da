# SPDX-License-Identifier: Apache-2.0
"""``dagster-gce pause``: the watch looks, and touches nothing.

Who stops a part of the stack on purpose says so first; else the watch starts it again. The file
``/opt/dagster/state/paused`` is the whole of it: a play may hold the watch for a while with `held`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pwd
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files, releases
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config, jobs


@dataclass(frozen=True)
class Pause:
    """Who holds the watch, why, since when and until when (seconds since the epoch; 0: until `resume`)."""

    reason: str
    who: str = ""
    since: float = 0.0
    until: float = 0.0

    def __str__(self) -> str:
        """One line for people."""
        until = f" until {releases.stamp(self.until)}" if self.until else ""
        return f"paused by {self.who or 'somebody'} since {releases.stamp(self.since)}{until}: {self.reason}"


def path() -> str:
    """The file that pauses the watch."""
    return os.path.join(config.stack().state, "paused")


def read() -> Pause | None:
    """The pause that stands now; None where there is none or its time is over."""
    try:
        with open(path(), encoding="utf-8", errors="replace") as stream:
            text, since = stream.read(), os.fstat(stream.fileno()).st_mtime
    except OSError:
        return None
    found = Pause(text.strip() or "no reason given", since=since)
    # Somebody in a hurry may have written a plain text.
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        given = json.loads(text)
        found = Pause(
            str(given.get("reason") or "no reason given"), str(given.get("who") or ""),
            float(given.get("since") or since), float(given.get("until") or 0),
        )  # fmt: skip
    return None if found.until and found.until <= time.time() else found


def pause(reason: str, *, seconds: float = 0, who: str = "") -> Pause:
    """Stop the watch from touching anything, for ``seconds`` or until `resume` (0).

    Raises:
        OSError: the file cannot be written.
    """
    now = time.time()
    found = Pause(reason, who or _who(), round(now, 3), round(now + seconds, 3) if seconds else 0.0)
    if not os.path.isdir(config.stack().state):
        files.make_folder(config.stack().state, jobs.STATE_FOLDER)
    files.replace(path(), (json.dumps(asdict(found)) + "\n").encode(), jobs.STATE_FILE)
    return found


def resume() -> bool:
    """Let the watch go on; False if it was not paused."""
    try:
        os.unlink(path())
    except FileNotFoundError:
        return False
    return True


@contextlib.contextmanager
def held(reason: str, seconds: float, who: str = "") -> Iterator[None]:
    """Hold the watch while something is stopped on purpose; an operator's own pause is left as it is.

    ``seconds`` bounds it: whoever is killed in between does not leave the machine without its watch.
    """
    mine = read() is None
    if mine:
        pause(reason, seconds=seconds, who=who)
    try:
        yield
    finally:
        if mine:
            resume()


def problem() -> jobs.Problem | None:
    """A pause is a problem as long as it stands: nobody looks after the machine."""
    found = read()
    if found is None:
        return None
    return jobs.Problem(
        "watch_paused", jobs.WARNING, f"the watch is {found}; `dagster-gce resume` lets it look after the machine again"
    )


def _who() -> str:
    with contextlib.suppress(KeyError):
        return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    return str(os.getuid())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``dagster-gce pause``."""
    parser.add_argument("reason", help="why, for who finds the machine so")
    parser.add_argument(
        "--minutes", type=float, default=0, help="end by itself after so long; without: `resume` ends it"
    )


def main(arguments: argparse.Namespace) -> int:
    """Pause the watch."""
    try:
        print(f"the watch is {pause(arguments.reason, seconds=arguments.minutes * 60)}")
    except OSError as error:
        print(f"{path()} cannot be written ({error.strerror}); run the command with sudo")
        return 1
    return 0
