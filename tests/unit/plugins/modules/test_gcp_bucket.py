"""gcp_bucket: made closed to all, changed in place, and not deleted with anything in it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import gcp_bucket
from lab.google import Google
from lab.google.storage import objects
from tests.unit.plugins.modules.google_modules import Run, Task

NAME = "example-project-dagster-backups"
DAY = 86400


@pytest.fixture
def bucket(google: Google, run_module: Run) -> Task:
    return Task(run_module, gcp_bucket.main, google, name=NAME, location="europe-west3")


def stored(google: Google) -> dict[str, Any]:
    found = google.thing(f"b/{NAME}", "storage")
    assert found is not None
    return found


def test_from_nothing_and_back(google: Google, bucket: Task) -> None:
    made = bucket.changes(labels={"team": "data"}, delete_after_days=35, retention_days=14, soft_delete_days=30)
    assert made["url"] == f"gs://{NAME}"
    found = stored(google)
    assert found["location"] == "EUROPE-WEST3"
    assert found["iamConfiguration"]["publicAccessPrevention"] == "enforced"
    assert found["iamConfiguration"]["uniformBucketLevelAccess"]["enabled"] is True
    assert found["lifecycle"]["rule"] == [{"action": {"type": "Delete"}, "condition": {"age": 35}}]
    assert found["retentionPolicy"] == {"retentionPeriod": str(14 * DAY)}
    assert found["softDeletePolicy"]["retentionDurationSeconds"] == str(30 * DAY)
    bucket.unchanged()
    bucket.changes(state="absent")
    assert google.thing(f"b/{NAME}", "storage") is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"delete_after_days": 30}, {"delete_after_days": 60}),
        ({"delete_after_days": 30}, {"delete_after_days": 0}),
        ({"retention_days": 7}, {"retention_days": 14}),
        ({"retention_days": 7}, {"retention_days": 0}),
        ({"soft_delete_days": 7}, {"soft_delete_days": 0}),
        ({}, {"storage_class": "NEARLINE"}),
        ({"labels": {"team": "data"}}, {"labels": {"team": "platform"}}),
        ({"labels": {"team": "data", "old": "1"}}, {"labels": {"team": "data"}, "purge_labels": True}),
    ],
)
def test_changes_in_place(google: Google, bucket: Task, before: dict[str, Any], after: dict[str, Any]) -> None:
    bucket.run(**before)
    made = stored(google)["timeCreated"]
    bucket.changes(**after)
    assert stored(google)["timeCreated"] == made


def test_labels_and_settings_of_others_stay(google: Google, bucket: Task) -> None:
    bucket.run(labels={"team": "data"})
    google.call("storage.buckets.patch", {"bucket": NAME}, {"labels": {"cost": "42"}, "versioning": {"enabled": True}})
    bucket.changes(labels={"team": "platform"})
    assert stored(google)["labels"] == {"team": "platform", "cost": "42"}
    assert stored(google)["versioning"] == {"enabled": True}


def test_one_that_somebody_opened_is_closed(google: Google, bucket: Task) -> None:
    bucket.run()
    google.call(
        "storage.buckets.patch", {"bucket": NAME}, {"iamConfiguration": {"publicAccessPrevention": "inherited"}}
    )
    bucket.changes()
    assert stored(google)["iamConfiguration"]["publicAccessPrevention"] == "enforced"


def test_another_location_is_refused(google: Google, bucket: Task) -> None:
    bucket.run()
    for check in (True, False):
        assert "location: bucket example-project-dagster-backups has 'europe-west3'" in bucket.refused(
            check=check, location="us"
        )


def test_what_holds_something_is_not_deleted(google: Google, bucket: Task) -> None:
    bucket.run()
    objects(google, NAME)["one"] = {"name": "one"}
    assert "not empty" in bucket.refused(state="absent")


def test_a_name_that_is_taken_elsewhere(google: Google, bucket: Task) -> None:
    google.seed_project("other-project", owner="somebody@example.com")
    google.call("storage.buckets.insert", {"project": "other-project"}, {"name": NAME}, email="somebody@example.com")
    assert "storage.buckets.get" in bucket.refused()


@pytest.mark.parametrize("kind", ["after", "drop"])
def test_a_lost_answer_makes_one_bucket(google: Google, bucket: Task, kind: str) -> None:
    google.fail("storage.buckets.insert", kind=kind)
    assert bucket.run()["changed"] is True
    bucket.unchanged()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "Backups"}, "name: found 'Backups'; expected"),
        ({"name": "gs://x"}, "name: found 'gs://x'; expected"),
        ({"delete_after_days": -1}, "delete_after_days: found -1"),
        ({"soft_delete_days": 3}, "soft_delete_days: found 3; expected 0, or 7 to 90"),
        ({"delete_after_days": 3, "retention_days": 7}, "delete_after_days: found 3 with retention_days 7"),
    ],
)
def test_bad_input_makes_no_call(google: Google, bucket: Task, options: dict[str, Any], message: str) -> None:
    assert message in bucket.refused(**options)
    assert google.calls == []
