# SPDX-License-Identifier: Apache-2.0
"""systemd's units of a part's jobs, as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FOLDER = "/etc/systemd/system"
PREFIX = "dagster-gce-"

# Every unit says whose it is, so that a part finds those that it no longer wants. systemd ignores X- settings.
OWNER = "X-Part"


class UnitError(ValueError):
    """A job cannot become a unit; the text says why."""


@dataclass(frozen=True)
class Job:
    """A job as a role describes it; see the options of the module dagster_jobs."""

    name: str
    command: str
    schedule: str = ""
    every: str = ""
    after_boot: str = ""
    random_delay: str = ""
    timeout: int = 0
    every_at_most: int = 0
    description: str = ""
    service: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stays(self) -> bool:
        """Whether it is a service that stays."""
        return not (self.schedule or self.every)

    @property
    def service_unit(self) -> str:
        return f"{PREFIX}{self.name}.service"

    @property
    def timer_unit(self) -> str:
        return f"{PREFIX}{self.name}.timer"

    @property
    def started_unit(self) -> str:
        """The unit that has to be enabled and active."""
        return self.service_unit if self.stays else self.timer_unit


def files(part: str, job: Job, program: str) -> dict[str, str]:
    """The unit files of a job by their names.

    Raises:
        UnitError: the job contradicts itself.
    """
    if job.schedule and job.every:
        raise UnitError(
            f"job {job.name}: found both schedule and every; expected one, or none for a service that stays"
        )
    units = {job.service_unit: _service(part, job, program)}
    if not job.stays:
        units[job.timer_unit] = _timer(part, job)
    return units


def _service(part: str, job: Job, program: str) -> str:
    # % begins a specifier in a unit file.
    settings: dict[str, Any] = {
        "Type": "exec" if job.stays else "oneshot",
        "ExecStart": f"{program} {job.command}".replace("%", "%%"),
        "UMask": "0077",
    }
    if job.stays:
        settings.update({"Restart": "always", "RestartSec": 5})
    else:
        settings["TimeoutStartSec"] = job.timeout or "infinity"
    settings.update(job.service)
    unit = {
        "Description": job.description or f"Dagster on GCE: {job.name}",
        "After": "docker.service",
        OWNER: part,
    }
    if job.stays:
        # Restarted for ever: what keeps it from starting may be gone tomorrow.
        unit["StartLimitIntervalSec"] = "0"
    sections: dict[str, Mapping[str, Any]] = {"Unit": unit, "Service": settings}
    if job.stays:
        sections["Install"] = {"WantedBy": "multi-user.target"}
    return _text(sections)


def _timer(part: str, job: Job) -> str:
    timer: dict[str, Any] = {}
    if job.schedule:
        # A machine that was off at that time catches up when it is back.
        timer.update({"OnCalendar": job.schedule, "Persistent": True})
        if job.after_boot:
            timer["OnBootSec"] = job.after_boot
    else:
        # From the end of the last run, so that a slow one never overtakes itself. OnActiveSec and not OnBootSec: a
        # timer that is made or started again long after boot has to fire as well.
        first = job.after_boot or job.every
        timer.update({"OnActiveSec": first, "OnUnitInactiveSec": job.every, "AccuracySec": "1s"})
    if job.random_delay:
        timer["RandomizedDelaySec"] = job.random_delay
    return _text(
        {
            "Unit": {"Description": f"When to run {PREFIX}{job.name}", OWNER: part},
            "Timer": timer,
            "Install": {"WantedBy": "timers.target"},
        }
    )


def _text(sections: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["# Ansible managed: dataops.dagster_gce"]
    for section, settings in sections.items():
        lines += ["", f"[{section}]"]
        for name, value in settings.items():
            for each in value if isinstance(value, list | tuple) else [value]:
                lines.append(f"{name}={_value(each)}")
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def part_of(text: str) -> str:
    """The part that a unit file belongs to; an empty text where it is none of ours."""
    for line in text.splitlines():
        if line.startswith(f"{OWNER}="):
            return line.partition("=")[2].strip()
    return ""
