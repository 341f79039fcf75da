"""Who may call what: scopes of the token, APIs that are enabled, permissions from roles."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from .errors import Refusal

if TYPE_CHECKING:
    from .handlers import Call

# Compute's verbs whose permission has another name than the method.
VERBS = {
    "insert": "create",
    "patch": "update",
    "aggregatedList": "list",
    "getFromFamily": "getFromFamily",
    "wait": "get",
    "expandIpCidrRange": "expandIpCidrRange",
}
NAMES = {
    "compute.projects.setCommonInstanceMetadata": "compute.projects.setCommonInstanceMetadata",
    "compute.imageFamilyViews.get": "compute.images.getFromFamily",
    "compute.instances.updateShieldedInstanceConfig": "compute.instances.updateShieldedInstanceConfig",
    "compute.instances.updateAccessConfig": "compute.instances.updateAccessConfig",
    "compute.disks.createSnapshot": "compute.disks.createSnapshot",
    "cloudresourcemanager.projects": "resourcemanager.projects",
    "iap.getIamPolicy": "iap.tunnelInstances.getIamPolicy",
    "iap.setIamPolicy": "iap.tunnelInstances.setIamPolicy",
    "serviceusage.services.batchEnable": "serviceusage.services.enable",
    "serviceusage.services.batchGet": "serviceusage.services.get",
    "iam.projects.serviceAccounts.patch": "iam.serviceAccounts.update",
    "iam.projects.serviceAccounts.keys": "iam.serviceAccountKeys",
    "iam.projects.serviceAccounts": "iam.serviceAccounts",
    "iam.projects.locations.workloadIdentityPools.patch": "iam.workloadIdentityPools.update",
    "iam.projects.locations.workloadIdentityPools.providers.patch": "iam.workloadIdentityPoolProviders.update",
    "iam.projects.locations.workloadIdentityPools.providers": "iam.workloadIdentityPoolProviders",
    "iam.projects.locations.workloadIdentityPools": "iam.workloadIdentityPools",
    "artifactregistry.projects.locations.repositories.patch": "artifactregistry.repositories.update",
    "artifactregistry.projects.locations.repositories.packages": "artifactregistry.packages",
    "artifactregistry.projects.locations.repositories": "artifactregistry.repositories",
    "secretmanager.projects.secrets.addVersion": "secretmanager.versions.add",
    "secretmanager.projects.secrets.versions": "secretmanager.versions",
    "secretmanager.projects.secrets.patch": "secretmanager.secrets.update",
    "secretmanager.projects.secrets": "secretmanager.secrets",
    "iamcredentials.projects.serviceAccounts.generateAccessToken": "iam.serviceAccounts.getAccessToken",
}
# What a role allows, as patterns; as far as anything of ours asks for it.
READ = ["*.get", "*.list", "*.getFromFamily", "*.getSerialPortOutput", "*.getGuestAttributes"]
OWNER_LACKS = ["iam.serviceAccounts.getAccessToken"]
ROLES: dict[str, list[str]] = {
    "roles/owner": ["*"],
    "roles/editor": [
        "*.get",
        "*.list",
        "*.create",
        "*.update",
        "*.delete",
        "compute.*",
        "artifactregistry.*.*Artifacts",
    ],
    "roles/viewer": READ,
    "roles/artifactregistry.reader": [
        "artifactregistry.repositories.get",
        "artifactregistry.repositories.downloadArtifacts",
    ],
    "roles/artifactregistry.writer": [
        "artifactregistry.repositories.get",
        "artifactregistry.repositories.downloadArtifacts",
        "artifactregistry.repositories.uploadArtifacts",
    ],
    "roles/artifactregistry.admin": ["artifactregistry.*"],
    "roles/storage.objectUser": [f"storage.objects.{verb}" for verb in ("create", "delete", "get", "list", "update")],
    "roles/storage.objectCreator": ["storage.objects.create"],
    "roles/storage.objectViewer": ["storage.objects.get", "storage.objects.list"],
    "roles/storage.admin": ["storage.*"],
    "roles/secretmanager.secretAccessor": ["secretmanager.versions.access"],
    "roles/secretmanager.admin": ["secretmanager.*"],
    "roles/iam.serviceAccountTokenCreator": ["iam.serviceAccounts.getAccessToken", "iam.serviceAccounts.signBlob"],
    "roles/iam.workloadIdentityUser": ["iam.serviceAccounts.getAccessToken"],
    "roles/iam.serviceAccountUser": ["iam.serviceAccounts.actAs", "iam.serviceAccounts.get"],
    "roles/compute.viewer": [f"compute.{pattern}" for pattern in READ],
    "roles/compute.admin": ["compute.*"],
    "roles/iap.tunnelResourceAccessor": ["iap.tunnelInstances.accessViaIAP"],
}
# What google-auth asks for before it impersonates; the document does not list it, the API takes it.
EXTRA_SCOPES = {"iamcredentials": {"https://www.googleapis.com/auth/iam"}}
# Projects with Google's own images.
PUBLIC = ("debian-cloud", "ubuntu-os-cloud")
# Methods that need no permission on a project.
FREE = {
    "serviceusage.operations.get",
    "iamcredentials.projects.serviceAccounts.generateAccessToken",  # checks by itself, on the account
    "cloudresourcemanager.v1.projects.testIamPermissions",
    "cloudresourcemanager.v3.projects.testIamPermissions",
}


def permission(method: str) -> str:
    """The permission that a method needs: ``compute.networks.create`` for ``compute.networks.insert``."""
    if method in NAMES:
        return NAMES[method]
    parent, _, verb = re.sub(r"^cloudresourcemanager\.v\d\.", "cloudresourcemanager.", method).rpartition(".")
    parent = NAMES.get(parent, parent)
    return f"{parent}.{VERBS.get(verb, verb)}"


def check_scope(call: Call) -> None:
    """Refuse a token that was not made for this."""
    taken = call.method.scopes | EXTRA_SCOPES.get(call.api, set())
    if call.method.scopes and not taken & call.caller.scopes:
        call.google.violations.append(f"{call.method.key}: the token has none of the scopes that it takes")
        info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT"}
        details = [{**info, "domain": "googleapis.com", "metadata": {"method": call.method.id}}]
        message = "Request had insufficient authentication scopes."
        raise Refusal(403, message, "insufficientPermissions", details=details)


def allows(role: str, wanted: str) -> bool:
    """Whether a role has a permission."""
    if role == "roles/owner" and wanted in OWNER_LACKS:
        return False
    return any(fnmatchcase(wanted, pattern) for pattern in ROLES.get(role, ()))


def has(call_google: Any, member: str, wanted: str, resources: list[str]) -> bool:
    """Whether a member has a permission by any policy of these resources (keys in the notes' ``policies``)."""
    email = member.partition(":")[2]
    if wanted in call_google.state.note("denied").get(email, ()):
        return False
    policies = call_google.state.note("policies")
    for resource in resources:
        for binding in policies.get(resource, {}).get("bindings", ()):
            if _among(member, binding["members"]) and allows(binding["role"], wanted):
                return True
    return False


def check(call: Call) -> None:
    """Refuse what the caller may not do: no such project, an API that is off, a permission that is missing."""
    from .iam import path_of

    wanted, project, target = permission(call.method.key), call.project, call.target
    if not project or call.method.key in FREE or (project in PUBLIC and wanted.startswith("compute.images.")):
        return
    if project == "-" and call.api == "iam":
        target = path_of(call)
        project = target.split("/")[1]
    if call.state.note("projects").get(project) is None:
        raise _no_project(call, wanted)
    # A policy counts for everything below what it is set on.
    parts = target.split("/")
    resources = [f"cloudresourcemanager/projects/{project}"]
    resources += [call.key("/".join(["projects", project, *parts[2:end]])) for end in range(4, len(parts) + 1, 2)]
    allowed = has(call.google, call.caller.member, wanted, resources)
    if not _belongs(call, project) and not allowed:
        raise denied(call, wanted)
    if call.api != "serviceusage":
        check_enabled(call, project, f"{call.api}.googleapis.com")
    if not allowed:
        raise denied(call, wanted)


def check_enabled(call: Call, project: str, service: str) -> None:
    """Refuse the use of an API that is off."""
    from .services import settle

    settle(call.google)
    if service not in call.state.note("services").get(project, ()):
        raise _disabled(call, project, service)


def _belongs(call: Call, project: str) -> bool:
    policy = call.state.note("policies").get(f"cloudresourcemanager/projects/{project}", {})
    return any(_among(call.caller.member, binding["members"]) for binding in policy.get("bindings", ()))


def _among(member: str, members: list[str]) -> bool:
    if member in members or {"allUsers", "allAuthenticatedUsers"} & set(members):
        return True
    pool = member.removeprefix("principal:").partition("/subject/")[0]
    return member.startswith("principal:") and f"principalSet:{pool}/*" in members


def denied(call: Call, wanted: str, resource: str | None = None) -> Refusal:
    """Google's answer to a caller without a permission."""
    path = resource or call.target
    if call.document.classic:
        where = call.request_path if call.method.http == "POST" and path.count("/") < 2 else path
        return Refusal(403, f"Required '{wanted}' permission for '{where}'", "forbidden")
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "IAM_PERMISSION_DENIED"}
    metadata = {"permission": wanted, "resource": path}
    host = "iam.googleapis.com" if call.api == "iamcredentials" else f"{call.api}.googleapis.com"
    details = [{**info, "domain": host, "metadata": metadata}]
    if call.api == "cloudresourcemanager":
        return Refusal(403, "The caller does not have permission", details=details)
    where = f"//{host}/{path}"
    return Refusal(403, f"Permission '{wanted}' denied on resource '{where}' (or it may not exist).", details=details)


