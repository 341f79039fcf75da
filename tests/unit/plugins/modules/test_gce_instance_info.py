"""Reading machines: all that fit, or an error."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import gce_instance_info
from lab.google import Google
from tests.unit.plugins.modules.google_machines import NAME
from tests.unit.plugins.modules.google_modules import OURS, PROJECT, ZONE, Run, Task


@pytest.fixture
def info(surroundings: Google, run_module: Run) -> Task:
    return Task(run_module, gce_instance_info.main, surroundings)


@pytest.fixture
def machines(machine: Task) -> None:
    machine.run(labels={"dagster-environment": "prod"}, disks=[{"source": "data"}], tags=["dagster"])
    machine.run(name="dagster-dev", zone="europe-west3-a", labels={"dagster-environment": "dev"}, state="stopped")


def names(result: dict[str, Any]) -> list[str]:
    assert [item["name"] for item in result["instances"]] == [item["name"] for item in result["resources"]]
    return [item["name"] for item in result["instances"]]


def test_one_machine(info: Task, machines: None) -> None:
    (found,) = info.unchanged(name=NAME, zone=ZONE)["instances"]
    assert found["zone"] == ZONE
    assert found["region"] == "europe-west3"
    assert found["machine_type"] == "e2-standard-2"
    assert found["internal_address"].startswith("10.128.")
    assert found["external_address"] == ""
    assert (found["network"], found["subnetwork"]) == ("net", "sub")
    assert found["labels"] == {"dagster-environment": "prod", **OURS}
    assert found["tags"] == ["dagster"]
    assert found["disks"][1] == {"name": "data", "device_name": "data", "boot": False}


def test_one_that_is_not_there(info: Task) -> None:
    assert info.unchanged(name="nobody", zone=ZONE)["instances"] == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["dagster-dev", NAME]),
        ({"labels": OURS}, ["dagster-dev", NAME]),
        ({"labels": {"dagster-environment": "dev"}}, ["dagster-dev"]),
        ({"labels": {"dagster-environment": ""}}, ["dagster-dev", NAME]),
        ({"labels": {"nothing": ""}}, []),
        ({"labels": OURS, "filter": "status = RUNNING"}, [NAME]),
        ({"zones": ["europe-west3-a"]}, ["dagster-dev"]),
        ({"regions": ["europe-west3"]}, ["dagster-dev", NAME]),
        ({"regions": ["us-central1"]}, []),
    ],
)
def test_by_labels_filter_and_place(info: Task, machines: None, options: dict[str, Any], expected: list[str]) -> None:
    assert names(info.unchanged(**options)) == expected


def test_page_after_page(info: Task, machines: None, surroundings: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_client import Client

    call = Client.call

    def paged(self: Client, *arguments: Any, **more: Any) -> Any:
        answer = call(self, *arguments, **more)
        scopes = sorted(answer["items"])
        half = len(scopes) // 2
        second = "pageToken" in more["query"]
        chosen = scopes[half:] if second else scopes[:half]
        return {"items": {scope: answer["items"][scope] for scope in chosen}, "nextPageToken": "" if second else "two"}

    monkeypatch.setattr(Client, "call", paged)
    assert names(info.run()) == ["dagster-dev", NAME]


def test_a_zone_that_does_not_answer_is_an_error_unless_nobody_asked_for_it(
    info: Task, machines: None, surroundings: Google
) -> None:
    surroundings.state.note("unreachable")[PROJECT] = ["zones/europe-west3-a"]
    message = info.refused()
    assert "no answer from europe-west3-a, so the list is not complete" in message
    assert "europe-west3-a" in info.refused(regions=["europe-west3"])
    assert names(info.run(zones=[ZONE])) == [NAME]


def test_errors_are_said(info: Task, surroundings: Google) -> None:
    assert "spelled right" in info.refused(project="no-such-project")
    assert "zone" in info.refused(name=NAME)
    surroundings.revoke("compute.instances.list")
    assert "compute.instances.list" in info.refused()
