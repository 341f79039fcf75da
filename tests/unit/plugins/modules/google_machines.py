"""Fixtures for tests that need a machine on the stand-in: a network, a service account, a data disk."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import gce_disk, gce_instance
from lab.google import Google
from tests.unit.plugins.modules.google_modules import PROJECT, REGION, ZONAL, ZONE, Json, Run, Task

NAME = "dagster-prod"
INSTANCE = f"{ZONAL}/instances/{NAME}"
ROBOT = f"dagster-vm-prod@{PROJECT}.iam.gserviceaccount.com"
OTHER_ROBOT = f"other@{PROJECT}.iam.gserviceaccount.com"


@pytest.fixture
def surroundings(google: Google, run_module: Run) -> Google:
    """A project in which a machine can be made."""
    google.call("compute.networks.insert", {"project": PROJECT}, {"name": "net", "autoCreateSubnetworks": False})
    google.call(
        "compute.subnetworks.insert",
        {"project": PROJECT, "region": REGION},
        {"name": "sub", "network": f"projects/{PROJECT}/global/networks/net", "ipCidrRange": "10.128.0.0/20"},
    )
    for email in (ROBOT, OTHER_ROBOT):
        google.service_account_key(email)
    disk = Task(run_module, gce_disk.main, google, zone=ZONE, size_gb=50, type="pd-balanced")
    for name in ("data", "other"):
        disk.run(name=name)
    google.calls.clear()
    return google


@pytest.fixture
def machine(surroundings: Google, run_module: Run) -> Task:
    """The module, with what a machine needs."""
    return Task(
        run_module,
        gce_instance.main,
        surroundings,
        zone=ZONE,
        name=NAME,
        machine_type="e2-standard-2",
        boot_disk={"image": "debian-cloud/debian-13", "size_gb": 20, "type": "pd-balanced"},
        network_interface={"subnetwork": "sub"},
    )


def stored(google: Google) -> Json:
    """The machine as the stand-in has it."""
    found = google.thing(INSTANCE)
    assert found is not None
    return found


def behind(google: Google, method: str, body: Any = None, **query: str) -> None:
    """A change behind our back."""
    name = "resource" if method == "setDeletionProtection" else "instance"
    google.call(f"compute.instances.{method}", {"project": PROJECT, "zone": ZONE, name: NAME, **query}, body)
