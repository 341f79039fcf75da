"""The collection google.cloud and the library google-cloud-compute, which know nothing of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import gce_network
from tests.e2e.cloud import Cloud
from tests.e2e.harness import ROOT, Played
from tests.unit.plugins.conftest import RunModule

LINK = "https://www.googleapis.com/compute/v1/projects/example-e2e"
NETWORK = {"selfLink": f"{LINK}/global/networks/dagster-network-e2e"}
SUBNETWORK = {"selfLink": f"{LINK}/regions/europe-west3/subnetworks/dagster-subnetwork-e2e"}
DATA = {"selfLink": f"{LINK}/zones/europe-west3-c/disks/dagster-e2e-data"}
BOOT = {"selfLink": f"{LINK}/zones/europe-west3-c/disks/dagster-e2e"}


def program(name: str, *arguments: str) -> str:
    """What one of Ansible's programs prints; an inventory that cannot be read is an error."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name(name)), *arguments], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true", "ANSIBLE_FORCE_COLOR": "0"},
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def inventory(source: Path) -> Any:
    """What ansible-inventory lists. Text from Google is no template, which it marks."""
    listed = program("ansible-inventory", "-i", str(source), "--list")
    return json.loads(listed, object_hook=lambda value: value.get("__ansible_unsafe", value))


def test_the_inventory_of_google_cloud_sees_our_machine_by_its_labels(cloud: Cloud, tmp_path: Path) -> None:
    source = tmp_path / "hosts.gcp_compute.yml"
    settings: dict[str, Any] = {
        "plugin": "google.cloud.gcp_compute",
        "projects": [cloud.project],
        "auth_kind": "application",
        "hostnames": ["name"],
        "filters": ["labels.managed-by = dataops-dagster-gce", "labels.dagster-environment = e2e"],
        "keyed_groups": [{"key": "labels['dagster-environment']", "prefix": "dagster"}],
        "compose": {"ansible_host": "networkInterfaces[0].networkIP"},
    }
    source.write_text(json.dumps(settings))
    listed = inventory(source)
    assert listed["dagster_e2e"]["hosts"] == [cloud.host]
    host = listed["_meta"]["hostvars"][cloud.host]
    assert host["ansible_host"] == cloud.instance["networkInterfaces"][0]["networkIP"]
    assert host["status"] == "RUNNING"
    settings["filters"] = ["labels.dagster-environment = prod"]
    source.write_text(json.dumps(settings))
    assert cloud.host not in inventory(source)["_meta"]["hostvars"]


def test_the_modules_of_google_cloud_find_ours_as_it_should_be(cloud: Cloud, tmp_path: Path) -> None:
    shared = {"project": cloud.project, "auth_kind": "application"}
    tasks: dict[str, dict[str, Any]] = {
        "gcp_compute_network": {"name": "dagster-network-e2e", "auto_create_subnetworks": False},
        "gcp_compute_subnetwork": {
            "name": "dagster-subnetwork-e2e",
            "region": "europe-west3",
            "network": NETWORK,
            "ip_cidr_range": "10.20.0.0/24",
            "private_ip_google_access": True,
        },
        "gcp_compute_firewall": {
            "name": "dagster-iap-ssh-e2e",
            "network": NETWORK,
            "source_ranges": ["35.235.240.0/20"],
            "allowed": [{"ip_protocol": "tcp", "ports": ["22"]}],
            "target_tags": ["dagster"],
        },
        "gcp_compute_instance": {
            "name": cloud.host,
            "zone": cloud.zone,
            "machine_type": "e2-standard-2",
            "deletion_protection": True,
            "disks": [
                {"source": BOOT, "boot": True, "auto_delete": True},
                {"source": DATA, "device_name": "dagster-data", "auto_delete": False},
            ],
            "network_interfaces": [{"subnetwork": SUBNETWORK}],
            "tags": {"items": ["dagster"]},
        },
    }
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable},
        "tasks": [{f"google.cloud.{module}": {**shared, **options}} for module, options in tasks.items()],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    cloud.forget_calls()
    played = Played(0, program("ansible-playbook", "-i", "localhost,", str(tmp_path / "play.yml")), 0)
    assert "ok=4" in played.output
    assert (played.changed, cloud.writes()) == (0, []), played.output


def test_googles_library_reads_ours_and_ours_takes_over_what_it_makes(cloud: Cloud, run_module: RunModule) -> None:
    compute = pytest.importorskip("google.cloud.compute_v1")
    found = compute.InstancesClient().list(project=cloud.project, zone=cloud.zone)
    ((machine),) = list(found)
    assert (machine.name, machine.status, machine.deletion_protection) == (cloud.host, "RUNNING", True)
    assert dict(machine.labels) == cloud.instance["labels"]
    assert {item.key for item in machine.metadata.items} >= {"enable-oslogin", "ssh-keys"}
    everywhere = compute.InstancesClient().aggregated_list(project=cloud.project)
    assert [one.name for _, scope in everywhere for one in scope.instances] == [cloud.host]
    (rule,) = compute.FirewallsClient().list(project=cloud.project)
    assert (rule.name, list(rule.source_ranges)) == ("dagster-iap-ssh-e2e", ["35.235.240.0/20"])

    network = compute.Network(name="theirs", auto_create_subnetworks=False, description="by the library")
    made = compute.NetworksClient().insert(project=cloud.project, network_resource=network)
    made.result(timeout=60)
    cloud.forget_calls()
    options = {"project": cloud.project, "name": "theirs"}
    assert run_module(gce_network.main, **options)["changed"] is False
    assert cloud.writes() == []
    assert run_module(gce_network.main, **options, routing_mode="GLOBAL")["changed"] is True
    theirs = compute.NetworksClient().get(project=cloud.project, network="theirs")
    assert theirs.routing_config.routing_mode == "GLOBAL"
    with pytest.raises(Exception, match="is already being used by"):
        compute.NetworksClient().delete(project=cloud.project, network="dagster-network-e2e").result(timeout=60)
