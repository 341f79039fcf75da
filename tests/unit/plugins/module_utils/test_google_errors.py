"""Google's refusals: what the user reads, for every shape in which they come.

The bodies have the shapes that Google documents: Compute Engine's classic one, AIP-193's with details, an operation's.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_advice, google_errors
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError


def classic(code: int, reason: str, message: str) -> GoogleError:
    """Compute Engine's shape."""
    body = {"code": code, "message": message, "errors": [{"message": message, "domain": "global", "reason": reason}]}
    return parse(code, body)


def detailed(code: int, status: str, message: str, **info: Any) -> GoogleError:
    """The other APIs' shape."""
    details = (
        [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "domain": "googleapis.com", **info}] if info else []
    )
    return parse(code, {"code": code, "message": message, "status": status, "details": details})


def parse(code: int, error: dict[str, Any]) -> GoogleError:
    return google_errors.from_answer("do it", code, json.dumps({"error": error}), project="p", member="user:a@b.c")


def test_code_reason_and_googles_words() -> None:
    error = classic(400, "invalid", "Invalid value for field 'resource.name': 'X'.")
    assert str(error) == "do it: HTTP 400 invalid: Invalid value for field 'resource.name': 'X'."
    assert (error.code, error.reason, error.retryable) == (400, "invalid", False)


@pytest.mark.parametrize(
    "error",
    [
        classic(403, "forbidden", "Required 'compute.firewalls.create' permission for 'projects/p/global/firewalls/f'"),
        detailed(
            403,
            "PERMISSION_DENIED",
            "Permission 'compute.firewalls.create' denied on resource (or it may not exist).",
            reason="IAM_PERMISSION_DENIED",
            metadata={"permission": "compute.firewalls.create", "resource": "projects/p"},
        ),
        detailed(403, "PERMISSION_DENIED", "Permission compute.firewalls.create is required to perform this operation"),
    ],
    ids=["classic", "details", "text"],
)
def test_a_missing_permission_in_every_shape(error: GoogleError) -> None:
    assert error.advice == (
        "The caller lacks the permission compute.firewalls.create, which roles/compute.securityAdmin has: "
        "gcloud projects add-iam-policy-binding p --member=user:a@b.c --role=roles/compute.securityAdmin"
    )


def test_a_permission_in_another_project() -> None:
    message = "Required 'compute.subnetworks.use' permission for 'projects/host-project/regions/r/subnetworks/s'"
    advice = classic(403, "forbidden", message).advice
    assert "gcloud projects add-iam-policy-binding host-project --member=user:a@b.c --role=roles/compute.net" in advice


def test_a_permission_on_a_service_account() -> None:
    account = "dagster-vm-prod@p.iam.gserviceaccount.com"
    message = f"The user has no access to service account '{account}'. Permission 'iam.serviceAccounts.actAs' denied"
    command = f"gcloud iam service-accounts add-iam-policy-binding {account}"
    advice = classic(403, "forbidden", message).advice
    assert f"{command} --member=user:a@b.c --role=roles/iam.serviceAccountUser" in advice


@pytest.mark.parametrize(
    ("permission", "role"),
    [
        ("compute.firewalls.get", "roles/compute.networkViewer"),
        ("compute.firewalls.delete", "roles/compute.securityAdmin"),
        ("compute.instances.create", "roles/compute.instanceAdmin.v1"),
        ("compute.disks.resize", "roles/compute.instanceAdmin.v1"),
        ("compute.resourcePolicies.create", "roles/compute.instanceAdmin.v1"),
        ("compute.subnetworks.useExternalIp", "roles/compute.networkUser"),
        ("compute.subnetworks.expandIpCidrRange", "roles/compute.networkAdmin"),
        ("resourcemanager.projects.get", "roles/browser"),
        ("resourcemanager.projects.setIamPolicy", "roles/resourcemanager.projectIamAdmin"),
        ("serviceusage.services.enable", "roles/serviceusage.serviceUsageAdmin"),
        ("secretmanager.versions.access", "roles/secretmanager.secretAccessor"),
        ("artifactregistry.repositories.create", "roles/artifactregistry.admin"),
        ("iam.serviceAccounts.create", "roles/iam.serviceAccountAdmin"),
        ("unheard.of.thing", ""),
    ],
)
def test_the_role_for_a_permission(permission: str, role: str) -> None:
    assert google_advice.role_for(permission) == role


