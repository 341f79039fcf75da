"""Every method of Google's that our plugins call has a handler, and is called by a plugin's test."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.google import discovery, handlers
from tests.unit import google as fixtures

COMPUTE = {
    "networks": "get insert patch delete list",  # the client's own test lists
    "subnetworks": "get insert patch setPrivateIpGoogleAccess expandIpCidrRange delete",
    "firewalls": "get insert patch delete",
    "routers": "get insert patch delete",
    "addresses": "get insert setLabels delete",
    "resourcePolicies": "get insert patch delete",
    "disks": "get insert resize setLabels addResourcePolicies removeResourcePolicies delete",
    "snapshots": "get list insert setLabels delete",
    "instances": "get insert delete start stop reset setMetadata setTags setLabels setMachineType setServiceAccount "
    "setScheduling setDeletionProtection updateShieldedInstanceConfig attachDisk detachDisk setDiskAutoDelete "
    "addAccessConfig deleteAccessConfig getSerialPortOutput getGuestAttributes aggregatedList",
    "images": "get getFromFamily",
    "machineTypes": "get",
    "projects": "get",
    "globalOperations": "wait",
    "regionOperations": "wait",
    "zoneOperations": "wait",
}
OTHERS = {
    "artifactregistry.projects.locations": "operations.get",
    "artifactregistry.projects.locations.repositories": "create get patch delete getIamPolicy setIamPolicy",
    "artifactregistry.projects.locations.repositories.packages": "list",
    "cloudresourcemanager.v3.projects": "getIamPolicy setIamPolicy",
    "iam.projects.serviceAccounts": "create get patch delete disable enable getIamPolicy setIamPolicy "
    "keys.list keys.delete",
    "iam.projects.locations.workloadIdentityPools": "create get patch operations.get providers.create providers.get "
    "providers.patch providers.operations.get",
    "iamcredentials.projects.serviceAccounts": "generateAccessToken",
    "iap": "getIamPolicy setIamPolicy",
    "oslogin.users": "getLoginProfile importSshPublicKey sshPublicKeys.patch sshPublicKeys.delete",
    "secretmanager.projects.secrets": "getIamPolicy setIamPolicy versions.access",
    "storage.buckets": "delete get getIamPolicy insert patch setIamPolicy",
    "serviceusage": "operations.get services.batchEnable services.batchGet services.disable",
}
METHODS = {f"compute.{name}.{verb}" for name, verbs in COMPUTE.items() for verb in verbs.split()} | {
    f"{name}.{verb}" for name, verbs in OTHERS.items() for verb in verbs.split()
}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_has_a_handler(method: str) -> None:
    handlers.load()
    discovery.method(method)
    assert method in handlers.HANDLERS


def test_every_handler_answers_a_method_of_googles() -> None:
    handlers.load()
    for method in handlers.HANDLERS:
        discovery.method(method)


def test_plugins_call_these_methods_and_no_others(request: pytest.FixtureRequest, root: Path) -> None:
    """Comes after all others; says nothing when only some of the plugins' tests run."""
    files = {item.path for item in request.session.items}
    tests = [path for path in (root / "tests/unit/plugins").rglob("test_g*.py") if "google" in path.read_text()]
    if not files.issuperset(tests):
        pytest.skip("not all tests of the plugins run")
    assert fixtures.called - METHODS == set(), "not in this file's tables"
    assert METHODS - fixtures.called == set(), "called by no test of a plugin"
