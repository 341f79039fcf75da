# SPDX-License-Identifier: Apache-2.0
"""The code location: that its server runs, that the webserver has it loaded, that the daemon uses it too.

Nothing here is done while a release is under way, and what is done is done under the lock of releases.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from ansible_collections.dataops.dagster_gce.plugins.module_utils import connections, files, releases
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config, jobs, watch_look
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.watch_memory import Memory
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.watch_services import (
    POLICY,
    RESTART,
    START,
    UNPAUSE,
    Repair,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.watch_settings import Settings

RELOAD = "reload"
# The first pause between two reloads; it doubles from one to the next.
FIRST_PAUSE = 30.0
# What Dagster says of a code server that does not answer; an error of the user code itself is another one.
_DEAF = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "UserCodeUnreachableError", "Could not reach user code server")

# Whether the code server in a container answers.
Answers = Callable[[watch_look.Container], bool]
# How many runs live in a container; None if that cannot be told.
Workers = Callable[[str], "int | None"]


@dataclass(frozen=True)
class Releases:
    """What should run, by workspace.yaml and the records."""

    serving: str = ""
    warm: str = ""

    @property
    def serving_container(self) -> str:
        return releases.container_name(self.serving) if self.serving else ""


def intended(memory: Memory) -> Releases:
    """What should serve and what is kept warm; nothing where workspace.yaml names no release or cannot be read."""
    stack = config.stack()
    place = f"{stack.root}/dagster_home/workspace.yaml"
    try:
        state = os.stat(place)
    except OSError:
        return Releases()
    # PyYAML takes longer to import than the rest of a look: the file is read when it is another one.
    stamp = [state.st_ino, state.st_mtime_ns]
    known = memory.recall("workspace")
    serving = known[1] if known and known[0] == stamp else _serving(place, stack.location)
    memory.keep("workspace", [stamp, serving])
    if not serving:
        return Releases()
    return Releases(serving, releases.warm(serving, releases.Store(stack.root).all()) or "")


def _serving(place: str, location: str) -> str:
    from ansible_collections.dataops.dagster_gce.plugins.module_utils import workspace

    try:
        found = files.read(place)
        host = workspace.core_host(found.decode() if found else None, location)
    except (OSError, UnicodeDecodeError, workspace.WorkspaceError):
        return ""
    return releases.release_of(host) or ""


def judge(
    look: watch_look.Look, memory: Memory, settings: Settings, wanted: Releases, answers: Answers, workers: Workers
) -> tuple[list[Repair], list[jobs.Problem]]:
    """What to repair, and what only a person can."""
    # Kept from look to look, also from one that has nothing to do with it.
    memory.recall("daemon restarted for")
    if not wanted.serving:
        return [], []
    repairs, problems = _containers(look, memory, settings, wanted)
    if not repairs and _deaf(look, memory, settings, wanted, answers):
        return _end_silence(wanted.serving_container, settings, problems, workers(wanted.serving_container))
    if not repairs:
        repairs = [*_loaded(look, memory, settings, wanted), *_daemon(look, memory, settings, wanted)]
    return repairs, problems


def _containers(
    look: watch_look.Look, memory: Memory, settings: Settings, wanted: Releases
) -> tuple[list[Repair], list[jobs.Problem]]:
    """The release that serves and the one that is kept warm run, and are started again after a death or a boot."""
    repairs, problems = [], []
    for release in (wanted.serving, wanted.warm):
        name = releases.container_name(release) if release else ""
        found = look.containers.get(name)
        if not name:
            continue
        if found is None:
            if release == wanted.serving and memory.seen(f"release {name}", "gone", settings.agree_seconds):
                problems.append(
                    jobs.Problem(
                        "release_gone",
                        jobs.CRITICAL,
                        f"{name}, which should serve, is gone; `deploy_core.yml` or `rollback_core.yml` brings it back",
                    )
                )
            continue
        if found.gone or found.status == "created":
            why = f"release {release} should run and is {found.status} (exit code {found.exit_code})"
            fact, action = found.status, START
        elif found.status == "paused":
            fact, action, why = "paused", UNPAUSE, f"the container of release {release} is paused"
        elif found.policy == "no" and found.status == "running":
            why = f"release {release} has no restart policy, so nothing would start it after a death or a boot"
            fact, action = "policy", POLICY
        else:
            continue
        if memory.seen(f"release {name}", fact, settings.agree_seconds):
            repairs.append(Repair(action, name, why))
    return repairs, problems


def _end_silence(
    name: str, settings: Settings, problems: list[jobs.Problem], count: int | None
) -> tuple[list[Repair], list[jobs.Problem]]:
    """Restart a code server that does not answer, unless runs live in its container."""
    if count == 0:
        return [Repair(RESTART, name, f"its code server did not answer {settings.failures} times in a row")], problems
    text = (
        f"the code server of {name} does not answer, and {count or 'an unknown number of'} runs live in its container;"
        f" once they have ended or been cancelled: `docker restart {name}`"
    )
    return [], [*problems, jobs.Problem("code_server_deaf", jobs.CRITICAL, text)]


def _deaf(look: watch_look.Look, memory: Memory, settings: Settings, wanted: Releases, answers: Answers) -> bool:
    """Whether the code server that should serve runs and has not answered for several looks."""
    server = look.containers.get(wanted.serving_container)
    shown = (look.locations or {}).get(config.stack().location)
    if server is None or server.status != "running" or shown is None or look.starved:
        return False
    # Asking costs a third of a second of CPU: only where the webserver has not reached it.
    if not any(words in shown.error for words in _DEAF) or answers(server):
        return False
    return memory.seen(f"silent {server.name}", server.life, settings.agree_seconds, settings.failures)


def _loaded(look: watch_look.Look, memory: Memory, settings: Settings, wanted: Releases) -> list[Repair]:
    """The webserver shows the release that should serve, without an error; else it has to read it again."""
    stack = config.stack()
    server = look.containers.get(wanted.serving_container)
    if look.locations is None or server is None or server.status != "running":
        return []
    shown = look.locations.get(stack.location)
    if shown is not None and shown.loaded and not shown.error and shown.host == server.name:
        memory.values.pop("reload", None)
        return []
    if shown is not None and shown.load_status == "LOADING":
        return []
    if shown is None:
        why = f"the webserver has no code location {stack.location}"
    elif shown.error:
        why = f"code location {stack.location} shows an error: {shown.error.splitlines()[0][:200]}"
    else:
        why = f"the webserver serves {shown.host or 'nothing'} in place of {server.name}"
    if not memory.seen("location", "not loaded", settings.agree_seconds):
        return []
    tried, last = memory.recall("reload") or (0, 0.0)
    pause = min(FIRST_PAUSE * 2 ** (tried - 1), settings.reload_max_seconds) if tried else 0.0
    if memory.now - last < pause:
        return []
    memory.keep("reload", [tried + 1, memory.now])
    return [Repair(RELOAD, stack.location, why)]


def _daemon(look: watch_look.Look, memory: Memory, settings: Settings, wanted: Releases) -> list[Repair]:
    """The daemon reads workspace.yaml each minute. One that stays with an older release does not any more."""
    stack = config.stack()
    daemon, server = look.containers.get(stack.daemon_container), look.containers.get(wanted.serving_container)
    if daemon is None or daemon.status != "running" or server is None or server.status != "running":
        return []
    using = _used(daemon, look, settings)
    if using is None or not using or server.name in using:
        return []
    if not memory.seen("daemon release", " ".join(sorted(using)), settings.old_release_seconds, settings.failures):
        return []
    # Once for each release: if that does not help, the cause is another one.
    if memory.recall("daemon restarted for") == wanted.serving:
        return []
    memory.keep("daemon restarted for", wanted.serving)
    older = ", ".join(sorted(using))
    return [Repair(RESTART, stack.daemon_container, f"it still uses {older}; {server.name} serves")]


def _used(daemon: watch_look.Container, look: watch_look.Look, settings: Settings) -> frozenset[str] | None:
    """The releases that the daemon has asked within the last seconds, as the kernel knows; None if it does not say."""
    try:
        rows = connections.of_process(daemon.pid)
    except OSError:
        return None
    recent = {each.remote[0] for each in rows if each.remote[1] == settings.port and each.age < 10}
    return frozenset(
        each.name for each in look.containers.values() if each.part == "release" and recent & set(each.addresses)
    )
