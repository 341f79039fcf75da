# SPDX-License-Identifier: Apache-2.0
"""Services of the stack that are not there, or alive and doing nothing.

Docker restarts what dies. It does not restart what hangs, what somebody stopped or removed, or what lost its restart
policy. PostgreSQL is never restarted here: one that is slow or recovers would only begin anew.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config, jobs, watch_look
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.watch_memory import Memory
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.watch_settings import Settings

# One whose turn has not come yet in `docker compose up` is left alone for so long.
CREATED_SECONDS = 300.0

START = "start"
CREATE = "create"
UNPAUSE = "unpause"
POLICY = "restart_policy"
RESTART = "restart"


@dataclass(frozen=True)
class Repair:
    """What to do to whom, and why."""

    action: str
    name: str
    why: str
    # It does not answer, so it is not asked to end either.
    hangs: bool = False


def judge(look: watch_look.Look, memory: Memory, settings: Settings) -> tuple[list[Repair], list[jobs.Problem]]:
    """What to repair, and what only a person can."""
    stack = config.stack()
    wanted = [*settings.services, *([settings.engine_proxy] if settings.engine_proxy else [])]
    also = [each.name for each in look.containers.values() if each.part == "stack" and each.name not in wanted]
    repairs = [each for name in (*wanted, *also) if (each := _standing(name, look, memory, settings))]
    troubled = {each.name for each in repairs}
    problems = _postgres(look.containers.get(stack.postgres_container), memory, settings)
    for name, why in (
        (stack.daemon_container, _daemon(look, memory, settings)),
        (stack.webserver_container, _webserver(look, memory, settings)),
        (settings.engine_proxy, _unhealthy(settings.engine_proxy, "no run can be launched", look, memory, settings)),
        (
            stack.read_only_container,
            _unhealthy(stack.read_only_container, "nobody reads through it", look, memory, settings),
        ),
    ):
        if why and name not in troubled:
            repairs.append(Repair(RESTART, name, why, hangs=True))
    return repairs, problems


def _standing(name: str, look: watch_look.Look, memory: Memory, settings: Settings) -> Repair | None:
    """Whether the container is there, runs, and would be started again."""
    found = look.containers.get(name)
    if found is None and not _composed(name):
        # The stack is not there yet, or goes without it: a play changes the compose file before the watch's settings.
        return None
    if found is None:
        fact, action, why, patience = "missing", CREATE, "the container is gone", settings.agree_seconds
    elif found.gone:
        why = f"the container is {found.status} (exit code {found.exit_code}), and the engine does not start it again"
        fact, action, patience = found.status, START, settings.agree_seconds
    elif found.status == "created":
        fact, action, why, patience = "created", START, "the container was made and never started", CREATED_SECONDS
    elif found.status == "paused":
        fact, action, why, patience = "paused", UNPAUSE, "the container is paused", settings.agree_seconds
    elif found.policy not in ("always", "unless-stopped"):
        why = f"its restart policy is {found.policy}, so nothing would start it after a death or a boot"
        fact, action, patience = f"policy {found.policy}", POLICY, settings.agree_seconds
    else:
        return None
    return Repair(action, name, why) if memory.seen(f"standing {name}", fact, patience) else None


def _composed(name: str) -> bool:
    """Whether the stack's compose file has the container."""
    try:
        with open(os.path.join(config.stack().root, "docker-compose-GCE.yml"), encoding="utf-8") as stream:
            return re.search(rf"container_name:\s*['\"]?{re.escape(name)}['\"]?\s*$", stream.read(), re.M) is not None
    except (OSError, UnicodeDecodeError):
        return False


def _steady(found: watch_look.Container | None, memory: Memory, settings: Settings) -> bool:
    """Whether the container has run long enough to be judged; by the watch's own clock, since clocks are set."""
    if found is None or found.status != "running":
        return False
    memory.seen(f"steady {found.name}", found.life, 0)
    return memory.standing(f"steady {found.name}") >= settings.starting_seconds


