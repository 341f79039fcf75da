"""Who calls: tokens, keys, impersonation, federation, policies and permissions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import google.auth
import pytest
from google.auth import impersonated_credentials
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import AuthorizedSession, Request
from google.oauth2 import service_account

from lab.google import Google, Refusal

PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
P = {"project": "example-project"}
NETWORKS = "https://compute.googleapis.com/compute/v1/projects/example-project/global/networks"
ROBOT = "worker@example-project.iam.gserviceaccount.com"
ACCOUNT = f"projects/example-project/serviceAccounts/{ROBOT}"


def status(credentials: Any, url: str = NETWORKS) -> tuple[int, dict[str, Any]]:
    answer = AuthorizedSession(credentials).get(url)
    return answer.status_code, answer.json()


def create(lab: Google) -> None:
    lab.call("iam.projects.serviceAccounts.create", {"name": "projects/example-project"}, {"accountId": "worker"})


@pytest.fixture
def lab(google: Google) -> Google:
    """The fixture, under a name that leaves ``google.auth`` alone."""
    return google


def bind(lab: Google, role: str, member: str) -> None:
    policy = lab.call("cloudresourcemanager.v1.projects.getIamPolicy", {"resource": "example-project"}, {})
    policy["bindings"].append({"role": role, "members": [member]})
    body = {"policy": policy}
    lab.call("cloudresourcemanager.v1.projects.setIamPolicy", {"resource": "example-project"}, body)


def test_a_key_of_ours_gets_a_token(lab: Google) -> None:
    key = lab.service_account_key(ROBOT)
    credentials = service_account.Credentials.from_service_account_info(key, scopes=[PLATFORM])
    assert status(credentials)[0] == 200
    assert lab.requests[-1].caller == ROBOT


def test_a_forged_key_gets_none(lab: Google) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = lab.service_account_key(ROBOT)
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    forged = {**key, "private_key": other.decode()}
    with pytest.raises(RefreshError, match="Invalid JWT Signature"):
        status(service_account.Credentials.from_service_account_info(forged, scopes=[PLATFORM]))


def test_a_deleted_key_gets_none(lab: Google) -> None:
    key = lab.service_account_key(ROBOT)
    lab.call("iam.projects.serviceAccounts.keys.delete", {"name": f"{ACCOUNT}/keys/{key['private_key_id']}"})
    with pytest.raises(RefreshError, match="invalid_grant"):
        status(service_account.Credentials.from_service_account_info(key, scopes=[PLATFORM]))


def test_a_token_without_the_scope(lab: Google) -> None:
    key = lab.service_account_key(ROBOT)
    scope = "https://www.googleapis.com/auth/devstorage.read_only"
    code, answer = status(service_account.Credentials.from_service_account_info(key, scopes=[scope]))
    assert (code, answer["error"]["details"][0]["reason"]) == (403, "ACCESS_TOKEN_SCOPE_INSUFFICIENT")
    assert "scopes" in lab.violations.pop()


def test_an_expired_token(lab: Google) -> None:
    text = lab.token(seconds=-1)
    from google.oauth2.credentials import Credentials

    with pytest.raises(RefreshError):
        status(Credentials(text))


def test_impersonation_needs_its_permission(lab: Google) -> None:
    create(lab)
    base, _ = google.auth.default(scopes=[PLATFORM])
    credentials = impersonated_credentials.Credentials(base, ROBOT, [PLATFORM])
    with pytest.raises(RefreshError, match=r"iam\.serviceAccounts\.getAccessToken"):
        credentials.refresh(Request())
    bind(lab, "roles/iam.serviceAccountTokenCreator", "user:owner@example.com")
    bind(lab, "roles/compute.viewer", f"serviceAccount:{ROBOT}")
    assert status(credentials)[0] == 200
    assert lab.requests[-1].caller == ROBOT


def test_federation(lab: Google, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(lab)
    configuration = lab.federated("example-project", impersonate=ROBOT)
    file = tmp_path / "federation.json"
    file.write_text(json.dumps(configuration))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    with pytest.raises(RefreshError, match=r"iam\.serviceAccounts\.getAccessToken"):
        google.auth.default(scopes=[PLATFORM])
    pool = "principalSet://iam.googleapis.com/projects/100000000001/locations/global/workloadIdentityPools/lab/*"
    policy = {"bindings": [{"role": "roles/iam.workloadIdentityUser", "members": [pool]}]}
    lab.call("iam.projects.serviceAccounts.setIamPolicy", {"resource": ACCOUNT}, {"policy": policy})
    bind(lab, "roles/compute.viewer", f"serviceAccount:{ROBOT}")
    assert status(google.auth.default(scopes=[PLATFORM])[0])[0] == 200
    assert lab.requests[-1].caller == ROBOT


def test_a_stranger_has_no_permission(lab: Google) -> None:
    lab.seed_project("other-project", owner="somebody@example.com")
    url = NETWORKS.replace("example-project", "other-project")
    code, answer = status(google.auth.default(scopes=[PLATFORM])[0], url)
    assert code == 403
    assert "Required 'compute.networks.list' permission" in answer["error"]["message"]


def test_a_role_has_no_more_than_its_permissions(lab: Google) -> None:
    create(lab)
    bind(lab, "roles/compute.viewer", f"serviceAccount:{ROBOT}")
    lab.call("compute.networks.list", P, email=ROBOT)
    with pytest.raises(Refusal, match=r"compute\.networks\.create"):
        lab.call("compute.networks.insert", P, {"name": "n"}, email=ROBOT)


def test_an_api_that_is_off(lab: Google) -> None:
    lab.seed_project("bare-project", services=["serviceusage.googleapis.com"])
    with pytest.raises(Refusal, match="has not been used in project 100000000002 before") as refusal:
        lab.call("compute.networks.list", {"project": "bare-project"})
    assert (refusal.value.status, refusal.value.reason) == (403, "accessNotConfigured")
    assert refusal.value.details[0]["reason"] == "SERVICE_DISABLED"


# -- service accounts


def test_service_accounts(lab: Google) -> None:
    create(lab)
    with pytest.raises(Refusal, match="already exists") as refusal:
        create(lab)
    assert refusal.value.status == 409
    body = {"serviceAccount": {"displayName": "Robot"}, "updateMask": "displayName"}
    lab.call("iam.projects.serviceAccounts.patch", {"name": ACCOUNT}, body)
    found = lab.call("iam.projects.serviceAccounts.get", {"name": f"projects/-/serviceAccounts/{ROBOT}"})
    assert (found["displayName"], found["email"]) == ("Robot", ROBOT)
    assert len(lab.call("iam.projects.serviceAccounts.list", {"name": "projects/example-project"})["accounts"]) == 1
    bind(lab, "roles/viewer", f"serviceAccount:{ROBOT}")
    lab.call("iam.projects.serviceAccounts.delete", {"name": ACCOUNT})
    policy = lab.call("cloudresourcemanager.v1.projects.getIamPolicy", {"resource": "example-project"}, {})
    members = {binding["role"]: binding["members"] for binding in policy["bindings"]}
    assert members["roles/viewer"] == [f"deleted:serviceAccount:{ROBOT}?uid={found['uniqueId']}"]
    with pytest.raises(Refusal) as missing:
        lab.call("iam.projects.serviceAccounts.get", {"name": ACCOUNT})
    assert missing.value.status == 404


def test_keys(lab: Google) -> None:
    create(lab)
    made = lab.call("iam.projects.serviceAccounts.keys.create", {"name": ACCOUNT}, {})
    assert made["privateKeyData"]
    listed = lab.call("iam.projects.serviceAccounts.keys.list", {"name": ACCOUNT})["keys"]
    assert [key["name"] for key in listed] == [made["name"]]
    lab.forbid("iam.disableServiceAccountKeyCreation", "example-project")
    with pytest.raises(Refusal, match="not allowed") as refusal:
        lab.call("iam.projects.serviceAccounts.keys.create", {"name": ACCOUNT}, {})
    assert refusal.value.details[0]["violations"][0]["type"] == "constraints/iam.disableServiceAccountKeyCreation"


# -- policies


def test_a_policy_changes_with_its_etag_only(lab: Google) -> None:
    where = {"resource": "projects/example-project"}
    old = lab.call("cloudresourcemanager.v3.projects.getIamPolicy", where, {})
    bind(lab, "roles/viewer", "user:a@example.com")
    with pytest.raises(Refusal, match="concurrent policy changes") as refusal:
        lab.call("cloudresourcemanager.v3.projects.setIamPolicy", where, {"policy": old})
    assert (refusal.value.status, refusal.value.state) == (409, "ABORTED")


def test_an_etag_is_bytes_however_they_are_written(lab: Google) -> None:
    where = {"resource": "projects/example-project"}
    for number in range(100):
        policy = lab.call("cloudresourcemanager.v3.projects.getIamPolicy", where, {})
        if set("+/") & set(policy["etag"]):
            break
        bind(lab, "roles/viewer", f"user:a{number}@example.com")
    # gcloud reads base64 and writes it anew.
    policy["etag"] = policy["etag"].translate(str.maketrans("+/", "-_"))
    lab.call("cloudresourcemanager.v3.projects.setIamPolicy", where, {"policy": policy})


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ({"role": "viewer", "members": ["user:a@example.com"]}, "not supported"),
        ({"role": "roles/viewer", "members": ["a@example.com"]}, "Invalid member"),
        ({"role": "roles/viewer", "members": [f"serviceAccount:{ROBOT}"]}, "does not exist"),
        (
            {"role": "roles/viewer", "members": ["user:a@b.c"], "condition": {"title": "t", "expression": "true"}},
            "version 3",
        ),
    ],
)
def test_bad_policies_are_refused(lab: Google, binding: dict[str, Any], message: str) -> None:
    body = {"policy": {"bindings": [binding]}}
    with pytest.raises(Refusal, match=message):
        lab.call("cloudresourcemanager.v1.projects.setIamPolicy", {"resource": "example-project"}, body)


def test_conditions_show_to_who_asks_for_version_3(lab: Google) -> None:
    where = {"resource": "projects/100000000001/iap_tunnel"}
    condition = {"title": "t", "expression": "true"}
    binding = {"role": "roles/iap.tunnelResourceAccessor", "members": ["user:a@example.com"], "condition": condition}
    lab.call("iap.setIamPolicy", where, {"policy": {"version": 3, "bindings": [binding]}})
    assert lab.call("iap.getIamPolicy", where, {"options": {"requestedPolicyVersion": 3}})["bindings"] == [binding]
    hidden = lab.call("iap.getIamPolicy", {"resource": "projects/example-project/iap_tunnel"}, {})["bindings"][0]
    assert "condition" not in hidden
    assert hidden["role"].startswith("roles/iap.tunnelResourceAccessor_withcond_")
