# SPDX-License-Identifier: Apache-2.0
"""``dagster-gce watch``: one look at the machine, and what follows from it and from those before (docs/watch.md)."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import code_server, docker_cli, releases
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    config,
    jobs,
    watch_act,
    watch_actions,
    watch_clock,
    watch_location,
    watch_look,
    watch_memory,
    watch_pause,
    watch_retries,
    watch_runs,
    watch_sensors,
    watch_services,
    watch_settings,
)

# How many of the last actions the state file shows.
SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``dagster-gce watch``."""
    parser.add_argument("--wait", action="store_true", help="wait for a look that is being taken")


def main(arguments: argparse.Namespace) -> int:
    """Take a look and do what follows."""
    return jobs.run(watch_settings.JOB, work, wait=arguments.wait, quiet=False)


def work() -> jobs.Result:
    """One look.

    Raises:
        jobs.JobError: the engine does not answer.
    """
    settings = watch_settings.load()
    memory = watch_memory.load()
    paused = watch_pause.read()
    try:
        look = watch_look.take(settings)
    except docker_cli.DockerError as error:
        raise jobs.JobError(f"nothing can be looked at: {error}") from error
    hands = watch_act.Hands(memory, settings)
    stepped = watch_clock.step(memory, settings)
    if paused is None:
        _repair(look, hands, stepped)
    else:
        # It goes on to listen to heartbeats; what it finds counts from the end of the pause.
        watch_services.judge(look, memory, settings)
        memory.begin_anew()
    problems = [each for each in (watch_pause.problem(), watch_clock.problem(memory)) if each] + hands.problems
    # Repairs are what takes long: the next look begins from here.
    memory.save()
    return jobs.Result(
        summary=_summary(look, hands, paused),
        details=_details(look, paused),
        problems=problems,
        metrics=_metrics(look, hands),
    )


def _repair(look: watch_look.Look, hands: watch_act.Hands, stepped: float) -> None:
    memory, settings = hands.memory, hands.settings
    stack = config.stack()
    release_lock = releases.Store(stack.root).lock_path
    under_way = bool(releases.read_lock(release_lock).get("held"))

    def ask(container: watch_look.Container) -> frozenset[str] | None:
        return watch_runs.current_runs(container, settings.port)

    repairs, problems = watch_services.judge(look, memory, settings)
    hands.problems += problems
    if stepped < 0 and not any(each.name == stack.daemon_container for each in repairs):
        # Its daemons compare the time with that of their last turn, and would wait until it is reached again.
        why = f"the clock was set back by {-stepped:.0f} s, for which its daemons would wait"
        repairs.append(watch_services.Repair(watch_services.RESTART, stack.daemon_container, why))
    hands.end_runs(watch_runs.dead_runs(look, memory, settings, ask, under_way))
    for each in repairs:
        # A deploy waits for webserver and daemon, and fails if they go.
        if not (under_way and each.action == watch_services.RESTART):
            hands.repair(each)
    if not under_way:
        wanted = watch_location.intended(memory)
        repairs, problems = watch_location.judge(
            look, memory, settings, wanted, lambda container: ask(container) is not None, code_server.workers
        )
        hands.problems += problems
        _under_lock(release_lock, repairs, hands)
    if watch_sensors.are_asleep(look, memory, settings):
        hands.wake_sensors()
    hands.retry(watch_retries.forgotten(look, memory, settings))
    # Last: one that does not listen takes half a minute to stop.
    hands.end_strays(watch_runs.strays(look, memory, settings))
    hands.remove_ended_workers(look.ended_workers)


def _under_lock(path: str, repairs: list[watch_services.Repair], hands: watch_act.Hands) -> None:
    """A deploy that begins now waits until the repair is done."""
    if not repairs:
        return
    try:
        with releases.lock(path, {"who": "dagster-gce watch", "operation": "repair"}):
            for each in repairs:
                hands.repair(each)
    except (releases.LockedError, OSError):
        # Somebody is releasing: the next look sees what came of it.
        return


def _summary(look: watch_look.Look, hands: watch_act.Hands, paused: watch_pause.Pause | None) -> str:
    if paused:
        return str(paused)
    if hands.done:
        return "; ".join(map(str, hands.done))
    silent = [
        name for name, error in (("PostgreSQL", look.database_error), ("the webserver", look.webserver_error)) if error
    ]
    if silent:
        return f"{' and '.join(silent)} did not answer; nothing done yet"
    return f"all is well: {len(look.runs or ())} runs in flight"


def _details(look: watch_look.Look, paused: watch_pause.Pause | None) -> dict[str, Any]:
    return {
        "paused": asdict(paused) if paused else None,
        "starved": look.starved,
        "runs_in_flight": None if look.runs is None else len(look.runs),
        "database_error": look.database_error,
        "webserver_error": look.webserver_error,
        "actions": [asdict(each) for each in watch_actions.last(SHOWN)],
    }


def _metrics(look: watch_look.Look, hands: watch_act.Hands) -> list[jobs.Metric]:
    counted = {str(each.get("labels", {}).get("action")): float(each.get("value", 0)) for each in _before()}
    for each in hands.done:
        counted[each.action] = counted.get(each.action, 0.0) + 1
    return [
        jobs.Metric(
            "dagster_gce_watch_actions_total", value, "What the watch did, by action.", "counter", {"action": action}
        )
        for action, value in sorted(counted.items())
    ]


def _before() -> list[dict[str, Any]]:
    found = jobs.state(watch_settings.JOB).get("metrics")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
