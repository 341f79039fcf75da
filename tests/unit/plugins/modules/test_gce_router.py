"""gce_router: our NAT gateway comes, changes and goes; other people's gateways on the router stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import gce_router
from lab.google import Google

RunModule = Callable[..., dict[str, Any]]
PLACE = {"project": "example-project", "region": "europe-west1"}
ROUTER = {**PLACE, "name": "router", "network": "net", "nats": [{"name": "nat"}]}
PATH = "projects/example-project/regions/europe-west1/routers/router"


@pytest.fixture(autouse=True)
def network(google: Google) -> None:
    google.call(
        "compute.networks.insert", {"project": "example-project"}, {"name": "net", "autoCreateSubnetworks": False}
    )
    for name, last in (("one", 1), ("two", 2)):
        google.call(
            "compute.subnetworks.insert",
            PLACE,
            {
                "name": name,
                "network": "projects/example-project/global/networks/net",
                "ipCidrRange": f"10.10.{last}.0/24",
            },
        )
    google.call("compute.addresses.insert", PLACE, {"name": "out"})


def nats(google: Google) -> dict[str, dict[str, Any]]:
    found = google.thing(PATH)
    assert found is not None
    return {nat["name"]: nat for nat in found.get("nats", [])}


def test_from_nothing_to_a_router_and_back(google: Google, converge: RunModule) -> None:
    made = converge(gce_router.main, description="of a test", **ROUTER)
    assert made["diff"]["after"]["nats"] == [
        {
            "name": "nat",
            "natIpAllocateOption": "AUTO_ONLY",
            "sourceSubnetworkIpRangesToNat": "ALL_SUBNETWORKS_ALL_IP_RANGES",
        }
    ]
    assert set(nats(google)) == {"nat"}
    removed = converge(gce_router.main, **PLACE, name="router", state="absent")
    assert (removed["diff"]["after"], google.thing(PATH)) == ({}, None)


@pytest.mark.parametrize(
    "change",
    [
        {"log_config": {"enable": True, "filter": "ERRORS_ONLY"}},
        {"min_ports_per_vm": 128},
        {"enable_dynamic_port_allocation": True, "min_ports_per_vm": 32, "max_ports_per_vm": 1024},
        {"nat_ip_allocate_option": "MANUAL_ONLY", "nat_ips": ["out"]},
        {"source_subnetwork_ip_ranges_to_nat": "LIST_OF_SUBNETWORKS", "subnetworks": ["two", "one"]},
        {"source_subnetwork_ip_ranges_to_nat": "ALL_SUBNETWORKS_ALL_PRIMARY_IP_RANGES"},
    ],
    ids=str,
)
def test_a_gateway_changes_in_place(
    google: Google, converge: RunModule, run_module: RunModule, change: dict[str, Any]
) -> None:
    run_module(gce_router.main, **ROUTER)
    converge(gce_router.main, **{**ROUTER, "nats": [{"name": "nat", **change}]})
    back = run_module(gce_router.main, **ROUTER)
    # What is not given any more is not managed any more; the modes have defaults, so they go back.
    assert back["failed"] is False, back["msg"]
    assert back["changed"] is any(mode in change for mode in ("nat_ips", "source_subnetwork_ip_ranges_to_nat"))
    assert not {"natIps", "subnetworks"} & set(nats(google)["nat"])


def test_other_gateways_and_settings_stay(google: Google, converge: RunModule, run_module: RunModule) -> None:
    run_module(gce_router.main, **ROUTER)
    theirs = {
        "name": "theirs",
        "natIpAllocateOption": "AUTO_ONLY",
        "sourceSubnetworkIpRangesToNat": "LIST_OF_SUBNETWORKS",
        "subnetworks": [
            {
                "name": "projects/example-project/regions/europe-west1/subnetworks/one",
                "sourceIpRangesToNat": ["ALL_IP_RANGES"],
            }
        ],
    }
    ours = {
        "name": "nat",
        "natIpAllocateOption": "AUTO_ONLY",
        "sourceSubnetworkIpRangesToNat": "LIST_OF_SUBNETWORKS",
        "subnetworks": [
            {
                "name": "projects/example-project/regions/europe-west1/subnetworks/two",
                "sourceIpRangesToNat": ["ALL_IP_RANGES"],
            }
        ],
        "icmpIdleTimeoutSec": 45,
    }
    google.call("compute.routers.patch", {**PLACE, "router": "router"}, {"nats": [theirs, ours]})
    wanted = {
        "name": "nat",
        "source_subnetwork_ip_ranges_to_nat": "LIST_OF_SUBNETWORKS",
        "subnetworks": ["two"],
        "log_config": {"enable": True},
    }
    converge(gce_router.main, **{**ROUTER, "nats": [wanted]})
    assert set(nats(google)) == {"nat", "theirs"}
    assert nats(google)["nat"]["icmpIdleTimeoutSec"] == 45
    converge(gce_router.main, purge_nats=True, **{**ROUTER, "nats": [wanted]})
    assert set(nats(google)) == {"nat"}


def test_a_gateway_that_was_removed_behind_our_back_comes_again(
    google: Google, converge: RunModule, run_module: RunModule
) -> None:
    run_module(gce_router.main, **ROUTER)
    google.call("compute.routers.patch", {**PLACE, "router": "router"}, {"nats": []})
    repaired = converge(gce_router.main, **ROUTER)
    assert repaired["diff"]["before"]["nats"] == []


def test_another_network_is_refused(google: Google, run_module: RunModule) -> None:
    run_module(gce_router.main, **ROUTER)
    assert "other network" in run_module(gce_router.main, **{**ROUTER, "network": "other"})["msg"]


def test_bad_input_makes_no_call(google: Google, run_module: RunModule) -> None:
    google.calls.clear()
    refused = run_module(
        gce_router.main,
        **{
            **ROUTER,
            "nats": [
                {"name": "nat", "min_ports_per_vm": 100},
                {"name": "nat", "nat_ips": ["out"]},
                {"name": "Bad", "source_subnetwork_ip_ranges_to_nat": "LIST_OF_SUBNETWORKS"},
            ],
        },
    )
    assert refused["msg"].splitlines() == [
        "nats: found 'nat' more than once; expected names that differ",
        "nats[nat].min_ports_per_vm: found 100; expected a power of two from 32 to 65536",
        "nats[nat].nat_ips: given with nat_ip_allocate_option=AUTO_ONLY; expected together with MANUAL_ONLY",
        "nats: found the name 'Bad'; expected 1 to 63 lower-case letters, digits or hyphens, a letter first, "
        "no hyphen last",
        "nats[Bad].subnetworks: not given with source_subnetwork_ip_ranges_to_nat=LIST_OF_SUBNETWORKS; "
        "expected together with LIST_OF_SUBNETWORKS",
    ]
    assert google.calls == []
