# SPDX-License-Identifier: Apache-2.0
"""What comes before every deploy and rollback: what should serve is brought up, what was left half done is finished."""

from __future__ import annotations

import contextlib
import time

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    code_server,
    deployment_cutover,
    docker_cli,
    graphql,
    releases,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.deployment_task import CLEAN, Task

# A release that is up has to answer the gate within this, in seconds.
ANSWERS_WITHIN = 30.0


def finish_interrupted(task: Task) -> bool:
    """Finish the cutover of a deploy that was killed, and bring up again what should serve and does not.

    Returns:
        Whether what workspace.yaml names serves now; also True where it names no release.

    Raises:
        graphql.WebserverUnreachableError: nobody can tell what serves, so nothing is judged.
    """
    task.phase("check")
    shown = shown_by_webserver(task)
    host = task.intended_host()
    unmark_unserved(task, releases.release_of(host), shown.host if shown else "")
    release = task.store.load(releases.release_of(host) or "") if host else None
    if host is None or release is None:
        return True
    found = code_server.container(host)
    if task.outcome.operation == CLEAN and not (found and found.running):
        return False
    if task.store.point_current(release.release):
        task.outcome.repaired.append(f"releases/current pointed elsewhere; it is {release.release} now")
        task.outcome.changed = True
    if found and found.running and shown and shown.host == host and shown.loaded and not shown.error:
        return True
    try:
        started = bring_up(task, release)
        deployment_cutover.check_location(task, deployment_cutover.reloaded(task), release)
    except graphql.WebserverUnreachableError:
        raise
    except (code_server.CandidateError, graphql.GraphQLError) as error:
        return _restore(task, shown, release, error)
    task.outcome.repaired.append(
        f"{host} did not run; it was started again"
        if started
        else f"the webserver did not serve {host} yet; it does now"
    )
    task.outcome.changed = True
    return True


def shown_by_webserver(task: Task) -> graphql.Location | None:
    """What the webserver serves. One that is just starting, after a reboot, is waited for.

    Raises:
        graphql.WebserverUnreachableError: it does not run, or does not answer in time.
    """
    deadline = time.monotonic() + task.options.start_timeout
    while True:
        try:
            return task.webserver.locations().get(task.settings.location)
        except graphql.WebserverUnreachableError as error:
            name = task.options.webserver_container
            found = code_server.container(name)
            if not (found and (found.running or found.status == code_server.RESTARTING)) or time.monotonic() > deadline:
                raise graphql.WebserverUnreachableError(
                    f"{error}; container {name} is {found.status if found else 'not there'} (see `docker logs {name}`,"
                    " or run site.yml). Nothing was touched."
                ) from error
        time.sleep(0.5)


def bring_up(task: Task, release: releases.Release) -> bool:
    """Wait until a release that had traffic serves; True if it had to be started first.

    One that is just starting (after a reboot, after a death) gets the time of a new release. One that was stopped
    by hand or removed is started again; the engine would not.

    Raises:
        code_server.CandidateError, docker_cli.DockerError: it does not serve.
    """
    host = release.container
    found = code_server.container(host)
    # One that has been up for long needs no time to start; it has to answer, on a busy machine too.
    age = time.time() - code_server.instant(found.started) if found and found.started else 0.0
    deadline = time.monotonic() + max(task.options.start_timeout - age, ANSWERS_WITHIN)
    if found and (found.running or found.status == code_server.RESTARTING):
        for last in (False, True):
            try:
                _gate(task, host, deadline)
                return False
            except code_server.CandidateError:
                # A death on the way up may be that of something it needs; a second one is its own.
                if last or not _starts_again(host, deadline):
                    raise
    if docker_cli.inspect("image", release.identity) is None:
        raise code_server.CandidateError(
            f"release {release.release} does not run, and its image {release.identity} is not on this machine"
        )
    code_server.start(release, task.settings)
    try:
        _gate(task, host, time.monotonic() + task.options.start_timeout)
    finally:
        with contextlib.suppress(docker_cli.DockerError):
            code_server.keep_running(host)
    return True


