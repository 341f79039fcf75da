"""What the roles make, in gcloud's words; what gcloud changes, in the roles' diff."""

from __future__ import annotations

import re

from ansible_collections.dataops.dagster_gce.plugins.modules import gce_instance_info
from tests.e2e.cloud import Cloud
from tests.e2e.judges.gcloud import Gcloud, as_gcloud_says
from tests.unit.plugins.conftest import RunModule

PLAYBOOK = "playbooks/provision.yml"
ROBOT = "dagster-vm-e2e@example-e2e.iam.gserviceaccount.com"
OURS = {"managed-by": "dataops-dagster-gce", "dagster-environment": "e2e"}


def last(link: str) -> str:
    return link.rsplit("/", 1)[1]


def test_gcloud_describes_what_the_roles_have_made(cloud: Cloud, gcloud: Gcloud, run_module: RunModule) -> None:
    network, subnetwork, (rule,), nat, schedule, disks, machine, (robot,), policy, repository, services = gcloud.read(
        "compute networks describe dagster-network-e2e",
        "compute networks subnets describe dagster-subnetwork-e2e",
        "compute firewall-rules list",
        "compute routers nats describe dagster-nat-e2e --router=dagster-router-e2e",
        "compute resource-policies describe dagster-snapshots-e2e",
        "compute disks list --filter=labels.managed-by=dataops-dagster-gce",
        "compute instances describe dagster-e2e",
        "iam service-accounts list",
        "projects get-iam-policy example-e2e",
        "artifacts repositories describe dagster-core-e2e",
        "services list --enabled",
    )
    assert network["autoCreateSubnetworks"] is False
    assert (subnetwork["ipCidrRange"], subnetwork["privateIpGoogleAccess"]) == ("10.20.0.0/24", True)
    assert last(subnetwork["network"]) == "dagster-network-e2e"
    assert (rule["name"], rule["direction"], rule["sourceRanges"]) == (
        "dagster-iap-ssh-e2e", "INGRESS", ["35.235.240.0/20"],
    )  # fmt: skip
    assert (rule["allowed"], rule["targetTags"]) == ([{"IPProtocol": "tcp", "ports": ["22"]}], ["dagster"])
    assert nat["natIpAllocateOption"] == "AUTO_ONLY"
    assert schedule["snapshotSchedulePolicy"]["schedule"]["dailySchedule"]["startTime"] == "04:00"
    sizes = {disk["name"]: (disk["sizeGb"], last(disk["type"]), disk["status"]) for disk in disks}
    assert sizes == {"dagster-e2e": ("20", "pd-balanced", "READY"), "dagster-e2e-data": ("50", "pd-balanced", "READY")}
    assert [last(policy) for disk in disks for policy in disk.get("resourcePolicies", [])] == ["dagster-snapshots-e2e"]
    assert (robot["email"], robot["displayName"]) == (ROBOT, "Dagster (e2e)")
    roles = {binding["role"] for binding in policy["bindings"] if f"serviceAccount:{ROBOT}" in binding["members"]}
    assert roles == {"roles/logging.logWriter", "roles/monitoring.metricWriter"}
    assert (repository["format"], repository["labels"]) == ("DOCKER", OURS)
    enabled = {service["config"]["name"] for service in services}
    assert {"compute.googleapis.com", "iap.googleapis.com", "artifactregistry.googleapis.com"} <= enabled

    assert (machine["status"], machine["deletionProtection"], machine["labels"]) == ("RUNNING", True, OURS)
    assert last(machine["machineType"]) == "e2-standard-2"
    assert machine["serviceAccounts"][0]["email"] == ROBOT
    # And what our module says of it is what gcloud says, to the last field.
    told = run_module(gce_instance_info.main, project=cloud.project, zone=cloud.zone, name=cloud.host)["resources"][0]
    assert as_gcloud_says(told) == machine


def test_gcloud_finds_our_machine_by_its_labels(cloud: Cloud, gcloud: Gcloud) -> None:
    ((machine,),) = gcloud.read("compute instances list --filter='labels.dagster-environment=e2e AND status=RUNNING'")
    assert machine["name"] == cloud.host
    assert gcloud.read("compute instances list --filter=labels.dagster-environment=prod") == [[]]
    table = gcloud("compute instances list").splitlines()[1].split()
    assert table == [cloud.host, cloud.zone, "e2-standard-2", "10.20.0.2", "RUNNING"]


