"""Reading snapshots: the newest first, also of a disk that is gone."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import gce_disk, gce_snapshot, gce_snapshot_info
from lab.google import Google
from tests.unit.plugins.modules.google_modules import OURS, PROJECT, ZONAL, ZONE, Run, Task


@pytest.fixture
def info(google: Google, run_module: Run) -> Task:
    disk = Task(run_module, gce_disk.main, google, zone=ZONE, size_gb=50)
    snapshot = Task(run_module, gce_snapshot.main, google, zone=ZONE)
    for name in ("data", "other"):
        disk.run(name=name)
        for number in (1, 2):
            snapshot.run(disk=name, name=f"{name}-{number}", labels={"number": str(number)})
    # Over the end of summer time in Mountain View the text of the earlier time is the larger one.
    for name, time in (("data-1", "2026-11-01T01:30:00.000-07:00"), ("data-2", "2026-11-01T01:10:00.000-08:00")):
        thing = google.state.get(f"compute/projects/{PROJECT}/global/snapshots/{name}")
        assert thing
        thing["creationTimestamp"] = time
    return Task(run_module, gce_snapshot_info.main, google)


def names(result: dict[str, Any]) -> list[str]:
    assert [item["name"] for item in result["snapshots"]] == [item["name"] for item in result["resources"]]
    return [item["name"] for item in result["snapshots"]]


def test_the_newest_first(info: Task) -> None:
    result = info.unchanged(disk="data", zone=ZONE)
    assert names(result) == ["data-2", "data-1"]
    newest = result["snapshots"][0]
    assert newest["created"] == "2026-11-01T09:10:00Z"
    assert (newest["disk"], newest["size_gb"], newest["status"], newest["scheduled"]) == ("data", 50, "READY", False)
    assert newest["labels"] == {"number": "2", **OURS}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["data-1", "data-2", "other-1", "other-2"]),
        ({"labels": {"number": "1"}}, ["data-1", "other-1"]),
        ({"labels": {"number": ""}, "disk": f"{ZONAL}/disks/other"}, ["other-1", "other-2"]),
        ({"disk": "nothing", "zone": ZONE}, []),
    ],
)
def test_by_disk_and_labels(info: Task, options: dict[str, Any], expected: list[str]) -> None:
    assert sorted(names(info.unchanged(**options))) == expected


def test_of_a_disk_that_is_gone(info: Task, google: Google) -> None:
    google.call("compute.disks.delete", {"project": PROJECT, "zone": ZONE, "disk": "data"})
    assert len(names(info.unchanged(disk="data", zone=ZONE))) == 2


def test_one_that_is_not_ready_is_left_out_unless_asked_for(info: Task, google: Google) -> None:
    thing = google.state.get(f"compute/projects/{PROJECT}/global/snapshots/data-2")
    assert thing
    thing["status"] = "FAILED"
    assert names(info.unchanged(disk="data", zone=ZONE)) == ["data-1"]
    assert names(info.unchanged(disk="data", zone=ZONE, ready=False)) == ["data-2", "data-1"]


def test_errors_are_said(info: Task, google: Google) -> None:
    assert "zone: found nothing" in info.refused(disk="data")
    assert "spelled right" in info.refused(project="no-such-project")
    google.revoke("compute.snapshots.list")
    assert "compute.snapshots.list" in info.refused()
