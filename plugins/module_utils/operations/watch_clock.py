# SPDX-License-Identifier: Apache-2.0
"""Steps of the clock that people read, measured against the one that nobody sets."""

from __future__ import annotations

from ansible_collections.dataops.dagster_gce.plugins.module_utils import releases
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import jobs
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.watch_memory import HOUR, Memory
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.watch_settings import Settings


def step(memory: Memory, settings: Settings) -> float:
    """How far the clock was set since the last look, in seconds; 0 if it was not, or by less than counts.

    Also what a suspended machine shows: the other clock stands still meanwhile.
    """
    if memory.looked is None:
        return 0.0
    moved = (memory.wall - memory.looked_wall) - (memory.now - memory.looked)
    if abs(moved) < settings.clock_seconds:
        return 0.0
    memory.keep("clock", [moved, memory.now, memory.wall])
    return moved


def problem(memory: Memory) -> jobs.Problem | None:
    """The last step, for an hour."""
    last = memory.recall("clock")
    if not last or memory.now - last[1] > HOUR:
        memory.values.pop("clock", None)
        return None
    moved, _, wall = last
    if moved > 0:
        meaning = (
            "ticks of schedules in between are made up for, the newest five of each schedule; runs and heartbeats seem"
            " older than they are"
        )
    else:
        meaning = (
            "schedules do not tick again before the time that was already reached; sensors and Dagster's daemons would"
            " wait for it too, which is why the watch wakes and restarts them"
        )
    return jobs.Problem(
        "clock_step",
        jobs.WARNING,
        f"the clock was set {'forward' if moved > 0 else 'back'} by {abs(moved):.0f} s at {releases.stamp(wall)} (or"
        f" the machine was suspended): {meaning}; see `timedatectl`, and whether chrony or systemd-timesyncd runs",
    )
