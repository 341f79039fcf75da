"""Resource policies: schedules of snapshots."""

from __future__ import annotations

import re

from ..errors import Refusal, invalid
from ..handlers import Call
from ..state import Thing
from .common import Collection, check_labels, merge, operation

SCHEDULES = ("hourlySchedule", "dailySchedule", "weeklySchedule")
FIELD = "resource.snapshotSchedulePolicy"


def check(call: Call, path: str, policy: Thing) -> None:
    """One schedule, with times on the hour."""
    if not policy.get("snapshotSchedulePolicy"):
        raise Refusal(400, "Required field 'resource.snapshotSchedulePolicy' not specified", "required")
    wanted = policy["snapshotSchedulePolicy"]
    schedule = wanted.get("schedule", {})
    given = [name for name in SCHEDULES if schedule.get(name)]
    if len(given) != 1:
        raise invalid(f"{FIELD}.schedule", given, "Exactly one of hourly, daily and weekly schedule must be specified.")
    body = schedule[given[0]]
    if given[0] == "weeklySchedule":
        if not body.get("dayOfWeeks"):
            raise invalid(f"{FIELD}.schedule.weeklySchedule.dayOfWeeks", [], "It must name a day.")
        for day in body["dayOfWeeks"]:
            _time(day, f"{FIELD}.schedule.weeklySchedule.dayOfWeeks")
    else:
        cycle = "hoursInCycle" if given[0] == "hourlySchedule" else "daysInCycle"
        if not 1 <= int(body.get(cycle, 0)) <= (23 if cycle == "hoursInCycle" else 1):
            raise invalid(f"{FIELD}.schedule.{given[0]}.{cycle}", body.get(cycle), "It is out of range.")
        _time(body, f"{FIELD}.schedule.{given[0]}")
    retention = wanted.get("retentionPolicy")
    if retention is not None:
        if not 1 <= int(retention.get("maxRetentionDays", 0)) <= 65535:
            raise invalid(
                f"{FIELD}.retentionPolicy.maxRetentionDays", retention.get("maxRetentionDays"), "Must be 1 to 65535."
            )
        retention.setdefault("onSourceDiskDelete", "KEEP_AUTO_SNAPSHOTS")
    check_labels(wanted.get("snapshotProperties", {}).get("labels"), f"{FIELD}.snapshotProperties.labels")


def _time(entry: Thing, field: str) -> None:
    start = entry.get("startTime", "")
    if not re.fullmatch(r"([01]\d|2[0-3]):00", start):
        raise invalid(f"{field}.startTime", start, "Must be an hour of the day (UTC), like 04:00.")
    entry["duration"] = "PT14400S"


class Policies(Collection):
    """A policy's patch knows ``updateMask``; its schedules exclude each other."""

    def patch(self, call: Call) -> Thing:
        """Change only what the mask names, or all that the body has."""
        path, policy = call.target, call.thing()
        if call.body.get("name", policy["name"]) != policy["name"]:
            raise invalid("resource.name", call.body["name"], "It cannot be changed.")
        body = call.body
        mask = call.query("updateMask")
        if mask:
            body = {}
            for dotted in mask.split(","):
                _copy(call.body, body, [_camel(part) for part in dotted.strip().split(".")])
        new = body.get("snapshotSchedulePolicy") or {}
        named = [name for name in SCHEDULES if (new.get("schedule") or {}).get(name)]
        if len(named) == 1:
            for name in SCHEDULES:
                if name not in named:
                    new["schedule"][name] = None
        merged = merge(policy, body)
        check(call, path, merged)
        call.put(path, merged)
        return operation(call, path, "patch")


def _camel(name: str) -> str:
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)


def _copy(source: Thing, target: Thing, names: list[str]) -> None:
    """Take over one field of a mask; what the body lacks is to go."""
    name, *rest = names
    if not rest:
        target[name] = source.get(name)
    else:
        _copy(source.get(name) or {}, target.setdefault(name, {}), rest)


POLICIES = Policies(
    "resourcePolicies", "regions", kind="compute#resourcePolicy", defaults={"status": "READY"}, check=check
)
POLICIES.serve("get", "list", "aggregatedList", "insert", "patch", "delete")
