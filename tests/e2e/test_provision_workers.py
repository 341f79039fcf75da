"""Machines of the group dagster_workers against the lab's Google, without machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.google import Google
from tests.e2e.cloud import Cloud

WORKERS = ["dagster-e2e-worker-1", "dagster-e2e-worker-2"]
RULE = "dagster-swarm-e2e"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A project in which provision.yml has made a main machine and two workers."""
    folder: Path = tmp_path_factory.mktemp("inventory")
    google = Google().start()
    try:
        google.seed_project("example-e2e", services=[])
        found = Cloud(google, folder)
        found.workers = WORKERS
        found.write(dagster_run_launcher="swarm")
        found.play("playbooks/provision.yml").ok()
        yield found
        assert google.violations == []
    finally:
        google.stop()


def test_a_worker_is_a_machine_without_a_data_disk(cloud: Cloud) -> None:
    for name in WORKERS:
        found = cloud.thing("instances", name)
        assert found is not None
        assert [disk["boot"] for disk in found["disks"]] == [True]
        assert found["tags"]["items"] == ["dagster"]
        assert found["serviceAccounts"][0]["email"] == cloud.instance["serviceAccounts"][0]["email"]
        assert cloud.thing("disks", f"{name}-data") is None
        assert f"Host {name}" in (cloud.folder / ".ssh" / "ssh_config").read_text()
    assert len(cloud.instance["disks"]) == 2


def test_the_ports_of_the_swarm_are_open_among_our_machines_only(cloud: Cloud) -> None:
    rule = cloud.thing("firewalls", RULE)
    assert rule is not None
    assert (rule["sourceTags"], rule["targetTags"]) == (["dagster"], ["dagster"])
    assert "sourceRanges" not in rule
    allowed = {each["IPProtocol"]: sorted(each.get("ports", [])) for each in rule["allowed"]}
    assert allowed == {"tcp": ["2377", "7946"], "udp": ["4789", "7946"], "esp": []}


def test_a_second_run_changes_nothing(cloud: Cloud) -> None:
    cloud.forget_calls()
    assert cloud.play("playbooks/provision.yml").ok().changed == 0
    assert cloud.writes() == []


def test_one_worker_more_asks_nothing_of_project_and_network(cloud: Cloud) -> None:
    cloud.workers = [*WORKERS, "dagster-e2e-worker-3"]
    cloud.write()
    cloud.forget_calls()
    cloud.play("playbooks/provision.yml", "--limit", "dagster-e2e-worker-3").ok()
    assert [each for each in cloud.writes() if not each.endswith(".wait")] == ["compute.instances.insert"]
    assert cloud.thing("instances", "dagster-e2e-worker-3") is not None


def test_one_worker_is_destroyed_alone(cloud: Cloud) -> None:
    name = "dagster-e2e-worker-3"
    played = cloud.play("playbooks/destroy.yml", "--limit", name, gce_destroy="e2e").ok()
    assert f"{name}-data" not in played.output
    assert cloud.thing("instances", name) is None
    assert cloud.thing("instances", WORKERS[0]) is not None
    assert cloud.thing("networks", "dagster-network-e2e") is not None
    cloud.workers = WORKERS
    cloud.write()


def test_everything_is_destroyed_together(cloud: Cloud) -> None:
    cloud.play("playbooks/destroy.yml", gce_destroy="e2e").ok()
    for name in [cloud.host, *WORKERS]:
        assert cloud.thing("instances", name) is None
    assert cloud.thing("firewalls", RULE) is None
    assert cloud.thing("networks", "dagster-network-e2e") is None