def _gate(task: Task, host: str, deadline: float) -> None:
    left = max(1.0, deadline - time.monotonic())
    code_server.gate(host, task.settings, left, task.options.log_lines)


def _starts_again(host: str, deadline: float) -> bool:
    """Whether the engine starts the container, which has just died, again in time."""
    found = code_server.container(host)
    if found and found.running:
        # It did not die: it does not serve.
        return False
    while found and found.status == code_server.RESTARTING and time.monotonic() < deadline:
        time.sleep(0.5)
        found = code_server.container(host)
    return bool(found and found.running)


def unmark_unserved(task: Task, serving: str | None, shown: str = "") -> None:
    """Whatever serves got its traffic last; a later mark is from a deploy killed just before its cutover.

    Args:
        serving: the release that workspace.yaml names.
        shown: the host that the webserver serves.
    """
    known = task.store.all()
    if serving is None and task.store.current() is None:
        # Before the first cutover there is no `current`. Where something has served, the files are lost.
        live = [each for each in known if each.state == releases.LIVE]
        first = len(live) == 1 and len(live[0].served) == 1 and live[0].container != shown
        since: float | None = 0.0 if first else None
    else:
        since = next((each.last_served for each in known if each.release == serving), None)
    if since is None:
        # workspace.yaml is lost or names what nobody knows: it tells nothing about any release's traffic.
        return
    for record in known:
        if record.state == releases.LIVE and record.release != serving and record.last_served > since:
            record.served = [moment for moment in record.served if moment <= since]
            record.state = releases.LIVE if record.served else releases.CANDIDATE
            task.store.save(record)


def _restore(task: Task, shown: graphql.Location | None, release: releases.Release, error: Exception) -> bool:
    """workspace.yaml names a release that does not serve: back to one that does; False where none does.

    Raises:
        graphql.WebserverUnreachableError: it went away meanwhile.
    """
    tried = False
    for record in _fallbacks(task, shown, release):
        found = code_server.container(record.container)
        if not (found and found.running):
            continue
        with contextlib.suppress(code_server.CandidateError):
            _gate(task, record.container, time.monotonic() + ANSWERS_WITHIN)
            # Both gates may have taken a minute. Without a webserver to hold it to, nothing is switched.
            task.webserver.locations()
            tried = True
            task.mark_served(record.release)
            deployment_cutover.switch(task, record.container)
            try:
                deployment_cutover.check_location(task, deployment_cutover.reloaded(task), record)
            except graphql.WebserverUnreachableError:
                raise
            except graphql.GraphQLError:
                continue
            task.mark_rolled_back(release.release)
            with contextlib.suppress(OSError):
                task.store.note(release.release, f"{release.release} did not serve: {error}\n")
            why = str(error).splitlines()[0]
            task.outcome.repaired.append(f"{release.release} did not serve ({why}); back to {record.release}")
            task.outcome.previous, task.outcome.release = release.release, record.release
            task.outcome.identity, task.outcome.reference = record.identity, record.reference
            task.outcome.changed = True
            return True
    if tried:
        # The webserver loads none of them: it is at fault, and nobody has said that another release should serve.
        task.mark_served(release.release)
        deployment_cutover.switch(task, release.container)
        deployment_cutover.reloaded(task)
    return False


def _fallbacks(task: Task, shown: graphql.Location | None, broken: releases.Release) -> list[releases.Release]:
    """Where to go from a release that is broken: what the webserver serves all the same, then the last ones."""

    def order(each: releases.Release) -> tuple[bool, bool, float]:
        served = bool(shown and shown.loaded and shown.host == each.container)
        return (not served, each.state == releases.ROLLED_BACK, -each.last_served)

    others = [each for each in task.store.all() if each.served and each.release != broken.release]
    return sorted(others, key=order)
