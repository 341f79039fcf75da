"""What the lab's Google says about instances, disks and snapshots; machines are another matter (tests/e2e)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from lab.google import Google, Refusal

ZONE = "europe-west3-c"
PLACE = {"project": "example-project", "zone": ZONE}
VM = {**PLACE, "instance": "vm"}
DATA = {**PLACE, "disk": "data"}
SMALL = f"zones/{ZONE}/machineTypes/e2-small"
BOOT = {
    "boot": True,
    "autoDelete": True,
    "initializeParams": {"sourceImage": "projects/debian-cloud/global/images/family/debian-13"},
}
Api = Callable[..., dict[str, Any]]


@pytest.fixture
def api(google: Google) -> Api:
    """Compute's methods in a project with a network of its own, a disk and a schedule."""

    def call(method: str, parameters: dict[str, str], body: Any = None) -> dict[str, Any]:
        return google.call(f"compute.{method}", parameters, body)

    region = {"project": "example-project", "region": "europe-west3"}
    call("networks.insert", {"project": "example-project"}, {"name": "net", "autoCreateSubnetworks": False})
    call("subnetworks.insert", region, {"name": "sub", "network": "global/networks/net", "ipCidrRange": "10.20.0.0/29"})
    call("disks.insert", PLACE, {"name": "data", "sizeGb": "20"})
    return call


def wanted(name: str = "vm", **fields: Any) -> dict[str, Any]:
    """What an insert takes."""
    interface = {"subnetwork": "regions/europe-west3/subnetworks/sub"}
    return {"name": name, "machineType": SMALL, "disks": [BOOT], "networkInterfaces": [interface], **fields}


def refused(api: Api, method: str, parameters: dict[str, str], body: Any = None) -> Refusal:
    with pytest.raises(Refusal) as caught:
        api(method, parameters, body)
    return caught.value


def test_an_instance_has_what_google_fills_in(api: Api) -> None:
    api("instances.insert", PLACE, wanted(metadata={"items": [{"key": "enable-guest-attributes", "value": "TRUE"}]}))
    found = api("instances.get", VM)
    assert found["status"] == "RUNNING"
    assert found["networkInterfaces"][0]["networkIP"] == "10.20.0.2"
    assert found["networkInterfaces"][0]["network"].endswith("/global/networks/net")
    assert "accessConfigs" not in found["networkInterfaces"][0]
    assert found["machineType"].endswith(f"/projects/example-project/{SMALL}")
    assert found["scheduling"]["automaticRestart"] is True
    assert found["shieldedInstanceConfig"] == {
        "enableSecureBoot": False, "enableVtpm": True, "enableIntegrityMonitoring": True,
    }  # fmt: skip
    assert found["disks"][0] | {"source": ""} == {
        "kind": "compute#attachedDisk", "type": "PERSISTENT", "mode": "READ_WRITE", "source": "", "index": 0,
        "deviceName": "persistent-disk-0", "boot": True, "autoDelete": True, "interface": "SCSI", "diskSizeGb": "10",
        "architecture": "X86_64", "guestOsFeatures": [{"type": "UEFI_COMPATIBLE"}],
    }  # fmt: skip
    assert api("disks.get", {**PLACE, "disk": "vm"})["users"] == [found["selfLink"]]
    keys = api("instances.getGuestAttributes", {**VM, "queryPath": "hostkeys/"})["queryValue"]["items"]
    assert {item["key"] for item in keys} == {"ssh-ed25519", "ecdsa-sha2-nistp256"}
    assert "vm login:" in api("instances.getSerialPortOutput", VM)["contents"]


