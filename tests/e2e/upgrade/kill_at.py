"""Runs on the machine: a step of an upgrade as the module does it, killed (SIGKILL) where it is asked to.

Usage: kill_at.py OPERATION STEP SECONDS OPTIONS   exit code 137: killed SECONDS after the step began; 0: never killed,
with the outcome as JSON; 1: refused or failed, with the reason. OPTIONS is JSON for ``upgrade.Options``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading

from ansible_collections.dataops.dagster_gce.plugins.module_utils import upgrade


def main() -> int:
    """Prepare, finish or go back, and end at the step."""
    operation, step, seconds, options = sys.argv[1:]

    def on_step(name: str) -> None:
        if name == step:
            if float(seconds) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Timer(float(seconds), os.kill, (os.getpid(), signal.SIGKILL)).start()

    task = upgrade.Upgrade(upgrade.Options(who="killed", **json.loads(options)), on_step)
    try:
        outcome = task.back("the test said so") if operation == "back" else getattr(task, operation)()
    except upgrade.UpgradeError as error:
        print(error)
        return 1
    print(json.dumps(dataclasses.asdict(outcome)))
    return 0


if __name__ == "__main__":
    # Not sys.exit(): it would wait for the timer.
    code = main()
    sys.stdout.flush()
    os._exit(code)
