# SPDX-License-Identifier: Apache-2.0
"""Which release the daemon uses. It has no API that tells; the kernel knows whom it has asked lately."""

from __future__ import annotations

import time

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    code_server,
    releases,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.deployment_task import DeploymentError, Task

# The daemon asks the code server that it uses every second; under load a few seconds may pass.
ASKS_WITHIN = 10.0


def contacts(task: Task) -> dict[str, float]:
    """For each running release, the seconds since the daemon last asked it, if that is less than a minute."""
    clients = code_server.client_pids([task.options.daemon_container])
    running = [each for each in code_server.containers() if each.running]
    return code_server.contacts(running, clients.get(task.options.daemon_container), task.settings.port)


def release_in_use(task: Task) -> str | None:
    """The release that the daemon uses now: the one that it asks every second or so, if there is just one such."""
    recent = [name for name, age in contacts(task).items() if age < ASKS_WITHIN]
    return recent[0] if len(recent) == 1 else None


def wait_until_moved(task: Task, release: releases.Release) -> None:
    """Wait until the daemon uses the release.

    Raises:
        DeploymentError: it does not within ``daemon_timeout``.
    """
    deadline = time.monotonic() + task.options.daemon_timeout
    while time.monotonic() < deadline:
        if release_in_use(task) == release.release:
            task.outcome.daemon_moved = True
            return
        time.sleep(1)
    task.outcome.daemon_moved = False
    raise DeploymentError(
        f"release {release.release} serves, but {task.options.daemon_container} has not moved to it within"
        f" {task.options.daemon_timeout:g} s (it uses {release_in_use(task) or 'none or several'}).\n"
        f"Last log lines of {task.options.daemon_container}:\n"
        f"{code_server.logs(task.options.daemon_container, task.options.log_lines)}"
    )
