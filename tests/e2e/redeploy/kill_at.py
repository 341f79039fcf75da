"""Runs on the machine: a deploy that is killed (SIGKILL) as soon as it reaches a phase.

Usage: kill_at.py PHASE IMAGE        exit code 137: killed there; 0: the phase was never reached
"""

from __future__ import annotations

import os
import signal
import sys

from ansible_collections.dataops.dagster_gce.plugins.module_utils import code_server, deployment, dotenv


def main() -> int:
    """Deploy, and end at the phase."""
    phase, image = sys.argv[1:]

    def on_phase(name: str) -> None:
        if name == phase:
            os.kill(os.getpid(), signal.SIGKILL)

    with open("/opt/dagster/.env", encoding="utf-8") as stream:
        found = dotenv.parse(stream.read())
    names = ("POSTGRES_USER", "POSTGRES_DB", "GCP_PROJECT", "GCP_LOCATION", "BIGQUERY_PROJECT")
    settings = code_server.Settings(environment={name: found[name] for name in names if name in found})
    deployment.Deployment(deployment.Options(who="killed"), settings, on_phase).deploy(image)
    return 0


if __name__ == "__main__":
    sys.exit(main())
