#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""One snapshot schedule on Compute Engine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_snapshot_schedule
short_description: One snapshot schedule on Compute Engine
description:
  - Makes a schedule by which Google takes snapshots of every disk that has it
    (M(dataops.dagster_gce.gce_disk)), and changes it in place.
  - The label C(managed-by=dataops-dagster-gce) is one of its snapshots' labels, since a schedule has none itself.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment:
  - dataops.dagster_gce.attributes
  - dataops.dagster_gce.google
  - dataops.dagster_gce.google_owned
options:
  name:
    description: The schedule's name.
    type: str
    required: true
  region:
    description: The region of the disks.
    type: str
    required: true
  state:
    description: V(absent) deletes the schedule, which Google refuses while a disk has it. Its snapshots stay.
    type: str
    choices: [present, absent]
    default: present
  schedule:
    description: When snapshots are taken. Needed to make a schedule.
    type: dict
    suboptions:
      frequency:
        description: Every so many hours, every day, or on days of the week.
        type: str
        choices: [hourly, daily, weekly]
        required: true
      every:
        description: With V(hourly), how many hours lie between two snapshots.
        type: int
        default: 1
      start_time:
        description: When the snapshot's window of an hour begins, UTC, on the hour.
        type: str
        default: "04:00"
      weekdays:
        description: With V(weekly), the days.
        type: list
        elements: str
        choices: [MONDAY, TUESDAY, WEDNESDAY, THURSDAY, FRIDAY, SATURDAY, SUNDAY]
        default: []
  retention_days:
    description: After how many days a snapshot is deleted. Needed to make a schedule.
    type: int
  on_source_disk_delete:
    description:
      - What becomes of the snapshots when their disk is deleted. V(KEEP_AUTO_SNAPSHOTS) keeps them for good,
        V(APPLY_RETENTION_POLICY) deletes them in their time.
    type: str
    choices: [KEEP_AUTO_SNAPSHOTS, APPLY_RETENTION_POLICY]
    default: KEEP_AUTO_SNAPSHOTS
  storage_locations:
    description: The region or multi-region where the snapshots are kept. Google cannot change it.
    type: list
    elements: str
  guest_flush:
    description: Whether the machine is asked to write out its caches first. Google cannot change it.
    type: bool
  description:
    description: A description.
    type: str
"""

EXAMPLES = r"""
- name: A snapshot every night, kept for two weeks
  dataops.dagster_gce.gce_snapshot_schedule:
    project: example-project
    region: europe-west3
    name: dagster-snapshots-prod
    schedule:
      frequency: daily
      start_time: "04:00"
    retention_days: 14
    storage_locations: [europe-west3]
"""

RETURN = r"""
resource:
  description: The schedule as Google has it; in check mode as it would be, as far as that is known.
  returned: success
  type: dict
"""

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_checks, google_owned
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_fields import (
    PATCH,
    Field,
    Fixed,
    boolean,
    integer,
    unordered,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_resource import Kind, run

WEEKDAYS = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY")
ANOTHER = "make a schedule of another name and give it to the disks (resource_policies), or set the option back"


def cycle(value: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The option `schedule` as the API has it."""
    start = value["start_time"]
    if value["frequency"] == "hourly":
        return {"hourlySchedule": {"hoursInCycle": value["every"], "startTime": start}}
    if value["frequency"] == "daily":
        return {"dailySchedule": {"daysInCycle": 1, "startTime": start}}
    days = sorted(set(value["weekdays"]), key=WEEKDAYS.index)
    return {"weeklySchedule": {"dayOfWeeks": [{"day": day, "startTime": start} for day in days]}}


def shown(value: Any) -> Any:
    """A schedule in one spelling, without the length of the window, which is Google's to say."""
    if value is None:
        return None
    result: dict[str, Any] = {}
    for name, part in value.items():
        if name == "weeklySchedule":
            days = [{key: day[key] for key in ("day", "startTime")} for day in part.get("dayOfWeeks", [])]
            result[name] = sorted(days, key=lambda day: WEEKDAYS.index(day["day"]))
        else:
            result[name] = {key: item for key, item in part.items() if key != "duration"}
    return result


