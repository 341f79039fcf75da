"""Snapshot schedules: changed in place, never replaced, so that no disk is without one for a moment."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import gce_disk, gce_snapshot_schedule
from lab.google import Google
from tests.unit.plugins.modules.google_modules import OURS, PROJECT, REGION, REGIONAL, ZONE, Run, Task

POLICY = f"{REGIONAL}/resourcePolicies/nightly"
DAILY = {"frequency": "daily", "start_time": "04:00"}


@pytest.fixture
def schedule(google: Google, run_module: Run) -> Task:
    return Task(
        run_module,
        gce_snapshot_schedule.main,
        google,
        region=REGION,
        name="nightly",
        schedule=DAILY,
        retention_days=14,
    )


def stored(google: Google) -> dict[str, Any]:
    found = google.thing(POLICY)
    assert found is not None
    policy: dict[str, Any] = found["snapshotSchedulePolicy"]
    return policy


def test_a_new_schedule_is_shown_made_and_then_no_change(schedule: Task, google: Google) -> None:
    schedule.changes(
        labels={"dagster-environment": "prod"}, storage_locations=["europe-west3"], guest_flush=False, description="x"
    )
    found = stored(google)
    assert found["schedule"]["dailySchedule"] == {"daysInCycle": 1, "startTime": "04:00", "duration": "PT14400S"}
    assert found["retentionPolicy"] == {"maxRetentionDays": 14, "onSourceDiskDelete": "KEEP_AUTO_SNAPSHOTS"}
    assert found["snapshotProperties"]["labels"] == {"dagster-environment": "prod", **OURS}


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": {"frequency": "daily", "start_time": "20:00"}},
        {"schedule": {"frequency": "hourly", "every": 6, "start_time": "00:00"}},
        {"schedule": {"frequency": "weekly", "weekdays": ["SUNDAY", "MONDAY"]}},
        {"retention_days": 30},
        {"on_source_disk_delete": "APPLY_RETENTION_POLICY"},
        {"labels": {"team": "data"}},
        {"description": "Every night"},
    ],
)
def test_every_change_in_place(schedule: Task, google: Google, options: dict[str, Any]) -> None:
    made = schedule.run()
    schedule.changes(**options)
    found = google.thing(POLICY)
    assert found
    assert found["id"] == made["resource"]["id"]
    assert len(stored(google)["schedule"]) == 1
    assert stored(google)["retentionPolicy"]["maxRetentionDays"] == options.get("retention_days", 14)


def test_the_order_of_the_days_does_not_count(schedule: Task) -> None:
    schedule.run(schedule={"frequency": "weekly", "weekdays": ["SUNDAY", "MONDAY"]})
    schedule.unchanged(schedule={"frequency": "weekly", "weekdays": ["MONDAY", "SUNDAY"]})


def test_drift_is_shown_and_repaired(schedule: Task, google: Google) -> None:
    schedule.run()
    google.call(
        "compute.resourcePolicies.patch",
        {"project": PROJECT, "region": REGION, "resourcePolicy": "nightly"},
        {"snapshotSchedulePolicy": {"schedule": {"hourlySchedule": {"hoursInCycle": 1, "startTime": "00:00"}}}},
    )
    made = schedule.changes()
    assert "hourlySchedule" in made["diff"]["before"]["schedule"]
    assert "dailySchedule" in stored(google)["schedule"]


@pytest.mark.parametrize("options", [{"storage_locations": ["us"]}, {"guest_flush": True}])
def test_what_google_cannot_change_is_an_error_with_the_choices(
    schedule: Task, google: Google, options: dict[str, Any]
) -> None:
    schedule.run()
    message = schedule.refused(**options)
    assert next(iter(options)) in message
    assert "make a schedule of another name" in message
    assert "compute.resourcePolicies.patch" not in google.calls


def test_somebody_elses_schedule_is_let_alone(schedule: Task, google: Google) -> None:
    cycle = {"dailySchedule": {"daysInCycle": 1, "startTime": "04:00"}}
    google.call(
        "compute.resourcePolicies.insert",
        {"project": PROJECT, "region": REGION},
        {
            "name": "nightly",
            "snapshotSchedulePolicy": {"schedule": cycle, "retentionPolicy": {"maxRetentionDays": 14}},
        },
    )
    for state in ("present", "absent"):
        assert "somebody else made it" in schedule.refused(state=state)
    schedule.changes(adopt=True)


def test_a_policy_of_another_kind_is_let_alone(schedule: Task, google: Google) -> None:
    google.state.put(f"compute/{POLICY}", {"name": "nightly", "groupPlacementPolicy": {"vmCount": 2}})
    for state in ("present", "absent"):
        assert "it is no snapshot schedule" in schedule.refused(state=state)


def test_a_schedule_in_use_is_not_deleted(schedule: Task, google: Google, run_module: Run) -> None:
    schedule.run()
    disk = Task(run_module, gce_disk.main, google, zone=ZONE, name="data", size_gb=50, resource_policies=["nightly"])
    disk.run()
    assert "already being used by" in schedule.refused(state="absent")
    disk.run(resource_policies=[])
    schedule.changes(state="absent")
    assert google.thing(POLICY) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schedule": {"frequency": "daily", "start_time": "04:30"}}, "schedule.start_time: found '04:30'"),
        ({"schedule": {"frequency": "daily", "start_time": "14400"}}, "schedule.start_time: found '14400'"),
        ({"schedule": {"frequency": "daily", "every": 2}}, "schedule.every: found 2"),
        ({"schedule": {"frequency": "hourly", "every": 24}}, "schedule.every: found 24"),
        ({"schedule": {"frequency": "weekly"}}, "schedule.weekdays: found []; expected at least one day"),
        ({"schedule": {"frequency": "daily", "weekdays": ["MONDAY"]}}, "schedule.weekdays: found ['MONDAY']"),
        ({"retention_days": 0}, "retention_days: found 0"),
        ({"region": "europe-west3-c"}, "region: found 'europe-west3-c'"),
        ({"labels": {"Team": "x"}}, "labels: found the key 'Team'"),
    ],
)
def test_bad_input_is_one_clear_error(schedule: Task, google: Google, options: dict[str, Any], words: str) -> None:
    assert words in schedule.refused(**options)
    assert google.calls == []


def test_too_little_to_make_one(schedule: Task, google: Google) -> None:
    message = schedule.refused(schedule=None, retention_days=None)
    assert "schedule: found nothing" in message
    assert "retention_days: found nothing" in message
    schedule.run()
    schedule.unchanged(schedule=None, retention_days=None)
