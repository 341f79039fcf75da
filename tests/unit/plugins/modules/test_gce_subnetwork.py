"""gce_subnetwork: its range grows and never shrinks; access to Google and flow logs change in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import gce_subnetwork
from lab.google import Google

RunModule = Callable[..., dict[str, Any]]
PLACE = {"project": "example-project", "region": "europe-west1"}
SUBNETWORK = {**PLACE, "name": "part", "network": "net", "ip_cidr_range": "10.10.0.0/24"}
PATH = "projects/example-project/regions/europe-west1/subnetworks/part"
HERE = {**PLACE, "subnetwork": "part"}


@pytest.fixture(autouse=True)
def network(google: Google) -> None:
    google.call(
        "compute.networks.insert", {"project": "example-project"}, {"name": "net", "autoCreateSubnetworks": False}
    )


def stored(google: Google) -> dict[str, Any]:
    found = google.thing(PATH)
    assert found is not None
    return found


def test_from_nothing_to_a_subnetwork_and_back(google: Google, converge: RunModule) -> None:
    made = converge(
        gce_subnetwork.main,
        description="of a test",
        private_ip_google_access=True,
        log_config={"enable": True, "flow_sampling": 0.3, "metadata": "INCLUDE_ALL_METADATA"},
        **SUBNETWORK,
    )
    assert made["diff"]["before"] == {}
    assert made["diff"]["after"]["network"] == "projects/example-project/global/networks/net"
    assert stored(google)["privateIpGoogleAccess"] is True
    removed = converge(gce_subnetwork.main, **PLACE, name="part", state="absent")
    assert (removed["diff"]["after"], google.thing(PATH)) == ({}, None)


def test_the_network_by_path_and_by_url_is_the_same(google: Google, converge: RunModule, run_module: RunModule) -> None:
    run_module(gce_subnetwork.main, **SUBNETWORK)
    path = "projects/example-project/global/networks/net"
    for spelling in (path, "global/networks/net", f"https://www.googleapis.com/compute/v1/{path}"):
        converge(gce_subnetwork.main, changes=False, **{**SUBNETWORK, "network": spelling})


def test_the_range_grows_in_place(google: Google, converge: RunModule, run_module: RunModule) -> None:
    run_module(gce_subnetwork.main, **SUBNETWORK)
    before = stored(google)["id"]
    grown = converge(gce_subnetwork.main, **{**SUBNETWORK, "ip_cidr_range": "10.10.0.0/20"})
    assert grown["diff"]["before"]["ip_cidr_range"] == "10.10.0.0/24"
    assert (stored(google)["id"], stored(google)["ipCidrRange"]) == (before, "10.10.0.0/20")


@pytest.mark.parametrize("range_", ["10.10.0.0/25", "10.20.0.0/24", "10.20.0.0/16"])
def test_the_range_neither_shrinks_nor_moves(google: Google, run_module: RunModule, range_: str) -> None:
    run_module(gce_subnetwork.main, **SUBNETWORK)
    google.calls.clear()
    refused = run_module(gce_subnetwork.main, **{**SUBNETWORK, "ip_cidr_range": range_})
    assert refused["msg"].startswith(
        f"ip_cidr_range: subnetwork part has '10.10.0.0/24', asked for {range_!r}; a range can"
    )
    assert "keep 10.10.0.0/24, give a wider range" in refused["msg"]
    assert google.calls == ["compute.subnetworks.get"]


def test_every_refusal_is_told_at_once(google: Google, run_module: RunModule) -> None:
    run_module(gce_subnetwork.main, description="one", **SUBNETWORK)
    refused = run_module(
        gce_subnetwork.main, description="two", **{**SUBNETWORK, "network": "other", "ip_cidr_range": "10.0.0.0/28"}
    )
    assert [line.split(":")[0] for line in refused["msg"].splitlines()] == ["network", "description", "ip_cidr_range"]


def test_access_and_logs_change_in_place(google: Google, converge: RunModule, run_module: RunModule) -> None:
    run_module(gce_subnetwork.main, **SUBNETWORK)
    converge(gce_subnetwork.main, private_ip_google_access=True, log_config={"enable": True}, **SUBNETWORK)
    assert stored(google)["privateIpGoogleAccess"] is True
    sampled = converge(gce_subnetwork.main, log_config={"enable": True, "flow_sampling": 0.25}, **SUBNETWORK)
    assert sampled["diff"]["after"]["log_config"] == {"enable": True, "flowSampling": 0.25}
    converge(gce_subnetwork.main, log_config={"enable": False}, **SUBNETWORK)
    assert stored(google)["logConfig"]["enable"] is False


def test_logs_that_were_never_on_are_off(google: Google, converge: RunModule, run_module: RunModule) -> None:
    run_module(gce_subnetwork.main, **SUBNETWORK)
    converge(
        gce_subnetwork.main, changes=False, private_ip_google_access=False, log_config={"enable": False}, **SUBNETWORK
    )


def test_a_change_behind_our_back_is_repaired(google: Google, converge: RunModule, run_module: RunModule) -> None:
    run_module(gce_subnetwork.main, private_ip_google_access=True, **SUBNETWORK)
    google.call("compute.subnetworks.setPrivateIpGoogleAccess", HERE, {"privateIpGoogleAccess": False})
    repaired = converge(gce_subnetwork.main, private_ip_google_access=True, **SUBNETWORK)
    assert repaired["diff"]["before"]["private_ip_google_access"] is False


def test_somebody_changes_it_between_reading_and_patching(google: Google, run_module: RunModule) -> None:
    run_module(gce_subnetwork.main, log_config={"enable": True}, **SUBNETWORK)

    def faster(_: Any) -> None:
        google.call(
            "compute.subnetworks.patch",
            HERE,
            {"logConfig": {"metadata": "INCLUDE_ALL_METADATA"}, "fingerprint": stored(google)["fingerprint"]},
        )

    google.before("compute.subnetworks.patch", faster)
    google.calls.clear()
    changed = run_module(gce_subnetwork.main, log_config={"enable": True, "flow_sampling": 0.1}, **SUBNETWORK)
    assert (changed["failed"], changed["changed"]) == (False, True)
    assert google.calls.count("compute.subnetworks.patch") == 2
    logs = stored(google)["logConfig"]
    assert (logs["flowSampling"], logs["metadata"]) == (0.1, "INCLUDE_ALL_METADATA")


def test_ranges_that_overlap(google: Google, run_module: RunModule) -> None:
    run_module(gce_subnetwork.main, **SUBNETWORK)
    refused = run_module(gce_subnetwork.main, **{**SUBNETWORK, "name": "other", "ip_cidr_range": "10.10.0.128/25"})
    assert "create subnetwork other: HTTP 400" in refused["msg"]
    assert "Choose a range that no other subnetwork of the network" in refused["msg"]


def test_a_network_that_is_not_there(google: Google, run_module: RunModule) -> None:
    refused = run_module(gce_subnetwork.main, **{**SUBNETWORK, "network": "nowhere"})
    assert (refused["failed"], refused["code"]) == (True, 404)
    assert "networks/nowhere" in refused["msg"]


def test_bad_input_makes_no_call(google: Google, run_module: RunModule) -> None:
    google.calls.clear()

    def message(**changed: Any) -> str:
        refused = run_module(gce_subnetwork.main, **{**SUBNETWORK, **changed})
        text: str = refused["msg"]
        return text

    assert message(ip_cidr_range="10.10.0.5/24") == (
        "ip_cidr_range: found '10.10.0.5/24'; expected 10.10.0.0/24 (no bits behind the prefix)"
    )
    assert "expected a range such as" in message(ip_cidr_range="somewhere")
    assert "a prefix of 30" in message(ip_cidr_range="10.10.0.0/30")
    assert "expected an IPv4 range" in message(ip_cidr_range="fd00::/64")
    assert "expected a region such as" in message(region="europe-west1-b")
    assert "log_config.flow_sampling: found 2.0; expected 0 to 1" in message(
        log_config={"enable": True, "flow_sampling": 2}
    )
    assert "network" in run_module(gce_subnetwork.main, **PLACE, name="part")["msg"]
    assert google.calls == []
