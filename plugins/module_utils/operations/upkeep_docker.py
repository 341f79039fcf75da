# SPDX-License-Identifier: Apache-2.0
"""What Docker keeps and nobody needs: containers of finished runs, old releases and images, build cache."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    code_server,
    deployment_housekeeping,
    deployment_leftovers,
    docker_cli,
    graphql,
    releases,
    workspace,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.deployment_task import (
    CLEAN,
    DeploymentError,
    Options,
    Outcome,
    Task,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.upkeep_policy import Policy

# Nobody has begun to use an image that has been here for a shorter time.
FRESH_HOURS = 24


def deployment_task(policy: Policy, options: Options | None = None) -> Task:
    """What the housekeeping of a deploy works with, with this policy."""
    stack = config.stack()
    options = options or Options(
        root=stack.root,
        webserver_url=stack.webserver_url,
        webserver_container=stack.webserver_container,
        daemon_container=stack.daemon_container,
        keep_releases=policy.keep_releases,
        keep_run_containers=policy.keep_run_containers,
        keep_run_containers_hours=policy.keep_run_containers_hours,
        lock_wait=0,
        who="upkeep",
    )
    task = Task(options, code_server.Settings(location=stack.location))
    task.outcome = Outcome(CLEAN)
    return task


def clean_releases(policy: Policy) -> tuple[dict[str, int], str]:
    """What a deploy does at its end, each night too: retire releases, remove containers of finished runs.

    Returns:
        What was removed, and why nothing was, if so.
    """
    task = deployment_task(policy)
    if not workspace.available():
        return {}, "releases: PyYAML is not installed; expected the package python3-yaml"
    lock = releases.read_lock(task.store.lock_path)
    if lock:
        # What a deploy left half done is the next deploy's to judge.
        held = "goes on" if lock.get("held") else "died half-way; the next deploy finishes it"
        return {"run containers": deployment_leftovers.remove_run_containers(task)}, f"releases: a deploy {held}"
    try:
        with task.running("", audit=False):
            deployment_housekeeping.retire(task)
    except (DeploymentError, releases.LockedError, graphql.GraphQLError, docker_cli.DockerError) as error:
        return {}, f"releases: {str(error).splitlines()[0]}"
    outcome = task.outcome
    return {
        "run containers": outcome.removed_run_containers,
        "releases": len(outcome.retired),
        "release images": len(outcome.removed_images),
    }, ""


def images_in_use(task: Task) -> set[str]:
    """Ids of the images that somebody needs: containers (stopped ones too), retained releases, runs that wait.

    Raises:
        docker_cli.DockerError, graphql.GraphQLError: that cannot be told, so none may go.
    """
    used = {str(each["Image"]) for each in _containers()}
    used |= {each.identity for each in task.store.all()}
    for run in task.webserver.all_runs([*graphql.IN_FLIGHT, *graphql.WAITING]):
        found = docker_cli.inspect("image", run.image) if run.image else None
        if found:
            used.add(str(found["Id"]))
    return used


def _containers() -> list[dict[str, Any]]:
    listed = docker_cli.run(["ps", "-aq", "--no-trunc"]).stdout.split()
    return _inspect("container", listed)


def _inspect(kind: str, names: list[str]) -> list[dict[str, Any]]:
    if not names:
        return []
    # One that went meanwhile is no failure.
    shown = docker_cli.run([kind, "inspect", *names], check=False, timeout=120).stdout
    found: list[dict[str, Any]] = json.loads(shown or "[]")
    return found


def old_images(policy: Policy, used: set[str]) -> Iterator[tuple[str, list[str], int]]:
    """Images (id, names, bytes) that nobody uses: without a name for a day, or unused for the policy's days.

    An image's own time of creation says nothing, it may have been built elsewhere long ago: its last name does.
    """
    listed = list(dict.fromkeys(docker_cli.run(["images", "-q", "--no-trunc"]).stdout.split()))
    for image in _inspect("image", listed):
        names = [*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ())]
        if image["Id"] in used or any(docker_cli.repository(name) == releases.OWN_REPOSITORY for name in names):
            continue
        tagged = 0.0
        with contextlib.suppress(KeyError, TypeError, ValueError):
            tagged = code_server.instant(image["Metadata"]["LastTagTime"])
        if tagged <= 0:
            with contextlib.suppress(KeyError, TypeError, ValueError):
                tagged = code_server.instant(image["Created"])
        limit = FRESH_HOURS * 3600 if not names else policy.images_days * 86400
        if limit and tagged and time.time() - tagged > limit:
            yield str(image["Id"]), names, int(image.get("Size") or 0)


def remove_images(policy: Policy, dry: bool = False) -> tuple[list[str], str]:
    """Remove images that nobody uses.

    Returns:
        Their names, and why none was removed, if so.
    """
    removed = []
    try:
        used = images_in_use(deployment_task(policy))
        for identity, names, _size in old_images(policy, used):
            # By its names, without force: the engine itself refuses an image that a container has begun to use.
            if dry or docker_cli.run(["rmi", *(names or [identity])], check=False, timeout=120).ok:
                removed.append(names[0] if names else identity)
    except (docker_cli.DockerError, graphql.GraphQLError) as error:
        return removed, f"images: {str(error).splitlines()[0]}"
    return removed, ""


def remove_build_cache(policy: Policy, everything: bool = False) -> tuple[int, str]:
    """Remove old build cache; returns the bytes that it took, and why it stays, if so."""
    before = build_cache_bytes()
    if not before:
        return 0, ""
    arguments = ["builder", "prune", "--force"]
    if everything:
        arguments.append("--all")
    elif policy.build_cache_days:
        arguments += ["--filter", f"until={round(policy.build_cache_days * 24)}h"]
    else:
        return 0, ""
    try:
        docker_cli.run(arguments, timeout=600)
    except docker_cli.DockerError as error:
        return 0, f"build cache: {str(error).splitlines()[0]}"
    return max(0, before - build_cache_bytes()), ""


def build_cache_bytes() -> int:
    """How much the build cache takes, as the engine tells it."""
    try:
        shown = docker_cli.run(["system", "df", "--format", "{{.Type}}\t{{.Size}}"], timeout=120).stdout
    except docker_cli.DockerError:
        return 0
    return next((size(line.split("\t")[1]) for line in shown.splitlines() if line.startswith("Build Cache\t")), 0)


def size(shown: str) -> int:
    """Bytes of a size as docker prints it (``1.2GB``)."""
    units = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    number = shown.rstrip("BbKkMGTi")
    return round(float(number or 0) * units.get(shown[len(number) :].upper(), 1))


def unrotated_logs() -> list[str]:
    """Names of containers of ours whose log has no limit."""
    found = []
    for each in _containers():
        labels = (each.get("Config") or {}).get("Labels") or {}
        ours = "dataops.dagster_gce" in labels or "dagster/run_id" in labels
        log = (each.get("HostConfig") or {}).get("LogConfig") or {}
        if ours and log.get("Type") == "json-file" and not (log.get("Config") or {}).get("max-size"):
            found.append(str(each["Name"]).lstrip("/"))
    return found