NOT_THERE = "The referenced {} resource cannot be found."


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"machineType": f"zones/{ZONE}/machineTypes/z9-huge"},
            "Machine type with name 'z9-huge' does not exist in zone",
        ),
        ({"machineType": "zones/europe-west3-a/machineTypes/e2-small"}, "does not exist in zone 'europe-west3-c'"),
        ({"networkInterfaces": [{"network": "global/networks/none"}]}, NOT_THERE.format("network")),
        ({"networkInterfaces": [{"network": "global/networks/net"}]}, "must specify a subnet if the network resource"),
        (
            {"networkInterfaces": [{"subnetwork": "regions/europe-west3/subnetworks/none"}]},
            NOT_THERE.format("subnetwork"),
        ),
        (
            {"networkInterfaces": [{"subnetwork": "regions/europe-west3/subnetworks/sub", "networkIP": "10.9.9.9"}]},
            "is not in the subnetwork's range",
        ),
        ({"disks": [{"source": f"zones/{ZONE}/disks/data"}]}, "Boot disk must be the first disk"),
        ({"disks": [BOOT, {"source": f"zones/{ZONE}/disks/none"}]}, "disks/none' was not found"),
        (
            {"disks": [{"boot": True, "initializeParams": {"sourceImage": "global/images/none"}}]},
            NOT_THERE.format("image"),
        ),
        (
            {"serviceAccounts": [{"email": "no@example-project.iam.gserviceaccount.com"}]},
            "of type 'serviceAccount' was not",
        ),
        ({"metadata": {"items": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]}}, "duplicate keys"),
        ({"tags": {"items": ["Not_A_Tag"]}}, "Must be a match of regex"),
        ({"labels": {"Upper": "x"}}, "lower-case"),
    ],
)
def test_an_instance_that_is_refused_leaves_nothing(api: Api, fields: dict[str, Any], message: str) -> None:
    assert message in refused(api, "instances.insert", PLACE, wanted(**fields)).message
    assert "items" not in api("instances.list", PLACE)
    assert [disk["name"] for disk in api("disks.list", PLACE)["items"]] == ["data"]
    assert "users" not in api("disks.get", DATA)


def test_a_disk_has_one_writer(api: Api) -> None:
    data = {"source": f"zones/{ZONE}/disks/data", "deviceName": "data"}
    api("instances.insert", PLACE, wanted(disks=[BOOT, data]))
    other = refused(api, "instances.insert", PLACE, wanted("other", disks=[BOOT, data]))
    assert (other.status, other.reason) == (400, "resourceInUseByAnotherResource")
    assert refused(api, "disks.delete", DATA).reason == "resourceInUseByAnotherResource"
    api("instances.detachDisk", {**VM, "deviceName": "data"})
    assert "No attached disk" in refused(api, "instances.detachDisk", {**VM, "deviceName": "data"}).message
    assert "boot disk" in refused(api, "instances.detachDisk", {**VM, "deviceName": "persistent-disk-0"}).message
    api("instances.attachDisk", VM, data)
    assert [disk["deviceName"] for disk in api("instances.get", VM)["disks"]] == ["persistent-disk-0", "data"]
    api("instances.setDiskAutoDelete", {**VM, "deviceName": "data", "autoDelete": "false"})
    api("instances.delete", VM)
    # The boot disk goes with the instance, the data disk stays and is free.
    assert [disk["name"] for disk in api("disks.list", PLACE)["items"]] == ["data"]
    api("disks.delete", DATA)


def test_what_needs_a_stop(api: Api) -> None:
    api("instances.insert", PLACE, wanted())
    bigger = {"machineType": f"zones/{ZONE}/machineTypes/e2-medium"}
    changes: list[tuple[str, Any]] = [
        ("setMachineType", bigger),
        ("setServiceAccount", {"email": "default", "scopes": []}),
        ("updateShieldedInstanceConfig", {"enableSecureBoot": True}),
        ("setScheduling", {"provisioningModel": "SPOT"}),
    ]
    for method, body in changes:
        assert "must be stopped" in refused(api, f"instances.{method}", VM, body).message
    api("instances.stop", VM)
    assert api("instances.get", VM)["status"] == "TERMINATED"
    assert refused(api, "instances.reset", VM).status == 400
    for method, body in changes:
        api(f"instances.{method}", VM, body)
    api("instances.start", VM)
    found = api("instances.get", VM)
    assert found["status"] == "RUNNING"
    assert found["machineType"].endswith("/e2-medium")
    assert found["shieldedInstanceConfig"]["enableSecureBoot"] is True
    assert found["scheduling"]["preemptible"] is True