KIND = Kind(
    name="snapshot schedule",
    collection="projects/{project}/regions/{region}/resourcePolicies",
    fields=(
        Field("description", "description", default=""),
        Field(
            "schedule",
            "snapshotSchedulePolicy.schedule",
            form=shown,
            send=cycle,
            # Whole, so that a daily schedule which has become an hourly one differs.
            merge=lambda wanted, found, options: wanted,
        ),
        Field("retention_days", "snapshotSchedulePolicy.retentionPolicy.maxRetentionDays", form=integer),
        Field("on_source_disk_delete", "snapshotSchedulePolicy.retentionPolicy.onSourceDiskDelete"),
        google_owned.owned_labels(PATCH, api="snapshotSchedulePolicy.snapshotProperties.labels"),
        Field(
            "storage_locations",
            "snapshotSchedulePolicy.snapshotProperties.storageLocations",
            form=unordered(),
            change=Fixed(ANOTHER),
        ),
        Field(
            "guest_flush",
            "snapshotSchedulePolicy.snapshotProperties.guestFlush",
            form=boolean,
            default=False,
            change=Fixed(ANOTHER),
        ),
    ),
)

SPEC: dict[str, dict[str, Any]] = {
    **google_owned.SPEC,
    "region": {"type": "str", "required": True},
    "schedule": {
        "type": "dict",
        "options": {
            "frequency": {"type": "str", "choices": ["hourly", "daily", "weekly"], "required": True},
            "every": {"type": "int", "default": 1},
            "start_time": {"type": "str", "default": "04:00"},
            "weekdays": {"type": "list", "elements": "str", "choices": list(WEEKDAYS), "default": []},
        },
    },
    "retention_days": {"type": "int"},
    "on_source_disk_delete": {
        "type": "str",
        "choices": ["KEEP_AUTO_SNAPSHOTS", "APPLY_RETENTION_POLICY"],
        "default": "KEEP_AUTO_SNAPSHOTS",
    },
    "storage_locations": {"type": "list", "elements": "str"},
    "guest_flush": {"type": "bool"},
    "description": {"type": "str"},
}


class Schedule(google_owned.Owned):
    """A schedule; its snapshots' labels tell whose it is."""

    labels_at = "snapshotSchedulePolicy.snapshotProperties.labels"

    def check(self, found: Mapping[str, Any] | None) -> list[str]:
        """Refuse a resource policy of another kind, and to make a schedule of which too little is known."""
        if found is not None and "snapshotSchedulePolicy" not in found:
            return [
                f"{self}: there is a resource policy of this name, but it is no snapshot schedule; choose another name"
            ]
        if found is None and self.options["state"] == "present":
            return [
                f"{name}: found nothing; {self} does not exist, and to make it this is needed"
                for name in ("schedule", "retention_days")
                if not self.options[name]
            ]
        return super().check(found)


def mistakes(options: Mapping[str, Any]) -> list[str]:
    """What Google would refuse."""
    lines = google_checks.labels("labels", options["labels"])
    days = options["retention_days"]
    if days is not None and not 1 <= days <= 65535:
        lines.append(f"retention_days: found {days}; expected 1 to 65535")
    schedule = options["schedule"]
    if schedule is None:
        return lines
    start, frequency = schedule["start_time"], schedule["frequency"]
    if not re.fullmatch(r"(?:[01]\d|2[0-3]):00", start):
        lines.append(f'schedule.start_time: found {start!r}; expected a full hour, quoted, such as "04:00"')
    if frequency == "hourly" and not 1 <= schedule["every"] <= 23:
        lines.append(f"schedule.every: found {schedule['every']}; expected 1 to 23 hours")
    if frequency != "hourly" and schedule["every"] != 1:
        lines.append(f"schedule.every: found {schedule['every']}; it is for frequency hourly only")
    if (frequency == "weekly") != bool(schedule["weekdays"]):
        expected = "at least one day" if frequency == "weekly" else "none, since they are for frequency weekly only"
        lines.append(f"schedule.weekdays: found {schedule['weekdays']}; expected {expected}")
    return lines


def main() -> None:
    """Run the module."""
    run(KIND, SPEC, resource=Schedule, check=mistakes)


if __name__ == "__main__":
    main()
