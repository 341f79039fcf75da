"""Snapshots: taken once under a name, ready when the module returns."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import gce_disk, gce_snapshot
from lab.google import Google
from tests.unit.plugins.modules.google_modules import OURS, PROJECT, ZONAL, ZONE, Run, Task

SNAPSHOT = f"projects/{PROJECT}/global/snapshots/before"


@pytest.fixture
def snapshot(google: Google, run_module: Run, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setattr(gce_snapshot, "POLL_SECONDS", 0.01)
    Task(run_module, gce_disk.main, google, zone=ZONE, name="data", size_gb=50).run()
    return Task(run_module, gce_snapshot.main, google, zone=ZONE, disk="data", name="before")


def stored(google: Google) -> dict[str, Any]:
    found = google.thing(SNAPSHOT)
    assert found is not None
    return found


def test_a_snapshot_is_shown_taken_and_not_taken_twice(snapshot: Task, google: Google) -> None:
    options = {"labels": {"why": "upgrade"}, "storage_locations": ["europe-west3"], "description": "Before the upgrade"}
    made = snapshot.changes(**options)
    assert made["resource"]["status"] == "READY"
    found = stored(google)
    assert found["labels"] == {"why": "upgrade", **OURS}
    assert found["sourceDisk"].endswith(f"{ZONAL}/disks/data")
    assert google.calls.count("compute.snapshots.insert") == 1


def test_it_waits_until_the_snapshot_is_stored(snapshot: Task, google: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    read = gce_snapshot.Snapshot.read

    def slowly(self: gce_snapshot.Snapshot) -> Any:
        found = read(self)
        if found and len(seen) < 3:
            found["status"] = "UPLOADING"
            seen.append("UPLOADING")
        return found

    monkeypatch.setattr(gce_snapshot.Snapshot, "read", slowly)
    assert snapshot.run()["resource"]["status"] == "READY"
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("status", "words"), [("FAILED", "Google says FAILED"), ("UPLOADING", "it is still UPLOADING")]
)
def test_a_snapshot_that_does_not_get_ready_is_an_error(
    snapshot: Task, monkeypatch: pytest.MonkeyPatch, status: str, words: str
) -> None:
    read = gce_snapshot.Snapshot.read

    def never(self: gce_snapshot.Snapshot) -> Any:
        found = read(self)
        return found and {**found, "status": status}

    monkeypatch.setattr(gce_snapshot.Snapshot, "read", never)
    assert words in snapshot.refused(timeout=1)


def test_one_that_is_there_is_not_taken_for_ready(
    snapshot: Task, monkeypatch: pytest.MonkeyPatch, google: Google
) -> None:
    """An interrupted run is run again, and what comes next may delete the disk."""
    snapshot.run()
    read = gce_snapshot.Snapshot.read
    states = ["UPLOADING", "UPLOADING", "READY"]

    def later(self: gce_snapshot.Snapshot) -> Any:
        found = read(self)
        return found and {**found, "status": states.pop(0)}

    monkeypatch.setattr(gce_snapshot.Snapshot, "read", later)
    again = snapshot.run()
    assert (again["changed"], again["resource"]["status"], states) == (False, "READY", [])


@pytest.mark.parametrize("check", [True, False])
def test_one_that_has_failed_is_an_error(snapshot: Task, google: Google, check: bool) -> None:
    snapshot.run()
    google.state.things[f"compute/{SNAPSHOT}"]["status"] = "FAILED"
    assert "Google says FAILED" in snapshot.refused(check=check)
    assert snapshot.run(state="absent")["changed"] is True


def test_labels_change_in_place(snapshot: Task) -> None:
    snapshot.run()
    snapshot.changes(labels={"why": "drill"})


@pytest.mark.parametrize("options", [{"disk": "other"}, {"type": "ARCHIVE"}, {"storage_locations": ["us"]}])
def test_what_google_cannot_change_is_an_error(snapshot: Task, google: Google, options: dict[str, Any]) -> None:
    snapshot.run()
    message = snapshot.refused(**options)
    assert next(iter(options)) in message
    assert "take a snapshot of another name" in message
    assert google.calls.count("compute.snapshots.insert") == 1


def test_somebody_elses_snapshot_is_let_alone(snapshot: Task, google: Google) -> None:
    google.call(
        "compute.snapshots.insert", {"project": PROJECT}, {"name": "before", "sourceDisk": f"{ZONAL}/disks/data"}
    )
    for state in ("present", "absent"):
        assert "somebody else made it" in snapshot.refused(state=state)
    snapshot.changes(adopt=True)


def test_deleting_needs_no_disk_and_again_changes_nothing(snapshot: Task, google: Google) -> None:
    snapshot.run()
    snapshot.changes(state="absent", disk=None, zone=None)
    assert google.thing(SNAPSHOT) is None


def test_a_snapshot_of_a_disk_that_is_not_there(snapshot: Task, google: Google) -> None:
    message = snapshot.refused(disk="nowhere")
    assert f"'{ZONAL}/disks/nowhere' was not found" in message
    assert google.thing(SNAPSHOT) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"zone": None}, "zone: found nothing"),
        ({"disk": None}, "disk: found nothing"),
        ({"name": "Before"}, "name: found 'Before'"),
        ({"labels": {"why": "Upgrade!"}}, "labels.why: found 'Upgrade!'"),
    ],
)
def test_bad_input_is_one_clear_error(snapshot: Task, google: Google, options: dict[str, Any], words: str) -> None:
    calls = len(google.calls)
    assert words in snapshot.refused(**options)
    assert len(google.calls) == calls


@pytest.mark.parametrize("kind", ["drop", "after"])
def test_a_connection_that_drops_in_the_middle_takes_one(snapshot: Task, google: Google, kind: str) -> None:
    google.fail("compute.snapshots.insert", kind=kind)
    snapshot.run()
    snapshot.unchanged()
    assert len(google.state.children(f"compute/projects/{PROJECT}/global/snapshots")) == 1
