"""provision.yml, reach.yml and destroy.yml against the lab's Google, without machines.

With machines: tests/e2e/test_provision_machine.py.
"""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.google import Google
from tests.e2e.cloud import Cloud
from tests.e2e.harness import ROOT

PLAYBOOK = "playbooks/provision.yml"
# The same without project and network, which take two thirds of its time, where a test is about the machine.
MACHINE = (PLAYBOOK, "--start-at-task", "dataops.dagster_gce.gce_instance : Disk | schedule of snapshots")
DESTROY = "playbooks/destroy.yml"


@pytest.fixture(scope="module")
def server() -> Iterator[Google]:
    google = Google().start()
    yield google
    google.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one inventory's folder: the SSH files hold its name."""
    return tmp_path_factory.mktemp("inventory")


@pytest.fixture
def cloud(server: Google, folder: Path) -> Iterator[Cloud]:
    """A project in which nobody has enabled anything."""
    server.reset()
    server.seed_project("example-e2e", services=[])
    shutil.rmtree(folder)
    yield Cloud(server, folder)
    assert server.violations == []


class Kept:
    """What a first run of provision.yml leaves: Google's state, and the SSH files."""

    state: Any = None
    files: Path


@pytest.fixture
def made(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Cloud:
    """A project in which provision.yml has run. It runs once; each test gets what it has made."""
    if Kept.state is None:
        cloud.play(PLAYBOOK).ok()
        Kept.state = cloud.google.state.copy()
        Kept.files = tmp_path_factory.mktemp("kept") / ".ssh"
        shutil.copytree(cloud.folder / ".ssh", Kept.files)
    cloud.google.state.restore(Kept.state)
    shutil.copytree(Kept.files, cloud.folder / ".ssh", dirs_exist_ok=True)
    cloud.forget_calls()
    return cloud


@pytest.fixture
def network(made: Cloud) -> Cloud:
    """A project in which all is made but the machine and its disk."""
    for kind in ("instances", "disks"):
        for key in [key for key in made.google.state.things if f"/{kind}/" in key]:
            made.google.state.delete(key)
    made.google.state.note("guest attributes").clear()
    return made


def test_an_empty_project_can_be_looked_at(cloud: Cloud) -> None:
    looked = cloud.play("site.yml", "--check", "--diff").ok()
    assert looked.changed >= cloud.first_changes
    assert "dagster-e2e does not run yet, so nothing can be said about what would be done on it" in looked.flat
    assert cloud.writes() == []
    assert not (cloud.folder / ".ssh").exists()


def test_from_nothing_to_a_machine_and_nothing_the_second_time(cloud: Cloud) -> None:
    first = cloud.play(PLAYBOOK).ok()
    assert first.changed >= cloud.first_changes
    instance = cloud.instance
    assert instance["status"] == "RUNNING"
    assert instance["deletionProtection"] is True
    assert "accessConfigs" not in instance["networkInterfaces"][0]
    assert instance["shieldedInstanceConfig"]["enableSecureBoot"] is True
    data = next(disk for disk in instance["disks"] if disk["deviceName"] == "dagster-data")
    assert data["autoDelete"] is False
    rule = cloud.thing("firewalls", "dagster-iap-ssh-e2e") or {}
    assert (rule["sourceRanges"], rule["allowed"]) == (["35.235.240.0/20"], [{"IPProtocol": "tcp", "ports": ["22"]}])
    disk = cloud.thing("disks", "dagster-e2e-data") or {}
    assert [policy.rsplit("/", 1)[1] for policy in disk["resourcePolicies"]] == ["dagster-snapshots-e2e"]

    cloud.forget_calls()
    second = cloud.play(PLAYBOOK, "--diff").ok()
    assert second.changed == 0
    assert cloud.writes() == []
    assert cloud.read_twice() == []
    looked = cloud.play(PLAYBOOK, "--check", "--diff").ok()
    assert looked.changed == 0


def test_the_ssh_files_name_the_machine_by_its_id(made: Cloud) -> None:
    config, known = ((made.folder / ".ssh" / name).read_text() for name in ("ssh_config", "known_hosts"))
    alias = f"gce-{made.instance['id']}"
    assert f"HostKeyAlias {alias}" in config
    assert "StrictHostKeyChecking yes" in config
    assert all(line.startswith(alias) for line in known.splitlines() if not line.startswith("#"))
    # In Google's metadata stands the public half of the key that the files name.
    keys = next(item["value"] for item in made.instance["metadata"]["items"] if item["key"] == "ssh-keys")
    assert keys == "ansible:" + (made.folder / ".ssh/id_ed25519.pub").read_text().strip()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (
            {"gce_ssh_via": "iap"},
            "ProxyCommand gcloud compute start-iap-tunnel dagster-e2e %p --listen-on-stdin --project={project} "
            "--zone={zone}",
        ),
        (
            {"gce_ssh_via": "bastion", "gce_instance_bastion": "ada@bastion.example.com"},
            "ProxyJump ada@bastion.example.com",
        ),
        ({"gce_ssh_via": "internal", "gce_instance_ssh_user": "ada"}, "User ada"),
    ],
)
def test_ways_to_the_machine(variables: dict[str, Any], expected: str, made: Cloud) -> None:
    played = made.play("playbooks/reach.yml", **variables).ok()
    assert played.changed == 1
    config = (made.folder / ".ssh/ssh_config").read_text()
    assert expected.format(project=made.project, zone=made.zone) in config
    done = subprocess.run(
        ["ssh", "-F", str(made.folder / ".ssh/ssh_config"), "-G", made.host],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert made.play("playbooks/reach.yml", **variables).ok().changed == 0
    assert made.writes() == []


def test_a_way_that_does_not_lead_there(made: Cloud) -> None:
    made.play("playbooks/reach.yml", gce_ssh_via="external").refused(
        "dagster-e2e has no external address, which gce_ssh_via=external needs"
    )


def fingerprint(found: dict[str, Any]) -> dict[str, Any]:
    return {"fingerprint": found["fingerprint"]}


def drift(cloud: Cloud) -> None:
    """What somebody else does in the console to everything that can be changed while the machine runs."""
    instance = cloud.instance
    items = [item for item in instance["metadata"]["items"] if item["key"] != "block-project-ssh-keys"]
    cloud.behind_our_back("compute.instances.setMetadata", {**fingerprint(instance["metadata"]), "items": items})
    cloud.behind_our_back("compute.instances.setTags", {**fingerprint(instance["tags"]), "items": ["http-server"]})
    labels = {"labelFingerprint": instance["labelFingerprint"], "labels": {"managed-by": "dataops-dagster-gce"}}
    cloud.behind_our_back("compute.instances.setLabels", labels)
    cloud.behind_our_back("compute.instances.setDeletionProtection", deletionProtection="false")
    policy = (cloud.thing("disks", "dagster-e2e-data") or {})["resourcePolicies"]
    cloud.behind_our_back("compute.disks.removeResourcePolicies", {"resourcePolicies": policy}, disk="dagster-e2e-data")
    open_rule = {"name": "dagster-iap-ssh-e2e", "sourceRanges": ["0.0.0.0/0"]}
    cloud.behind_our_back("compute.firewalls.patch", open_rule, firewall="dagster-iap-ssh-e2e")


def test_what_somebody_else_changed_is_shown_and_set_right(made: Cloud) -> None:
    before = copy.deepcopy(made.instance)
    drift(made)
    made.forget_calls()
    shown = made.play(PLAYBOOK, "--check", "--diff").ok()
    assert made.writes() == []
    differences = [line.strip() for line in shown.output.splitlines() if re.match(r"\s*[-+] ", line)]
    for sign, words in (
        ("+", "block-project-ssh-keys"),
        ("-", "- http-server"),
        ("+", "dagster-environment: e2e"),
        ("-", "deletion_protection: false"),
        ("-", "- 0.0.0.0/0"),
        ("+", "resourcePolicies/dagster-snapshots-e2e"),
    ):
        assert any(line[0] == sign and words in line for line in differences), f"{sign} {words}\n{shown.output}"

    repaired = made.play(PLAYBOOK, "--diff").ok()
    assert repaired.changed == shown.changed == 3
    after = made.instance
    for key in ("labels", "deletionProtection", "machineType", "id"):
        assert after[key] == before[key], key
    assert after["tags"]["items"] == before["tags"]["items"]
    assert sorted(item["key"] for item in after["metadata"]["items"]) == sorted(
        item["key"] for item in before["metadata"]["items"]
    )
    assert made.play(PLAYBOOK, "--diff").ok().changed == 0


def test_what_needs_a_stop_is_refused_or_done_with_the_word(made: Cloud) -> None:
    name = made.instance["id"]
    machine_type = {"gce_instance_machine_type": "e2-standard-4"}
    refused = made.play(*MACHINE, **machine_type).refused(
        "machine_type", "e2-standard-2", "e2-standard-4", "allow_stop"
    )
    assert "failed=1" in refused.output
    assert made.writes() == []
    shown = made.play(*MACHINE, "--check", "--diff", gce_instance_allow_stop=True, **machine_type).ok()
    assert shown.changed == 1
    assert made.writes() == []
    made.play(*MACHINE, gce_instance_allow_stop=True, **machine_type).ok()
    assert made.instance["machineType"].endswith("/e2-standard-4")
    assert (made.instance["status"], made.instance["id"]) == ("RUNNING", name)
    assert made.play(*MACHINE, **machine_type).ok().changed == 0


def test_another_service_account_is_refused_or_set_right_with_the_word(made: Cloud) -> None:
    made.behind_our_back("compute.instances.stop")
    made.behind_our_back("compute.instances.setServiceAccount", {"email": "", "scopes": []})
    made.behind_our_back("compute.instances.start")
    made.forget_calls()
    made.play(*MACHINE).refused("service_account", "dagster-vm-e2e@example-e2e.iam.gserviceaccount.com", "allow_stop")
    assert made.writes() == []
    made.play(*MACHINE, gce_instance_allow_stop=True).ok()
    assert made.instance["serviceAccounts"][0]["email"] == "dagster-vm-e2e@example-e2e.iam.gserviceaccount.com"
    assert made.play(*MACHINE).ok().changed == 0


def test_disks_grow_and_never_shrink(made: Cloud) -> None:
    grown = made.play(*MACHINE, gce_instance_data_disk_gb=80).ok()
    assert grown.changed == 1
    assert (made.thing("disks", "dagster-e2e-data") or {})["sizeGb"] == "80"
    made.play(*MACHINE).refused("size_gb", "80", "50")
    assert (made.thing("disks", "dagster-e2e-data") or {})["sizeGb"] == "80"


def test_a_stopped_machine_is_started(made: Cloud) -> None:
    made.behind_our_back("compute.instances.stop")
    assert made.instance["status"] == "TERMINATED"
    assert made.play(*MACHINE).ok().changed == 1
    assert made.instance["status"] == "RUNNING"


def test_an_external_address_comes_and_goes(made: Cloud) -> None:
    static = {"gce_instance_external_address": "static", "gce_ssh_via": "external"}
    assert made.play(*MACHINE, "--check", **static).ok().changed == 3
    made.play(*MACHINE, **static).ok()
    address = (made.thing("addresses", "dagster-e2e-address") or {})["address"]
    assert made.instance["networkInterfaces"][0]["accessConfigs"][0]["natIP"] == address
    assert f"HostName {address}" in (made.folder / ".ssh/ssh_config").read_text()
    assert made.play(*MACHINE, **static).ok().changed == 0
    made.play(*MACHINE).ok()
    assert "accessConfigs" not in made.instance["networkInterfaces"][0]
    assert made.thing("addresses", "dagster-e2e-address"), "a reserved address is never given back by itself"


def test_everything_that_can_be_asked_for_at_once(cloud: Cloud) -> None:
    """Two machines, and each option that the defaults leave out."""
    other = "dagster-e2e-2"
    cloud.hosts.append(other)
    cloud.write(
        gce_instance_login="oslogin",
        gce_instance_oslogin_user="owner@example.com",
        gce_project_operators=["user:ada@example.com", "group:team@example.com"],
        gce_project_repository_immutable_tags=True,
        gce_project_repository_keep=0,
        gce_network_nat=False,
        gce_network_flow_logs=True,
        gce_network_firewall_rules=[
            {"name": "dagster-health-e2e", "source_ranges": ["35.191.0.0/16"], "allowed": [{"protocol": "tcp"}]}
        ],
        gce_instance_spot=True,
        gce_instance_snapshot_days=7,
        gce_instance_labels={"team": "data"},
        gce_instance_metadata={"startup-script": "#!/bin/sh\ntrue\n"},
    )
    looked = cloud.play(PLAYBOOK, "--check", "--diff").ok()
    cloud.play(PLAYBOOK).ok()
    cloud.forget_calls()
    again = cloud.play(PLAYBOOK, "--diff").ok()
    assert again.changed == 0, again.output
    assert looked.changed > 0
    # What belongs to the environment is asked for once, whatever the number of machines.
    assert cloud.reads()[("compute.networks.get", f"/compute/v1/{cloud.path('networks', 'dagster-network-e2e')}")] == 1
    assert cloud.google.calls.count("compute.resourcePolicies.get") == 1
    assert cloud.google.calls.count("compute.instances.get") == 2

    assert cloud.thing("routers", "dagster-router-e2e") is None
    assert cloud.thing("firewalls", "dagster-health-e2e")
    items = {item["key"]: item["value"] for item in cloud.instance["metadata"]["items"]}
    assert (items["enable-oslogin"], items["startup-script"]) == ("TRUE", "#!/bin/sh\ntrue\n")
    assert "ssh-keys" not in items
    assert cloud.instance["scheduling"]["provisioningModel"] == "SPOT"
    policy = str(
        cloud.google.call(
            "cloudresourcemanager.v3.projects.getIamPolicy", {"resource": f"projects/{cloud.project}"}, {}
        )
    )
    assert policy.count("group:team@example.com") == 2
    config = (cloud.folder / ".ssh/ssh_config").read_text()
    hosts = sorted(line for line in config.splitlines() if line.startswith("Host "))
    assert hosts == [f"Host {cloud.host}", f"Host {other}"]
    assert config.count("  User owner_example_com") == 2

    # One of the two goes; the environment's things are the other one's, too.
    cloud.play(DESTROY, "--limit", other, gce_destroy="e2e").refused("dagster-network-e2e")
    assert cloud.thing("instances", other) is None
    assert cloud.thing("resourcePolicies", "dagster-snapshots-e2e")
    assert cloud.instance["status"] == "RUNNING"
    cloud.hosts.remove(other)


def test_nothing_is_destroyed_without_the_word(made: Cloud) -> None:
    asked = made.play(DESTROY).refused(
        "deletes: machine dagster-e2e (RUNNING)",
        "keeps: data disk dagster-e2e-data",
        "-e gce_destroy=e2e does what stands above",
    )
    assert "deletes: network dagster-network-e2e" in asked.flat
    made.play(DESTROY, gce_destroy="prod").refused("gce_destroy: found 'prod'; expected one of e2e")
    made.play(DESTROY, gce_destroy="e2e", gce_destroy_data="dagster-e2e").refused(
        "found dagster-e2e; expected names of dagster-e2e-data, dagster-e2e-address. Nothing was changed."
    )
    made.play(DESTROY, gce_destroy="e2e", gce_destroy_repository="dagster-core").refused(
        "expected one of dagster-core-e2e"
    )
    assert made.play(DESTROY, "--check", "--diff", gce_destroy="e2e").ok().changed >= 7
    assert made.writes() == []


def test_what_is_destroyed_leaves_the_data_and_a_snapshot(made: Cloud) -> None:
    disk = (made.thing("disks", "dagster-e2e-data") or {})["id"]
    # The network fails in the middle: the machine is gone by then. The next run goes on from there.
    made.google.fail("compute.subnetworks.delete", 403, "forbidden", "Required 'compute.subnetworks.delete' permission")
    made.play(DESTROY, gce_destroy="e2e").refused("compute.subnetworks.delete")
    assert made.thing("instances", made.host) is None
    again = made.play(DESTROY, gce_destroy="e2e").ok()
    assert again.changed == 2, "subnetwork and network"
    assert made.play(DESTROY, gce_destroy="e2e").ok().changed == 0

    left = {key.split("/", 1)[1] for key in made.google.state.copy()[0] if "/operations/" not in key}
    snapshots = [name.rsplit("/", 1)[1] for name in left if "/snapshots/" in name]
    assert len(snapshots) == 1
    assert snapshots[0].startswith("dagster-e2e-data-last-")
    assert made.path("disks", "dagster-e2e-data") in left
    assert not {name for name in left if any(kind in name for kind in ("/networks/", "/routers/", "/firewalls/"))}
    assert made.host not in (made.folder / ".ssh/ssh_config").read_text()
    calls = [call for call in made.writes() if call in ("compute.instances.stop", "compute.snapshots.insert")]
    assert calls == ["compute.instances.stop", "compute.snapshots.insert"], "the snapshot is of a machine at rest"

    # Back again: another machine, the same disk.
    made.play(PLAYBOOK).ok()
    data = next(entry for entry in made.instance["disks"] if entry["deviceName"] == "dagster-data")
    assert data["source"].endswith("/disks/dagster-e2e-data")
    assert (made.thing("disks", "dagster-e2e-data") or {})["id"] == disk


def test_data_images_and_identity_go_only_when_they_are_named(made: Cloud) -> None:
    words = {
        "gce_destroy_data": "dagster-e2e-data",
        "gce_destroy_repository": "dagster-core-e2e",
        "gce_destroy_service_account": "dagster-vm-e2e",
        "gce_destroy_snapshot": False,
    }
    assert "WITH ALL DATA" in made.play(DESTROY, **words).refused("takes NO last snapshot").output
    made.play(DESTROY, gce_destroy="e2e", **words).ok()
    left = [key for key in made.google.state.copy()[0] if "/operations/" not in key]
    assert left == []
    policy = made.google.call(
        "cloudresourcemanager.v3.projects.getIamPolicy", {"resource": f"projects/{made.project}"}, {}
    )
    assert "dagster-vm-e2e" not in str(policy)


# Faults. Each is one error; what was not made is not there, and the next run goes on.


def test_a_project_that_does_not_exist(cloud: Cloud) -> None:
    cloud.play(PLAYBOOK, gcp_project="example-typo").refused("example-typo", "gcloud projects")
    assert not [call for call in cloud.writes() if "insert" in call]


def test_a_missing_permission_names_the_role_and_the_command(network: Cloud) -> None:
    network.google.revoke("compute.instances.create")
    network.play(*MACHINE).refused(
        "compute.instances.create", "gcloud projects add-iam-policy-binding example-e2e", "--role=roles/"
    )
    assert network.thing("instances", network.host) is None
    network.google.grant("compute.instances.create")
    assert network.play(*MACHINE).ok().changed <= 3


def test_an_organisation_that_forbids_external_addresses(network: Cloud) -> None:
    network.google.forbid("compute.vmExternalIpAccess", network.project)
    network.play(*MACHINE, gce_instance_external_address="ephemeral").refused("compute.vmExternalIpAccess")
    assert network.thing("instances", network.host) is None
    network.play(*MACHINE).ok()


def test_a_quota(network: Cloud) -> None:
    network.google.fail("compute.instances.insert", reason="QUOTA_EXCEEDED", message="Quota 'CPUS' exceeded. Limit: 8.0 in region europe-west3.", kind="operation")  # fmt: skip  # noqa: E501
    network.play(*MACHINE).refused("QUOTA_EXCEEDED", "Quota 'CPUS' exceeded")
    assert network.thing("instances", network.host) is None
    network.play(*MACHINE).ok()


def test_a_zone_without_the_machine_type(network: Cloud) -> None:
    network.play(*MACHINE, gce_instance_machine_type="a9-ultragpu-8g").refused("a9-ultragpu-8g", network.zone)
    assert network.thing("instances", network.host) is None


def test_ranges_that_overlap(made: Cloud) -> None:
    made.google.call(
        "compute.subnetworks.insert",
        {"project": made.project, "region": "europe-west3"},
        {
            "name": "other",
            "ipCidrRange": "10.30.0.0/16",
            "network": f"projects/{made.project}/global/networks/dagster-network-e2e",
        },
    )
    made.play(PLAYBOOK, gce_network_subnetwork="another", gce_network_cidr="10.30.1.0/24").refused("10.30.1.0/24")


def test_a_machine_that_somebody_else_made(made: Cloud) -> None:
    labels = {"labelFingerprint": made.instance["labelFingerprint"], "labels": {"team": "other"}}
    made.behind_our_back("compute.instances.setLabels", labels)
    made.forget_calls()
    made.play(*MACHINE).refused("instance dagster-e2e", "managed-by", "adopt")
    made.play(DESTROY, gce_destroy="e2e").refused("instance dagster-e2e", "managed-by")
    assert made.writes() == []
    made.play(*MACHINE, gce_instance_adopt=True).ok()
    assert made.instance["labels"]["managed-by"] == "dataops-dagster-gce"
    assert made.instance["labels"]["team"] == "other"


def test_a_key_that_is_not_valid_any_more(cloud: Cloud, tmp_path: Path) -> None:
    cloud.play(PLAYBOOK, gce_auth={"auth_kind": "accesstoken", "access_token": "ya29.expired"}).refused("access_token")
    missing = str(tmp_path / "key.json")
    cloud.play(PLAYBOOK, gce_auth={"auth_kind": "serviceaccount", "service_account_file": missing}).refused(missing)
    assert cloud.writes() == []


def test_a_machine_that_never_boots(network: Cloud) -> None:
    network.google.state.note("machines")["boot"] = "never"
    network.play(*MACHINE, gce_instance_ready_timeout=10).refused("You are in emergency mode")
    network.google.state.note("machines").clear()
    network.behind_our_back("compute.instances.reset")
    network.play(*MACHINE).ok()


def test_a_connection_that_breaks_in_the_middle_of_an_insert(network: Cloud) -> None:
    network.google.fail("compute.instances.insert", kind="after")
    network.google.fail("compute.disks.insert", kind="after")
    network.play(*MACHINE).ok()
    assert network.play(*MACHINE).ok().changed == 0


def test_two_operators_at_once(cloud: Cloud) -> None:
    other = Cloud(cloud.google, cloud.folder / "other", cloud.host, cloud.project)
    # One key: two checkouts with a key each would undo each other's by the rules of gce_instance_login: keys.
    other.write(gce_ssh_dir=cloud.variables["gce_ssh_dir"])
    first = subprocess.Popen(
        cloud.command(PLAYBOOK),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    second = other.play(PLAYBOOK)
    output, _ = first.communicate()
    assert first.returncode == 0, output[-4000:]
    second.ok()
    assert cloud.play(PLAYBOOK).ok().changed == 0