@pytest.mark.parametrize(
    "error",
    [
        detailed(
            403,
            "PERMISSION_DENIED",
            "Compute Engine API has not been used in project 1 before or it is disabled.",
            reason="SERVICE_DISABLED",
            metadata={"service": "compute.googleapis.com", "consumer": "projects/1"},
        ),
        classic(
            403,
            "accessNotConfigured",
            "Access Not Configured. Enable it by visiting https://console.developers.google.com/apis/api/compute.googleapis.com/overview",
        ),
    ],
    ids=["details", "classic"],
)
def test_an_api_that_is_not_enabled(error: GoogleError) -> None:
    assert "gcloud services enable compute.googleapis.com --project=p" in error.advice
    assert "gcp_services" in error.advice
    assert error.is_disabled


def test_a_sign_in_without_a_quota_project_is_no_api_that_is_off() -> None:
    error = detailed(
        403,
        "PERMISSION_DENIED",
        "Your application is authenticating by using local Application Default Credentials. The "
        "cloudresourcemanager.googleapis.com API requires a quota project, which is not set by default.",
        reason="SERVICE_DISABLED",
        metadata={"service": "cloudresourcemanager.googleapis.com", "consumer": "projects/764086051850"},
    )
    assert error.advice.endswith("gcloud auth application-default set-quota-project p")
    assert error.is_disabled is False


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            detailed(
                403,
                "PERMISSION_DENIED",
                "Request had insufficient authentication scopes.",
                reason="ACCESS_TOKEN_SCOPE_INSUFFICIENT",
            ),
            "--scopes=cloud-platform",
        ),
        (
            detailed(
                403,
                "PERMISSION_DENIED",
                "Request is prohibited by organization's policy. vpcServiceControlsUniqueIdentifier: abc.",
            ),
            "A service perimeter (VPC Service Controls) forbids it",
        ),
        (
            detailed(
                403, "PERMISSION_DENIED", "This API method requires billing to be enabled.", reason="BILLING_DISABLED"
            ),
            "gcloud billing projects link p",
        ),
    ],
    ids=["scope", "perimeter", "billing"],
)
def test_a_refusal_that_is_no_missing_permission(error: GoogleError, advice: str) -> None:
    assert advice in error.advice
    assert "lacks a permission" not in error.advice


def test_a_quota() -> None:
    operation = {
        "error": {
            "errors": [
                {
                    "code": "QUOTA_EXCEEDED",
                    "message": "Quota 'CPUS' exceeded.  Limit: 24.0 in region us-central1.",
                    "errorDetails": [
                        {
                            "quotaInfo": {
                                "metricName": "compute.googleapis.com/cpus",
                                "limitName": "CPUS-per-project-region",
                                "dimensions": {"region": "us-central1"},
                                "limit": 24,
                            }
                        }
                    ],
                }
            ]
        },
        "httpErrorStatusCode": 403,
    }
    error = google_errors.from_operation("create the instance", operation, project="p")
    assert (error.code, error.reason, error.retryable) == (403, "QUOTA_EXCEEDED", False)
    assert "The quota CPUS-per-project-region (us-central1) is at its limit of 24" in error.advice
    assert "quotas?project=p" in error.advice


