"""Every way to authenticate, against the lab's token endpoints, and one clear error for each way that fails."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_auth
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_client import Client
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError
from lab.google import Google
from lab.google.oauth import federate

ROBOT = "robot@example-project.iam.gserviceaccount.com"
OTHER = "other@example-project.iam.gserviceaccount.com"
PATH = "projects/example-project/global/networks/n"


def caller(google: Google, **options: Any) -> str:
    """Who a call with these options is made by, as Google sees it."""
    client = Client({"project": "example-project", **options})
    assert client.get("compute", PATH) is None
    return google.requests[-1].caller


def refusal(**options: Any) -> str:
    """What the user reads when these options give no token."""
    with pytest.raises(GoogleError) as caught:
        Client({"project": "example-project", **options}).get("compute", PATH)
    return str(caught.value)


@pytest.fixture
def key(google: Google) -> dict[str, str]:
    return google.service_account_key(ROBOT)


@pytest.fixture
def key_file(key: dict[str, str], tmp_path: Path) -> Path:
    path = tmp_path / "key.json"
    path.write_text(json.dumps(key), encoding="utf-8")
    return path


def test_application_default_from_the_environment(google: Google) -> None:
    assert caller(google) == google.owner


def test_application_default_from_gcloud(google: Google, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    signed_in = Path(google.environment()["GOOGLE_APPLICATION_CREDENTIALS"]).read_text(encoding="utf-8")
    (tmp_path / "application_default_credentials.json").write_text(signed_in, encoding="utf-8")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    # Looking for a project would start gcloud: a second for every module.
    monkeypatch.setenv("PATH", "")
    assert caller(google) == google.owner


def test_application_default_with_a_key(google: Google, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file))
    assert caller(google) == ROBOT


def test_a_key_by_path_and_by_content(google: Google, key: dict[str, str], key_file: Path) -> None:
    assert caller(google, auth_kind="serviceaccount", service_account_file=str(key_file)) == ROBOT
    assert caller(google, auth_kind="serviceaccount", service_account_contents=json.dumps(key)) == ROBOT
    # A lookup or an inventory may hand over a dict.
    assert caller(google, auth_kind="serviceaccount", service_account_contents=key) == ROBOT


def test_an_access_token(google: Google, key: dict[str, str]) -> None:
    assert caller(google, auth_kind="accesstoken", access_token=google.token(email=ROBOT)) == ROBOT


def external(google: Google, folder: Path, account: str | None) -> tuple[Path, str]:
    """A federation's configuration, and the principal that it stands for."""
    path = folder / "external.json"
    path.write_text(json.dumps(federate(google, "example-project", account, "repo:x")), encoding="utf-8")
    return path, next(iter(google.state.note("subject tokens").values()))["principal"]


def let_act_as(google: Google, account: str, role: str, *members: str) -> None:
    google.call(
        "iam.projects.serviceAccounts.setIamPolicy",
        {"resource": f"projects/example-project/serviceAccounts/{account}"},
        {"policy": {"bindings": [{"role": role, "members": list(members)}]}},
    )


def test_workload_identity_federation(google: Google, tmp_path: Path) -> None:
    path, principal = external(google, tmp_path, None)
    google.state.note("policies")["cloudresourcemanager/projects/example-project"]["bindings"].append(
        {"role": "roles/owner", "members": [principal]}
    )
    assert caller(google, auth_kind="external", credentials_file=str(path)) == principal


def test_workload_identity_federation_through_a_service_account(
    google: Google, key: dict[str, str], tmp_path: Path
) -> None:
    path, principal = external(google, tmp_path, ROBOT)
    message = refusal(auth_kind="external", credentials_file=str(path))
    assert f"cannot act as {ROBOT}" in message
    assert f"add-iam-policy-binding {ROBOT} --member=MEMBER --role=roles/iam.workloadIdentityUser" in message
    let_act_as(google, ROBOT, "roles/iam.workloadIdentityUser", principal)
    assert caller(google, auth_kind="external", credentials_file=str(path)) == ROBOT


@pytest.mark.parametrize("delegates", [[], [OTHER]])
def test_impersonation(google: Google, key: dict[str, str], delegates: list[str]) -> None:
    contents = json.dumps(google.service_account_key(OTHER))
    # Not even an owner may do it without this role.
    creator = "roles/iam.serviceAccountTokenCreator"
    let_act_as(google, ROBOT, creator, f"user:{google.owner}", f"serviceAccount:{OTHER}")
    let_act_as(google, OTHER, creator, f"user:{google.owner}")
    assert caller(google, impersonate_service_account=ROBOT, impersonate_delegates=delegates) == ROBOT
    options = {"auth_kind": "serviceaccount", "service_account_contents": contents}
    assert caller(google, impersonate_service_account=ROBOT, **options) == ROBOT


def test_who_is_named_in_a_command(google: Google, key_file: Path) -> None:
    def member(**options: Any) -> str | None:
        return Client({"project": "example-project", **options}).member

    assert member() is None
    assert member(auth_kind="serviceaccount", service_account_file=str(key_file)) == f"serviceAccount:{ROBOT}"
    assert member(impersonate_service_account=OTHER) == f"serviceAccount:{OTHER}"


