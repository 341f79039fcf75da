# SPDX-License-Identifier: Apache-2.0
"""How full the machine's disks are, and what that means.

Levels, each with what the one before it does: ``ok``; ``warn`` tells; ``refuse`` refuses deploys and removes what
gives room at once; ``pause`` starts no run any more; ``full`` gives the reserve away, so that PostgreSQL lives.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config

JOB = "guard"
TO_DO = "look at `dagster-gce upkeep --dry-run` and docs/upkeep.md, or enlarge the disk"

LEVELS = ("ok", "warn", "refuse", "pause", "full")


@dataclass(frozen=True)
class Threshold:
    """A level begins where less than both is free: a share says little on a large disk, a size on a small one."""

    percent: float
    megabytes: float
    inodes_percent: float

    def bytes_of(self, total: int) -> float:
        """The free bytes below which the level begins on a disk of this size."""
        return min(self.megabytes * 1e6, total * self.percent / 100)


DEFAULTS: Mapping[str, Threshold] = {
    "warn": Threshold(20, 20_000, 10),
    "refuse": Threshold(10, 8_000, 5),
    "pause": Threshold(5, 4_000, 3),
    "full": Threshold(2, 1_000, 1),
}


@dataclass
class Disk:
    """A file system and what of ours is on it."""

    device: int
    paths: list[str]
    total: int
    free: int
    inodes: int
    inodes_free: int
    level: str = "ok"

    @property
    def inodes_percent_free(self) -> float:
        """Share of the inodes that are free; 100 where the file system makes them as needed."""
        return 100 * self.inodes_free / self.inodes if self.inodes else 100.0

    def text(self) -> str:
        """What a person reads."""
        found = f"{' and '.join(self.paths)}: {self.free / 1e9:.1f} GB of {self.total / 1e9:.1f} GB free"
        if self.inodes_percent_free < 10:
            found += f", and {self.inodes_percent_free:.0f} % of the inodes"
        return found


@dataclass(frozen=True)
class Settings:
    """The settings of the guard, as the role leaves them on the machine."""

    thresholds: Mapping[str, Threshold] = field(default_factory=lambda: dict(DEFAULTS))
    margin: float = 1.25
    reserve_megabytes: float = 256
    emergency_minutes: float = 60
    paths: tuple[str, ...] = ()


def settings(found: Mapping[str, Any]) -> Settings:
    """The settings of a file; what it does not name has its default."""
    thresholds = dict(DEFAULTS)
    for level, given in (found.get("thresholds") or {}).items():
        usual = DEFAULTS[level]
        thresholds[level] = Threshold(
            float(given.get("percent", usual.percent)),
            float(given.get("megabytes", usual.megabytes)),
            float(given.get("inodes_percent", usual.inodes_percent)),
        )
    usual_settings = Settings()
    return Settings(
        thresholds,
        float(found.get("margin", usual_settings.margin)),
        float(found.get("reserve_megabytes", usual_settings.reserve_megabytes)),
        float(found.get("emergency_minutes", usual_settings.emergency_minutes)),
        tuple(found.get("paths") or ()),
    )


def look(paths: Iterable[str]) -> list[Disk]:
    """The file systems below these paths, each once; a path that is not there counts for nothing."""
    found: dict[int, Disk] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            device = os.stat(path).st_dev
            if device in found:
                found[device].paths.append(path)
                continue
            about = os.statvfs(path)
            # What is free for everyone: the last blocks are root's, and PostgreSQL is not root.
            size = about.f_frsize
            usable = (about.f_blocks - about.f_bfree + about.f_bavail) * size
            found[device] = Disk(device, [path], usable, about.f_bavail * size, about.f_files, about.f_favail)
    return list(found.values())


def judge(disk: Disk, before: str, wanted: Settings) -> str:
    """The level of a disk. One is left only when there is a margin more than at its begin, so that it does not flap."""
    level = "ok"
    for number, name in enumerate(LEVELS[1:], 1):
        threshold = wanted.thresholds[name]
        factor = wanted.margin if LEVELS.index(before) >= number else 1.0
        few_inodes = disk.inodes > 0 and disk.inodes_percent_free < threshold.inodes_percent * factor
        if disk.free < threshold.bytes_of(disk.total) * factor or few_inodes:
            level = name
    return level


def worst(levels: Iterable[str]) -> str:
    """The highest of some levels."""
    return max(levels, key=LEVELS.index, default="ok")


def reaches(level: str, wanted: str) -> bool:
    """Whether a level is as high as another one."""
    return LEVELS.index(level) >= LEVELS.index(wanted)


def refusal() -> str:
    """Why nothing may be deployed now; empty if it may.

    What the guard has judged is up to a minute old, so the disks are looked at again: somebody may have made room.
    """
    try:
        with open(os.path.join(config.stack().state, f"{JOB}.json"), encoding="utf-8") as stream:
            details = json.load(stream)["details"]
        if not reaches(str(details["level"]), "refuse"):
            return ""
        wanted = settings(config.load("upkeep").get("guard") or {})
        for before in details["disks"]:
            for disk in look(before["paths"]):
                if reaches(judge(disk, str(before["level"]), wanted), "refuse"):
                    return f"the disk guard refuses deploys: {disk.text()}; {TO_DO}"
    except (OSError, ValueError, KeyError, TypeError, config.ConfigError):
        # No guard, no refusal: a deploy must not depend on what looks after the machine.
        return ""
    return ""
