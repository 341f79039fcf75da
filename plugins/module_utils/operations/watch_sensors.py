# SPDX-License-Identifier: Apache-2.0
"""Sensors whose last tick is in the future, because the clock was set back.

Dagster begins a sensor's next tick so many seconds after its last one, by the clock that people read: an hour that is
set back is an hour without any. A schedule waits too, and rightly: the times up to the one that it has reached have had
their ticks.
"""

from __future__ import annotations

import json

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import watch_look
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.watch_memory import Memory
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.watch_settings import Settings

ACTION = "wake_sensors"


def are_asleep(look: watch_look.Look, memory: Memory, settings: Settings) -> bool:
    """Whether to wake them. A database whose clock differs from the machine's must not make it a loop."""
    if not look.sensors_ahead or memory.within_hour(ACTION) >= settings.restarts_per_hour:
        return False
    memory.count(ACTION)
    return True


# Inside the daemon's container. The cursor and all else of a sensor stay as they are.
_WAKE = r"""
import json, time
from dagster import DagsterInstance
from dagster._core.scheduler.instigation import InstigatorType
now, woken = time.time(), []
moments = ("last_tick_timestamp", "last_tick_start_timestamp", "last_tick_success_timestamp")
with DagsterInstance.get() as instance:
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        data = state.instigator_data
        ahead = {name: now for name in moments if (getattr(data, name, None) or 0) > now}
        if ahead:
            instance.update_instigator_state(state.with_data(data._replace(**ahead)))
            woken.append(state.instigator_name)
print(json.dumps(woken))
"""


def wake(container: str) -> list[str]:
    """Have Dagster take their last tick for one of now.

    Returns:
        The sensors' names.

    Raises:
        docker_cli.DockerError: it could not be done.
    """
    done = docker_cli.run(["exec", container, "python", "-c", _WAKE], timeout=120)
    try:
        return [str(each) for each in json.loads(done.stdout.strip().splitlines()[-1])]
    except (ValueError, IndexError, TypeError) as error:
        raise docker_cli.DockerError(f"the program in {container} said {done.stdout[-300:]!r}: {error}") from error