@pytest.mark.parametrize(
    ("method", "field", "body"),
    [
        ("setMetadata", "metadata", {"items": [{"key": "k", "value": "v"}]}),
        ("setTags", "tags", {"items": ["tag"]}),
    ],
)
def test_a_change_from_an_old_state_is_refused(api: Api, method: str, field: str, body: dict[str, Any]) -> None:
    api("instances.insert", PLACE, wanted())
    seen = api("instances.get", VM)[field]["fingerprint"]
    api(f"instances.{method}", VM, {**body, "fingerprint": seen})
    assert refused(api, f"instances.{method}", VM, {"fingerprint": seen}).status == 412
    found = api("instances.get", VM)[field]
    assert found["items"] == body["items"]
    assert found["fingerprint"] != seen


def test_a_fingerprint_in_either_alphabet(google: Google, api: Api) -> None:
    """Google's clients decode it and write it again in base64's other alphabet."""
    api("instances.insert", PLACE, wanted())
    for number in range(64):
        seen = api("instances.get", VM)["metadata"]["fingerprint"]
        items = [{"key": "k", "value": str(number)}]
        api("instances.setMetadata", VM, {"items": items, "fingerprint": seen.replace("+", "-").replace("/", "_")})


def test_deletion_protection(api: Api) -> None:
    api("instances.insert", PLACE, wanted())
    resource = {**PLACE, "resource": "vm"}
    api("instances.setDeletionProtection", resource)  # on unless it says false
    assert "protected against deletion" in refused(api, "instances.delete", VM).message
    api("instances.setDeletionProtection", {**resource, "deletionProtection": "false"})
    api("instances.delete", VM)
    assert refused(api, "instances.get", VM).status == 404


def test_a_disk_only_grows(api: Api) -> None:
    for size in ("10", "20"):
        assert "must be larger" in refused(api, "disks.resize", DATA, {"sizeGb": size}).message
    api("instances.insert", PLACE, wanted(disks=[BOOT, {"source": f"zones/{ZONE}/disks/data"}]))
    api("disks.resize", DATA, {"sizeGb": "30"})
    assert api("disks.get", DATA)["sizeGb"] == "30"
    assert api("instances.get", VM)["disks"][1]["diskSizeGb"] == "30"


def test_a_snapshot_and_a_disk_made_of_it(api: Api) -> None:
    snapshot = {"project": "example-project", "snapshot": "kept"}
    api("disks.createSnapshot", DATA, {"name": "kept", "labels": {"a": "b"}})
    found = api("snapshots.get", snapshot)
    assert (found["status"], found["diskSizeGb"], found["labels"]) == ("READY", "20", {"a": "b"})
    copy = {"name": "copy", "sourceSnapshot": "global/snapshots/kept"}
    assert "smaller than the snapshot" in refused(api, "disks.insert", PLACE, {**copy, "sizeGb": "10"}).message
    api("disks.insert", PLACE, copy)
    assert api("disks.get", {**PLACE, "disk": "copy"})["sizeGb"] == "20"
    api("snapshots.delete", snapshot)  # the disk stays
    assert api("disks.get", {**PLACE, "disk": "copy"})["sourceSnapshotId"] == found["id"]


def test_a_snapshot_is_whole_when_its_operation_is_done(google: Google, api: Api) -> None:
    google.operation_polls, google.operation_seconds = 3, 3600.0
    headers = {"authorization": f"Bearer {google.token()}"}
    base = "/compute/v1/projects/example-project"

    def ask(verb: str, path: str, body: Any = None) -> dict[str, Any]:
        """Without waiting for the operation."""
        payload = b"" if body is None else json.dumps(body).encode()
        answer = google.respond("compute.googleapis.com", verb, f"{base}/{path}", headers, payload)
        found: dict[str, Any] = json.loads(answer.body)
        return found

    made = ask("POST", f"zones/{ZONE}/disks/data/createSnapshot", {"name": "slow"})
    copy = {"name": "copy", "sourceSnapshot": "global/snapshots/slow"}
    assert ask("GET", "global/snapshots/slow")["status"] == "UPLOADING"
    assert ask("POST", f"zones/{ZONE}/disks", copy)["error"]["errors"][0]["reason"] == "resourceNotReady"
    statuses = [ask("GET", f"zones/{ZONE}/operations/{made['name']}")["status"] for _ in range(3)]
    assert (made["status"], statuses) == ("PENDING", ["RUNNING", "RUNNING", "DONE"])
    assert ask("GET", "global/snapshots/slow")["status"] == "READY"
    assert "error" not in ask("POST", f"zones/{ZONE}/disks", copy)


