# SPDX-License-Identifier: Apache-2.0
"""Retries that Dagster has promised and never began.

A run that fails gets the tag ``dagster/will_retry``. The daemon's consumer of failures looks at each failure once, and
Dagster writes the failure before it updates the run: a consumer that is quicker finds a run that has not failed yet,
and never comes back to it. Seen after a power cut, where many runs fail in one moment.

Dagster's own function is called again; it is made to be (a run that has its retry gets no second one).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import watch_look
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.watch_memory import Memory
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.watch_settings import Settings

ACTION = "retry_run"


def forgotten(look: watch_look.Look, memory: Memory, settings: Settings) -> list[str]:
    """Runs that two looks found waiting for a retry that nobody begins, and that the watch has not tried yet."""
    found = []
    for run_id in look.unretried:
        if memory.seen(f"retry {run_id}", "promised", settings.agree_seconds) and not memory.within_hour(run_id):
            memory.count(run_id)
            found.append(run_id)
    return found


# Inside the daemon's container, where DAGSTER_HOME and workspace.yaml are.
_RETRY = r"""
import json, logging, sys
from dagster import DagsterInstance, RunsFilter
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import consume_new_runs_for_automatic_reexecution
with DagsterInstance.get() as instance:
    with WorkspaceProcessContext(instance, WorkspaceFileTarget(["workspace.yaml"])) as context:
        chosen = RunsFilter(run_ids=json.load(sys.stdin))
        list(consume_new_runs_for_automatic_reexecution(context, instance.get_run_records(chosen), logging.getLogger()))
    runs = instance.get_runs(chosen)
    print(json.dumps({run.run_id: run.tags.get("dagster/auto_retry_run_id", "") for run in runs}))
"""


def begin(runs: Sequence[str], container: str) -> dict[str, str]:
    """Have Dagster retry these runs.

    Returns:
        For each run the id of its retry; empty where Dagster decided against one.

    Raises:
        docker_cli.DockerError: it could not be done.
    """
    done = docker_cli.run(["exec", "-i", container, "python", "-c", _RETRY], input=json.dumps(list(runs)), timeout=120)
    try:
        told = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise docker_cli.DockerError(f"the program in {container} said {done.stdout[-300:]!r}: {error}") from error
    return {str(run): str(retry) for run, retry in told.items()}
