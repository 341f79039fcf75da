# SPDX-License-Identifier: Apache-2.0
"""What to do about a refusal of Google's: the permission and the role that has it, the API to enable, the quota, the
policy.

Nothing here calls anybody; :mod:`google_errors` puts the advice behind Google's own words.
"""

from __future__ import annotations

import json
import re
from typing import Any

_PERMISSION = re.compile(
    r"[Pp]ermissions? '?([a-zA-Z]+(?:\.[a-zA-Z]+){2,})|'([a-zA-Z]+(?:\.[a-zA-Z]+){2,})' permission"
)
CONSTRAINT = re.compile(r"constraints/[A-Za-z]+(?:\.[A-Za-z]+)*")
_QUOTA = re.compile(
    r"Quota '(?P<metric>[^']+)' exceeded\.\s+Limit: (?P<limit>\d+(?:\.\d+)?)"
    r"(?: (?P<where>globally|in region \S+|in \S+))?"
)
_SERVICE = re.compile(r"\b([a-z]+(?:-[a-z]+)*\.googleapis\.com)\b")
_BILLING = re.compile(r"[Bb]illing (?:must be enabled|to be enabled|account .{0,80}not found|is disabled)")
NO_QUOTA_PROJECT = re.compile(r"requires a quota project")
_PROJECT = re.compile(r"projects/((?:[a-z][a-z0-9.-]*:)?[a-z][a-z0-9-]+)[/']")
_ATTACH = re.compile(r"does not have access to service account")
_SCOPE = re.compile(r"insufficient authentication scopes")
# Too many calls in a short time; Compute Engine says so with 403, and in the words of either shape.
RATE_LIMITS = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED"})
_OVERLAP = re.compile(r"overlap|range.*conflict", re.IGNORECASE)
_NO_PLACE = re.compile(r"projects/[^/']+/(?P<kind>region|zone)s/[^/']+' was not found|Unknown (?P<other>region|zone)\b")
NO_PROJECT = re.compile(
    r"(?:The resource )?'?projects/[^/' ]+'? was not found|[Ff]ailed to find project|[Pp]roject .{0,80}not found"
)

# The narrowest predefined role that holds a permission; the first prefix that fits wins.
_ROLES = (
    ("compute.firewalls.get", "roles/compute.networkViewer"),
    ("compute.firewalls.list", "roles/compute.networkViewer"),
    ("compute.firewalls.", "roles/compute.securityAdmin"),
    ("compute.networks.updatePolicy", "roles/compute.securityAdmin"),
    ("compute.networks.", "roles/compute.networkAdmin"),
    ("compute.subnetworks.use", "roles/compute.networkUser"),
    ("compute.subnetworks.", "roles/compute.networkAdmin"),
    ("compute.routers.", "roles/compute.networkAdmin"),
    ("compute.addresses.use", "roles/compute.networkUser"),
    ("compute.addresses.", "roles/compute.networkAdmin"),
    ("compute.globalOperations.", "roles/compute.viewer"),
    ("compute.regionOperations.", "roles/compute.viewer"),
    ("compute.zoneOperations.", "roles/compute.viewer"),
    ("compute.images.", "roles/compute.imageUser"),
    ("compute.instances.osAdminLogin", "roles/compute.osAdminLogin"),
    ("compute.instances.osLogin", "roles/compute.osLogin"),
    ("compute.", "roles/compute.instanceAdmin.v1"),
    ("iam.serviceAccounts.actAs", "roles/iam.serviceAccountUser"),
    ("iam.serviceAccounts.getAccessToken", "roles/iam.serviceAccountTokenCreator"),
    ("iam.workloadIdentityPool", "roles/iam.workloadIdentityPoolAdmin"),
    ("iam.serviceAccountKeys.", "roles/iam.serviceAccountKeyAdmin"),
    ("iam.serviceAccounts.", "roles/iam.serviceAccountAdmin"),
    ("resourcemanager.projects.getIamPolicy", "roles/resourcemanager.projectIamAdmin"),
    ("resourcemanager.projects.get", "roles/browser"),
    ("resourcemanager.", "roles/resourcemanager.projectIamAdmin"),
    ("serviceusage.services.use", "roles/serviceusage.serviceUsageConsumer"),
    ("serviceusage.", "roles/serviceusage.serviceUsageAdmin"),
    ("artifactregistry.repositories.downloadArtifacts", "roles/artifactregistry.reader"),
    ("artifactregistry.repositories.uploadArtifacts", "roles/artifactregistry.writer"),
    ("artifactregistry.", "roles/artifactregistry.admin"),
    ("secretmanager.versions.access", "roles/secretmanager.secretAccessor"),
    ("secretmanager.", "roles/secretmanager.admin"),
    ("iap.tunnelInstances.accessViaIAP", "roles/iap.tunnelResourceAccessor"),
    ("iap.", "roles/iap.admin"),
)