def test_a_disk_takes_one_schedule(api: Api) -> None:
    region = {"project": "example-project", "region": "europe-west3"}
    for name in ("daily", "weekly"):
        schedule = {"dailySchedule": {"daysInCycle": 1, "startTime": "04:00"}}
        policy = {"schedule": schedule, "retentionPolicy": {"maxRetentionDays": 7}}
        api("resourcePolicies.insert", region, {"name": name, "snapshotSchedulePolicy": policy})
    daily, weekly = (f"regions/europe-west3/resourcePolicies/{name}" for name in ("daily", "weekly"))
    api("disks.addResourcePolicies", DATA, {"resourcePolicies": [daily]})
    assert "no more than 1" in refused(api, "disks.addResourcePolicies", DATA, {"resourcePolicies": [weekly]}).message
    assert refused(api, "resourcePolicies.delete", {**region, "resourcePolicy": "daily"}).status == 400
    assert "not attached" in refused(api, "disks.removeResourcePolicies", DATA, {"resourcePolicies": [weekly]}).message
    api("disks.removeResourcePolicies", DATA, {"resourcePolicies": [daily]})
    assert "resourcePolicies" not in api("disks.get", DATA)


def test_a_reserved_address_has_one_user(google: Google, api: Api) -> None:
    region = {"project": "example-project", "region": "europe-west3"}
    api("addresses.insert", region, {"name": "ip"})
    address = {**region, "address": "ip"}
    given = api("addresses.get", address)["address"]
    interface = {"subnetwork": "regions/europe-west3/subnetworks/sub", "accessConfigs": [{"natIP": given}]}
    api("instances.insert", PLACE, wanted(networkInterfaces=[interface]))
    assert api("addresses.get", address)["status"] == "IN_USE"
    taken = refused(api, "instances.insert", PLACE, wanted("other", networkInterfaces=[interface]))
    assert "already in-use" in taken.message
    missing = {**interface, "accessConfigs": [{"natIP": "192.0.2.1"}]}
    assert (
        "was not found in region"
        in refused(api, "instances.insert", PLACE, wanted("x", networkInterfaces=[missing])).message
    )
    config = {**VM, "accessConfig": "external-nat", "networkInterface": "nic0"}
    api("instances.deleteAccessConfig", config)
    assert api("addresses.get", address)["status"] == "RESERVED"
    google.forbid("compute.vmExternalIpAccess", "example-project")
    assert refused(api, "instances.addAccessConfig", {**VM, "networkInterface": "nic0"}, {"name": "n"}).status == 412


def test_a_range_that_is_full(api: Api) -> None:
    # A /29 has eight addresses, of which Google keeps the first two and the last two.
    for number in range(4):
        api("instances.insert", PLACE, wanted(f"vm{number}"))
    assert "exhausted" in refused(api, "instances.insert", PLACE, wanted("one-more")).message


def test_every_zone_is_in_an_aggregated_list(google: Google, api: Api) -> None:
    api("instances.insert", PLACE, wanted(labels={"managed-by": "us"}))
    project = {"project": "example-project"}
    scopes = api("instances.aggregatedList", {**project, "filter": "labels.managed-by=us"})["items"]
    assert [thing["name"] for thing in scopes[f"zones/{ZONE}"]["instances"]] == ["vm"]
    assert scopes["zones/us-central1-a"]["warning"]["code"] == "NO_RESULTS_ON_PAGE"


def test_a_machine_that_never_boots(google: Google, api: Api) -> None:
    google.state.note("machines")["boot"] = "never"
    api("instances.insert", PLACE, wanted(metadata={"items": [{"key": "enable-guest-attributes", "value": "TRUE"}]}))
    assert refused(api, "instances.getGuestAttributes", {**VM, "queryPath": "hostkeys/"}).status == 404
    assert "login:" not in api("instances.getSerialPortOutput", VM)["contents"]
