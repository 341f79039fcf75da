# SPDX-License-Identifier: Apache-2.0
"""The settings that roles leave on the machine, one file a part, and where things stand there."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from dataclasses import dataclass
from typing import Any

FOLDER = "/etc/dagster-gce"

# Beside a part's own settings, its file holds what the module dagster_jobs knows of the part's jobs.
JOBS_KEY = "_jobs"


class ConfigError(Exception):
    """A settings file cannot be used; the text says which and what to do."""


@dataclass(frozen=True)
class Stack:
    """Where Dagster stands on this machine (part ``command``, written by the role dagster_command)."""

    root: str = "/opt/dagster"
    webserver_url: str = "http://127.0.0.1:3000"
    webserver_container: str = "dagster-webserver"
    # Only where dagster_read_only_webserver asks for it.
    read_only_container: str = "dagster-webserver-read-only"
    daemon_container: str = "dagster-daemon"
    postgres_container: str = "dagster-postgres"
    location: str = "dagster_core"
    # A volume, or the path of a folder that machines share.
    storage: str = "dagster-storage"

    @property
    def state(self) -> str:
        """The folder of what jobs found."""
        return os.path.join(self.root, "state")


@dataclass(frozen=True)
class Job:
    """A job that systemd runs here.

    Attributes:
        every_at_most: seconds without a success after which it is overdue; None: it cannot be.
        stays: whether it is a service that stays, and not one that a timer starts.
        since: when its part was last written; a job that never ran is not overdue before.
    """

    name: str
    part: str
    command: str = ""
    schedule: str = ""
    every: str = ""
    every_at_most: float | None = None
    timeout: float = 0.0
    stays: bool = False
    since: float = 0.0


def path(part: str) -> str:
    """The file with a part's settings."""
    return os.path.join(FOLDER, f"{part}.json")


def load(part: str) -> dict[str, Any]:
    """The settings of a part; ``{}`` where the part is switched off or was never set up.

    Raises:
        ConfigError: the file is there and cannot be used.
    """
    return {name: value for name, value in _read(part).items() if name != JOBS_KEY}


def stack() -> Stack:
    """Where Dagster stands; the collection's defaults where nothing is said."""
    known = {each.name for each in dataclasses.fields(Stack)}
    return Stack(**{name: str(value) for name, value in load("command").items() if name in known})


def jobs() -> dict[str, Job]:
    """Every job that is set up on this machine, by name. A file that cannot be read counts as none: see `broken`."""
    found = {}
    for part in _parts():
        try:
            listed, since = _read(part).get(JOBS_KEY) or {}, os.stat(path(part)).st_mtime
        except (ConfigError, OSError):
            continue
        known = {each.name for each in dataclasses.fields(Job)}
        for name, given in listed.items():
            options = {key: value for key, value in given.items() if key in known}
            found[name] = Job(**{**options, "name": name, "part": part, "since": min(since, time.time())})
    return found


def broken() -> list[str]:
    """What is wrong with settings files, one sentence a file."""
    errors = []
    for part in _parts():
        try:
            _read(part)
        except ConfigError as error:
            errors.append(str(error))
    return errors


def _parts() -> list[str]:
    try:
        return sorted(name[: -len(".json")] for name in os.listdir(FOLDER) if name.endswith(".json"))
    except OSError:
        return []


def _read(part: str) -> dict[str, Any]:
    try:
        with open(path(part), encoding="utf-8") as stream:
            found = json.load(stream)
    except FileNotFoundError:
        return {}
    except PermissionError as error:
        raise ConfigError(f"{path(part)}: only root may read it; run the command with sudo") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path(part)} cannot be read ({error}); run site.yml again") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path(part)}: found {type(found).__name__}, expected a JSON object; run site.yml again")
    return found
