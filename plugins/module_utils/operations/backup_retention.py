# SPDX-License-Identifier: Apache-2.0
"""Which backups stay."""

from __future__ import annotations

import calendar
import functools
import time
from collections.abc import Callable, Iterable

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_settings import Keep

STAMP = "%Y%m%dT%H%M%SZ"
# What a person or a play asked for stays at least so long.
ASKED_FOR_DAYS = 7
# An object or a folder without a manifest may be one that is being written right now.
HALF_SECONDS = 86400


def stamp(moment: float | None = None) -> str:
    """The name of a backup that is taken at ``moment``."""
    return time.strftime(STAMP, time.gmtime(moment))


@functools.lru_cache(maxsize=4096)
def moment_of(name: str) -> float | None:
    """When a backup was taken; None where the name is none of a backup's."""
    try:
        return calendar.timegm(time.strptime(name, STAMP))
    except ValueError:
        return None


def expired(
    stamps: Iterable[str],
    keep: Keep,
    *,
    now: float,
    never: Iterable[str] = (),
    asked_for: Iterable[str] = (),
) -> list[str]:
    """The backups that go, oldest first.

    Args:
        stamps: every backup that is complete.
        keep: the policy.
        now: seconds since the epoch.
        never: backups that stay whatever the policy says: the last one that a drill has proven.
        asked_for: backups that no timer took.

    The newest one always stays, whatever its age: it may be the last one for a long time.
    """
    known = sorted((name for name in stamps if moment_of(name) is not None), reverse=True)
    stays = {*known[:1], *never}
    for number, period in ((keep.hourly, _hour), (keep.daily, _day), (keep.weekly, _week)):
        stays |= _newest_of_each(known, number, period)
    if keep.days:
        stays = {name for name in stays if now - _moment(name) <= keep.days * 86400} | {*known[:1], *never}
    stays |= {name for name in asked_for if now - _moment(name) <= ASKED_FOR_DAYS * 86400}
    return sorted(set(known) - stays)


def _newest_of_each(newest_first: list[str], number: int, period: Callable[[str], tuple[int, ...]]) -> set[str]:
    found: dict[tuple[int, ...], str] = {}
    for name in newest_first:
        found.setdefault(period(name), name)
    return set(list(found.values())[:number])


def _moment(name: str) -> float:
    return moment_of(name) or 0.0


def _hour(name: str) -> tuple[int, ...]:
    return tuple(time.gmtime(_moment(name))[:4])


def _day(name: str) -> tuple[int, ...]:
    return tuple(time.gmtime(_moment(name))[:3])


def _week(name: str) -> tuple[int, ...]:
    # Monday is the first day; 1970-01-01 was a Thursday.
    return (int((_moment(name) // 86400 + 3) // 7),)
