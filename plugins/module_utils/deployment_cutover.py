# SPDX-License-Identifier: Apache-2.0
"""The switch of traffic: to a release, held to what it has to serve then, and back again if it does not."""

from __future__ import annotations

import contextlib
import time
from typing import NoReturn

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    code_server,
    deployment_housekeeping,
    graphql,
    releases,
    workspace,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.deployment_task import (
    FAILURES,
    DeploymentError,
    Task,
)


def switch(task: Task, host: str) -> None:
    """Make workspace.yaml and ``current`` say ``host``. The first of the two is the moment of truth."""
    task.phase("cutover")
    workspace.update(
        task.workspace_path,
        lambda text: workspace.with_core_location(text, host, task.settings.port, task.settings.location),
    )
    task.phase("current")
    task.store.point_current(releases.release_of(host))


def reloaded(task: Task) -> graphql.Location | None:
    """The user code's location after the webserver has read workspace.yaml again."""
    return task.webserver.reload_workspace(task.options.reload_timeout).get(task.settings.location)


def prove(task: Task, release: releases.Release) -> None:
    """Reload the webserver and hold it to what it has to serve now: this host, this image, no error.

    Raises:
        graphql.GraphQLError: it serves something else, or nothing.
    """
    task.phase("reload")
    found = reloaded(task)
    task.phase("assert")
    check_location(task, found, release)


def check_location(task: Task, found: graphql.Location | None, release: releases.Release) -> None:
    """Hold what the webserver shows to what it has to serve.

    Raises:
        graphql.GraphQLError: another host, another image, an error, or nothing.
    """
    if found is None:
        raise graphql.GraphQLError(f"the webserver has no code location {task.settings.location} after the reload")
    if found.error or not found.loaded:
        raise graphql.GraphQLError(
            f"the webserver could not load {task.settings.location}: {found.error or found.load_status}\n"
            f"Last log lines of {release.container}:\n{code_server.logs(release.container, task.options.log_lines)}"
        )
    if found.host != release.container or found.image != release.identity:
        raise graphql.GraphQLError(
            f"the webserver serves {found.image or 'no image'} from {found.host or 'no host'};"
            f" expected {release.identity} from {release.container}"
        )


def soak(task: Task, release: releases.Release) -> None:
    """Watch the release under traffic for a while.

    Raises:
        code_server.CandidateError: it died, was restarted, or stopped being what the webserver serves.
    """
    deadline = time.monotonic() + task.options.soak_seconds
    first = code_server.container(release.container)
    while time.monotonic() < deadline:
        time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
        found = code_server.container(release.container)
        if found is None or not found.running or first is None or found.started != first.started:
            code = f" (exit code {found.exit_code})" if found else ""
            raise code_server.CandidateError(
                f"it did not stay up for dagster_core_soak_seconds={task.options.soak_seconds:g}{code}.\n"
                f"Last log lines:\n{code_server.logs(release.container, task.options.log_lines)}"
            )
    # Alive is not enough: it also has to answer still.
    code_server.gate(release.container, task.settings, 10, task.options.log_lines)


def undo(
    task: Task, before: str | None, failed: releases.Release, error: Exception, unmarked: releases.Release | None
) -> NoReturn:
    """The way back from any point between the mark and the end of the soak.

    Args:
        before: the host that workspace.yaml named.
        failed: the release that was to serve.
        error: what happened to it.
        unmarked: its record as it was before, if its container was started for this deploy.

    Raises:
        DeploymentError: always; it says what serves.
    """
    if before == failed.container:
        # It served before as well: there is nothing to undo, and no container to spare.
        raise DeploymentError(f"release {failed.release} is broken: {error}\n{goes_on(task, before)}") from error
    if task.intended_host() != failed.container:
        # workspace.yaml could not be written: nothing has been switched.
        if unmarked:
            with contextlib.suppress(OSError):
                task.store.save(unmarked)
            deployment_housekeeping.discard(task, unmarked)
        raise DeploymentError(f"{error}\n{goes_on(task, before)}") from error
    try:
        back_to(task, before, failed)
    except FAILURES as blocked:
        task.outcome.result = "failed"
        raise DeploymentError(
            f"release {failed.release} failed: {error}\nThe way back failed too: {blocked}\n"
            f"workspace.yaml names {task.intended_host() or 'no release'}; the next deploy or rollback finishes"
            f" this. {goes_on(task, before)}"
        ) from error
    raise DeploymentError(f"release {failed.release} was rolled back: {error}\n{goes_on(task, before)}") from error


def back_to(task: Task, host: str | None, failed: releases.Release) -> None:
    """Undo a deployment_cutover. The failed release goes too, unless a run has begun in it meanwhile."""
    task.phase("back")
    task.outcome.result = "rolled_back"
    try:
        if host is not None:
            # Only workspace.yaml counts: a mark that a full disk refuses is no reason to stay.
            with contextlib.suppress(OSError):
                task.mark_served(releases.release_of(host))
            switch(task, host)
        else:
            workspace.update(task.workspace_path, lambda text: workspace.without_location(text, task.settings.location))
            task.store.point_current(None)
    finally:
        # Also where that failed: the webserver then serves what the file says, old or new.
        with contextlib.suppress(graphql.GraphQLError):
            task.webserver.reload_workspace(task.options.reload_timeout)
    with contextlib.suppress(OSError):
        task.mark_rolled_back(failed.release)
    found = code_server.container(failed.container)
    if found and not (found.running and code_server.workers(failed.container) != 0):
        code_server.remove(failed.container)


def goes_on(task: Task, host: str | None) -> str:
    """What serves now, asked and not assumed."""
    if host is None:
        return "No release served before; none serves now."
    with contextlib.suppress(graphql.GraphQLError):
        found = task.webserver.locations().get(task.settings.location)
        if found and found.loaded and found.host == host:
            return f"The release that served goes on: {releases.release_of(host) or host}."
    return f"The webserver does not show the release that served as loaded: {releases.release_of(host) or host}."