def advice(
    code: int | None,
    reason: str,
    message: str,
    *,
    project: str,
    member: str | None = None,
    details: list[dict[str, Any]] | None = None,
) -> str:
    """What to do about it, in one or two sentences; empty where nothing general can be said."""
    details = details or []
    if constraint := CONSTRAINT.search(message + json.dumps(details)):
        return (
            f"The organisation's policy {constraint.group()} forbids it: ask its administrators for an exception "
            f"(gcloud org-policies describe {constraint.group()} --project={project} --effective shows it)."
        )
    if reason in RATE_LIMITS:
        return (
            "Too many calls in a short time: run again in a minute, or ask for more at "
            f"https://console.cloud.google.com/iam-admin/quotas?project={project}."
        )
    known = project_advice(reason, message, details, project) or quota_advice(reason, message, details, project)
    if known:
        return known
    if code == 403 or _ATTACH.search(message):
        return permission_advice(message, details, project=project, member=member)
    if code == 401:
        return "The credentials were refused: they are expired, revoked or not for this API."
    if "ZONE_RESOURCE_POOL_EXHAUSTED" in reason or "stockout" in reason:
        return "The zone has no capacity for it at the moment: try later, another zone, or another machine type."
    if code == 404 and NO_PROJECT.search(message):
        return (
            f"Is the project's id spelled right (project: {project}), and may the caller see it? "
            f"gcloud projects describe {project}"
        )
    if place := _NO_PLACE.search(message):
        kind = place.group("kind") or place.group("other")
        return f"Is the {kind} spelled right? gcloud compute {kind}s list --project={project}"
    if code in (400, 409) and _OVERLAP.search(message):
        return "Choose a range that no other subnetwork of the network and no peered network uses."
    return ""


def project_advice(reason: str, message: str, details: list[dict[str, Any]], project: str) -> str:
    """What the project or the token lacks, where it is no permission: an API, billing, a scope, a perimeter."""
    if NO_QUOTA_PROJECT.search(message):
        return (
            "The sign-in of a person needs a project that its calls are counted for: "
            f"gcloud auth application-default set-quota-project {project}"
        )
    if reason in ("SERVICE_DISABLED", "accessNotConfigured"):
        known: dict[str, Any] = next(
            (part["metadata"] for part in details if part.get("metadata", {}).get("service")), {}
        )
        spelled = _SERVICE.search(message)
        name = known.get("service") or (spelled.group(1) if spelled else "SERVICE.googleapis.com")
        consumer = str(known.get("consumer") or "").rpartition("/")[2]
        # Some APIs count a call for the project of the credentials, whatever project is asked for.
        elsewhere = (
            f" Google counts the call for project {consumer}; if that is not {project}, the credentials are of that "
            "project, and the API has to be enabled there."
            if consumer not in ("", project)
            else ""
        )
        return (
            f"Enable the API: gcloud services enable {name} --project={project} (or the module gcp_services). "
            f"It takes a minute or two until it is usable.{elsewhere}"
        )
    if reason == "SERVICE_CONFIG_NOT_FOUND_OR_PERMISSION_DENIED":
        return "Is the API's name spelled right? gcloud services list --available shows them."
    if _BILLING.search(message):
        return f"Link a billing account: gcloud billing projects link {project} --billing-account=ACCOUNT_ID"
    if reason in ("ACCESS_TOKEN_SCOPE_INSUFFICIENT", "insufficientPermissions") or _SCOPE.search(message):
        return (
            "The token was made without the scope https://www.googleapis.com/auth/cloud-platform. A machine on Compute "
            "Engine gets it with `gcloud compute instances set-service-account NAME --scopes=cloud-platform` while it "
            "is stopped."
        )
    if "vpcServiceControls" in message + json.dumps(details):
        return (
            "A service perimeter (VPC Service Controls) forbids it: run inside of it, or ask its administrators; the "
            "identifier in the message finds the entry in their log."
        )
    return ""