# What somebody does with gcloud, and all that --diff then says.
DRIFT: dict[str, list[str]] = {
    "compute instances add-metadata dagster-e2e --metadata=enable-oslogin=TRUE": [
        "- enable-oslogin: 'TRUE'",
        "+ enable-oslogin: 'FALSE'",
    ],
    "compute instances add-tags dagster-e2e --tags=http-server": ["- - http-server"],
    "compute instances update dagster-e2e --remove-labels=dagster-environment --no-deletion-protection": [
        "+ dagster-environment: e2e",
        "- deletion_protection: false",
        "+ deletion_protection: true",
    ],
    "compute disks remove-resource-policies dagster-e2e-data --resource-policies=dagster-snapshots-e2e": [
        "- resource_policies: []",
        "+ resource_policies:",
        "+ - projects/example-e2e/regions/europe-west3/resourcePolicies/dagster-snapshots-e2e",
    ],
    "compute resource-policies update snapshot-schedule dagster-snapshots-e2e --max-retention-days=3": [
        "- retention_days: 3",
        "+ retention_days: 14",
    ],
    "compute firewall-rules update dagster-iap-ssh-e2e --source-ranges=0.0.0.0/0": [
        "- - 0.0.0.0/0",
        "+ - 35.235.240.0/20",
    ],
    "compute networks subnets update dagster-subnetwork-e2e --no-enable-private-ip-google-access": [
        "- private_ip_google_access: false",
        "+ private_ip_google_access: true",
    ],
    "compute routers nats delete dagster-nat-e2e --router=dagster-router-e2e": [
        "- nats: []",
        "+ nats:",
        "+ - name: dagster-nat-e2e",
        "+ natIpAllocateOption: AUTO_ONLY",
        "+ sourceSubnetworkIpRangesToNat: ALL_SUBNETWORKS_ALL_IP_RANGES",
    ],
    f"iam service-accounts update {ROBOT} --display-name=Somebody": [
        "- display_name: Somebody",
        "+ display_name: Dagster (e2e)",
    ],
    f"projects remove-iam-policy-binding example-e2e --member=serviceAccount:{ROBOT} --role=roles/logging.logWriter": [
        f"+ roles/logging.logWriter serviceAccount:{ROBOT}"
    ],
    "artifacts repositories update dagster-core-e2e --remove-labels=dagster-environment": [
        "+ dagster-environment: e2e"
    ],
    "services disable oslogin.googleapis.com": [
        "- oslogin.googleapis.com: DISABLED",
        "+ oslogin.googleapis.com: ENABLED",
    ],
}
# Three of the commands change the machine.
THINGS = 10


def changed_lines(output: str) -> list[str]:
    """The lines of all diffs that begin with + or -, without their indentation."""
    lines = [line for line in output.splitlines() if re.match(r"[-+](?![-+]{2} )", line)]
    return sorted(f"{line[0]} {' '.join(line[1:].split())}" for line in lines)


def test_what_gcloud_changes_is_shown_and_set_right(cloud: Cloud, gcloud: Gcloud) -> None:
    look = {
        "instances": "dagster-e2e",
        "disks": "dagster-e2e-data",
        "firewalls": "dagster-iap-ssh-e2e",
        "routers": "dagster-router-e2e",
        "resourcePolicies": "dagster-snapshots-e2e",
    }
    before = [cloud.thing(kind, name) for kind, name in look.items()]
    gcloud.together(*DRIFT)
    cloud.forget_calls()
    shown = cloud.play(PLAYBOOK, "--check", "--diff").ok()
    assert changed_lines(shown.output) == sorted(line for lines in DRIFT.values() for line in lines)
    assert (shown.changed, cloud.writes()) == (THINGS, [])
    assert cloud.play(PLAYBOOK).ok().changed == THINGS
    assert [cloud.thing(kind, name) for kind, name in look.items()] == before
    cloud.forget_calls()
    assert cloud.play(PLAYBOOK).ok().changed == 0
    assert cloud.writes() == []


def test_a_machine_that_gcloud_has_stopped_and_shrunk(cloud: Cloud, gcloud: Gcloud) -> None:
    gcloud("compute instances stop dagster-e2e")
    gcloud("compute instances set-machine-type dagster-e2e --machine-type=e2-small")
    assert cloud.play(PLAYBOOK).ok().changed == 1
    ((found,),) = gcloud.read("compute instances list")
    assert (last(found["machineType"]), found["status"]) == ("e2-standard-2", "RUNNING")


def test_what_gcloud_has_deleted_is_made_again(cloud: Cloud, gcloud: Gcloud) -> None:
    refused = gcloud.refused("compute instances delete dagster-e2e")
    assert "cannot be deleted if it's protected against deletion" in refused
    assert "is already being used by" in gcloud.refused("compute disks delete dagster-e2e-data")
    assert "is already being used by" in gcloud.refused("compute networks subnets delete dagster-subnetwork-e2e")
    gcloud("compute instances update dagster-e2e --no-deletion-protection")
    gcloud("compute instances delete dagster-e2e")
    disks = gcloud.read("compute disks list")[0]
    assert [disk["name"] for disk in disks] == ["dagster-e2e-data"], "the data disk outlives the machine"
    played = cloud.play(PLAYBOOK).ok()
    assert played.changed == 2, "the machine, and the SSH files, which name it by its id"
    ((machine,),) = gcloud.read("compute instances list")
    assert {last(disk["source"]): disk["autoDelete"] for disk in machine["disks"]} == {
        "dagster-e2e": True, "dagster-e2e-data": False,
    }  # fmt: skip


def test_what_destroy_leaves_gcloud_lists(cloud: Cloud, gcloud: Gcloud) -> None:
    cloud.play("playbooks/destroy.yml", gce_destroy="e2e").ok()
    machines, disks, networks, routers, (snapshot,), (repository,) = gcloud.read(
        "compute instances list",
        "compute disks list",
        "compute networks list",
        "compute routers list",
        "compute snapshots list",
        "artifacts repositories list",
    )
    assert (machines, networks, routers) == ([], [], [])
    assert [disk["name"] for disk in disks] == ["dagster-e2e-data"]
    assert last(snapshot["sourceDisk"]) == "dagster-e2e-data"
    assert last(repository["name"]) == "dagster-core-e2e"
