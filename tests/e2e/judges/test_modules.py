"""What gcloud makes, our modules find as it is; what our modules change, gcloud tells."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import (
    gce_address,
    gce_disk,
    gce_firewall,
    gce_instance,
    gce_network,
    gce_router,
    gce_snapshot,
    gce_snapshot_schedule,
    gce_subnetwork,
    gcp_artifact_repository,
    gcp_iam_member,
    gcp_oslogin_key,
    gcp_service_account,
)
from lab.google import Google
from lab.google.server import OWNER
from tests.e2e.cloud import READS
from tests.e2e.judges.conftest import PROJECT, ZONE
from tests.e2e.judges.gcloud import Gcloud
from tests.unit.plugins.conftest import RunModule

REGION = ZONE[:-2]
ROBOT = f"robot1@{PROJECT}.iam.gserviceaccount.com"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ada@example"
OURS = "--labels=managed-by=dataops-dagster-gce"
# Stands for what Google gives out.
ADDRESS = "the address of door"
Options = dict[str, Any]

# With gcloud, in groups of what can be made at once.
MADE = (
    (
        "compute networks create net --subnet-mode=custom --bgp-routing-mode=regional",
        "iam service-accounts create robot1 --display-name=Robot",
        f"compute disks create data --size=10GB --type=pd-balanced {OURS}",
        "compute resource-policies create snapshot-schedule nightly --daily-schedule --start-time=04:00"
        " --max-retention-days=7 --on-source-disk-delete=keep-auto-snapshots"
        " --snapshot-labels=managed-by=dataops-dagster-gce",
        "compute addresses create door",
        f"artifacts repositories create images --repository-format=docker --description=Images {OURS}",
        f"compute os-login ssh-keys add --key='{KEY}' --ttl=0",
    ),
    (
        "compute networks subnets create sub --network=net --range=10.30.0.0/24 --enable-private-ip-google-access",
        "compute firewall-rules create ssh --network=net --source-ranges=35.235.240.0/20 --allow=tcp:22"
        " --target-tags=web",
        "compute routers create way-out --network=net",
        "compute disks add-resource-policies data --resource-policies=nightly",
        f"projects add-iam-policy-binding {PROJECT} --member=serviceAccount:{ROBOT} --role=roles/logging.logWriter"
        " --condition=None",
        f"iam service-accounts add-iam-policy-binding {ROBOT} --member=user:ada@example.com"
        " --role=roles/iam.serviceAccountUser",
        f"artifacts repositories add-iam-policy-binding images --member=serviceAccount:{ROBOT}"
        " --role=roles/artifactregistry.reader",
    ),
    (
        "compute routers nats create nat --router=way-out --auto-allocate-nat-external-ips --nat-all-subnet-ip-ranges",
        "compute instances create vm --machine-type=e2-small --subnet=sub --address=door --image-family=debian-13"
        f" --image-project=debian-cloud --boot-disk-size=20GB --boot-disk-type=pd-balanced {OURS}"
        f" --disk=name=data,device-name=data,auto-delete=no --service-account={ROBOT} --scopes=cloud-platform"
        " --metadata=enable-oslogin=TRUE --tags=web --shielded-secure-boot --deletion-protection",
        f"compute snapshots create before --source-disk=data --source-disk-zone={ZONE} {OURS}",
    ),
)

# The same things as our modules' options.
SAME: dict[str, tuple[Callable[[], None], Options]] = {
    "network": (gce_network.main, {"name": "net", "routing_mode": "REGIONAL", "mtu": 1460}),
    "subnetwork": (
        gce_subnetwork.main,
        {
            "name": "sub",
            "region": REGION,
            "network": "net",
            "ip_cidr_range": "10.30.0.0/24",
            "private_ip_google_access": True,
        },
    ),
    "firewall": (
        gce_firewall.main,
        {
            "name": "ssh",
            "network": "net",
            "source_ranges": ["35.235.240.0/20"],
            "allowed": [{"protocol": "tcp", "ports": ["22"]}],
            "target_tags": ["web"],
        },
    ),
    "router": (gce_router.main, {"name": "way-out", "region": REGION, "network": "net", "nats": [{"name": "nat"}]}),
    "address": (gce_address.main, {"name": "door", "region": REGION, "address_type": "EXTERNAL"}),
    "schedule": (
        gce_snapshot_schedule.main,
        {
            "name": "nightly",
            "region": REGION,
            "schedule": {"frequency": "daily", "start_time": "04:00"},
            "retention_days": 7,
        },
    ),
    "disk": (
        gce_disk.main,
        {"name": "data", "zone": ZONE, "size_gb": 10, "type": "pd-balanced", "resource_policies": ["nightly"]},
    ),
    "snapshot": (gce_snapshot.main, {"name": "before", "zone": ZONE, "disk": "data"}),
    "account": (gcp_service_account.main, {"name": "robot1", "display_name": "Robot"}),
    "project's role": (
        gcp_iam_member.main,
        {"members": [f"serviceAccount:{ROBOT}"], "roles": ["roles/logging.logWriter"]},
    ),
    "account's role": (
        gcp_iam_member.main,
        {
            "kind": "service_account",
            "name": ROBOT,
            "members": ["user:ada@example.com"],
            "roles": ["roles/iam.serviceAccountUser"],
        },
    ),
    "repository's role": (
        gcp_iam_member.main,
        {
            "kind": "repository",
            "location": REGION,
            "name": "images",
            "members": [f"serviceAccount:{ROBOT}"],
            "roles": ["roles/artifactregistry.reader"],
        },
    ),
    "repository": (gcp_artifact_repository.main, {"name": "images", "location": REGION, "description": "Images"}),
    "key": (gcp_oslogin_key.main, {"key": KEY, "user": OWNER}),
    "machine": (
        gce_instance.main,
        {
            "name": "vm",
            "zone": ZONE,
            "machine_type": "e2-small",
            "boot_disk": {"size_gb": 20, "type": "pd-balanced", "image": "debian-cloud/debian-13"},
            "disks": [{"source": "data", "device_name": "data"}],
            "network_interface": {"subnetwork": "sub", "external_address": ADDRESS},
            "service_account": {"email": ROBOT},
            "metadata": {"enable-oslogin": True},
            "tags": ["web"],
            "shielded": {"secure_boot": True, "vtpm": True, "integrity_monitoring": True},
            "deletion_protection": True,
            "scheduling": {"on_host_maintenance": "MIGRATE", "provisioning_model": "STANDARD"},
        },
    ),
}


class Ours:
    """Our modules, with what all of them share."""

    def __init__(self, google: Google, run_module: RunModule, address: str) -> None:
        self.google = google
        self.run_module = run_module
        self.address = address

    def run(self, what: str, check: bool = False, **changed: Any) -> Options:
        """Run a module with the options of SAME, some of them changed."""
        main, same = SAME[what]
        options = json.loads(json.dumps({"project": PROJECT, **same, **changed}).replace(ADDRESS, self.address))
        result = self.run_module(main, check=check, **options)
        assert not result["failed"], f"{what}: {result['msg']}"
        return result

    def writes(self) -> list[str]:
        """The calls since the last look that were no reading."""
        calls = [call for call in self.google.calls if call.rsplit(".", 1)[1] not in (*READS, "getLoginProfile")]
        self.google.calls.clear()
        return calls


@pytest.fixture(scope="module")
def made(server: Google, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Google's state after gcloud has made everything."""
    if not Gcloud.there():
        pytest.skip("gcloud is not on PATH")
    server.reset()
    server.seed_project(PROJECT)
    gcloud = Gcloud(server, tmp_path_factory.mktemp("gcloud"), PROJECT, ZONE)
    for commands in MADE:
        gcloud.together(*commands)
    assert server.violations == []
    return server.state.copy()


