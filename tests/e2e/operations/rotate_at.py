"""Runs on the machine: a rotation of the password that is killed (SIGKILL) as soon as it reaches a phase.

Usage: rotate_at.py PHASE        exit code 137: killed there; 0: the phase was never reached
"""

from __future__ import annotations

import os
import signal
import sys

from ansible_collections.dataops.dagster_gce.plugins.module_utils import password_rotation


def main() -> int:
    """Rotate, and end at the phase."""

    def on_phase(name: str) -> None:
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGKILL)

    password_rotation.Rotation(password_rotation.Place(), on_phase).rotate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