def permission(message: str, details: list[dict[str, Any]]) -> str:
    """The permission that was missing, where Google names it."""
    for part in details:
        metadata = part.get("metadata") or part.get("metadatas") or {}
        if metadata.get("permission"):
            return str(metadata["permission"])
    if _ATTACH.search(message):
        return "iam.serviceAccounts.actAs"
    found = _PERMISSION.search(message)
    return (found.group(1) or found.group(2)) if found else ""


def role_for(name: str) -> str:
    """A predefined role with the permission ``name``; empty where none is known."""
    return next((role for prefix, role in _ROLES if name.startswith(prefix)), "")


def permission_advice(message: str, details: list[dict[str, Any]], *, project: str, member: str | None) -> str:
    """Who has to be given what."""
    name = permission(message, details)
    if not name:
        who = member or "see `gcloud auth list`"
        return f"The caller ({who}) lacks a permission in project {project}, or the project does not exist."
    role = role_for(name)
    if not role:
        return f"The caller ({member or 'see `gcloud auth list`'}) lacks the permission {name}."
    # A shared network is in another project than the one that was asked for.
    elsewhere = _PROJECT.search(message)
    project = elsewhere.group(1) if elsewhere else project
    grantee = member or "MEMBER"
    unknown = "" if member else " (MEMBER: the caller, for example user:you@example.com)"
    if name == "iam.serviceAccounts.actAs":
        account = re.search(
            r"[\w.-]+@[\w.-]+\.iam\.gserviceaccount\.com|[\w-]+-compute@developer\.gserviceaccount\.com", message
        )
        target = account.group() if account else "SERVICE_ACCOUNT"
        return (
            f"The caller lacks {name} on {target}: gcloud iam service-accounts add-iam-policy-binding {target} "
            f"--member={grantee} --role={role} --project={project}{unknown}"
        )
    return (
        f"The caller lacks the permission {name}, which {role} has: "
        f"gcloud projects add-iam-policy-binding {project} --member={grantee} --role={role}{unknown}"
    )


def quota_advice(reason: str, message: str, details: list[dict[str, Any]], project: str) -> str:
    """Which quota is used up, its limit, and where to ask for more."""
    info: dict[str, Any] = {}
    for part in details:
        inner = part.get("quotaInfo") or part.get("metadatas") or part.get("metadata") or {}
        if inner.get("metricName") or inner.get("quota_metric"):
            info = inner
            break
    found = _QUOTA.search(message)
    if not info and not found and "quota" not in reason.lower():
        return ""
    metric = (
        info.get("limitName") or info.get("metricName") or info.get("quota_metric") or (found and found["metric"]) or ""
    )
    limit = info.get("limit") or info.get("quota_limit_value") or (found and found["limit"]) or ""
    dimensions = info.get("dimensions") or {}
    where = dimensions.get("region") or dimensions.get("zone") or ((found and found["where"]) or "").removeprefix("in ")
    where = where.rstrip(".")
    words = " ".join(
        part
        for part in (
            f"quota {metric}" if metric else "a quota",
            f"({where})" if where else "",
            f"is at its limit of {limit}" if limit else "is used up",
        )
        if part
    )
    return (
        f"The {words}: free something, use another region, or ask for more at "
        f"https://console.cloud.google.com/iam-admin/quotas?project={project}."
    )