def test_a_rate_limit_is_no_quota() -> None:
    for error in (
        classic(403, "rateLimitExceeded", "Rate Limit Exceeded"),
        detailed(429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Queries'", reason="RATE_LIMIT_EXCEEDED"),
        # Compute Engine's, with the details of the newer shape.
        detailed(403, "PERMISSION_DENIED", "Quota exceeded for quota metric 'Queries'", reason="RATE_LIMIT_EXCEEDED"),
    ):
        assert error.retryable
        assert error.advice.startswith("Too many calls in a short time")


ATTACH = (
    "The user does not have access to service account 'vm@p.iam.gserviceaccount.com'.  User: 'a@b.c'.  "
    "Ask a project owner to grant you the iam.serviceAccountUser role on the service account"
)


@pytest.mark.parametrize(
    "error",
    [
        classic(403, "forbidden", ATTACH),
        google_errors.from_operation(
            "make it",
            {"error": {"errors": [{"code": "SERVICE_ACCOUNT_ACCESS_DENIED", "message": ATTACH}]}},
            project="p",
            member="user:a@b.c",
        ),
    ],
    ids=["answer", "operation"],
)
def test_a_service_account_that_the_caller_may_not_attach(error: GoogleError) -> None:
    command = "gcloud iam service-accounts add-iam-policy-binding vm@p.iam.gserviceaccount.com --member=user:a@b.c"
    assert f"{command} --role=roles/iam.serviceAccountUser" in error.advice


def test_an_api_that_is_off_in_the_project_of_the_credentials() -> None:
    error = detailed(
        403,
        "PERMISSION_DENIED",
        "Cloud Resource Manager API has not been used in project 42 before or it is disabled.",
        reason="SERVICE_DISABLED",
        metadata={"service": "cloudresourcemanager.googleapis.com", "consumer": "projects/42"},
    )
    assert (
        "Google counts the call for project 42; if that is not p, the credentials are of that project" in error.advice
    )


def test_the_permission_in_the_details_of_an_operation() -> None:
    info = {
        "reason": "IAM_PERMISSION_DENIED",
        "domain": "compute.googleapis.com",
        "metadatas": {"permission": "compute.subnetworks.use"},
    }
    entry = {"code": "FORBIDDEN", "message": "It is not allowed.", "errorDetails": [{"errorInfo": info}]}
    operation = {"error": {"errors": [entry]}, "httpErrorStatusCode": 403}
    error = google_errors.from_operation("make it", operation, project="p")
    assert "lacks the permission compute.subnetworks.use, which roles/compute.networkUser has" in error.advice


def test_an_organisation_policy_in_every_shape() -> None:
    classic_error = classic(
        412, "conditionNotMet", "Constraint constraints/compute.vmExternalIpAccess violated for project 123."
    )
    violation = {"type": "constraints/iam.disableServiceAccountKeyCreation", "subject": "p", "description": "x"}
    key_error = parse(
        400,
        {
            "code": 400,
            "status": "FAILED_PRECONDITION",
            "message": "Key creation is not allowed on this service account.",
            "details": [{"@type": "type.googleapis.com/google.rpc.PreconditionFailure", "violations": [violation]}],
        },
    )
    assert "constraints/compute.vmExternalIpAccess forbids it" in classic_error.advice
    assert "constraints/iam.disableServiceAccountKeyCreation forbids it" in key_error.advice
    assert classic_error.is_conflict is False


def test_a_fingerprint_that_is_out_of_date() -> None:
    assert classic(
        412, "conditionNotMet", "Labels fingerprint either invalid or resource labels have changed"
    ).is_conflict
    assert detailed(409, "ABORTED", "There were concurrent policy changes.").is_conflict
    assert not classic(409, "alreadyExists", "The resource 'x' already exists").is_conflict
    assert classic(409, "alreadyExists", "The resource 'x' already exists").already_exists


@pytest.mark.parametrize(
    ("message", "missing"),
    [
        ("The resource 'projects/p' was not found", True),
        ("Failed to find project p", True),
        ("The resource 'projects/p/global/networks/n' was not found", False),
        ("The resource 'projects/p/zones/nowhere' was not found", False),
    ],
)
def test_a_missing_project_is_not_a_missing_thing(message: str, missing: bool) -> None:
    error = classic(404, "notFound", message)
    assert error.is_missing_project is missing
    assert ("gcloud projects describe p" in error.advice) is missing


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("The resource 'projects/p/zones/nowhere' was not found", "gcloud compute zones list --project=p"),
        ("Invalid value for field 'region': 'nowhere'. Unknown region.", "gcloud compute regions list --project=p"),
    ],
)
def test_a_missing_place_is_not_a_missing_thing(message: str, advice: str) -> None:
    error = classic(404, "notFound", message)
    assert advice in error.advice
    assert error.is_absence_of("projects/p/zones/nowhere/disks/d") is ("Unknown" in message)
    there = classic(404, "notFound", "The resource 'projects/p/zones/z/disks/d' was not found")
    assert there.is_absence_of("projects/p/zones/z/disks/d")
    assert not classic(403, "forbidden", message).is_absence_of("projects/p/zones/nowhere/disks/d")


def test_a_zone_that_is_full() -> None:
    operation = {"error": {"errors": [{"code": "ZONE_RESOURCE_POOL_EXHAUSTED", "message": "The zone is full."}]}}
    assert "another zone" in google_errors.from_operation("create it", operation, project="p").advice


def test_a_long_running_operations_error() -> None:
    operation = {"name": "operations/1", "done": True, "error": {"code": 9, "message": "Billing must be enabled."}}
    error = google_errors.from_operation("enable it", operation, project="p")
    assert "Billing must be enabled." in str(error)
    assert "gcloud billing projects link p" in error.advice
    assert (error.code, error.reason) == (400, "FAILED_PRECONDITION")


@pytest.mark.parametrize(
    "body", ["<html><b>502 Bad Gateway</b></html>", "", '{"error": "invalid_grant"}', "[]", "null"]
)
def test_an_answer_that_is_not_googles(body: str) -> None:
    error = google_errors.from_answer("do it", 502, body, project="p")
    assert error.code == 502
    assert str(error).startswith("do it: HTTP 502: ")
