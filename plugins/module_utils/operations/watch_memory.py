# SPDX-License-Identifier: Apache-2.0
"""What the watch remembers from one look to the next.

It stands in /run, so a boot forgets it, and every time in it is of the clock that nobody sets. One look alone proves
nothing: a container may be in the middle of being created, replaced or restarted by somebody else.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import jobs

# After so long without a look (the watch was off, or paused) earlier looks count for nothing.
FORGET_SECONDS = 300.0
HOUR = 3600.0


@dataclass
class _Seen:
    fact: str
    first: float
    looks: int


@dataclass
class Memory:
    """Facts that earlier looks found, and what was done.

    Args:
        now: seconds of a clock that only goes forward.
        wall: seconds of the clock that people read.
    """

    now: float
    wall: float
    looked: float | None = None
    looked_wall: float = 0.0
    _before: dict[str, _Seen] = field(default_factory=dict)
    _seen: dict[str, _Seen] = field(default_factory=dict)
    # Values that stay until they are overwritten: heartbeats, identities of containers, the last steps of the clock.
    values: dict[str, Any] = field(default_factory=dict)
    _used: set[str] = field(default_factory=set)

    def seen(self, key: str, fact: str, seconds: float, looks: int = 2) -> bool:
        """Note that this look found ``fact`` about ``key``; True if it has stood for ``seconds`` and so many looks."""
        before = self._before.get(key)
        if before is None or before.fact != fact:
            before = _Seen(fact, self.now, 0)
        if key not in self._seen:
            self._seen[key] = _Seen(fact, before.first, before.looks + 1)
        found = self._seen[key]
        return found.looks >= looks and self.now - found.first >= seconds

    def standing(self, key: str) -> float:
        """Since how many seconds what this look found about ``key`` has stood."""
        found = self._seen.get(key)
        return self.now - found.first if found else 0.0

    def forget(self, key: str) -> None:
        """Begin anew with ``key``: something was done about it."""
        self._seen.pop(key, None)

    def begin_anew(self) -> None:
        """Forget what was seen, and keep the values."""
        self._seen.clear()

    def keep(self, key: str, value: Any) -> Any:
        """Remember a value under ``key``; returns what was remembered before, None if nothing was.

        Values that a look does not keep again are forgotten.
        """
        self._used.add(key)
        before = self.values.get(key)
        self.values[key] = value
        return before

    def recall(self, key: str) -> Any:
        """A value of an earlier look, which stays."""
        self._used.add(key)
        return self.values.get(key)

    def within_hour(self, key: str) -> int:
        """How often `count` was called with ``key`` in the last hour."""
        moments = [each for each in self.recall(f"count {key}") or () if self.now - each < HOUR]
        self.values[f"count {key}"] = moments
        return len(moments)

    def count(self, key: str) -> None:
        """Something was done about ``key`` now."""
        self.within_hour(key)
        self.values[f"count {key}"].append(self.now)

    def content(self) -> dict[str, Any]:
        """What is written down."""
        return {
            "looked": self.now,
            "looked_wall": self.wall,
            "seen": {key: [each.fact, each.first, each.looks] for key, each in self._seen.items()},
            # Counts outlive looks that had no reason to ask for them.
            "values": {
                key: value for key, value in self.values.items() if key in self._used or key.startswith("count ")
            },
        }

    def save(self, place: str = "") -> None:
        """Write it down; without room the next look begins anew."""
        with contextlib.suppress(OSError):
            os.makedirs(jobs.LOCKS, mode=0o700, exist_ok=True)
            owner = files.Owner(os.geteuid(), os.getegid(), 0o600)
            files.replace(place or path(), json.dumps(self.content()).encode(), owner)


def path() -> str:
    """The file."""
    return os.path.join(jobs.LOCKS, "watch.json")


def load(
    place: str = "", *, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
) -> Memory:
    """What earlier looks left; empty where nothing usable is there."""
    found = Memory(clock(), wall())
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        with open(place or path(), encoding="utf-8") as stream:
            given = json.load(stream)
        looked = float(given["looked"])
        if looked > found.now:
            # Another boot: its clock began anew.
            return found
        found.looked, found.looked_wall = looked, float(given["looked_wall"])
        found.values = dict(given["values"])
        if found.now - looked <= FORGET_SECONDS:
            found._before = {key: _Seen(*each) for key, each in given["seen"].items()}
    return found
