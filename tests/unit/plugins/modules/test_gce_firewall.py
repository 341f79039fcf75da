"""gce_firewall: one rule, changed in place, and never opened wider than somebody has said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import gce_firewall
from lab.google import Google

RunModule = Callable[..., dict[str, Any]]
NAME = {"project": "example-project", "name": "iap-ssh"}
RULE = {
    **NAME,
    "network": "net",
    "source_ranges": ["35.235.240.0/20"],
    "target_tags": ["dagster"],
    "allowed": [{"protocol": "tcp", "ports": ["22"]}],
}
PATH = "projects/example-project/global/firewalls/iap-ssh"


@pytest.fixture(autouse=True)
def network(google: Google) -> None:
    google.call(
        "compute.networks.insert", {"project": "example-project"}, {"name": "net", "autoCreateSubnetworks": False}
    )


def stored(google: Google) -> dict[str, Any]:
    found = google.thing(PATH)
    assert found is not None
    return found


def test_from_nothing_to_a_rule_and_back(google: Google, converge: RunModule) -> None:
    made = converge(gce_firewall.main, description="of a test", priority=900, disabled=False, **RULE)
    assert made["diff"]["after"]["source_ranges"] == ["35.235.240.0/20"]
    assert stored(google)["allowed"] == [{"IPProtocol": "tcp", "ports": ["22"]}]
    removed = converge(gce_firewall.main, state="absent", **NAME)
    assert (removed["diff"]["after"], google.thing(PATH)) == ({}, None)


@pytest.mark.parametrize(
    "change",
    [
        {"source_ranges": ["10.0.0.0/8", "35.235.240.0/20"]},
        {"allowed": [{"protocol": "tcp", "ports": ["22", "3000-3010"]}]},
        {"allowed": [{"protocol": "tcp", "ports": ["22"]}, {"protocol": "icmp"}]},
        {"allowed": [{"protocol": "tcp"}]},
        {"target_tags": ["dagster", "more"]},
        {"target_tags": []},
        {"priority": 10},
        {"disabled": True},
        {"description": "other words"},
        {"log_config": {"enable": True}},
        {"log_config": {"enable": True, "metadata": "EXCLUDE_ALL_METADATA"}},
    ],
    ids=str,
)
def test_changes_are_made_in_place(
    google: Google, converge: RunModule, run_module: RunModule, change: dict[str, Any]
) -> None:
    run_module(gce_firewall.main, **RULE)
    before = stored(google)["id"]
    google.calls.clear()
    changed = converge(gce_firewall.main, **{**RULE, **change})
    differ = {
        option for option, value in changed["diff"]["after"].items() if changed["diff"]["before"][option] != value
    }
    assert differ == set(change)
    assert stored(google)["id"] == before
    # And back, as far as the rule says so.
    converge(gce_firewall.main, changes=bool(set(change) & set(RULE)), **RULE)


def test_order_and_spelling_do_not_count(google: Google, converge: RunModule, run_module: RunModule) -> None:
    run_module(
        gce_firewall.main,
        **{
            **RULE,
            "source_ranges": ["10.0.0.0/8", "192.0.2.7/32"],
            "allowed": [{"protocol": "tcp", "ports": ["22", "80"]}, {"protocol": "udp", "ports": ["53"]}],
        },
    )
    converge(
        gce_firewall.main,
        changes=False,
        **{
            **RULE,
            "source_ranges": ["192.0.2.7", "10.0.0.0/8"],
            "allowed": [{"protocol": "UDP", "ports": ["53"]}, {"protocol": "TCP", "ports": ["80", "22"]}],
        },
    )


def test_a_range_that_was_opened_behind_our_back_is_closed(
    google: Google, converge: RunModule, run_module: RunModule
) -> None:
    run_module(gce_firewall.main, **RULE)
    google.call(
        "compute.firewalls.patch",
        {"project": "example-project", "firewall": "iap-ssh"},
        {"name": "iap-ssh", "sourceRanges": ["0.0.0.0/0"]},
    )
    repaired = converge(gce_firewall.main, **RULE)
    assert repaired["diff"]["before"]["source_ranges"] == ["0.0.0.0/0"]
    assert stored(google)["sourceRanges"] == ["35.235.240.0/20"]


def test_a_rule_without_a_source_is_refused(google: Google, run_module: RunModule) -> None:
    google.calls.clear()
    nowhere: list[dict[str, Any]] = [{"source_ranges": None}, {"source_ranges": []}]
    for nothing in nowhere:
        refused = run_module(gce_firewall.main, **{**RULE, **nothing})
        assert refused["msg"].startswith("source_ranges: not given")
        assert "0.0.0.0/0" in refused["msg"]
    assert google.calls == []


def test_what_cannot_change_is_refused(google: Google, run_module: RunModule) -> None:
    run_module(gce_firewall.main, **RULE)
    denied = {**RULE, "denied": RULE["allowed"]}
    del denied["allowed"]
    assert "is a rule with `allowed`" in run_module(gce_firewall.main, **denied)["msg"]
    outward = {**RULE, "direction": "EGRESS", "source_ranges": None, "destination_ranges": ["10.0.0.0/8"]}
    assert (
        "direction: firewall rule iap-ssh has 'INGRESS', asked for 'EGRESS'"
        in run_module(gce_firewall.main, **outward)["msg"]
    )
    assert "other network" in run_module(gce_firewall.main, **{**RULE, "network": "other"})["msg"]


def test_bad_input_makes_no_call(google: Google, run_module: RunModule) -> None:
    google.calls.clear()
    refused = run_module(
        gce_firewall.main,
        **{
            **RULE,
            "priority": 70000,
            "source_ranges": ["10.0.0.1/8"],
            "target_tags": ["Bad"],
            "allowed": [
                {"protocol": "tcp", "ports": ["0-70000", "90-80", "ssh"]},
                {"protocol": "icmp", "ports": ["1"]},
            ],
        },
    )
    lines = refused["msg"].splitlines()
    assert [line.split(":")[0] for line in lines] == ["priority", "source_ranges", "target_tags"] + ["allowed"] * 4
    assert "expected 10.0.0.0/8" in lines[1]
    assert "protocol icmp" in lines[-1]
    both = run_module(gce_firewall.main, **RULE, denied=[{"protocol": "all"}])
    assert "mutually exclusive" in both["msg"]
    assert google.calls == []