@pytest.fixture
def ours(led: Google, made: Any, run_module: RunModule) -> Ours:
    led.state.restore(made)
    led.calls.clear()
    door = led.thing(f"projects/{PROJECT}/regions/{REGION}/addresses/door") or {}
    return Ours(led, run_module, door["address"])


@pytest.mark.parametrize("what", SAME)
def test_what_gcloud_has_made_is_as_it_should_be(what: str, ours: Ours) -> None:
    result = ours.run(what)
    assert (result["changed"], ours.writes()) == (False, []), result["diff"]


# What a module changes, and how gcloud tells of it: a command, where to look in its answer, and what stands there.
CHANGES: dict[str, tuple[Options, str, str, Any]] = {
    "subnetwork": (
        {"ip_cidr_range": "10.30.0.0/23"},
        "compute networks subnets describe sub",
        "ipCidrRange",
        "10.30.0.0/23",
    ),
    "firewall": (
        {"source_ranges": ["10.0.0.0/8"]},
        "compute firewall-rules describe ssh",
        "sourceRanges",
        ["10.0.0.0/8"],
    ),
    "router": (
        {"nats": [{"name": "nat", "min_ports_per_vm": 128}]},
        "compute routers nats describe nat --router=way-out",
        "minPortsPerVm",
        128,
    ),
    "address": ({"labels": {"a": "b"}}, "compute addresses describe door", "labels", {"a": "b"}),
    "schedule": (
        {"retention_days": 9},
        "compute resource-policies describe nightly",
        "snapshotSchedulePolicy.retentionPolicy.maxRetentionDays",
        9,
    ),
    "disk": ({"size_gb": 12}, "compute disks describe data", "sizeGb", "12"),
    "snapshot": ({"labels": {"a": "b"}}, "compute snapshots describe before", "labels.a", "b"),
    "account": ({"display_name": "Robo"}, f"iam service-accounts describe {ROBOT}", "displayName", "Robo"),
    "repository": ({"description": "Ours"}, "artifacts repositories describe images", "description", "Ours"),
    "machine": (
        {"machine_type": "e2-medium", "allow_stop": True, "metadata": {"a": "b"}, "tags": ["web", "ssh"]},
        "compute instances describe vm",
        "tags.items",
        ["ssh", "web"],
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_gcloud_tells_what_our_modules_have_changed(what: str, ours: Ours, gcloud: Gcloud) -> None:
    options, command, where, expected = CHANGES[what]
    assert ours.run(what, **options)["changed"]
    ours.writes()
    (answer,) = gcloud.read(command)
    for name in where.split("."):
        answer = answer[name]
    assert answer == expected
    assert (ours.run(what, **options)["changed"], ours.writes()) == (False, [])


ABSENT = {
    "address": "compute addresses describe door",
    "router": "compute routers describe way-out",
    "snapshot": "compute snapshots describe before",
    "repository": "artifacts repositories describe images",
    "firewall": "compute firewall-rules describe ssh",
}


def test_what_our_modules_remove_gcloud_no_longer_finds(ours: Ours, gcloud: Gcloud) -> None:
    ours.run("machine", state="absent", lift_deletion_protection=True)
    for what in ABSENT:
        assert ours.run(what, state="absent")["changed"]
    for command in ABSENT.values():
        assert re.search("was not found|NOT_FOUND", gcloud.refused(command))
    assert [disk["name"] for disk in gcloud.read("compute disks list")[0]] == ["data"]
