"""Service Usage, Artifact Registry, Secret Manager, OS Login."""

from __future__ import annotations

import base64

import pytest
import requests

from lab.google import Google, Refusal
from lab.google.secrets import crc32c

RECENT = {"mostRecentVersions": {"keepCount": 1}}
PARENT = "projects/example-project"
USAGE = "serviceusage.services"
REPOSITORIES = "artifactregistry.projects.locations.repositories"
PLACE = "projects/example-project/locations/europe-west1"
SECRETS = "secretmanager.projects.secrets"


def test_services_are_switched_on(google: Google) -> None:
    names = ["dns.googleapis.com", "compute.googleapis.com"]
    started = google.call(f"{USAGE}.batchEnable", {"parent": PARENT}, {"serviceIds": names})
    assert "done" not in started
    where = {"name": f"{PARENT}/services/dns.googleapis.com"}
    assert google.call(f"{USAGE}.get", where)["state"] == "DISABLED"
    assert google.call("serviceusage.operations.get", {"name": started["name"]})["done"] is True
    assert google.call(f"{USAGE}.get", where)["state"] == "ENABLED"
    again = google.call(f"{USAGE}.batchEnable", {"parent": PARENT}, {"serviceIds": names})
    assert (again["name"], again["done"]) == ("operations/noop.DONE_OPERATION", True)
    listed = google.call(f"{USAGE}.list", {"parent": PARENT, "filter": "state:ENABLED", "pageSize": "200"})
    assert "dns.googleapis.com" in [service["config"]["name"] for service in listed["services"]]
    google.call(f"{USAGE}.disable", where, {})
    assert google.call(f"{USAGE}.get", where)["state"] == "DISABLED"


def test_operations_of_newer_apis_fail_and_hang_too(google: Google) -> None:
    token = {"Authorization": f"Bearer {google.token()}"}
    url = f"https://serviceusage.googleapis.com/v1/{PARENT}/services:batchEnable"
    body = {"serviceIds": ["dns.googleapis.com"]}
    google.fail(f"{USAGE}.batchEnable", 403, message="Billing account is not found.", kind="operation")
    name = requests.post(url, json=body, headers=token, timeout=5).json()["name"]
    done = google.call("serviceusage.operations.get", {"name": name})
    assert (done["done"], done["error"]["code"]) == (True, 7)
    assert google.call(f"{USAGE}.get", {"name": f"{PARENT}/services/dns.googleapis.com"})["state"] == "DISABLED"
    google.fail(f"{USAGE}.batchEnable", kind="stuck")
    name = requests.post(url, json=body, headers=token, timeout=5).json()["name"]
    assert "done" not in google.call("serviceusage.operations.get", {"name": name})


def test_an_unknown_service(google: Google) -> None:
    with pytest.raises(Refusal, match=r"service\(s\): nonsense\.googleapis\.com"):
        google.call(f"{USAGE}.batchEnable", {"parent": PARENT}, {"serviceIds": ["nonsense.googleapis.com"]})


