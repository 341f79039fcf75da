# SPDX-License-Identifier: Apache-2.0
"""Which release is still needed, and the removal of those that are not: containers, records, images."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    code_server,
    deployment_leftovers,
    docker_cli,
    graphql,
    releases,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.deployment_task import DeploymentError, Task


def remove_candidates(task: Task, there: list[code_server.Container], keep: str | None) -> list[code_server.Container]:
    """Remove what a killed or failed deploy left: containers and records that never had traffic.

    Args:
        there: the containers of releases that the machine has.
        keep: a release that stays all the same.

    Returns:
        The containers that are left.
    """
    kept = {task.serving_release(), task.store.current(), keep}
    left = []
    for found in there:
        record = task.store.load(found.release)
        # Without a readable record nobody knows whether it had traffic; `retire` asks who uses it.
        if found.release in kept or record is None or record.state != releases.CANDIDATE:
            left.append(found)
            continue
        if found.running and code_server.workers(found.name) != 0:
            kept.add(found.release)
            left.append(found)
            continue
        code_server.remove(found.name)
        task.outcome.retired.append(found.release)
        task.outcome.changed = True
    for record in task.store.all():
        if record.state == releases.CANDIDATE and record.release not in kept:
            _forget(task, record)
    return left


def discard(task: Task, release: releases.Release) -> None:
    """Remove a candidate that failed, as far as that goes; the next deploy removes what is left."""
    with contextlib.suppress(docker_cli.DockerError, OSError):
        code_server.remove(release.container)
        _forget(task, release)


def _forget(task: Task, release: releases.Release) -> None:
    """Remove the record of a candidate, and the name that kept its image."""
    if not release.served:
        docker_cli.run(["rmi", f"{releases.OWN_REPOSITORY}:{release.release}"], check=False)
        task.store.delete(release.release)


def _clients(task: Task) -> dict[str, int]:
    return code_server.client_pids([task.options.webserver_container, task.options.daemon_container])


def needed_by(task: Task, found: code_server.Container, clients: dict[str, int]) -> str:
    """Why a release's container may not be removed yet; empty if it may."""
    if not found.running:
        return ""
    count = code_server.workers(found.name)
    if count is None:
        return "its processes cannot be listed (docker top), so nobody knows whether a run is in it"
    if count:
        return f"{count} run process{'es' if count > 1 else ''} in it"
    if task.options.daemon_container not in clients:
        return f"{task.options.daemon_container} does not run, so nobody knows which release it will ask for"
    using = code_server.users(found, clients, task.options.quiet_seconds, task.settings.port)
    if using:
        return f"used by {' and '.join(using)} within the last {task.options.quiet_seconds:g} s"
    connected = code_server.connected(found, task.settings.port)
    if connected is None:
        return f"the connections of process {found.pid} cannot be read"
    if connected:
        return "connections to it are open"
    return ""


def retire(task: Task) -> None:
    """Remove what is beyond what is kept; none of the release that serves or the one before."""
    # Where workspace.yaml is lost, `current` says what served.
    serving = task.serving_release() or task.store.current()
    known = task.store.all()
    warm = releases.warm(serving, known)
    # The engine takes its time for each of them; none needs another one's result.
    with ThreadPoolExecutor() as beside:
        strays = beside.submit(deployment_leftovers.remove_strays, task)
        run_containers = beside.submit(deployment_leftovers.remove_run_containers, task)
        asked = beside.submit(_clients, task)
        there = code_server.containers()
        clients = asked.result()
        ending = []
        for found in there:
            if found.release in (serving, warm):
                continue
            reason = needed_by(task, found, clients)
            if reason:
                task.outcome.draining[found.release] = reason
                continue
            ending.append(beside.submit(code_server.remove, found.name))
            task.outcome.retired.append(found.release)
        for each in [strays, *ending]:
            each.result()
        task.outcome.removed_run_containers = run_containers.result()
    forget_old(task, known, serving)


def forget_old(task: Task, known: list[releases.Release], serving: str | None) -> None:
    """Drop records and images beyond ``keep_releases``; none that a container or a waiting run needs."""
    served = sorted((each for each in known if each.served), key=lambda each: each.last_served, reverse=True)
    surplus = [each for each in served[max(1, task.options.keep_releases) :] if each.release != serving]
    if not surplus:
        return
    try:
        runs = task.webserver.all_runs([*graphql.IN_FLIGHT, *graphql.WAITING])
    except graphql.GraphQLError:
        # Without knowing which runs wait for which image, none is removed.
        return
    # A run keeps the image with which it was created, also while it waits in the queue.
    needed = {releases.release_of(each.host) for each in runs} | {each.image for each in runs}
    needed |= {each.release for each in code_server.containers()}
    kept_images = {each.identity for each in known if each not in surplus}
    for record in surplus:
        if record.release in needed or record.identity in needed:
            continue
        docker_cli.run(["rmi", f"{releases.OWN_REPOSITORY}:{record.release}"], check=False)
        if record.identity not in kept_images:
            deployment_leftovers.remove_image(task, record)
        task.store.delete(record.release)


def make_room(task: Task, count: int) -> None:
    """Keep the number of code servers, which is ``count``, below the limit: the daemon lets go of one in a minute."""
    deadline = time.monotonic() + task.options.daemon_timeout
    while count >= task.options.max_containers:
        task.phase("room")
        retire(task)
        count = len(code_server.containers())
        if count < task.options.max_containers:
            break
        if time.monotonic() > deadline:
            busy = "; ".join(f"{name}: {reason}" for name, reason in task.outcome.draining.items())
            raise DeploymentError(
                f"dagster_core_max_containers: found {task.options.max_containers} releases running, of which"
                f" none can be retired ({busy}); expected room for one more"
            )
        time.sleep(2)
    task.outcome.draining.clear()
