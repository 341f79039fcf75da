"""Machines: made with one request, changed in place, never replaced."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_instance_run
from lab.google import Google
from tests.unit.plugins.modules.google_machines import INSTANCE, NAME, OTHER_ROBOT, ROBOT, behind, stored
from tests.unit.plugins.modules.google_modules import OURS, PROJECT, ZONAL, ZONE, Task

EVERYTHING: dict[str, Any] = {
    "disks": [{"source": "data", "device_name": "dagster"}],
    "network_interface": {
        "network": "net",
        "subnetwork": "sub",
        "internal_address": "10.128.0.7",
        "external_address": "none",
    },
    "service_account": {"email": ROBOT},
    "metadata": {"enable-oslogin": True, "startup-script": "#!/bin/sh\ntrue\n", "number": 7},
    "tags": ["dagster", "a"],
    "labels": {"dagster-environment": "prod"},
    "shielded": {"secure_boot": True, "vtpm": True, "integrity_monitoring": True},
    "scheduling": {"on_host_maintenance": "MIGRATE", "automatic_restart": True, "provisioning_model": "STANDARD"},
    "deletion_protection": True,
}
STOPPED_ONLY = [
    ({"machine_type": "e2-standard-4"}, "machine_type"),
    ({"service_account": {"email": ROBOT}}, "service_account"),
    ({"shielded": {"secure_boot": True}}, "shielded"),
    ({"scheduling": {"provisioning_model": "SPOT"}}, "scheduling"),
]
LIVE = [
    {"metadata": {"a": "1", "b": True}},
    {"tags": ["dagster"]},
    {"labels": {"team": "data"}},
    {"deletion_protection": True},
    {"scheduling": {"automatic_restart": False}},
    {"scheduling": {"on_host_maintenance": "TERMINATE"}},
    {"disks": [{"source": "data"}]},
    {"disks": [{"source": f"{ZONAL}/disks/data", "device_name": "dagster", "mode": "READ_ONLY"}]},
    {"boot_disk": {"image": "debian-cloud/debian-13", "size_gb": 30}},
    {"boot_disk": {"image": "debian-cloud/debian-13", "auto_delete": False}},
    {"network_interface": {"external_address": "ephemeral"}},
    {"network_interface": {"external_address": "ephemeral", "network_tier": "STANDARD"}},
]


def test_a_new_machine_is_shown_made_with_one_request_and_then_no_change(machine: Task, surroundings: Google) -> None:
    made = machine.changes(**EVERYTHING)
    assert made["diff"]["before"] == {}
    assert surroundings.calls.count("compute.instances.insert") == 1
    assert [call for call in surroundings.calls if ".instances.set" in call] == []
    found = stored(surroundings)
    assert found["labels"] == {"dagster-environment": "prod", **OURS}
    assert {item["key"]: item["value"] for item in found["metadata"]["items"]} == {
        "enable-oslogin": "TRUE",
        "startup-script": "#!/bin/sh\ntrue\n",
        "number": "7",
    }
    assert found["deletionProtection"]
    assert found["networkInterfaces"][0]["networkIP"] == "10.128.0.7"
    assert "accessConfigs" not in found["networkInterfaces"][0]
    boot, data = found["disks"]
    assert (boot["boot"], boot["autoDelete"]) == (True, True)
    assert (data["deviceName"], data["autoDelete"]) == ("dagster", False)
    assert made["status"] == "RUNNING"
    assert made["internal_address"] == "10.128.0.7"
    assert made["external_address"] is None
    assert made["id"] == found["id"]
    disk = surroundings.thing(f"{ZONAL}/disks/{NAME}")
    assert disk
    assert disk["labels"] == OURS


@pytest.mark.parametrize("options", LIVE)
def test_every_change_of_a_running_machine(machine: Task, surroundings: Google, options: dict[str, Any]) -> None:
    made = machine.run()
    started = stored(surroundings)["lastStartTimestamp"]
    result = machine.changes(**options)
    assert not result["stopped"]
    found = stored(surroundings)
    assert (found["id"], found["lastStartTimestamp"]) == (made["id"], started)


@pytest.mark.parametrize(("options", "name"), STOPPED_ONLY)
def test_what_needs_a_stop_is_an_error_until_it_is_allowed(
    machine: Task, surroundings: Google, options: dict[str, Any], name: str
) -> None:
    machine.run(disks=[{"source": "data"}])
    before = copy.deepcopy(machine.stored())
    for check in (True, False):
        message = machine.refused(check=check, labels={"team": "data"}, **options)
        assert f"{name}: found" in message
        assert "on a stopped machine only" in message
        assert "allow_stop: true" in message
    assert machine.stored() == before, "something was changed all the same"
    result = machine.changes(allow_stop=True, labels={"team": "data"}, **options)
    assert result["stopped"]
    assert set(result["changes"]) == {"labels", name}
    found = stored(surroundings)
    assert found["status"] == "RUNNING"
    assert [disk["deviceName"] for disk in found["disks"]][1:] == ["data"]
    calls = surroundings.calls
    assert calls.index("compute.instances.setLabels") < calls.index("compute.instances.stop")
    assert calls.index("compute.instances.stop") < calls.index("compute.instances.start")


@pytest.mark.parametrize(("options", "name"), STOPPED_ONLY)
def test_a_stopped_machine_is_changed_and_stays_stopped(
    machine: Task, surroundings: Google, options: dict[str, Any], name: str
) -> None:
    machine.run(state="stopped")
    result = machine.changes(**options)
    assert result["changes"] == [name]
    assert result["status"] == "TERMINATED"
    assert "compute.instances.start" not in surroundings.calls


def test_spot_and_back(machine: Task, surroundings: Google) -> None:
    spot = {"provisioning_model": "SPOT", "instance_termination_action": "STOP"}
    machine.changes(scheduling=spot)
    found = stored(surroundings)["scheduling"]
    assert (found["preemptible"], found["automaticRestart"], found["onHostMaintenance"]) == (True, False, "TERMINATE")
    machine.changes(scheduling={"provisioning_model": "STANDARD"}, allow_stop=True)
    found = stored(surroundings)["scheduling"]
    assert (found["preemptible"], found["automaticRestart"], found["onHostMaintenance"]) == (False, True, "MIGRATE")


def test_a_service_account_is_exchanged_and_taken_away(machine: Task, surroundings: Google) -> None:
    machine.run(service_account={"email": ROBOT})
    machine.changes(
        service_account={"email": OTHER_ROBOT, "scopes": ["https://www.googleapis.com/auth/cloud-platform"]},
        allow_stop=True,
    )
    machine.changes(service_account={"email": ""}, allow_stop=True)
    assert "serviceAccounts" not in stored(surroundings)


def test_drift_behind_our_back_is_shown_and_repaired(machine: Task, surroundings: Google) -> None:
    machine.run(**EVERYTHING)
    found = stored(surroundings)
    behind(surroundings, "setTags", {"items": ["open"], "fingerprint": found["tags"]["fingerprint"]})
    behind(surroundings, "setLabels", {"labels": OURS, "labelFingerprint": found["labelFingerprint"]})
    behind(
        surroundings,
        "setMetadata",
        {
            "items": [{"key": "enable-oslogin", "value": "FALSE"}, {"key": "theirs", "value": "x"}],
            "fingerprint": found["metadata"]["fingerprint"],
        },
    )
    behind(surroundings, "setDeletionProtection", deletionProtection="false")
    behind(surroundings, "setDiskAutoDelete", deviceName="dagster", autoDelete="true")
    behind(surroundings, "addAccessConfig", {"name": "External NAT"}, networkInterface="nic0")
    result = machine.changes(**EVERYTHING)
    assert set(result["changes"]) == {
        "tags",
        "labels",
        "metadata",
        "deletion_protection",
        "disks.dagster.auto_delete",
        "network_interface",
    }
    before = result["diff"]["before"]
    assert before["tags"] == ["open"]
    assert before["metadata"] == {"enable-oslogin": "FALSE"}
    metadata = {item["key"]: item["value"] for item in stored(surroundings)["metadata"]["items"]}
    assert metadata["theirs"] == "x"
    assert metadata["enable-oslogin"] == "TRUE"


def test_a_machine_type_that_somebody_changed_is_refused_and_then_repaired(machine: Task, surroundings: Google) -> None:
    machine.run(state="stopped")
    behind(surroundings, "setMachineType", {"machineType": f"{ZONAL}/machineTypes/e2-micro"})
    behind(surroundings, "start")
    assert "machine_type: found 'e2-micro', asked for 'e2-standard-2'" in machine.refused()
    machine.changes(allow_stop=True)


def test_a_detached_data_disk_is_attached_again(machine: Task, surroundings: Google) -> None:
    machine.run(**EVERYTHING)
    behind(surroundings, "detachDisk", deviceName="dagster")
    machine.changes(**EVERYTHING)
    assert stored(surroundings)["disks"][1]["deviceName"] == "dagster"


def test_a_disk_is_detached_when_asked_and_others_are_let_alone(machine: Task, surroundings: Google) -> None:
    machine.run(disks=[{"source": "data"}, {"source": "other"}])
    machine.unchanged(disks=[])
    machine.changes(disks=[{"source": "data", "state": "absent"}])
    assert [disk["deviceName"] for disk in stored(surroundings)["disks"]][1:] == ["other"]
    assert surroundings.thing(f"{ZONAL}/disks/data")


def test_metadata_null_removes_a_key_and_purge_removes_the_others(machine: Task, surroundings: Google) -> None:
    machine.run(metadata={"a": "1", "b": "2", "c": "3"})
    machine.changes(metadata={"a": None})
    assert [item["key"] for item in stored(surroundings)["metadata"]["items"]] == ["b", "c"]
    machine.changes(metadata={"b": "2"}, purge_metadata=True)
    assert [item["key"] for item in stored(surroundings)["metadata"]["items"]] == ["b"]


def test_a_fixed_address_takes_the_place_of_an_ephemeral_one(machine: Task, surroundings: Google) -> None:
    made = machine.run(network_interface={"subnetwork": "sub", "external_address": "ephemeral"})
    assert made["external_address"]
    surroundings.call("compute.addresses.insert", {"project": PROJECT, "region": ZONE[:-2]}, {"name": "fixed"})
    address = surroundings.thing(f"projects/{PROJECT}/regions/{ZONE[:-2]}/addresses/fixed")
    assert address
    result = machine.changes(network_interface={"external_address": address["address"]})
    assert result["external_address"] == address["address"]
    machine.changes(network_interface={"external_address": "none"})


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"network_interface": {"network": "elsewhere"}}, "network_interface.network"),
        ({"network_interface": {"subnetwork": "elsewhere"}}, "network_interface.subnetwork"),
        ({"network_interface": {"internal_address": "10.128.0.99"}}, "network_interface.internal_address"),
        ({"boot_disk": {"size_gb": 10}}, "boot_disk.size_gb"),
        ({"boot_disk": {"source": "other"}}, "boot_disk.source"),
        ({"boot_disk": {"device_name": "x"}}, "boot_disk.device_name"),
        ({"disks": [{"source": "other", "device_name": "data"}]}, "disks.data"),
        ({"disks": [{"source": "data", "device_name": "x"}]}, "disks.x.device_name"),
        ({"disks": [{"source": "data", "mode": "READ_ONLY"}]}, "disks.data.mode"),
    ],
)
def test_what_google_cannot_change_is_an_error_with_the_choices(
    machine: Task, surroundings: Google, options: dict[str, Any], name: str
) -> None:
    machine.run(disks=[{"source": "data"}])
    before = copy.deepcopy(machine.stored())
    for check in (True, False):
        message = machine.refused(check=check, labels={"team": "data"}, **options)
        assert f"{name}: found " in message
        assert ", asked for " in message
        assert "; " in message
    assert machine.stored() == before, "something was changed all the same"


def test_power(machine: Task, surroundings: Google) -> None:
    assert machine.changes(state="stopped")["status"] == "TERMINATED"
    machine.unchanged()
    assert machine.changes(state="started")["status"] == "RUNNING"
    machine.unchanged()
    machine.changes(state="stopped")
    assert "only a running machine can be reset" in machine.refused(state="reset")
    machine.run(state="started")
    shown = machine.run(check=True, state="reset")
    assert shown["changed"]
    assert "compute.instances.reset" not in surroundings.calls
    assert machine.run(state="reset")["changed"]
    assert "compute.instances.reset" in surroundings.calls


def test_stopping_takes_changes_along_without_allow_stop(machine: Task, surroundings: Google) -> None:
    machine.run()
    result = machine.changes(state="stopped", machine_type="e2-standard-4", labels={"a": "b"})
    assert not result["stopped"]
    assert result["status"] == "TERMINATED"
    assert stored(surroundings)["machineType"].endswith("e2-standard-4")


def test_starting_takes_changes_along(machine: Task, surroundings: Google) -> None:
    machine.run(state="stopped")
    result = machine.changes(state="started", machine_type="e2-standard-4")
    assert result["status"] == "RUNNING"
    assert surroundings.calls.count("compute.instances.stop") == 1


def test_only_name_and_zone_are_enough_to_start_and_stop(machine: Task) -> None:
    machine.run()
    nothing = dict.fromkeys(("machine_type", "boot_disk", "network_interface"))
    machine.changes(state="stopped", **nothing)
    machine.changes(state="started", **nothing)


# --- somebody else's


def test_somebody_elses_machine_is_refused_until_it_is_adopted(machine: Task, surroundings: Google) -> None:
    machine.run()
    behind(
        surroundings, "setLabels", {"labels": {"a": "b"}, "labelFingerprint": stored(surroundings)["labelFingerprint"]}
    )
    for state in ("present", "stopped", "reset", "absent"):
        message = machine.refused(state=state)
        assert "somebody else made it" in message
        assert "adopt: true" in message
    assert [call for call in surroundings.calls if call.endswith((".stop", ".reset", ".delete"))] == []
    machine.changes(adopt=True)
    assert stored(surroundings)["labels"] == {"a": "b", **OURS}


def test_two_operators_make_one_machine(machine: Task, surroundings: Google) -> None:
    def quicker(call: Any) -> None:
        surroundings.call("compute.instances.insert", {"project": PROJECT, "zone": ZONE}, copy.deepcopy(call.body))

    surroundings.before("compute.instances.insert", quicker)
    result = machine.run(tags=["dagster"])
    assert not result["changed"]
    machine.unchanged(tags=["dagster"])


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("setMetadata", {"metadata": {"a": "1"}}),
        ("setTags", {"tags": ["dagster"]}),
        ("setLabels", {"labels": {"a": "1"}}),
    ],
)
def test_a_fingerprint_out_of_date_is_read_again_once(
    machine: Task, surroundings: Google, method: str, options: dict[str, Any]
) -> None:
    machine.run()

    def quicker(_call: Any) -> None:
        found = stored(surroundings)
        behind(
            surroundings,
            method,
            {
                "setMetadata": {"items": [{"key": "b", "value": "2"}], "fingerprint": found["metadata"]["fingerprint"]},
                "setTags": {"items": ["theirs"], "fingerprint": found["tags"]["fingerprint"]},
                "setLabels": {"labels": {**OURS, "b": "2"}, "labelFingerprint": found["labelFingerprint"]},
            }[method],
        )

    surroundings.before(f"compute.instances.{method}", quicker)
    machine.run(**options)
    found = stored(surroundings)
    if method == "setMetadata":
        assert {item["key"] for item in found["metadata"]["items"]} == {"a", "b"}
    if method == "setLabels":
        assert found["labels"] == {**OURS, "a": "1", "b": "2"}
    machine.unchanged(**options)
    # A second time in a row it is an error: somebody is at work there.
    surroundings.fail(f"compute.instances.{method}", 412, "conditionNotMet", times=2)
    other: dict[str, Any] = {"metadata": {"a": "9"}, "tags": ["x"], "labels": {"a": "9"}}
    name = next(iter(options))
    message = machine.refused(**{name: other[name]})
    assert "conditionNotMet" in message
    assert "Nothing was changed before." in message


# --- removing


def test_a_protected_machine_is_not_removed(machine: Task, surroundings: Google) -> None:
    machine.run(**EVERYTHING)
    for check in (True, False):
        message = machine.refused(check=check, state="absent")
        assert "has deletion protection; nothing was removed" in message
    machine.changes(state="absent", lift_deletion_protection=True)
    assert surroundings.thing(INSTANCE) is None
    assert surroundings.thing(f"{ZONAL}/disks/data")
    assert surroundings.thing(f"{ZONAL}/disks/{NAME}") is None


def test_a_data_disk_stays_even_if_somebody_said_it_should_go(machine: Task, surroundings: Google) -> None:
    machine.run(disks=[{"source": "data"}])
    behind(surroundings, "setDiskAutoDelete", deviceName="data", autoDelete="true")
    machine.changes(state="absent")
    assert surroundings.thing(f"{ZONAL}/disks/data")


def test_the_boot_disk_stays_if_asked(machine: Task, surroundings: Google) -> None:
    machine.run()
    machine.run(state="absent", boot_disk={"auto_delete": False})
    assert surroundings.thing(f"{ZONAL}/disks/{NAME}")


def test_a_removal_that_fails_says_that_the_protection_is_off(machine: Task, surroundings: Google) -> None:
    machine.run(deletion_protection=True)
    surroundings.fail(
        "compute.instances.delete", 403, "forbidden", "Required 'compute.instances.delete' permission for 'x'"
    )
    message = machine.refused(state="absent", lift_deletion_protection=True)
    assert "Its deletion protection is off now." in message


# --- faults


@pytest.mark.parametrize("kind", ["drop", "after"])
def test_a_connection_that_drops_in_the_middle_of_an_insert_makes_one(
    machine: Task, surroundings: Google, kind: str
) -> None:
    surroundings.fail("compute.instances.insert", kind=kind)
    machine.run()
    machine.unchanged()
    assert len(surroundings.state.children(f"compute/{ZONAL}/instances")) == 1


def nothing_made(google: Google) -> None:
    assert google.thing(INSTANCE) is None
    assert google.thing(f"{ZONAL}/disks/{NAME}") is None


def test_a_zone_without_the_machine_type(machine: Task, surroundings: Google) -> None:
    for check in (True, False):
        message = machine.refused(check=check, machine_type="c3-standard-4")
        assert f"machine_type: found 'c3-standard-4', which {ZONE} does not have" in message
        assert f"--zones={ZONE}" in message
    assert "compute.instances.insert" not in surroundings.calls


@pytest.mark.parametrize("image", ["debian-cloud/debian-99", "projects/debian-cloud/global/images/nothing"])
def test_an_image_that_does_not_exist(machine: Task, surroundings: Google, image: str) -> None:
    for check in (True, False):
        message = machine.refused(check=check, boot_disk={"image": image})
        assert f"boot_disk.image: found '{image}', which does not exist" in message
    assert "compute.instances.insert" not in surroundings.calls


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"network_interface": {"subnetwork": "nowhere"}}, "subnetworks/nowhere"),
        ({"network_interface": {"network": "nowhere"}}, "networks/nowhere"),
        ({"disks": [{"source": "nowhere"}]}, "disks/nowhere"),
        ({"service_account": {"email": f"nobody@{PROJECT}.iam.gserviceaccount.com"}}, "nobody@"),
        ({"overrides": {"minCpuPlatfrom": "Intel"}}, "minCpuPlatfrom"),
    ],
)
def test_what_is_not_there_is_named_and_nothing_is_made(
    machine: Task, surroundings: Google, options: dict[str, Any], words: str
) -> None:
    message = machine.refused(**options)
    assert words in message
    assert "Nothing was made." in message or "No instance was made." in message
    nothing_made(surroundings)
    surroundings.violations.clear()  # a field that Google does not know is one


def test_a_quota_that_is_used_up(machine: Task, surroundings: Google) -> None:
    words = "Quota 'CPUS' exceeded.  Limit: 24.0 in region europe-west3."
    surroundings.fail("compute.instances.insert", reason="QUOTA_EXCEEDED", message=words, kind="operation")
    message = machine.refused()
    assert "QUOTA_EXCEEDED" in message
    assert "quota CPUS (region europe-west3) is at its limit of 24.0" in message
    assert "No instance was made." in message
    nothing_made(surroundings)


def test_a_missing_permission_names_role_and_command(machine: Task, surroundings: Google) -> None:
    surroundings.revoke("compute.instances.create")
    message = machine.refused()
    assert "compute.instances.create" in message
    assert "roles/compute.instanceAdmin.v1" in message
    assert "gcloud projects add-iam-policy-binding" in message
    nothing_made(surroundings)


def test_a_service_account_without_scopes(machine: Task, surroundings: Google) -> None:
    none = {"email": ROBOT, "scopes": []}
    machine.run(service_account=none)
    account = surroundings.state.things[f"compute/{INSTANCE}"]["serviceAccounts"][0]
    assert account == none
    # What is empty may be missing in an answer.
    del account["scopes"]
    machine.unchanged(service_account=none)


@pytest.mark.parametrize("kind", ["before", "operation"])
def test_a_service_account_that_compute_engine_does_not_know_yet(
    machine: Task, surroundings: Google, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(google_instance_run, "ACCOUNT_PAUSE_SECONDS", 0.0)
    words = f"The resource '{ROBOT}' of type 'serviceAccount' was not found."
    surroundings.fail("compute.instances.insert", 400, "RESOURCE_NOT_FOUND", words, kind=kind, times=2)
    machine.run(service_account={"email": ROBOT})
    assert surroundings.calls.count("compute.instances.insert") == 3
    monkeypatch.setattr(google_instance_run, "ACCOUNT_SECONDS", -1.0)
    surroundings.fail("compute.instances.insert", 400, "RESOURCE_NOT_FOUND", words, kind=kind, times=2)
    assert words in machine.refused(name="second", service_account={"email": ROBOT})


def test_a_service_account_that_the_caller_may_not_attach(machine: Task, surroundings: Google) -> None:
    machine.run(name="second", service_account={"email": ROBOT})
    surroundings.revoke("iam.serviceAccounts.actAs")
    command = f"gcloud iam service-accounts add-iam-policy-binding {ROBOT} --member="
    message = machine.refused(service_account={"email": ROBOT})
    assert f"does not have access to service account '{ROBOT}'" in message
    assert command in message
    nothing_made(surroundings)
    message = machine.refused(name="second", service_account={"email": OTHER_ROBOT}, allow_stop=True)
    assert command.replace(ROBOT, OTHER_ROBOT) in message
    assert "The machine was stopped for it and runs again." in message


def test_an_organisation_policy_that_forbids_external_addresses(machine: Task, surroundings: Google) -> None:
    surroundings.forbid("compute.vmExternalIpAccess", PROJECT)
    message = machine.refused(network_interface={"subnetwork": "sub", "external_address": "ephemeral"})
    assert "constraints/compute.vmExternalIpAccess" in message
    nothing_made(surroundings)
    machine.run()
    message = machine.refused(network_interface={"external_address": "ephemeral"}, labels={"a": "b"})
    assert "constraints/compute.vmExternalIpAccess" in message
    assert "Changed before: labels. Not changed: network_interface." in message


def test_a_change_that_fails_while_stopped_starts_the_machine_again(machine: Task, surroundings: Google) -> None:
    machine.run()
    surroundings.fail("compute.instances.setMachineType", 400, "invalid", "No capacity.")
    message = machine.refused(machine_type="e2-standard-4", allow_stop=True, labels={"a": "b"})
    assert "No capacity." in message
    assert "Changed before: labels. Not changed: machine_type." in message
    assert "The machine was stopped for it and runs again." in message
    assert stored(surroundings)["status"] == "RUNNING"


def test_a_machine_that_does_not_start_again_is_said_to_be_stopped(machine: Task, surroundings: Google) -> None:
    machine.run()
    surroundings.fail("compute.instances.start", reason="ZONE_RESOURCE_POOL_EXHAUSTED", kind="operation")
    message = machine.refused(machine_type="e2-standard-4", allow_stop=True)
    assert "The machine is stopped." in message
    assert "no capacity" in message
    surroundings.fail("compute.instances.setMachineType", 400, "invalid", "No.")
    surroundings.fail("compute.instances.start", 400, "invalid", "Neither.")
    behind(surroundings, "start") if stored(surroundings)["status"] == "TERMINATED" else None
    message = machine.refused(machine_type="e2-standard-8", allow_stop=True)
    assert "The machine was stopped for it and does not start" in message


def test_an_expired_token_and_a_project_that_does_not_exist(machine: Task, surroundings: Google) -> None:
    message = machine.refused(project="no-such-project")
    assert "no-such-project" in message
    assert "spelled right" in message
    message = machine.refused(auth_kind="accesstoken", access_token=surroundings.token(seconds=-1))
    assert "access_token" in message


def test_a_zone_that_does_not_exist(machine: Task, surroundings: Google) -> None:
    for check in (True, False):
        message = machine.refused(check=check, zone="europe-west3-z")
        assert "'europe-west3-z'. Unknown zone. Is the zone spelled right?" in message


def test_too_little_to_make_one_names_everything_at_once(machine: Task, surroundings: Google) -> None:
    message = machine.refused(machine_type=None, boot_disk=None, network_interface=None)
    for name in ("machine_type:", "boot_disk:", "network_interface:"):
        assert name in message
    assert "compute.instances.insert" not in surroundings.calls


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "Dagster"}, "name: found 'Dagster'"),
        ({"zone": "europe-west3"}, "zone: found 'europe-west3'"),
        ({"tags": ["Dagster!"]}, "tags: found 'Dagster!'"),
        ({"labels": {"Team": "a"}}, "labels: found the key 'Team'"),
        ({"service_account": {"email": "default"}}, "service_account.email: found 'default'"),
        ({"metadata": {"a b": "c"}}, "metadata: found the key 'a b'"),
        ({"metadata": {"a": {"b": 1}}}, "metadata.a: found a dict"),
        ({"scheduling": {"instance_termination_action": "STOP"}}, "scheduling.instance_termination_action"),
        ({"boot_disk": {"image": "debian-cloud/debian-13", "labels": {"A": "b"}}}, "boot_disk.labels"),
    ],
)
def test_bad_input_is_one_clear_error_before_anything_is_asked(
    machine: Task, surroundings: Google, options: dict[str, Any], words: str
) -> None:
    assert words in machine.refused(**options)
    assert surroundings.calls == []


def test_an_api_that_is_not_enabled_yet_is_no_machine_in_check_mode(machine: Task, surroundings: Google) -> None:
    surroundings.seed_project("empty-project", services=[])
    shown = machine.run(check=True, project="empty-project")
    assert shown["changed"]
    assert shown["diff"]["after"]["name"] == NAME
    assert "its API is not enabled yet" in shown["text"]
    message = machine.refused(project="empty-project")
    assert "gcloud services enable compute.googleapis.com" in message


def test_what_google_accepts_and_does_not_do_is_a_warning(
    machine: Task, surroundings: Google, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.run()
    send = google_instance_run.Run.send
    monkeypatch.setattr(
        google_instance_run.Run,
        "send",
        lambda self, call, what: None if call.path.endswith("/setTags") else send(self, call, what),
    )
    result = machine.run(tags=["dagster"], labels={"a": "b"})
    assert "Google has accepted tags but still has []" in result["text"]
    assert "accepted labels" not in result["text"]


def test_a_suspended_machine_is_resumed(machine: Task, surroundings: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.run()
    thing = surroundings.state.get(f"compute/{INSTANCE}")
    assert thing
    thing["status"] = "SUSPENDED"
    assert not machine.run(state="present")["changed"]
    # The stand-in suspends nothing: the call itself is what counts here.
    asked: list[str] = []
    monkeypatch.setattr(google_instance_run.Run, "send", lambda self, call, what: asked.append(call.path))
    machine.run(state="started")
    assert [path.rsplit("/", 1)[1] for path in asked] == ["resume"]
    asked.clear()
    machine.run(state="stopped")
    assert "on a stopped machine only" in machine.refused(machine_type="e2-standard-4")
    machine.run(state="started", machine_type="e2-standard-4", allow_stop=True)
    assert [path.rsplit("/", 1)[1] for path in asked] == ["stop", "stop", "setMachineType", "start"]


def test_a_machine_on_its_way_down_is_waited_for(
    machine: Task, surroundings: Google, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google_instance_run, "POLL_SECONDS", 0.01)
    machine.run()
    thing = surroundings.state.get(f"compute/{INSTANCE}")
    assert thing
    thing["status"] = "STOPPING"
    looks: list[int] = []

    def down(_call: Any) -> None:
        looks.append(1)
        if len(looks) == 4:
            thing["status"] = "TERMINATED"
        else:
            surroundings.before("compute.instances.get", down)

    surroundings.before("compute.instances.get", down)
    assert machine.run(state="started")["status"] == "RUNNING"
    assert len(looks) == 4


def test_overrides_reach_google(machine: Task, surroundings: Google) -> None:
    machine.changes(overrides={"canIpForward": True, "scheduling": {"minNodeCpus": 2}})
    found = stored(surroundings)
    assert found["canIpForward"]
    assert found["scheduling"]["minNodeCpus"] == 2