def test_nobody_is_signed_in(google: Google, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    message = refusal()
    assert message.startswith(
        "authentication: no application default credentials: sign in with `gcloud auth application-default"
    )
    assert google.requests == []


def test_a_sign_in_that_was_revoked(google: Google) -> None:
    google.fail("token", 400, "invalid_grant", "Token has been expired or revoked.")
    message = refusal()
    assert "Token has been expired or revoked." in message
    assert "gcloud auth application-default login" in message


def test_a_token_that_has_expired(google: Google) -> None:
    token = google.token(seconds=-1)
    message = refusal(auth_kind="accesstoken", access_token=token)
    assert "access_token: Google does not accept it (expired or revoked; it lives an hour)" in message
    assert token not in message


def test_a_key_that_was_deleted(google: Google, key: dict[str, str]) -> None:
    google.state.note("keys").clear()
    message = refusal(auth_kind="serviceaccount", service_account_contents=json.dumps(key))
    assert "Invalid JWT Signature" in message
    assert "is the key deleted" in message.lower()
    assert key["private_key"] not in message


def test_a_provider_that_rejects_the_subject(google: Google, tmp_path: Path) -> None:
    path, _ = external(google, tmp_path, None)
    google.state.note("subject tokens").clear()
    message = refusal(auth_kind="external", credentials_file=str(path))
    assert "rejected by the attribute condition" in message
    assert "Check the audience, the provider's attribute condition" in message


def test_somebody_who_may_not_impersonate(google: Google, key: dict[str, str]) -> None:
    message = refusal(impersonate_service_account=ROBOT)
    assert f"cannot act as {ROBOT}" in message
    assert f"gcloud iam service-accounts add-iam-policy-binding {ROBOT}" in message
    assert "roles/iam.serviceAccountTokenCreator" in message


def test_credentials_of_another_project(google: Google) -> None:
    google.seed_project("other-project")
    google.state.note("policies")["cloudresourcemanager/projects/other-project"]["bindings"] = []
    with pytest.raises(GoogleError) as caught:
        Client({"project": "other-project"}).get("compute", "projects/other-project/global/networks/n")
    message = str(caught.value)
    assert "HTTP 403" in message
    assert "gcloud projects add-iam-policy-binding other-project" in message


def test_a_token_endpoint_that_drops_the_line(google: Google) -> None:
    google.fail("token", kind="drop")
    assert caller(google) == google.owner


def test_a_token_without_the_scope(google: Google) -> None:
    token = google.token(scopes=["https://www.googleapis.com/auth/devstorage.read_only"])
    message = refusal(auth_kind="accesstoken", access_token=token)
    google.violations.clear()
    assert "HTTP 403" in message
    assert "scope" in message.lower()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"access_token": "x"},
            "access_token: given with auth_kind=application, which does not use it; set auth_kind=accesstoken",
        ),
        ({"auth_kind": "accesstoken"}, "auth_kind=accesstoken needs exactly one of access_token; none is given"),
        (
            {"auth_kind": "serviceaccount", "service_account_file": "/x", "service_account_contents": "{}"},
            "needs exactly one of service_account_file, service_account_contents; both are given",
        ),
        (
            {"auth_kind": "serviceaccount", "service_account_file": "/x", "credentials_file": "/y"},
            "credentials_file: given with auth_kind=serviceaccount, which does not use it; set auth_kind=external",
        ),
        ({"timeout": 0}, "timeout: found 0; expected a number of seconds greater than 0"),
        ({"impersonate_delegates": ["a"]}, "impersonate_delegates: given without impersonate_service_account"),
        (
            {"auth_kind": "serviceaccount", "service_account_file": "/nowhere/key.json"},
            "service_account_file /nowhere/key.json: cannot be read: No such file or directory",
        ),
        (
            {"auth_kind": "serviceaccount", "service_account_contents": "c4n4ry"},
            "service_account_contents: found 'something that is no JSON object'; expected the JSON key",
        ),
        (
            {"auth_kind": "serviceaccount", "service_account_contents": '{"type": "authorized_user"}'},
            "found 'authorized_user'; expected the JSON key",
        ),
        (
            {
                "auth_kind": "serviceaccount",
                "service_account_contents": '{"type": "service_account", "client_email": "a"}',
            },
            "the key lacks private_key, token_uri",
        ),
        (
            {"auth_kind": "external", "credentials_file": "/nowhere/external.json"},
            "auth_kind=external: File /nowhere/external.json",
        ),
    ],
    ids=str,
)
def test_options_that_give_no_credentials(options: dict[str, Any], expected: str) -> None:
    message = refusal(**options)
    assert expected in message
    assert "c4n4ry" not in message


def test_a_damaged_key_is_not_shown(key: dict[str, str]) -> None:
    broken = {**key, "private_key": key["private_key"][:200] + "c4n4ry"}
    message = refusal(auth_kind="serviceaccount", service_account_contents=json.dumps(broken))
    assert "the credentials cannot be read" in message
    assert "c4n4ry" not in message


def test_the_specification_and_the_kinds_fit() -> None:
    spec = google_auth.argument_spec()
    assert spec["auth_kind"]["choices"] == list(google_auth.KINDS)
    assert {name for name, rules in spec.items() if rules.get("no_log")} == {"service_account_contents", "access_token"}


def test_a_session_costs_nothing_before_the_first_call(google: Google) -> None:
    started = time.monotonic()
    Client({"project": "example-project"})
    assert time.monotonic() - started < 1
    assert google.requests == []
