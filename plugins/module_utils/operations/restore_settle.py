# SPDX-License-Identifier: Apache-2.0
"""Dagster around a restore: stopped, its schema and its runs set right, started and proven."""

from __future__ import annotations

import contextlib
import json
import os
import time

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli, graphql, proof, releases, swarm
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    config,
    database,
    jobs,
    restore_database,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_manifest import Manifest

_RUN_LABEL = "dataops.dagster_gce=run"
_HEALTHY_SECONDS = 180
# Runs that are waited for by nobody: a retry would do again what the machine of before may have done to the end.
_END_RUNS = """
import json, sys
from dagster import DagsterInstance, DagsterRunStatus as Status, RunsFilter
reason, waiting = json.loads(sys.argv[1])
going = [Status.STARTING, Status.STARTED, Status.CANCELING]
ended = 0
with DagsterInstance.get() as instance:
    for run in instance.get_runs(RunsFilter(statuses=going + [Status.QUEUED, Status.NOT_STARTED])):
        instance.add_run_tags(run.run_id, {"dagster/max_retries": "0"})
        run = instance.get_run_by_id(run.run_id)
        if run.status in going:
            instance.report_run_failed(run, reason)
        else:
            instance.report_run_canceled(run, waiting)
        ended += 1
print(f"ended {ended}")
"""


def stop() -> None:
    """Stop whoever writes to the database: daemon, webserver, run containers."""
    stack = config.stack()
    docker_cli.run(["stop", "--time", "20", stack.daemon_container, *_webservers()], timeout=120)
    # With what is on other machines; before the containers of this one, in whose place Swarm makes no new ones.
    swarm.remove([each.id for each in swarm.services()])
    listed = docker_cli.run(["ps", "--quiet", "--filter", f"label={_RUN_LABEL}"])
    if listed.stdout.split():
        # Their runs are not in the database any more that they would report to.
        docker_cli.run(["kill", *listed.stdout.split()], check=False)
    serving = releases.Store(stack.root).current()
    if serving and docker_cli.inspect("container", "dagster-engine-proxy") is None:
        # With the launcher `default` runs live in the release's container.
        docker_cli.run(["restart", "--time", "5", releases.container_name(serving)], check=False, timeout=120)


def start() -> None:
    """Start what `stop` has stopped."""
    stack = config.stack()
    docker_cli.run(["start", *_webservers(), stack.daemon_container], timeout=120)


def _webservers() -> list[str]:
    stack = config.stack()
    there = docker_cli.inspect("container", stack.read_only_container) is not None
    return [stack.webserver_container, *([stack.read_only_container] if there else [])]


def migrate(manifest: Manifest, before: str) -> None:
    """Bring the schema of an older Dagster's backup to what the machine's Dagster knows.

    Args:
        before: the database that was put aside, whose schema is right for this machine.
    """
    # Nobody may connect to what was put aside; its revision is read through a short exception.
    database.execute(f'ALTER DATABASE "{before}" WITH ALLOW_CONNECTIONS true', database="postgres")
    try:
        wanted = restore_database.schema_revision(before)
    finally:
        database.execute(f'ALTER DATABASE "{before}" WITH ALLOW_CONNECTIONS false', database="postgres")
    if wanted and wanted != manifest.content["schema_revision"]:
        _in_daemon(["dagster", "instance", "migrate"], timeout=3600)


def end_runs_in_flight(manifest: Manifest) -> int:
    """End the runs that were in flight, or waited, when the backup was taken; returns how many."""
    rows = database.query(
        "SELECT count(*) FROM runs WHERE status IN ('STARTING', 'STARTED', 'CANCELING', 'QUEUED', 'NOT_STARTED')"
    )
    if rows == [["0"]]:
        return 0
    taken = releases.stamp(manifest.moment)
    reason = (
        f"This run was in flight when backup {manifest.stamp} was taken ({taken}). The backup has been restored, so "
        "nothing is known of what became of it; it is not retried. Re-execute it unless it was done."
    )
    waiting = (
        f"This run waited when backup {manifest.stamp} was taken ({taken}). The backup has been restored; whether the "
        "run went on after that is not known, so it is not started. Re-execute it unless it was done."
    )
    said = _in_daemon(["python3", "-c", _END_RUNS, json.dumps([reason, waiting])], timeout=600)
    return int(said.rpartition("ended ")[2].split()[0])


def _in_daemon(command: list[str], timeout: float) -> str:
    """Run a command in a container like the daemon's, which is stopped."""
    root = config.stack().root
    service = config.stack().daemon_container
    arguments = [
        "compose", "--project-name", "dagster", "--project-directory", root,
        "--file", os.path.join(root, "docker-compose-GCE.yml"),
        "run", "--rm", "--no-deps", "-T", "--entrypoint", command[0], service, *command[1:],
    ]  # fmt: skip
    done = docker_cli.run(arguments, timeout=timeout, check=False)
    if not done.ok:
        raise jobs.JobError(
            f"`{' '.join(command[:3])}` failed on the restored database: {docker_cli.last_lines(done.stderr, 6)}"
        )
    return done.stdout


def prove(manifest: Manifest | None) -> None:
    """Wait until everything is healthy, and look for the backup's last run where users do.

    Raises:
        jobs.JobError: it does not become healthy, or the run is not there.
    """
    stack = config.stack()
    webserver = graphql.Webserver(stack.webserver_url)
    deadline = time.monotonic() + _HEALTHY_SECONDS
    try:
        if releases.Store(stack.root).current():
            proof.prove(webserver, proof.Expectation(location=stack.location, deadline=_HEALTHY_SECONDS))
        else:
            _wait_for(webserver, deadline)
        run = (manifest.database["newest_run"] if manifest else None) or {}
        if run:
            query = "query ($id: ID!) { runOrError(runId: $id) { __typename ... on Run { status } } }"
            found = webserver.query(query, {"id": run["run_id"]})["runOrError"]
            if found["__typename"] != "Run":
                raise jobs.JobError(f"the webserver does not show run {run['run_id']}, the last one of the backup")
    except (proof.ProofError, graphql.GraphQLError) as error:
        raise jobs.JobError(
            f"the database is restored, but Dagster is not healthy with it: {error}\nTo go back to the database of "
            "before: dagster-gce restore --back"
        ) from error


def _wait_for(webserver: graphql.Webserver, deadline: float) -> None:
    while True:
        try:
            webserver.version()
            return
        except graphql.GraphQLError:
            if time.monotonic() > deadline:
                raise
        with contextlib.suppress(InterruptedError):
            time.sleep(0.5)
