"""The inventory plugin in a real ansible-inventory: every machine that fits, or an error."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.google import Google
from tests.unit.plugins.modules.google_modules import OURS, PROJECT, REGION, ZONE

Listing = Callable[..., "Outcome"]


def plain(value: dict[str, Any]) -> Any:
    """Text from Google is no template, which ansible-inventory marks."""
    return value.get("__ansible_unsafe", value)


class Outcome:
    """What ansible-inventory has listed, or said."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status = done.returncode
        self.errors = " ".join(done.stderr.split())
        self.listed: dict[str, Any] = json.loads(done.stdout, object_hook=plain) if done.returncode == 0 else {}

    @property
    def hosts(self) -> dict[str, Any]:
        """The variables by host."""
        found: dict[str, Any] = self.listed["_meta"]["hostvars"]
        return found

    def group(self, name: str) -> list[str]:
        """The hosts of a group."""
        return sorted(self.listed.get(name, {}).get("hosts", []))


@pytest.fixture
def listing(tmp_path: Path, ansible_environment: dict[str, str], google: Google) -> Listing:
    """Write a file for the plugin and list it."""

    def run(name: str = "hosts.gce.yml", environment: dict[str, str] | None = None, **options: Any) -> Outcome:
        settings = {"plugin": "dataops.dagster_gce.gce", "project": PROJECT, **options}
        (tmp_path / name).write_text(yaml.safe_dump(settings), encoding="utf-8")
        # An inventory that cannot be read is a warning by default: nobody should have it so.
        strict = {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true"}
        return Outcome(
            subprocess.run(
                [str(shutil.which("ansible-inventory")), "-i", str(tmp_path / name), "--list"],
                env={**os.environ, **ansible_environment, **google.environment(), **strict, **(environment or {})},
                capture_output=True,
                text=True,
                check=False,
            )
        )

    return run


@pytest.fixture
def machines(google: Google) -> Google:
    """Two machines of ours and one of somebody else."""
    google.call("compute.networks.insert", {"project": PROJECT}, {"name": "net", "autoCreateSubnetworks": False})
    network = f"projects/{PROJECT}/global/networks/net"
    google.call(
        "compute.subnetworks.insert",
        {"project": PROJECT, "region": REGION},
        {"name": "sub", "network": network, "ipCidrRange": "10.128.0.0/20"},
    )
    make(google, "dagster-prod", labels={**OURS, "dagster-environment": "prod"}, external=True)
    make(google, "dagster-dev", zone=f"{REGION}-a", labels={**OURS, "dagster-environment": "dev"})
    make(google, "theirs")
    google.calls.clear()
    return google


def make(
    google: Google, name: str, zone: str = ZONE, labels: dict[str, str] | None = None, external: bool = False
) -> None:
    interface: dict[str, Any] = {"subnetwork": f"projects/{PROJECT}/regions/{REGION}/subnetworks/sub"}
    if external:
        interface["accessConfigs"] = [{"name": "External NAT", "type": "ONE_TO_ONE_NAT"}]
    google.call(
        "compute.instances.insert",
        {"project": PROJECT, "zone": zone},
        {
            "name": name,
            "machineType": f"projects/{PROJECT}/zones/{zone}/machineTypes/e2-standard-2",
            "disks": [
                {
                    "boot": True,
                    "autoDelete": True,
                    "initializeParams": {"sourceImage": "projects/debian-cloud/global/images/family/debian-13"},
                }
            ],
            "networkInterfaces": [interface],
            "metadata": {"items": [{"key": "enable-guest-attributes", "value": "TRUE"}]},
            **({"labels": labels} if labels else {}),
        },
    )


def test_our_machines_are_hosts_with_groups_and_variables(listing: Listing, machines: Google) -> None:
    outcome = listing(
        keyed_groups=[{"key": "gce_labels['dagster-environment']", "prefix": "environment"}],
        groups={"dagster": "'dagster-environment' in gce_labels"},
        compose={"ansible_user": "'ansible'"},
        host_keys=True,
    )
    assert sorted(outcome.hosts) == ["dagster-dev", "dagster-prod"]
    assert outcome.group("dagster") == ["dagster-dev", "dagster-prod"]
    assert outcome.group("environment_prod") == ["dagster-prod"]
    host = outcome.hosts["dagster-prod"]
    assert host["ansible_host"] == host["gce_internal_address"]
    assert host["ansible_host"].startswith("10.128.")
    assert host["ansible_user"] == "ansible"
    assert (host["gce_zone"], host["gce_project"], host["gce_status"]) == (ZONE, PROJECT, "RUNNING")
    assert {key["type"] for key in host["gce_host_keys"]} >= {"ssh-ed25519"}
    assert machines.calls.count("compute.instances.aggregatedList") == 1
    assert machines.calls.count("compute.instances.getGuestAttributes") == 2


def test_by_label_and_by_how_they_are_reached(listing: Listing, machines: Google) -> None:
    prod = {"labels": {"dagster-environment": "prod"}}
    external = listing(ssh_via="external", **prod).hosts
    assert external["dagster-prod"]["ansible_host"].startswith("203.0.113.")
    assert listing(ssh_via="iap", **prod).hosts["dagster-prod"]["ansible_host"] == "dagster-prod"
    outcome = listing(ssh_via="external")
    assert outcome.status != 0
    assert "dagster-dev has no external address, which ssh_via: external needs" in outcome.errors


def test_with_a_service_accounts_key(listing: Listing, machines: Google, tmp_path: Path) -> None:
    key = machines.service_account_key(f"reader@{PROJECT}.iam.gserviceaccount.com")
    for contents in (key, json.dumps(key)):
        outcome = listing(auth_kind="serviceaccount", service_account_contents=contents)
        assert outcome.status == 0, outcome.errors
        assert sorted(outcome.hosts) == ["dagster-dev", "dagster-prod"]
        assert key["private_key"][40:80] not in json.dumps(outcome.listed)
    assert machines.requests[-1].caller == f"reader@{PROJECT}.iam.gserviceaccount.com"


def test_nothing_that_fits_is_a_warning(listing: Listing, machines: Google) -> None:
    outcome = listing(labels={"dagster-environment": "nothing"})
    assert outcome.status == 0
    assert f"no machine in project {PROJECT} has what is asked for" in outcome.errors


@pytest.mark.parametrize(
    ("fault", "options", "words"),
    [
        ("", {"project": "no-such-project"}, "spelled right (project: no-such-project)"),
        ("permission", {}, "compute.instances.list"),
        ("zone", {}, f"no answer from {REGION}-a"),
        ("", {"auth_kind": "accesstoken"}, "needs exactly one of access_token"),
        ("", {"ssh_via": "magic"}, "magic"),
    ],
)
def test_it_fails_loudly(listing: Listing, machines: Google, fault: str, options: dict[str, Any], words: str) -> None:
    if fault == "permission":
        machines.revoke("compute.instances.list")
    if fault == "zone":
        machines.state.note("unreachable")[PROJECT] = [f"zones/{REGION}-a"]
    outcome = listing(**options)
    assert outcome.status != 0
    assert words in outcome.errors
    assert "Traceback" not in outcome.errors


def test_two_machines_of_one_name_are_an_error(listing: Listing, machines: Google) -> None:
    make(machines, "dagster-prod", zone=f"{REGION}-a", labels=OURS)
    outcome = listing()
    assert f"two machines are named dagster-prod, in {REGION}-a and in {ZONE}" in outcome.errors
    assert sorted(listing(zones=[ZONE]).hosts) == ["dagster-prod"]


def test_the_cache_saves_the_calls(listing: Listing, machines: Google, tmp_path: Path) -> None:
    cached = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(tmp_path / "cache")}
    first = listing(**cached)
    assert machines.calls.count("compute.instances.aggregatedList") == 1
    second = listing(**cached)
    assert machines.calls.count("compute.instances.aggregatedList") == 1
    assert first.hosts == second.hosts


def test_other_files_are_not_its_own(listing: Listing, machines: Google) -> None:
    outcome = listing(name="hosts.yml")
    assert outcome.status != 0
    assert machines.calls == []
