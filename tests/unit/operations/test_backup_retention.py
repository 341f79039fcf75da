"""Which backups stay, over months and after pauses."""

from __future__ import annotations

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import backup_retention
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_settings import Keep

HOUR, DAY = 3600, 86400
NOW = 1_795_406_370.0  # 2026-11-23, a Monday
KEEP = Keep(hourly=24, daily=7, weekly=4)


def hourly(count: int, until: float = NOW) -> list[str]:
    return [backup_retention.stamp(until - HOUR * number) for number in range(count)]


def ages(stamps: set[str]) -> list[float]:
    return sorted((NOW - (backup_retention.moment_of(stamp) or 0)) / DAY for stamp in stamps)


def kept(stamps: list[str], keep: Keep = KEEP, **more: object) -> set[str]:
    return set(stamps) - set(backup_retention.expired(stamps, keep, now=NOW, **more))  # type: ignore[arg-type]


def test_a_name_is_a_moment() -> None:
    assert backup_retention.stamp(NOW) == "20261123T035930Z"
    assert backup_retention.moment_of("20261123T035930Z") == NOW
    assert backup_retention.moment_of("logs") is None
    assert backup_retention.moment_of("20261123T035930Z.partial") is None


def test_half_a_year_of_hours() -> None:
    found = kept(hourly(24 * 180))
    # 24 hours, then the newest of each of the other days of seven, then of the other weeks of four.
    # (On a Monday: today and yesterday are among the hours, this week and the last one among the days.)
    assert len(found) == 24 + 5 + 2
    assert 14 < ages(found)[-1] <= 28


def test_run_every_hour_it_comes_to_the_same() -> None:
    """What was removed at each step has not taken away what a later one needs."""
    there: list[str] = []
    for stamp in reversed(hourly(24 * 30)):
        there = [*there, stamp]
        moment = backup_retention.moment_of(stamp) or 0
        there = [each for each in there if each not in backup_retention.expired(there, KEEP, now=moment)]
    assert ages(set(there))[-1] > 14
    assert len(there) <= 24 + 7 + 4


def test_the_newest_stays_whatever_its_age() -> None:
    old = hourly(5, NOW - 400 * DAY)
    assert kept(old, Keep(hourly=1, daily=0, weekly=0, days=30)) == {old[0]}
    assert kept(old, Keep(hourly=0, daily=0, weekly=0)) == {old[0]}


def test_after_a_pause_the_last_ones_from_before_stay() -> None:
    before, after = hourly(48, NOW - 60 * DAY), hourly(1)
    found = kept([*before, *after])
    assert after[0] in found
    assert len(found) == 24 + 1, "23 hours of before and the newest of another day, besides the new one"


def test_what_was_proven_or_asked_for_stays() -> None:
    stamps = hourly(24 * 40)
    proven, asked, long_ago = stamps[24 * 35 + 5], stamps[24 * 3 + 5], stamps[24 * 12 + 5]
    found = kept(stamps, never=[proven, ""], asked_for=[asked, long_ago])
    assert {proven, asked} <= found
    assert long_ago not in found


@pytest.mark.parametrize("days", [1, 3])
def test_none_is_older_than_asked(days: int) -> None:
    assert ages(kept(hourly(24 * 30), Keep(days=days)))[-1] <= days


def test_foreign_names_are_left_alone() -> None:
    assert backup_retention.expired(["logs", "lost+found", *hourly(1)], Keep(0, 0, 0), now=NOW) == []
