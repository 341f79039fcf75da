# SPDX-License-Identifier: Apache-2.0
"""Samples from the webserver: code locations, the release, schedules and sensors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import graphql, releases
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config, problems
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.jobs import Metric
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.metrics_sample import metric

_INSTIGATORS = """{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name }
  schedules { name scheduleState { status ticks(limit: 1) { timestamp status } } }
  sensors { name minIntervalSeconds sensorState { status ticks(limit: 1) { timestamp status } } } } } } }"""


def webserver() -> list[Metric]:
    """Code location, release, schedules and sensors.

    Raises:
        graphql.GraphQLError: the webserver does not answer.
    """
    stack = config.stack()
    asked = graphql.Webserver(stack.webserver_url, timeout=problems.PATIENCE)
    samples = [metric("info", 1, "Dagster's version.", dagster=asked.version())]
    locations = asked.locations()
    for name, each in locations.items():
        samples.append(metric("location_loaded", each.loaded, "Whether the code location is loaded.", location=name))
    core = locations.get(stack.location)
    if core:
        release = releases.release_of(core.host) or ""
        text = "The release of the user code that serves."
        samples.append(metric("release_info", 1, text, release=release, image=core.image))
    return [*samples, *_instigators(asked)]


def _instigators(asked: graphql.Webserver) -> Iterator[Metric]:
    nodes = asked.query(_INSTIGATORS)["repositoriesOrError"].get("nodes") or []
    now = time.time()
    schedules: list[tuple[dict[str, str], dict[str, str], float]] = []
    for node in nodes:
        location = node["location"]["name"]
        for kind, listed, state_key in (
            ("schedule", node["schedules"], "scheduleState"),
            ("sensor", node["sensors"], "sensorState"),
        ):
            for each in listed:
                state = each[state_key]
                labels = {"location": location, "name": each["name"], "type": kind}
                running = state["status"] == "RUNNING"
                yield metric("instigator_running", running, "Whether the schedule or sensor is switched on.", **labels)
                if not running or not state["ticks"]:
                    continue
                tick = state["ticks"][0]
                last = float(tick["timestamp"])
                text = "When its last tick began."
                yield metric("instigator_last_tick_timestamp_seconds", last, text, **labels)
                text = "Whether its last tick failed."
                yield metric("instigator_last_tick_failed", tick["status"] == "FAILURE", text, **labels)
                if kind == "schedule":
                    selector = {
                        "repositoryLocationName": location,
                        "repositoryName": node["name"],
                        "scheduleName": each["name"],
                    }
                    schedules.append((labels, selector, last))
                else:
                    late = max(0.0, now - last - float(each["minIntervalSeconds"] or 30))
                    yield metric("instigator_late_seconds", round(late, 3), _LATE, **labels)
    for (labels, _, _), expected in zip(schedules, _next_ticks(asked, schedules), strict=True):
        if expected is not None:
            yield metric("instigator_late_seconds", round(max(0.0, now - expected), 3), _LATE, **labels)


_LATE = "For how long its next tick has been due."


def _next_ticks(
    asked: graphql.Webserver, schedules: list[tuple[dict[str, str], dict[str, str], float]]
) -> list[float | None]:
    """When each schedule had to tick after its last tick, as Dagster reads its cron expression."""
    if not schedules:
        return []
    # Cron knows whole seconds, and the first time it gives may be the one it is asked from.
    fields = "".join(
        f"s{index}: scheduleOrError(scheduleSelector: $s{index}) {{ ... on Schedule {{"
        f" futureTicks(cursor: {last + 1}, limit: 1) {{ results {{ timestamp }} }} }} }} "
        for index, (_, _, last) in enumerate(schedules)
    )
    arguments = ", ".join(f"$s{index}: ScheduleSelector!" for index in range(len(schedules)))
    variables: dict[str, Any] = {f"s{index}": selector for index, (_, selector, _) in enumerate(schedules)}
    found = asked.query(f"query({arguments}) {{ {fields} }}", variables)
    expected: list[float | None] = []
    for index in range(len(schedules)):
        ticks = (found[f"s{index}"].get("futureTicks") or {}).get("results") or []
        expected.append(float(ticks[0]["timestamp"]) if ticks else None)
    return expected
