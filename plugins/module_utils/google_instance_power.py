# Copyright (c) 2026, the dataops.dagster_gce authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""An instance's status, and whether it has to be stopped or started. See
https://cloud.google.com/compute/docs/instances/instance-lifecycle.
"""

from __future__ import annotations

from dataclasses import dataclass

DOWN = ("TERMINATED", "STOPPED")
GOING_DOWN = ("STOPPING", "PENDING_STOP", "DEPROVISIONING")
SUSPENDED = ("SUSPENDED", "SUSPENDING")
UNSETTLED = (*GOING_DOWN, "SUSPENDING")


@dataclass(frozen=True)
class Power:
    """Whether the machine runs, and what has to happen to that."""

    running: bool
    suspended: bool
    stop: bool
    start: bool
    after: str

    @classmethod
    def of(cls, status: str, state: str, needs_stop: bool) -> Power:
        """From the machine's status, the state asked for, and whether there are changes for a stopped machine."""
        suspended = status in SUSPENDED
        running = status not in (*DOWN, *GOING_DOWN, *SUSPENDED)
        runs = state == "started" or (running and state != "stopped")
        stop = (running and (needs_stop or not runs)) or (suspended and (needs_stop or state == "stopped"))
        start = runs and (stop or not running)
        after = "RUNNING" if start else "TERMINATED" if stop else status
        return cls(running, suspended, stop, start, status if running and runs else after)