def _daemon(look: watch_look.Look, memory: Memory, settings: Settings) -> str:
    """Why the daemon has to be restarted; empty if it has not. Without the database nobody can tell."""
    name = config.stack().daemon_container
    found = look.containers.get(name)
    steady = _steady(found, memory, settings)
    if look.heartbeats is None or found is None:
        return ""
    silences = _silences(found, look.heartbeats, memory)
    if not steady or look.starved:
        return ""
    slow = {kind: silence for kind, silence in silences.items() if silence >= settings.thread_silent_seconds}
    if silences and min(silences.values()) >= settings.daemon_silent_seconds:
        why = f"no daemon has sent a heartbeat for {min(silences.values()):.0f} s, although the process is there"
    elif slow:
        why = f"no heartbeat of {', '.join(sorted(slow))} for {max(slow.values()):.0f} s, although the process is there"
    elif not silences and found.health == "unhealthy" and memory.standing(f"steady {name}") >= CREATED_SECONDS:
        why = "it has not sent a heartbeat since it was started, although the process is there"
    else:
        return ""
    return why if memory.seen(f"silent {name}", "silent", settings.agree_seconds, settings.failures) else ""


def _silences(found: watch_look.Container, heartbeats: dict[str, float], memory: Memory) -> dict[str, float]:
    """For each kind of daemon that this container has sent heartbeats of, the seconds since the last one.

    A heartbeat is as old as the watch has seen it unchanged: its own time is worth nothing when clocks are set. Kinds
    that are no longer required keep their last row for ever, and do not count.
    """
    known = memory.recall("daemons") or {}
    kinds = set(known["kinds"]) if known.get("life") == found.life else set()
    silences = {}
    for kind, moment in heartbeats.items():
        before = memory.recall(f"heartbeat {kind}")
        since = before[1] if before and before[0] == moment else memory.now
        memory.keep(f"heartbeat {kind}", [moment, since])
        silences[kind] = memory.now - since
        if before and before[0] != moment:
            kinds.add(kind)
    memory.keep("daemons", {"life": found.life, "kinds": sorted(kinds)})
    return {kind: silence for kind, silence in silences.items() if kind in kinds}


def _webserver(look: watch_look.Look, memory: Memory, settings: Settings) -> str:
    """Why the webserver has to be restarted; empty if it has not. With a dead database it is not at fault."""
    name = config.stack().webserver_container
    steady = _steady(look.containers.get(name), memory, settings)
    if not look.webserver_error or look.database_error or not steady or look.starved:
        return ""
    if not memory.seen(f"silent {name}", "silent", settings.agree_seconds, settings.failures):
        return ""
    return (
        f"{settings.failures} times in a row no answer to GraphQL within {settings.webserver_seconds:g} s:"
        f" {look.webserver_error.splitlines()[0][:300]}"
    )


def _unhealthy(name: str, so: str, look: watch_look.Look, memory: Memory, settings: Settings) -> str:
    """Why a container has to be restarted of which its health check says all; ``so`` follows from its silence."""
    found = look.containers.get(name) if name else None
    if not _steady(found, memory, settings) or found is None or found.health != "unhealthy" or look.starved:
        return ""
    # Its health check has failed three times already.
    seen = memory.seen(f"silent {found.name}", "unhealthy", settings.agree_seconds)
    return f"its health check fails, so {so}" if seen else ""


def _postgres(found: watch_look.Container | None, memory: Memory, settings: Settings) -> list[jobs.Problem]:
    """PostgreSQL that runs and does not answer: only a person knows whether it recovers."""
    if found is None or found.status != "running" or found.health != "unhealthy":
        return []
    if not memory.seen(f"unhealthy {found.name}", "unhealthy", settings.agree_seconds):
        return []
    return [
        jobs.Problem(
            "postgres_unhealthy",
            jobs.CRITICAL,
            f"{found.name} runs and has not answered for {memory.standing(f'unhealthy {found.name}'):.0f} s; it is not"
            f" restarted by itself, since it may be recovering: see `docker logs --tail 50 {found.name}` and the disk's"
            f" free space, then `docker restart {found.name}`",
        )
    ]
