# SPDX-License-Identifier: Apache-2.0
"""What the watch may do, and how patient it is (part ``watch``, written by the role dagster_watch)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config, jobs

JOB = "watch"


@dataclass(frozen=True)
class Settings:
    """Limits of the watch; times in seconds.

    Attributes:
        services: containers of the stack that have to run.
        engine_proxy: the container through which runs are launched; empty where there is none.
        agree_seconds: two looks that far apart have to find the same before anything is done.
        starting_seconds: how long a service may take to begin before its silence counts.
        daemon_silent_seconds: no daemon thread has sent a heartbeat for so long: the process hangs.
        thread_silent_seconds: one of them has not for so long: that thread hangs.
        webserver_seconds: the webserver has to answer GraphQL within this.
        failures: looks in a row that have to find a service dead before it is restarted.
        restarts_per_hour: how often one container is restarted in an hour; then a person has to look.
        finished_run_seconds: how long a container may go on after its run has ended.
        unknown_run_seconds: how long a container may run whose run Dagster does not know.
        keep_run_containers: how many containers of finished runs stay for who wants to look at one.
        keep_run_containers_hours: and how long.
        old_release_seconds: how long the daemon may go on with a release that serves no more.
        reload_max_seconds: the longest pause between two reloads of a code location in error.
        clock_seconds: a step of the clock that is worth a problem.
    """

    services: tuple[str, ...] = ("dagster-postgres", "dagster-webserver", "dagster-daemon")
    engine_proxy: str = ""
    port: int = 4000
    agree_seconds: float = 20
    starting_seconds: float = 120
    daemon_silent_seconds: float = 90
    thread_silent_seconds: float = 600
    webserver_seconds: float = 10
    failures: int = 3
    restarts_per_hour: int = 3
    finished_run_seconds: float = 120
    unknown_run_seconds: float = 300
    keep_run_containers: int = 50
    keep_run_containers_hours: float = 24
    old_release_seconds: float = 600
    reload_max_seconds: float = 900
    clock_seconds: float = 30


def load() -> Settings:
    """The settings on this machine.

    Raises:
        config.ConfigError: the file cannot be used.
        jobs.JobError: a value has the wrong type.
    """
    return of(config.load(JOB))


def of(given: Mapping[str, Any]) -> Settings:
    """Settings from what a file holds; what it does not say is the default, what nobody knows is left out.

    Raises:
        jobs.JobError: a value has the wrong type.
    """
    values: dict[str, Any] = {}
    for each in dataclasses.fields(Settings):
        if each.name not in given:
            continue
        found, kind = given[each.name], type(getattr(Settings, each.name))
        try:
            values[each.name] = tuple(map(str, found)) if kind is tuple else kind(found)
        except (TypeError, ValueError) as error:
            raise jobs.JobError(
                f"{config.path(JOB)}: {each.name}: found {found!r}, expected {kind.__name__}; run site.yml"
            ) from error
    return Settings(**values)
