# SPDX-License-Identifier: Apache-2.0
"""Images and containers of runs that nobody needs any more."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any, TypeVar

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    code_server,
    docker_api,
    docker_cli,
    graphql,
    releases,
    swarm,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.deployment_task import Task

_SERVICE = "com.docker.swarm.service.id"
# How long an image of the user code may lie about before it is plain that nobody releases it.
STRAY_SECONDS = 24 * 3600
_Ended = TypeVar("_Ended")


def remove_strays(task: Task) -> None:
    """Remove images of the user code that were built or pulled and never became a release.

    Not at once: the next play may have brought one, and be about to release it. An image's time of creation says
    nothing (it may have been built elsewhere, long ago); the first time that it was seen here counts.
    """
    known = task.store.all()
    kept = {each.identity for each in known}
    own = {releases.OWN_REPOSITORY} | {docker_cli.repository(each.reference) for each in known}
    now, seen = releases.now(), task.store.strays()
    strays: dict[str, float] = {}
    for image in docker_api.ask("GET", "/images/json"):
        for name in () if image["Id"] in kept else _names(image):
            if docker_cli.repository(name) in own:
                key = f"{image['Id']} {name}"
                strays[key] = min(seen.get(key, now), now)
    for key, since in list(strays.items()):
        if now - since > STRAY_SECONDS and not _tagged_within(key.split()[1], STRAY_SECONDS):
            # The engine refuses while a container uses the image.
            docker_cli.run(["rmi", key.split()[1]], check=False, timeout=120)
    with contextlib.suppress(OSError):
        task.store.save_strays(strays)


def _names(image: Mapping[str, Any]) -> list[str]:
    """The names by which an image of the list can be removed: its tags, and its digests where no tag has the name."""
    tags = [str(each) for each in image.get("RepoTags") or () if not each.startswith("<none>")]
    tagged = {docker_cli.repository(each) for each in tags}
    digests = [str(each) for each in image.get("RepoDigests") or () if not each.startswith("<none>")]
    return tags + [each for each in digests if docker_cli.repository(each) not in tagged]


def _tagged_within(name: str, seconds: float) -> bool:
    """Whether somebody has given the image a name on this machine lately (built it again, say)."""
    found = docker_cli.inspect("image", name) or {}
    with contextlib.suppress(KeyError, TypeError, ValueError):
        return code_server.instant(found["Metadata"]["LastTagTime"]) > time.time() - seconds
    return False


def remove_image(task: Task, record: releases.Release) -> None:
    """Remove the names that releases gave the image, and with the last one the image.

    A name that somebody else gave it stays, and so does an image that a container uses: the engine itself refuses.
    """
    found = docker_cli.inspect("image", record.identity)
    if found is None:
        return
    own = {releases.OWN_REPOSITORY, docker_cli.repository(record.reference)}
    names = [*(found.get("RepoTags") or ()), *(found.get("RepoDigests") or ())]
    names = [each for each in names if docker_cli.repository(each) in own] if names else [record.identity]
    if not names:
        return
    done = docker_cli.run(["rmi", *dict.fromkeys(names)], check=False, timeout=120)
    if done.ok and docker_cli.inspect("image", record.identity) is None:
        task.outcome.removed_images.append(record.identity)


def remove_run_containers(task: Task) -> int:
    """Remove containers and services of finished runs by age and count; the newest stay for whoever wants to look."""
    return _remove_containers(task) + _remove_services(task)


def _surplus(task: Task, ended: list[tuple[float, _Ended]]) -> list[_Ended]:
    """Of what has ended, each with the moment of its end, what goes: the newest few stay, unless they are old."""
    oldest = time.time() - task.options.keep_run_containers_hours * 3600
    newest_first = sorted(ended, key=lambda each: each[0], reverse=True)
    return [
        what
        for number, (moment, what) in enumerate(newest_first)
        if number >= task.options.keep_run_containers or moment < oldest
    ]


def _remove_services(task: Task) -> int:
    tasks = swarm.tasks()
    surplus = _surplus(task, [(each.updated, each) for each in tasks if each.ended])
    # One that waits still for a machine, though its run has been failed for it.
    surplus += [each for each in tasks if each.waits]
    if not surplus:
        return 0
    try:
        # As below: run monitoring asks the service of a run that died for the reason.
        flying = {each.run_id for each in task.webserver.all_runs(graphql.IN_FLIGHT)}
    except graphql.GraphQLError:
        return 0
    names = [each.service for each in surplus if each.run_id not in flying]
    swarm.remove(names)
    return len(names)


def _remove_containers(task: Task) -> int:
    found = []
    for listed in docker_api.containers(label=[swarm.LABEL_RUN], status=["exited", "dead"]):
        # That of a service is removed with it by Swarm itself.
        container = None if _SERVICE in (listed.get("Labels") or {}) else docker_api.container(listed["Id"])
        if container:
            # By their end: a run of two days has just ended when its container is two days old. One that never ran
            # "finished" in the year 1.
            moments = (container["State"]["FinishedAt"], container["Created"])
            with contextlib.suppress(ValueError):
                found.append((max(code_server.instant(each) for each in moments), str(container["Id"])))
    surplus = _surplus(task, found)
    if not surplus:
        return 0
    try:
        # A worker that died is exited too: run monitoring has to find its container to say why.
        needed = {each.container_id for each in task.webserver.all_runs(graphql.IN_FLIGHT)}
    except graphql.GraphQLError:
        return 0
    surplus = [name for name in surplus if name not in needed]
    if surplus:
        docker_cli.run(["rm", "-v", *surplus], check=False, timeout=300)
    return len(surplus)
