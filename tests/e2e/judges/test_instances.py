"""Clients that are not ours, at the same stand-in: they see what we made, and we see what they changed.

gcloud (where it is on PATH), Google's own Python library, and the inventory plugin of the collection google.cloud.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.dataops.dagster_gce.plugins.modules import (
    gce_disk,
    gce_instance,
    gce_snapshot_schedule,
)
from lab.google import Google
from tests.unit.google import google, google_server  # noqa: F401 - fixtures
from tests.unit.plugins.conftest import RunModule, run_module  # noqa: F401 - fixture
from tests.unit.plugins.modules.google_machines import INSTANCE, NAME, machine, stored, surroundings  # noqa: F401 - fixtures
from tests.unit.plugins.modules.google_modules import OURS, PROJECT, REGION, ZONAL, ZONE, Task

IN_ZONE = f"--zone={ZONE}"


class Gcloud:
    """gcloud with a configuration of its own."""

    def __init__(self, server: Google, folder: Path) -> None:
        token = folder / "token"
        token.write_text(server.token(), encoding="utf-8")
        self.environment = {
            **os.environ,
            **server.environment(),
            "CLOUDSDK_CONFIG": str(folder / "gcloud"),
            "CLOUDSDK_CORE_PROJECT": PROJECT,
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
            "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(token),
        }

    def __call__(self, *words: str) -> Any:
        """A command of `gcloud compute`; returns what it printed."""
        command = ["gcloud", "compute", *words, "--format=json"]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else None


@pytest.fixture
def gcloud(google: Google, tmp_path: Path) -> Gcloud:  # noqa: F811 - the fixture
    if shutil.which("gcloud") is None:
        pytest.skip("gcloud is not on PATH")
    return Gcloud(google, tmp_path)


def test_gcloud_sees_what_we_made_and_we_repair_what_it_changed(
    machine: Task,  # noqa: F811 - the fixture
    gcloud: Gcloud,
    google: Google,  # noqa: F811 - the fixture
) -> None:
    wanted: dict[str, Any] = {
        "metadata": {"enable-oslogin": True},
        "tags": ["dagster"],
        "labels": {"dagster-environment": "prod"},
        "deletion_protection": True,
        "scheduling": {"automatic_restart": True},
    }
    machine.run(**wanted)
    seen = gcloud("instances", "describe", NAME, IN_ZONE)
    assert seen["labels"] == {"dagster-environment": "prod", **OURS}
    assert [found["name"] for found in gcloud("instances", "list", "--filter=labels.dagster-environment=prod")] == [
        NAME
    ]

    gcloud("instances", "add-metadata", NAME, IN_ZONE, "--metadata=enable-oslogin=FALSE,theirs=x")
    gcloud("instances", "add-tags", NAME, IN_ZONE, "--tags=open")
    gcloud("instances", "update", NAME, IN_ZONE, "--update-labels=dagster-environment=dev", "--no-deletion-protection")
    gcloud("instances", "set-scheduling", NAME, IN_ZONE, "--no-restart-on-failure")
    result = machine.changes(**wanted)
    assert set(result["changes"]) == {"metadata", "tags", "labels", "deletion_protection", "scheduling"}
    assert {item["key"] for item in stored(google)["metadata"]["items"]} == {"enable-oslogin", "theirs"}

    gcloud("instances", "stop", NAME, IN_ZONE)
    gcloud("instances", "set-machine-type", NAME, IN_ZONE, "--machine-type=e2-micro")
    gcloud("instances", "start", NAME, IN_ZONE)
    assert "machine_type: found 'e2-micro'" in machine.refused(**wanted)
    machine.changes(allow_stop=True, **wanted)


def test_disks_and_schedules_that_gcloud_changed(
    gcloud: Gcloud,
    google: Google,  # noqa: F811 - the fixture
    run_module: RunModule,  # noqa: F811 - the fixture
) -> None:
    schedule = Task(
        run_module,
        gce_snapshot_schedule.main,
        google,
        region=REGION,
        name="nightly",
        schedule={"frequency": "daily"},
        retention_days=14,
    )
    disk = Task(run_module, gce_disk.main, google, zone=ZONE, name="data", size_gb=50, resource_policies=["nightly"])
    schedule.run()
    disk.run()
    gcloud(
        "resource-policies", "update", "snapshot-schedule", "nightly", f"--region={REGION}", "--max-retention-days=3"
    )
    gcloud("disks", "remove-resource-policies", "data", IN_ZONE, "--resource-policies=nightly")
    gcloud("disks", "resize", "data", IN_ZONE, "--size=60")
    schedule.changes()
    assert "size_gb: disk data has 60, asked for 50" in disk.refused()
    disk.changes(size_gb=60)
    assert gcloud("disks", "describe", "data", IN_ZONE)["resourcePolicies"]


def test_a_machine_that_gcloud_made_is_adopted_as_it_is(
    surroundings: Google,  # noqa: F811 - the fixture
    gcloud: Gcloud,
    run_module: RunModule,  # noqa: F811 - the fixture
) -> None:
    gcloud(
        "instances",
        "create",
        NAME,
        IN_ZONE,
        "--machine-type=e2-small",
        "--image-family=debian-13",
        "--image-project=debian-cloud",
        "--subnet=sub",
        "--no-address",
    )
    task = Task(run_module, gce_instance.main, surroundings, zone=ZONE, name=NAME, machine_type="e2-small")
    assert "somebody else made it" in task.refused()
    assert task.changes(adopt=True)["changes"] == ["labels"]


def test_googles_own_library_sees_the_machine(
    machine: Task,  # noqa: F811 - the fixture
    google: Google,  # noqa: F811 - the fixture
) -> None:
    compute_v1 = pytest.importorskip("google.cloud.compute_v1")
    machine.run(labels={"dagster-environment": "prod"})
    found = compute_v1.InstancesClient().get(project=PROJECT, zone=ZONE, instance=NAME)
    assert dict(found.labels) == {"dagster-environment": "prod", **OURS}
    assert found.status == "RUNNING"
    assert found.self_link.endswith(INSTANCE)
    assert {disk.source.rsplit("/", 1)[1] for disk in found.disks} == {NAME}


def test_the_inventory_plugin_of_google_cloud_finds_the_machine_by_its_label(
    machine: Task,  # noqa: F811 - the fixture
    google: Google,  # noqa: F811 - the fixture
    tmp_path: Path,
) -> None:
    made = machine.run(labels={"dagster-environment": "prod"})
    source = tmp_path / "hosts.gcp.yml"
    settings = {
        "plugin": "google.cloud.gcp_compute",
        "projects": [PROJECT],
        "auth_kind": "application",
        "filters": ["labels.dagster-environment = prod"],
        "hostnames": ["name"],
    }
    source.write_text(yaml.safe_dump(settings), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        ["ansible-inventory", "-i", str(source), "--list"],
        env={**environment, "ANSIBLE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    if "google.cloud.gcp_compute" in done.stderr and "unknown" in done.stderr:
        pytest.skip("the collection google.cloud is not installed")
    hosts = json.loads(done.stdout)["_meta"]["hostvars"]
    assert list(hosts) == [NAME], done.stderr
    assert made["internal_address"] in json.dumps(hosts[NAME])
    assert f"{ZONAL}/" in json.dumps(hosts[NAME])
