"""gce_network: from nothing to a network and back, changes in place, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.modules import gce_network
from lab.google import Google

RunModule = Callable[..., dict[str, Any]]
NETWORK = {"project": "example-project", "name": "dagster-network-test"}
PATH = "projects/example-project/global/networks/dagster-network-test"
HERE = {"project": "example-project", "network": "dagster-network-test"}


def test_from_nothing_to_a_network_and_back(google: Google, converge: RunModule) -> None:
    made = converge(gce_network.main, description="of a test", routing_mode="GLOBAL", mtu=1500, **NETWORK)
    assert made["diff"]["before"] == {}
    assert made["diff"]["after"]["mtu"] == 1500
    assert made["resource"]["selfLink"].endswith(PATH)
    stored = google.thing(PATH)
    assert stored is not None
    assert (stored["autoCreateSubnetworks"], stored["routingConfig"]["routingMode"]) == (False, "GLOBAL")
    removed = converge(gce_network.main, state="absent", **NETWORK)
    assert (removed["diff"]["after"], google.thing(PATH)) == ({}, None)


def test_changes_are_made_in_place(google: Google, converge: RunModule, run_module: RunModule) -> None:
    run_module(gce_network.main, **NETWORK)
    before = google.thing(PATH)
    changed = converge(gce_network.main, routing_mode="GLOBAL", mtu=1400, **NETWORK)
    assert changed["diff"]["before"] == {"name": NETWORK["name"], "routing_mode": "REGIONAL", "mtu": 1460}
    after = google.thing(PATH)
    assert before is not None
    assert after is not None
    assert (after["id"], after["mtu"]) == (before["id"], 1400)
    # The rest of routingConfig is somebody else's.
    assert after["routingConfig"] == {**before["routingConfig"], "routingMode": "GLOBAL"}


def test_a_change_behind_our_back_is_repaired(google: Google, converge: RunModule, run_module: RunModule) -> None:
    run_module(gce_network.main, mtu=1460, **NETWORK)
    google.call("compute.networks.patch", HERE, {"mtu": 8896})
    repaired = converge(gce_network.main, mtu=1460, **NETWORK)
    assert (repaired["diff"]["before"]["mtu"], repaired["diff"]["after"]["mtu"]) == (8896, 1460)


def test_options_that_are_not_given_are_not_managed(google: Google, converge: RunModule, run_module: RunModule) -> None:
    run_module(gce_network.main, mtu=1500, description="words", **NETWORK)
    converge(gce_network.main, changes=False, **NETWORK)


def test_what_cannot_change_is_refused(google: Google, run_module: RunModule) -> None:
    run_module(gce_network.main, description="one", **NETWORK)
    google.calls.clear()
    for check in (True, False):
        refused = run_module(gce_network.main, check=check, description="two", mtu=1500, **NETWORK)
        assert refused["failed"] is True
        assert "description" in refused["msg"]
        assert "'one'" in refused["msg"]
        assert "'two'" in refused["msg"]
        assert "leave the option out" in refused["msg"]
    assert google.calls == ["compute.networks.get"] * 2


def test_auto_mode_is_refused(google: Google, run_module: RunModule) -> None:
    google.call(
        "compute.networks.insert",
        {"project": "example-project"},
        {"name": NETWORK["name"], "autoCreateSubnetworks": True},
    )
    refused = run_module(gce_network.main, **NETWORK)
    assert "auto mode" in refused["msg"]
    assert "--switch-to-custom-subnet-mode" in refused["msg"]


def test_bad_input_makes_no_call(google: Google, run_module: RunModule) -> None:
    refused = run_module(gce_network.main, project="UPPER", name="Bad_Name", mtu=1200)
    name, project, mtu = refused["msg"].splitlines()
    assert name == (
        "name: found 'Bad_Name'; expected 1 to 63 lower-case letters, digits or hyphens, a letter first, no hyphen last"
    )
    assert project.startswith("project: found 'UPPER'; expected a project's id (not its number or title)")
    assert mtu == "mtu: found 1200; expected 1300 to 8896"
    assert google.calls == []


def test_a_network_in_use_stays(google: Google, run_module: RunModule) -> None:
    run_module(gce_network.main, **NETWORK)
    google.call(
        "compute.subnetworks.insert",
        {"project": "example-project", "region": "europe-west1"},
        {"name": "part", "network": PATH, "ipCidrRange": "10.10.0.0/24"},
    )
    refused = run_module(gce_network.main, state="absent", **NETWORK)
    assert refused["reason"].upper().startswith("RESOURCE") or "already being used" in refused["msg"]
    assert "part" in refused["msg"]
    assert google.thing(PATH) is not None
