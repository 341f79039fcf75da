"""gce_address: labels change; anything else is refused, since a replaced address is a lost one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import gce_address
from lab.google import Google

RunModule = Callable[..., dict[str, Any]]
PLACE = {"project": "example-project", "region": "europe-west1"}
ADDRESS = {**PLACE, "name": "out"}
PATH = "projects/example-project/regions/europe-west1/addresses/out"


def stored(google: Google) -> dict[str, Any]:
    found = google.thing(PATH)
    assert found is not None
    return found


def test_from_nothing_to_an_address_and_back(google: Google, converge: RunModule) -> None:
    made = converge(gce_address.main, description="of a test", labels={"managed-by": "test"}, **ADDRESS)
    assert made["resource"]["address"]
    assert stored(google)["labels"] == {"managed-by": "test"}
    inserts = [request.body for request in google.requests if request.method == "compute.addresses.insert"]
    assert ["labels" in body for body in inserts] == [False]
    removed = converge(gce_address.main, state="absent", **ADDRESS)
    assert (removed["diff"]["after"], google.thing(PATH)) == ({}, None)


def test_labels_change_and_other_peoples_labels_stay(
    google: Google, converge: RunModule, run_module: RunModule
) -> None:
    run_module(gce_address.main, labels={"a": "1"}, **ADDRESS)
    before = stored(google)["address"]
    google.call(
        "compute.addresses.setLabels",
        {**PLACE, "resource": "out"},
        {"labels": {"a": "2", "cost": "x"}, "labelFingerprint": stored(google)["labelFingerprint"]},
    )
    repaired = converge(gce_address.main, labels={"a": "1"}, **ADDRESS)
    assert (repaired["diff"]["before"]["labels"]["a"], repaired["diff"]["after"]["labels"]["a"]) == ("2", "1")
    assert stored(google)["labels"] == {"a": "1", "cost": "x"}
    converge(gce_address.main, labels={"a": "1"}, purge_labels=True, **ADDRESS)
    assert (stored(google)["labels"], stored(google)["address"]) == ({"a": "1"}, before)


@pytest.mark.parametrize(
    "change", [{"description": "two"}, {"network_tier": "STANDARD"}, {"address": "203.0.113.9"}], ids=str
)
def test_an_address_is_never_replaced(google: Google, run_module: RunModule, change: dict[str, str]) -> None:
    run_module(gce_address.main, description="one", **ADDRESS)
    before = stored(google)
    google.calls.clear()
    option, value = next(iter(change.items()))
    refused = run_module(gce_address.main, **ADDRESS, **change)
    assert refused["msg"].startswith(f"{option}: address out has ")
    assert f"asked for {value!r}; Google cannot change it in place, and nothing is replaced here" in refused["msg"]
    assert (google.calls, stored(google)) == (["compute.addresses.get"], before)


def test_an_internal_address(google: Google, converge: RunModule) -> None:
    google.call(
        "compute.networks.insert", {"project": "example-project"}, {"name": "net", "autoCreateSubnetworks": False}
    )
    google.call(
        "compute.subnetworks.insert",
        PLACE,
        {"name": "part", "network": "projects/example-project/global/networks/net", "ipCidrRange": "10.10.0.0/24"},
    )
    made = converge(
        gce_address.main,
        address_type="INTERNAL",
        subnetwork="part",
        address="10.10.0.9",
        purpose="GCE_ENDPOINT",
        **ADDRESS,
    )
    assert made["resource"]["address"] == "10.10.0.9"


def test_labels_are_set_again_after_a_race(google: Google, run_module: RunModule) -> None:
    run_module(gce_address.main, labels={"a": "1"}, **ADDRESS)

    def faster(_: Any) -> None:
        google.call(
            "compute.addresses.setLabels",
            {**PLACE, "resource": "out"},
            {"labels": {"a": "1", "b": "theirs"}, "labelFingerprint": stored(google)["labelFingerprint"]},
        )

    google.before("compute.addresses.setLabels", faster)
    changed = run_module(gce_address.main, labels={"a": "2"}, **ADDRESS)
    assert (changed["failed"], changed["changed"]) == (False, True)
    assert stored(google)["labels"] == {"a": "2", "b": "theirs"}


def test_a_quota_that_is_used_up(google: Google, run_module: RunModule) -> None:
    google.fail(
        "compute.addresses.insert",
        reason="QUOTA_EXCEEDED",
        message="Quota 'STATIC_ADDRESSES' exceeded.  Limit: 8.0 in region europe-west1.",
        kind="operation",
    )
    refused = run_module(gce_address.main, **ADDRESS)
    assert "quota STATIC_ADDRESSES (region europe-west1) is at its limit of 8.0" in refused["msg"]
    assert google.thing(PATH) is None


def test_bad_input_makes_no_call(google: Google, run_module: RunModule) -> None:
    refused = run_module(
        gce_address.main,
        address="here",
        address_type="INTERNAL",
        network_tier="PREMIUM",
        labels={"Key": "v", "k": "Value"},
        **ADDRESS,
    )
    assert [line.split(":")[0] for line in refused["msg"].splitlines()] == [
        "labels",
        "labels.k",
        "address",
        "subnetwork",
        "network_tier",
    ]
    assert google.calls == []
