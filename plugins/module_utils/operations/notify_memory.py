# SPDX-License-Identifier: Apache-2.0
"""Which problems stand since when, and who was told of them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config, jobs
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.jobs import Problem

# A webhook that does not work is not told of that through itself.
OWN = "notify_"


@dataclass
class Known:
    """A problem that stands, or stood until ``gone``.

    Attributes:
        told: when each channel was told last.
        told_severity: and how severe it was then.
        owed: channels that should have been told and could not be reached; they are told even when it is over.
    """

    problem: Problem
    since: float
    gone: float | None = None
    told: dict[str, float] = field(default_factory=dict)
    told_severity: dict[str, str] = field(default_factory=dict)
    owed: list[str] = field(default_factory=list)


@dataclass
class News:
    """What one channel has to be told."""

    came: list[Known] = field(default_factory=list)
    still: list[Known] = field(default_factory=list)
    went: list[Known] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.came or self.still or self.went)


class Memory:
    """All problems that stand or were told of."""

    def __init__(self, known: Mapping[str, Known] | None = None, heartbeat: float = 0.0) -> None:
        self.known = dict(known or {})
        self.heartbeat = heartbeat

    def look(self, problems: Iterable[Problem], now: float) -> None:
        """Take in what is wrong now."""
        found = {each.name: each for each in problems}
        for name, problem in found.items():
            known = self.known.setdefault(name, Known(problem, since=now))
            # One that comes back before it was called gone has been there all the time.
            known.problem, known.gone = problem, None
            known.since = min(known.since, now)  # the clock may have been set back
        for name, known in list(self.known.items()):
            if name in found:
                continue
            if not known.told and not known.owed:
                del self.known[name]
            elif known.gone is None or known.gone > now:
                known.gone = now

    def news(self, channel: str, now: float, after: float, again: float) -> News:
        """What the channel was not told yet.

        Args:
            after: seconds that a problem has to stand, or to be gone, before it is told.
            again: seconds after which one that still stands is told again; 0: never.
        """
        found = News()
        for known in self.known.values():
            if known.problem.name == OWN + channel:
                continue
            told = known.told.get(channel)
            if known.gone is not None:
                if (told is not None or channel in known.owed) and now - known.gone >= after:
                    found.went.append(known)
            elif now - known.since >= after:
                worse = known.problem.severity == jobs.CRITICAL != known.told_severity.get(channel)
                if told is None or worse:
                    found.came.append(known)
                elif again and now - told >= again:
                    found.still.append(known)
        return found

    def told(self, channel: str, news: News, now: float) -> None:
        """Note that the channel knows."""
        for known in (*news.came, *news.still, *news.went):
            known.owed = [each for each in known.owed if each != channel]
        for known in (*news.came, *news.still):
            known.told[channel], known.told_severity[channel] = now, known.problem.severity
        for known in news.went:
            known.told.pop(channel, None)
            if not known.told and not known.owed:
                self.known.pop(known.problem.name, None)

    def owe(self, channel: str, news: News) -> None:
        """Note that the channel could not be reached."""
        for known in (*news.came, *news.still):
            known.owed = sorted({*known.owed, channel})

    def forget_channels(self, channels: Iterable[str]) -> None:
        """Nobody has to be told any more through a channel that is no longer set up."""
        kept = set(channels)
        for name, known in list(self.known.items()):
            known.told = {channel: when for channel, when in known.told.items() if channel in kept}
            known.owed = [channel for channel in known.owed if channel in kept]
            if known.gone is not None and not known.told and not known.owed:
                del self.known[name]


def _paths() -> tuple[str, str]:
    # The second one is in memory: with a full disk, nobody wants the same message each minute.
    return os.path.join(config.stack().state, "notify_known.json"), os.path.join(jobs.LOCKS, "notify_known.json")


def load() -> Memory:
    """What was known at the end of the last look; nothing where that cannot be read."""
    newest: tuple[float, dict[str, Any]] = (0.0, {})
    for path in _paths():
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            with open(path, encoding="utf-8") as stream:
                content = json.load(stream)
            newest = max(newest, (float(content["written"]), content), key=lambda each: each[0])
    content = newest[1]
    known = {}
    for each in content.get("known") or []:
        with contextlib.suppress(TypeError, KeyError, AttributeError):
            known[each["problem"]["name"]] = Known(**{**each, "problem": Problem(**each["problem"])})
    return Memory(known, float(content.get("heartbeat") or 0))


def save(memory: Memory, now: float) -> None:
    """Write it down, on the disk or, where that is full, in memory."""
    content = {
        "written": now,
        "heartbeat": memory.heartbeat,
        "known": [asdict(each) for each in memory.known.values()],
    }
    for path in _paths():
        with contextlib.suppress(OSError):
            files.replace(path, json.dumps(content).encode(), jobs.STATE_FILE)
            return