def test_repositories(google: Google) -> None:
    keep = {"action": "KEEP", "mostRecentVersions": {"keepCount": 10}}
    body = {"format": "DOCKER", "mode": "MODE_UNSPECIFIED", "labels": {"a": "b"}, "cleanupPolicies": {"keep": keep}}
    started = google.call(f"{REPOSITORIES}.create", {"parent": PLACE, "repositoryId": "r"}, body)
    done = google.call("artifactregistry.projects.locations.operations.get", {"name": started["name"]})
    name = {"name": f"{PLACE}/repositories/r"}
    assert done["response"]["name"] == name["name"]
    found = google.call(f"{REPOSITORIES}.get", name)
    assert found["cleanupPolicies"]["keep"]["id"] == "keep"
    assert found["mode"] == "STANDARD_REPOSITORY"
    assert "cleanupPolicyDryRun" not in found
    mask = {**name, "updateMask": "docker_config.immutable_tags,labels"}
    google.call(f"{REPOSITORIES}.patch", mask, {"dockerConfig": {"immutableTags": True}, "labels": {"c": "d"}})
    found = google.call(f"{REPOSITORIES}.get", name)
    assert (found["dockerConfig"], found["labels"]) == ({"immutableTags": True}, {"c": "d"})
    assert "keep" in found["cleanupPolicies"]
    with pytest.raises(Refusal, match="Update of field 'format' is not supported"):
        google.call(f"{REPOSITORIES}.patch", {**name, "updateMask": "format"}, {"format": "NPM"})
    with pytest.raises(Refusal, match="already exists"):
        google.call(f"{REPOSITORIES}.create", {"parent": PLACE, "repositoryId": "r"}, body)
    policy = {"bindings": [{"role": "roles/artifactregistry.reader", "members": ["user:a@example.com"]}]}
    resource = {"resource": name["name"]}
    google.call(f"{REPOSITORIES}.setIamPolicy", resource, {"policy": policy})
    assert google.call(f"{REPOSITORIES}.getIamPolicy", resource)["bindings"] == policy["bindings"]
    google.call(f"{REPOSITORIES}.delete", name)
    with pytest.raises(Refusal, match="not found"):
        google.call(f"{REPOSITORIES}.get", name)


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("R", {"format": "DOCKER"}, "not valid"),
        ("r", {}, "format"),
        ("r", {"format": "DOCKER", "cleanupPolicies": {"a": {"action": "DELETE"}}}, "needs a condition"),
        ("r", {"format": "DOCKER", "cleanupPolicies": {"a": {"action": "DELETE", **RECENT}}}, "KEEP only"),
    ],
)
def test_bad_repositories(google: Google, name: str, body: dict[str, object], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        google.call(f"{REPOSITORIES}.create", {"parent": PLACE, "repositoryId": name}, body)


def test_secrets(google: Google) -> None:
    google.call(f"{SECRETS}.create", {"parent": PARENT, "secretId": "s"}, {"replication": {"automatic": {}}})
    name = f"{PARENT}/secrets/s"
    with pytest.raises(Refusal, match="versions/latest] not found"):
        google.call(f"{SECRETS}.versions.access", {"name": f"{name}/versions/latest"})
    for value in (b"one", b"two"):
        payload = {"payload": {"data": base64.b64encode(value).decode()}}
        google.call(f"{SECRETS}.addVersion", {"parent": name}, payload)
    # The answer says whether a checksum came with it; gcloud takes its absence for damage.
    summed = {"payload": {"data": base64.b64encode(b"two").decode(), "dataCrc32c": str(crc32c(b"two"))}}
    assert google.call(f"{SECRETS}.addVersion", {"parent": name}, summed)["clientSpecifiedPayloadChecksum"] is True
    latest = google.call(f"{SECRETS}.versions.access", {"name": f"{name}/versions/latest"})
    assert base64.b64decode(latest["payload"]["data"]) == b"two"
    assert latest["name"] == "projects/100000000001/secrets/s/versions/3"
    google.call(f"{SECRETS}.versions.disable", {"name": f"{name}/versions/3"}, {})
    with pytest.raises(Refusal, match="is in DISABLED state"):
        google.call(f"{SECRETS}.versions.access", {"name": f"{name}/versions/latest"})


def test_a_secret_is_read_by_who_may(google: Google) -> None:
    google.call(f"{SECRETS}.create", {"parent": PARENT, "secretId": "s"}, {"replication": {"automatic": {}}})
    google.call(f"{SECRETS}.addVersion", {"parent": f"{PARENT}/secrets/s"}, {"payload": {"data": "b25l"}})
    where = {"name": f"{PARENT}/secrets/s/versions/1"}
    with pytest.raises(Refusal, match=r"secretmanager\.versions\.access"):
        google.call(f"{SECRETS}.versions.access", where, email="a@example.com")
    policy = {"bindings": [{"role": "roles/secretmanager.secretAccessor", "members": ["user:a@example.com"]}]}
    google.call(f"{SECRETS}.setIamPolicy", {"resource": f"{PARENT}/secrets/s"}, {"policy": policy})
    google.call(f"{SECRETS}.versions.access", where, email="a@example.com")


def test_the_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA a@example"


def test_os_login(google: Google) -> None:
    me = {"name": "users/owner@example.com"}
    assert "posixAccounts" not in google.call("oslogin.users.getLoginProfile", me)
    where = {"parent": me["name"], "projectId": "example-project"}
    profile = google.call("oslogin.users.importSshPublicKey", where, {"key": KEY})["loginProfile"]
    assert profile["posixAccounts"][0]["username"] == "owner_example_com"
    key = next(iter(profile["sshPublicKeys"].values()))
    mask = {"name": key["name"], "updateMask": "expirationTimeUsec"}
    google.call("oslogin.users.sshPublicKeys.patch", mask, {"expirationTimeUsec": "1900000000000000"})
    assert google.call("oslogin.users.sshPublicKeys.get", {"name": key["name"]})["expirationTimeUsec"]
    google.call("oslogin.users.sshPublicKeys.delete", {"name": key["name"]})
    assert "sshPublicKeys" not in google.call("oslogin.users.getLoginProfile", me)
    with pytest.raises(Refusal, match="Invalid SSH public key"):
        google.call("oslogin.users.importSshPublicKey", where, {"key": "ssh-rsa nonsense!"})
