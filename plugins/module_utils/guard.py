# SPDX-License-Identifier: Apache-2.0
"""A watch over a new release that goes on after the play has ended.

A server may pass its gate and die a few seconds later. Waiting for that in every play would cost every deploy what only
a bad one needs, so a process stays behind for a while. The engine restarts a release that dies once; one that dies
again within that time is taken back, as a failed soak would be.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from typing import TYPE_CHECKING

from ansible_collections.dataops.dagster_gce.plugins.module_utils import code_server, docker_cli, releases

if TYPE_CHECKING:
    from ansible_collections.dataops.dagster_gce.plugins.module_utils import deployment

# The first death may be somebody's `kill`; the second one is the release's own doing.
_DEATHS = 2


def stay_behind(task: deployment.Deployment, release: str, seconds: float) -> None:
    """Watch the release from a process of its own; returns at once.

    The process has no ties to the play: its own session, no open streams, no lock. It only holds what is in memory,
    since the module's files are gone as soon as the play's task ends.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork():
        os.wait()
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        os.closerange(3, 256)
        os.chdir("/")
        watch(task, release, seconds)
    finally:
        os._exit(0)


def watch(task: deployment.Deployment, release: str, seconds: float) -> bool:
    """Take the release back if it dies twice within ``seconds``; True if that was done."""
    # What somebody forced was the deploy. Whoever holds the lock by then is not to be ended by a watch.
    task.options = dataclasses.replace(task.options, force_unlock=False)
    deadline = time.monotonic() + seconds
    # The engine counts over the container's whole life, and a release kept warm may have died weeks ago.
    before = _restarts(release)
    while time.monotonic() < deadline:
        time.sleep(1)
        with contextlib.suppress(docker_cli.DockerError, ValueError):
            if task.serving_release() != release:
                # Somebody has released something else meanwhile, and watches that.
                return False
            found = code_server.container(releases.container_name(release))
            if found is None:
                return False
            # Lower than before: the engine starts at 0 again when somebody starts the container by hand.
            before = found.restarts if before is None else min(before, found.restarts)
            deaths = found.restarts - before
            if deaths >= _DEATHS:
                return task.take_back(release, f"it died {deaths} times within {seconds:g} s of its release")
    return False


def _restarts(release: str) -> int | None:
    with contextlib.suppress(docker_cli.DockerError, ValueError):
        found = code_server.container(releases.container_name(release))
        return found.restarts if found else None
    return None
