# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: S608 - psql has no parameters here: texts go through upkeep_policy.text, the rest are numbers and names of ours
"""What upkeep may remove and when, as settings and as SQL.

Days of 0 mean never. An exception counts for the runs of a job, or with a tag; the first one that fits a run decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.graphql import FINISHED

# Everything else may be a fraction: half a day is no "never".
_WHOLE = ("batch_rows", "keep_releases", "keep_run_containers")


class PolicyError(ValueError):
    """A setting is none; the text says which, what was found and what was expected."""


@dataclass(frozen=True)
class Rule:
    """Other days for some runs. ``job`` may hold ``*``; ``tag`` is ``key`` or ``key=value``; None: as for others."""

    job: str = ""
    tag: str = ""
    runs_days: float | None = None
    events_days: float | None = None
    assets_days: float | None = None
    compute_logs_days: float | None = None


@dataclass(frozen=True)
class Policy:
    """The settings of the role dagster_upkeep, as it leaves them on the machine."""

    runs_days: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(FINISHED, 365.0))
    events_days: float = 30
    assets_days: float = 180
    checks_days: float = 180
    ticks_days: float = 120
    backfills_days: float = 365
    compute_logs_days: float = 30
    exceptions: tuple[Rule, ...] = ()
    batch_rows: int = 5000
    pause: float = 1.0
    max_load: float = 1.5
    max_seconds: float = 7200
    vacuum: bool = True
    images_days: float = 90
    build_cache_days: float = 14
    keep_releases: int = 5
    keep_run_containers: int = 50
    keep_run_containers_hours: float = 24
    journal_megabytes: float = 1024
    journal_days: float = 90
    apt_cache_megabytes: float = 200


def read(settings: Mapping[str, Any]) -> Policy:
    """The policy of a settings file; what it does not name has its default.

    Raises:
        PolicyError: a setting is unknown or of the wrong kind.
    """
    known = {each.name: each for each in dataclasses.fields(Policy)}
    given: dict[str, Any] = {}
    for name, value in settings.items():
        if name == "guard":
            continue
        if name not in known:
            raise PolicyError(f"upkeep: found the setting {name}, expected one of {', '.join(sorted(known))}")
        if name == "exceptions":
            given[name] = tuple(_rule(number, each) for number, each in enumerate(value))
        elif name == "runs_days":
            usual = Policy().runs_days
            given[name] = {state: _days(f"runs_days.{state}", value.get(state, usual[state])) for state in FINISHED}
        elif name == "vacuum":
            given[name] = bool(value)
        else:
            number = _days(name, value)
            given[name] = int(number) if name in _WHOLE else number
    return Policy(**given)


def _rule(number: int, found: Mapping[str, Any]) -> Rule:
    name = f"exceptions[{number}]"
    unknown = sorted(set(found) - {each.name for each in dataclasses.fields(Rule)})
    if unknown:
        raise PolicyError(f"{name}: found {', '.join(unknown)}, expected job, tag and days")
    if not (found.get("job") or found.get("tag")):
        raise PolicyError(f"{name}: found neither job nor tag, expected one of them")
    days = {key: _days(f"{name}.{key}", value) for key, value in found.items() if key.endswith("_days")}
    return Rule(str(found.get("job") or ""), str(found.get("tag") or ""), **days)


def _days(name: str, found: Any) -> float:
    try:
        value = float(found)
    except (TypeError, ValueError):
        value = -1.0
    if value < 0:
        raise PolicyError(f"{name}: found {found!r}, expected a number, 0 or more")
    return value


def text(value: str) -> str:
    """A text as an SQL literal (``standard_conforming_strings`` is on since PostgreSQL 9.1)."""
    return "'" + value.replace("'", "''") + "'"


def texts(values: Any) -> str:
    """Texts as an SQL array."""
    return "ARRAY[" + ",".join(text(each) for each in values) + "]::text[]"


def _pattern(job: str) -> str:
    escaped = job.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return text(escaped.replace("*", "%"))


def fits(rule: Rule, run: str = "r") -> str:
    """SQL: whether the row ``run`` of the table runs is one of the rule's."""
    parts = []
    if rule.job:
        parts.append(f"{run}.pipeline_name LIKE {_pattern(rule.job)}")
    if rule.tag:
        key, equals, value = rule.tag.partition("=")
        named = f" AND t.value = {text(value)}" if equals else ""
        parts.append(f"EXISTS (SELECT 1 FROM run_tags t WHERE t.run_id = {run}.run_id AND t.key = {text(key)}{named})")
    return "(" + " AND ".join(parts) + ")"


def _sql_days(days: float) -> str:
    return f"{days:.6f}::float8" if days else "NULL::float8"


def days(policy: Policy, kind: str, run: str = "r") -> str:
    """SQL: after how many days something of the run goes, NULL for never.

    Args:
        policy: the settings.
        kind: ``runs_days``, ``events_days``, ``assets_days`` or ``compute_logs_days``.
        run: name of the row of the table runs.
    """
    cases = [
        f"WHEN {fits(rule, run)} THEN {_sql_days(value)}"
        for rule in policy.exceptions
        if (value := getattr(rule, kind)) is not None
    ]
    usual: Any = getattr(policy, kind)
    if isinstance(usual, Mapping):
        cases += [f"WHEN {run}.status = {text(state)} THEN {_sql_days(each)}" for state, each in usual.items()]
        usual = 0.0
    if not cases:
        return _sql_days(usual)
    return f"CASE {' '.join(cases)} ELSE {_sql_days(usual)} END"


def shortest(policy: Policy, kind: str) -> float:
    """The least number of days that any run of the kind has; 0 where nothing ever goes."""
    usual: Any = getattr(policy, kind)
    found = list(usual.values()) if isinstance(usual, Mapping) else [usual]
    found += [value for rule in policy.exceptions if (value := getattr(rule, kind)) is not None]
    return min((each for each in found if each), default=0.0)
