"""Disks: made once, grown online, never shrunk or replaced, and left alone where they are somebody else's."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import gce_disk, gce_snapshot, gce_snapshot_schedule
from lab.google import Google
from tests.unit.plugins.modules.google_modules import OURS, PROJECT, REGION, REGIONAL, ZONAL, ZONE, Run, Task

DISK = f"{ZONAL}/disks/data"


@pytest.fixture
def disk(google: Google, run_module: Run) -> Task:
    return Task(run_module, gce_disk.main, google, zone=ZONE, name="data", size_gb=50, type="pd-balanced")


@pytest.fixture
def schedules(google: Google, run_module: Run) -> None:
    task = Task(run_module, gce_snapshot_schedule.main, google, region=REGION, retention_days=14)
    for name in ("nightly", "hourly"):
        task.run(name=name, schedule={"frequency": "daily"})


def somebody(google: Google, method: str, **body: Any) -> None:
    """A change behind our back."""
    path = {"project": PROJECT, "zone": ZONE, "resource": "data", "disk": "data"}
    wanted = {name for name in path if name in ("project", "zone")} | {"resource" if method == "setLabels" else "disk"}
    google.call(f"compute.disks.{method}", {name: path[name] for name in wanted}, body)


def stored(google: Google) -> dict[str, Any]:
    found = google.thing(DISK)
    assert found is not None
    return found


def test_a_new_disk_is_shown_made_and_then_no_change(disk: Task, google: Google, schedules: None) -> None:
    made = disk.changes(labels={"dagster-environment": "prod"}, resource_policies=["nightly"], description="The data")
    assert made["diff"]["before"] == {}
    assert made["resource"]["sizeGb"] == "50"
    found = stored(google)
    assert found["labels"] == {"dagster-environment": "prod", **OURS}
    assert found["type"].endswith("/diskTypes/pd-balanced")
    assert [policy.rsplit("/", 1)[1] for policy in found["resourcePolicies"]] == ["nightly"]


@pytest.mark.parametrize(
    "options",
    [
        {"size_gb": 80},
        {"labels": {"team": "data"}},
        {"resource_policies": ["nightly"]},
    ],
)
def test_every_change_in_place(disk: Task, google: Google, schedules: None, options: dict[str, Any]) -> None:
    made = disk.run()
    disk.changes(**options)
    assert stored(google)["id"] == made["resource"]["id"]


def test_schedules_are_attached_exchanged_and_detached(disk: Task, google: Google, schedules: None) -> None:
    for policies in (["nightly"], ["hourly"], []):
        disk.changes(resource_policies=policies) if google.thing(DISK) else disk.run(resource_policies=policies)
        found = stored(google).get("resourcePolicies", [])
        assert [policy.rsplit("/", 1)[1] for policy in found] == policies


def test_drift_is_shown_and_repaired(disk: Task, google: Google, schedules: None) -> None:
    options: dict[str, Any] = {"labels": {"team": "data"}, "resource_policies": ["nightly"]}
    disk.run(**options)
    somebody(google, "removeResourcePolicies", resourcePolicies=[f"{REGIONAL}/resourcePolicies/nightly"])
    somebody(google, "setLabels", labels={**OURS, "team": "x"}, labelFingerprint=stored(google)["labelFingerprint"])
    made = disk.changes(**options)
    assert made["diff"]["before"]["labels"]["team"] == "x"
    assert made["diff"]["before"]["resource_policies"] == []


def test_a_disk_that_somebody_grew_is_not_shrunk(disk: Task, google: Google) -> None:
    disk.run()
    somebody(google, "resize", sizeGb="90")
    message = disk.refused()
    assert "size_gb: disk data has 90, asked for 50" in message
    assert "only grows" in message
    assert stored(google)["sizeGb"] == "90"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"type": "pd-ssd"}, "make a disk of another name"),
        ({"snapshot": "old"}, "snapshot: disk data has nothing"),
        ({"image": "debian-cloud/debian-13"}, "image: disk data has nothing"),
        ({"kms_key": "projects/p/locations/l/keyRings/r/cryptoKeys/k"}, "kms_key: disk data has nothing"),
    ],
)
def test_what_google_cannot_change_is_an_error_with_the_choices(
    disk: Task, google: Google, options: dict[str, Any], words: str
) -> None:
    disk.run()
    before = copy.deepcopy(disk.stored())
    for check in (True, False):
        message = disk.refused(check=check, **options)
        assert words in message
        assert "nothing is replaced here" in message
    assert disk.stored() == before


def test_somebody_elses_disk_is_refused_until_it_is_adopted(disk: Task, google: Google) -> None:
    google.call("compute.disks.insert", {"project": PROJECT, "zone": ZONE}, {"name": "data", "sizeGb": "50"})
    for state in ("present", "absent"):
        message = disk.refused(state=state, type=None)
        assert "does not have the label managed-by=dataops-dagster-gce" in message
        assert "adopt: true" in message
    assert google.thing(DISK)
    disk.changes(type=None, adopt=True)
    assert stored(google)["labels"] == OURS


def test_foreign_labels_stay_unless_they_are_purged(disk: Task, google: Google) -> None:
    disk.run()
    somebody(
        google,
        "setLabels",
        labels={**OURS, "cost": "a", "goog-x": "y"},
        labelFingerprint=stored(google)["labelFingerprint"],
    )
    disk.unchanged()
    disk.changes(purge_labels=True)
    assert stored(google)["labels"] == {**OURS, "goog-x": "y"}


def test_labels_changed_in_the_same_moment_are_read_again_once(disk: Task, google: Google) -> None:
    disk.run()

    def quicker(_call: Any) -> None:
        thing = google.state.get(f"compute/{DISK}")
        assert thing
        thing["labels"] = {**OURS, "cost": "a"}
        thing["labelFingerprint"] = "bmV3"

    google.before("compute.disks.setLabels", quicker)
    disk.run(labels={"team": "data"})
    assert stored(google)["labels"] == {**OURS, "cost": "a", "team": "data"}


def test_two_operators_make_one_disk(disk: Task, google: Google) -> None:
    def quicker(_call: Any) -> None:
        google.call(
            "compute.disks.insert",
            {"project": PROJECT, "zone": ZONE},
            {"name": "data", "sizeGb": "50", "labels": OURS, "type": f"{ZONAL}/diskTypes/pd-balanced"},
        )

    google.before("compute.disks.insert", quicker)
    disk.run()
    disk.unchanged()


@pytest.mark.parametrize("kind", ["drop", "after"])
def test_a_connection_that_drops_in_the_middle_makes_one_disk(disk: Task, google: Google, kind: str) -> None:
    google.fail("compute.disks.insert", kind=kind)
    disk.run()
    disk.unchanged()
    assert len(google.state.children(f"compute/{ZONAL}/disks")) == 1


def test_a_deleted_disk_is_gone_and_deleting_again_changes_nothing(disk: Task, google: Google) -> None:
    disk.run()
    disk.changes(state="absent")
    assert google.thing(DISK) is None


def test_a_disk_in_use_is_not_deleted(disk: Task, google: Google) -> None:
    disk.run()
    thing = google.state.get(f"compute/{DISK}")
    assert thing
    thing["users"] = [f"https://www.googleapis.com/compute/v1/{ZONAL}/instances/dagster"]
    for check in (True, False):
        message = disk.refused(check=check, state="absent")
        assert "attached to dagster" in message
        assert "nothing was deleted" in message
    assert "compute.disks.delete" not in google.calls


def test_a_disk_from_a_snapshot(disk: Task, google: Google, run_module: Run) -> None:
    disk.run()
    task = Task(run_module, gce_snapshot.main, google, zone=ZONE, disk="data", name="before")
    task.run()
    disk.changes(name="restored", snapshot="before", size_gb=60)
    found = google.thing(f"{ZONAL}/disks/restored")
    assert found
    assert found["sourceSnapshot"].endswith("/snapshots/before")
    disk.unchanged(name="restored", size_gb=60)


def test_a_disk_from_an_image_stays_when_the_family_moves_on(disk: Task) -> None:
    disk.changes(image="debian-cloud/debian-13")
    disk.unchanged(image="debian-cloud/debian-13")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "Data_1"}, ["name: found 'Data_1'", "lower-case"]),
        ({"zone": "europe-west3"}, ["zone: found 'europe-west3'"]),
        ({"labels": {"Team": "x"}}, ["labels: found the key 'Team'"]),
        ({"labels": {"team": "Data Engineering"}}, ["labels.team: found 'Data Engineering'"]),
        ({"size_gb": 0}, ["size_gb: found 0"]),
        ({"size_gb": None}, ["size_gb: found nothing", "does not exist"]),
    ],
)
def test_bad_input_is_one_clear_error_and_nothing_is_made(
    disk: Task, google: Google, options: dict[str, Any], words: list[str]
) -> None:
    message = disk.refused(**options)
    assert all(word in message for word in words), message
    assert [call for call in google.calls if not call.endswith(".get")] == []


def test_what_google_refuses_is_said_with_its_reason(disk: Task, google: Google) -> None:
    assert "Disk type with name 'pd-nonsense' does not exist" in disk.refused(type="pd-nonsense")
    assert "resourcePolicies/nowhere' was not found" in disk.refused(resource_policies=["nowhere"])
    google.fail(
        "compute.disks.insert",
        reason="QUOTA_EXCEEDED",
        message="Quota 'SSD_TOTAL_GB' exceeded.  Limit: 500.0 in region europe-west3.",
        kind="operation",
    )
    message = disk.refused()
    assert "SSD_TOTAL_GB" in message
    assert "500" in message
    google.revoke("compute.disks.create")
    message = disk.refused()
    assert "compute.disks.create" in message
    assert "gcloud projects add-iam-policy-binding" in message
    assert google.thing(DISK) is None