def _no_project(call: Call, wanted: str) -> Refusal:
    if call.document.classic:
        return Refusal(404, f"The resource 'projects/{call.project}' was not found", "notFound")
    return denied(call, wanted)


TITLES = {
    "compute.googleapis.com": "Compute Engine API",
    "iam.googleapis.com": "Identity and Access Management (IAM) API",
    "artifactregistry.googleapis.com": "Artifact Registry API",
    "secretmanager.googleapis.com": "Secret Manager API",
    "cloudresourcemanager.googleapis.com": "Cloud Resource Manager API",
    "oslogin.googleapis.com": "Cloud OS Login API",
    "iap.googleapis.com": "Cloud Identity-Aware Proxy API",
    "iamcredentials.googleapis.com": "IAM Service Account Credentials API",
    "serviceusage.googleapis.com": "Service Usage API",
    "sts.googleapis.com": "Security Token Service API",
    "storage.googleapis.com": "Cloud Storage JSON API",
}


def _disabled(call: Call, project: str, service: str) -> Refusal:
    number = call.state.note("projects")[project]["number"]
    link = f"https://console.developers.google.com/apis/api/{service}/overview?project={number}"
    message = (
        f"{TITLES.get(service, service)} has not been used in project {number} before or it is disabled. "
        f"Enable it by visiting {link} then retry. "
        # gcloud knows the refusal by all of these words.
        "If you enabled this API recently, wait a few minutes for the action to propagate to our systems and retry."
    )
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SERVICE_DISABLED"}
    metadata = {"service": service, "consumer": f"projects/{number}", "serviceTitle": TITLES.get(service, service)}
    details = [{**info, "domain": "googleapis.com", "metadata": metadata}]
    return Refusal(403, message, "accessNotConfigured", details=details)
