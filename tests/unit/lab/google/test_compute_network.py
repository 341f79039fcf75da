"""Networks, subnetworks, firewall rules, routers and addresses: what Google fills in and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from lab.google import Google, Refusal

P = {"project": "example-project"}
R = {**P, "region": "europe-west1"}


def subnetwork(google: Google, name: str = "s", cidr: str = "10.0.0.0/24", **more: Any) -> None:
    if google.thing("projects/example-project/global/networks/n") is None:
        google.call("compute.networks.insert", P, {"name": "n", "autoCreateSubnetworks": False})
    body = {"name": name, "network": "global/networks/n", "ipCidrRange": cidr, **more}
    google.call("compute.subnetworks.insert", R, body)


def get(google: Google, collection: str, name: str, parameter: str | None = None) -> dict[str, Any]:
    where = P if collection in ("networks", "firewalls") else R
    return google.call(f"compute.{collection}.get", {**where, parameter or collection[:-1]: name})


def test_a_subnetwork_is_completed(google: Google) -> None:
    subnetwork(google)
    found = get(google, "subnetworks", "s")
    assert found["network"] == "https://www.googleapis.com/compute/v1/projects/example-project/global/networks/n"
    assert found["gatewayAddress"] == "10.0.0.1"
    assert (found["privateIpGoogleAccess"], found["logConfig"]) == (False, {"enable": False})
    assert get(google, "networks", "n")["subnetworks"] == [found["selfLink"]]


@pytest.mark.parametrize("cidr", ["10.0.0.0/16", "10.0.0.128/25", "10.0.0.0/24"])
def test_ranges_of_a_network_do_not_overlap(google: Google, cidr: str) -> None:
    subnetwork(google)
    with pytest.raises(Refusal, match="conflicts with existing subnetwork 's' in region 'europe-west1'") as refusal:
        subnetwork(google, "t", cidr)
    assert (refusal.value.status, refusal.value.reason) == (400, "invalid")


@pytest.mark.parametrize("cidr", ["10.0.0.1/24", "10.0.0.0/30", "10.0.0.0", "text"])
def test_a_range_is_one(google: Google, cidr: str) -> None:
    with pytest.raises(Refusal, match=r"Invalid value for field 'resource\.ipCidrRange'"):
        subnetwork(google, cidr=cidr)


def test_a_missing_network_is_404(google: Google) -> None:
    body = {"name": "s", "network": "global/networks/none", "ipCidrRange": "10.0.0.0/24"}
    with pytest.raises(Refusal, match="'projects/example-project/global/networks/none' was not found") as refusal:
        google.call("compute.subnetworks.insert", R, body)
    assert refusal.value.status == 404


def test_a_subnetwork_only_grows(google: Google) -> None:
    subnetwork(google)
    for cidr in ("10.0.0.0/25", "10.1.0.0/16", "10.0.0.0/24"):
        with pytest.raises(Refusal, match="must be larger"):
            google.call("compute.subnetworks.expandIpCidrRange", {**R, "subnetwork": "s"}, {"ipCidrRange": cidr})
    google.call("compute.subnetworks.expandIpCidrRange", {**R, "subnetwork": "s"}, {"ipCidrRange": "10.0.0.0/20"})
    assert get(google, "subnetworks", "s")["ipCidrRange"] == "10.0.0.0/20"


def test_a_patch_needs_the_current_fingerprint(google: Google) -> None:
    subnetwork(google)
    old = get(google, "subnetworks", "s")["fingerprint"]
    body = {"privateIpGoogleAccess": True}
    google.call("compute.subnetworks.setPrivateIpGoogleAccess", {**R, "subnetwork": "s"}, body)
    patch = {"fingerprint": old, "logConfig": {"enable": True}}
    with pytest.raises(Refusal) as refusal:
        google.call("compute.subnetworks.patch", {**R, "subnetwork": "s"}, patch)
    assert (refusal.value.status, refusal.value.reason) == (412, "conditionNotMet")
    patch["fingerprint"] = get(google, "subnetworks", "s")["fingerprint"]
    google.call("compute.subnetworks.patch", {**R, "subnetwork": "s"}, patch)
    assert get(google, "subnetworks", "s")["logConfig"]["flowSampling"] == 0.5


def test_what_is_used_stays(google: Google) -> None:
    subnetwork(google)
    with pytest.raises(Refusal, match=r"is already being used by 'projects/.*/subnetworks/s'") as refusal:
        google.call("compute.networks.delete", {**P, "network": "n"})
    assert refusal.value.reason == "resourceInUseByAnotherResource"
    google.call("compute.subnetworks.delete", {**R, "subnetwork": "s"})
    google.call("compute.networks.delete", {**P, "network": "n"})
    assert google.thing("projects/example-project/global/networks/n") is None


RULE = {
    "name": "f",
    "network": "global/networks/n",
    "sourceRanges": ["35.235.240.0/20"],
    "allowed": [{"IPProtocol": "TCP", "ports": ["22"]}],
}


def test_a_firewall_rule_is_completed(google: Google) -> None:
    google.call("compute.networks.insert", P, {"name": "n", "autoCreateSubnetworks": False})
    google.call("compute.firewalls.insert", P, RULE)
    found = get(google, "firewalls", "f")
    assert found["allowed"] == [{"IPProtocol": "tcp", "ports": ["22"]}]
    assert (found["direction"], found["priority"], found["logConfig"]) == ("INGRESS", 1000, {"enable": False})
    google.call("compute.firewalls.patch", {**P, "firewall": "f"}, {"name": "f", "targetTags": ["dagster"]})
    assert get(google, "firewalls", "f")["targetTags"] == ["dagster"]
    with pytest.raises(Refusal, match="cannot be changed"):
        google.call("compute.firewalls.patch", {**P, "firewall": "f"}, {"name": "f", "direction": "EGRESS"})


@pytest.mark.parametrize(
    "change",
    [
        {"sourceRanges": ["35.235.240.1/20"]},
        {"allowed": []},
        {"denied": [{"IPProtocol": "all"}]},
        {"allowed": [{"IPProtocol": "tcp", "ports": ["90-80"]}]},
        {"allowed": [{"IPProtocol": "nonsense"}]},
        {"priority": 70000},
        {"targetTags": ["a"], "targetServiceAccounts": ["b"]},
    ],
)
def test_a_bad_firewall_rule_is_refused(google: Google, change: dict[str, Any]) -> None:
    google.call("compute.networks.insert", P, {"name": "n"})
    with pytest.raises(Refusal, match="Invalid value for field 'resource"):
        google.call("compute.firewalls.insert", P, {**RULE, **change})


NAT = {
    "name": "nat",
    "natIpAllocateOption": "AUTO_ONLY",
    "sourceSubnetworkIpRangesToNat": "ALL_SUBNETWORKS_ALL_IP_RANGES",
}


def test_one_nat_has_all_subnetworks(google: Google) -> None:
    google.call("compute.networks.insert", P, {"name": "n"})
    google.call("compute.routers.insert", R, {"name": "r", "network": "global/networks/n"})
    google.call("compute.routers.patch", {**R, "router": "r"}, {"nats": [{**NAT, "logConfig": {"enable": True}}]})
    assert get(google, "routers", "r")["nats"][0]["logConfig"] == {"enable": True, "filter": "ALL"}
    with pytest.raises(Refusal, match="NAT 'nat' of router 'r' has all subnetworks"):
        google.call("compute.routers.insert", R, {"name": "q", "network": "global/networks/n", "nats": [NAT]})
    with pytest.raises(Refusal, match="natIpAllocateOption"):
        google.call(
            "compute.routers.patch", {**R, "router": "r"}, {"nats": [{**NAT, "natIpAllocateOption": "MANUAL_ONLY"}]}
        )


def test_addresses(google: Google) -> None:
    subnetwork(google)
    google.call("compute.addresses.insert", R, {"name": "a", "labels": {"a": "b"}})
    google.call("compute.addresses.insert", R, {"name": "b"})
    link = "regions/europe-west1/subnetworks/s"
    google.call("compute.addresses.insert", R, {"name": "c", "addressType": "INTERNAL", "subnetwork": link})
    found = {name: get(google, "addresses", name, "address") for name in "abc"}
    assert found["a"]["address"] != found["b"]["address"]
    assert (found["c"]["address"], found["c"]["purpose"]) == ("10.0.0.2", "GCE_ENDPOINT")
    with pytest.raises(Refusal) as refusal:
        google.call("compute.addresses.setLabels", {**R, "resource": "a"}, {"labels": {}, "labelFingerprint": "AAAA"})
    assert refusal.value.status == 412
    body = {"labels": {"a": "c"}, "labelFingerprint": found["a"]["labelFingerprint"]}
    google.call("compute.addresses.setLabels", {**R, "resource": "a"}, body)
    assert get(google, "addresses", "a", "address")["labels"] == {"a": "c"}


DAILY = {
    "schedule": {"dailySchedule": {"daysInCycle": 1, "startTime": "04:00"}},
    "retentionPolicy": {"maxRetentionDays": 14},
}


def test_snapshot_schedules(google: Google) -> None:
    body = {"name": "p", "snapshotSchedulePolicy": DAILY}
    google.call("compute.resourcePolicies.insert", R, body)
    found = get(google, "resourcePolicies", "p", "resourcePolicy")
    assert found["snapshotSchedulePolicy"]["retentionPolicy"]["onSourceDiskDelete"] == "KEEP_AUTO_SNAPSHOTS"
    weekly = {"weeklySchedule": {"dayOfWeeks": [{"day": "MONDAY", "startTime": "05:00"}]}}
    where = {**R, "resourcePolicy": "p"}
    google.call("compute.resourcePolicies.patch", where, {"snapshotSchedulePolicy": {"schedule": weekly}})
    found = get(google, "resourcePolicies", "p", "resourcePolicy")["snapshotSchedulePolicy"]
    assert list(found["schedule"]) == ["weeklySchedule"]
    assert found["retentionPolicy"]["maxRetentionDays"] == 14
    mask = {**where, "updateMask": "snapshotSchedulePolicy.retentionPolicy"}
    google.call("compute.resourcePolicies.patch", mask, {"snapshotSchedulePolicy": {"schedule": DAILY["schedule"]}})
    found = get(google, "resourcePolicies", "p", "resourcePolicy")["snapshotSchedulePolicy"]
    assert "retentionPolicy" not in found
    assert list(found["schedule"]) == ["weeklySchedule"]
    bad = {"schedule": {"dailySchedule": {"daysInCycle": 1, "startTime": "04:30"}}}
    with pytest.raises(Refusal, match="like 04:00"):
        google.call("compute.resourcePolicies.insert", R, {"name": "q", "snapshotSchedulePolicy": bad})


def test_common_metadata(google: Google) -> None:
    before = google.call("compute.projects.get", P)["commonInstanceMetadata"]
    body = {"fingerprint": before["fingerprint"], "items": [{"key": "enable-oslogin", "value": "TRUE"}]}
    google.call("compute.projects.setCommonInstanceMetadata", P, body)
    with pytest.raises(Refusal) as refusal:
        google.call("compute.projects.setCommonInstanceMetadata", P, body)
    assert refusal.value.status == 412


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("compute.regions.list", {}),
        ("compute.regions.get", {"region": "europe-west1"}),
        ("compute.zones.list", {}),
        ("compute.zones.get", {"zone": "europe-west1-b"}),
        ("compute.machineTypes.list", {"zone": "europe-west1-b"}),
        ("compute.machineTypes.get", {"zone": "europe-west1-b", "machineType": "e2-medium"}),
        ("compute.diskTypes.get", {"zone": "europe-west1-b", "diskType": "pd-balanced"}),
        ("compute.images.getFromFamily", {"project": "debian-cloud", "family": "debian-13"}),
        ("compute.images.get", {"project": "debian-cloud", "image": "debian-13-trixie-v20261013"}),
        ("compute.images.list", {"project": "debian-cloud"}),
        ("compute.imageFamilyViews.get", {"project": "debian-cloud", "zone": "-", "family": "debian-13"}),
        ("compute.subnetworks.aggregatedList", {}),
        ("compute.addresses.aggregatedList", {}),
        ("compute.globalOperations.list", {}),
    ],
)
def test_what_google_brings_fits_its_documents(google: Google, method: str, parameters: dict[str, str]) -> None:
    google.call(method, {**P, **parameters})


def test_what_google_does_not_bring(google: Google) -> None:
    with pytest.raises(Refusal, match="machineTypes/c3-standard-4' was not found"):
        google.call("compute.machineTypes.get", {**P, "zone": "europe-west1-c", "machineType": "c3-standard-4"})
    with pytest.raises(Refusal, match="Unknown zone"):
        google.call("compute.machineTypes.list", {**P, "zone": "moon-1a"})
