"""Artifact Registry: repositories. What is in them is :mod:`lab.google.registry`'s."""

from __future__ import annotations

import re
from urllib.parse import quote

from . import policies, registry
from .compute.catalogue import REGIONS
from .errors import Refusal
from .handlers import Call, handles
from .state import Thing, timestamp_utc
from .wire import TYPE, looked_at, masked, proto, started

API = "artifactregistry.projects.locations"
LOCATIONS = [*REGIONS, "europe", "us", "asia"]
CHANGEABLE = {
    "description",
    "labels",
    "cleanupPolicies",
    "cleanupPolicyDryRun",
    "dockerConfig",
    "vulnerabilityScanningConfig",
}
SCANNING = {
    "enablementState": "SCANNING_DISABLED",
    "enablementStateReason": "API containerscanning.googleapis.com is not enabled.",
}


def _repository(call: Call) -> Thing:
    found = call.find(call.target)
    if found is None:
        raise Refusal(404, "Requested entity was not found.")
    return found


def _place(call: Call) -> tuple[str, str]:
    """The project's id and the location of a request."""
    match = re.match(r"projects/[^/]+/locations/([^/]+)", call.target)
    location = match[1] if match else ""
    if location not in LOCATIONS:
        raise Refusal(400, f"Location {location} is not found or access is unauthorized.", state="INVALID_ARGUMENT")
    return call.project, location


def _check(thing: Thing) -> None:
    for name, value in (thing.get("labels") or {}).items():
        if not re.fullmatch(r"[a-z][-_a-z0-9]{0,62}", name) or not re.fullmatch(r"[-_a-z0-9]{0,63}", value):
            raise Refusal(400, f"Invalid label: {name}={value}.")
    for name, policy in (thing.get("cleanupPolicies") or {}).items():
        if policy.setdefault("id", name) != name:
            raise Refusal(400, f"The cleanup policy {name} has the id {policy['id']}.")
        if policy.get("action") not in ("DELETE", "KEEP"):
            raise Refusal(400, f"The cleanup policy {name} needs an action.")
        if len([kind for kind in ("condition", "mostRecentVersions") if kind in policy]) != 1:
            raise Refusal(400, f"The cleanup policy {name} needs a condition or mostRecentVersions, not both.")
        if "mostRecentVersions" in policy and policy["action"] != "KEEP":
            raise Refusal(400, f"The cleanup policy {name}: mostRecentVersions goes with KEEP only.")
    if thing["format"] != "DOCKER" and thing.get("dockerConfig"):
        raise Refusal(400, f"A repository of the format {thing['format']} has no dockerConfig.")


@handles(f"{API}.repositories.create")
def create(call: Call) -> Thing:
    """A new repository; the answer is a long-running operation."""
    project, location = _place(call)
    name, body = call.query("repositoryId"), call.body
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name):
        raise Refusal(
            400, f"The repository id '{name}' is not valid: lower-case letters, digits and dashes, 63 at most."
        )
    if body.get("name") not in (None, "", name, f"{call.target}/repositories/{name}"):
        raise Refusal(400, f"The name {body['name']} is not that of the repository {name}.")
    path = f"projects/{project}/locations/{location}/repositories/{name}"
    if call.find(path):
        raise Refusal(409, "the repository already exists")
    if body["format"] == "FORMAT_UNSPECIFIED":
        raise Refusal(400, "The format of the repository must be given.")
    _check(body)
    if body.get("mode") == "MODE_UNSPECIFIED":  # gcloud says so
        del body["mode"]
    now = timestamp_utc()
    scanning = body.get("vulnerabilityScanningConfig") or {}
    thing: Thing = {
        "mode": "STANDARD_REPOSITORY",
        **body,
        "name": path,
        "createTime": now,
        "updateTime": now,
        "registryUri": f"{location}-{body['format'].lower()}.pkg.dev/{project}/{name}",
        "vulnerabilityScanningConfig": {**scanning, **SCANNING},
    }
    call.put(path, thing)
    response = {"@type": f"{TYPE}google.devtools.artifactregistry.v1.Repository", **proto(thing)}
    metadata = {"@type": f"{TYPE}google.devtools.artifactregistry.v1.OperationMetadata"}
    return started(call, f"projects/{project}/locations/{location}/operations", response, metadata)


@handles(f"{API}.repositories.get")
def get(call: Call) -> Thing:
    """One repository."""
    return proto(_repository(call))


@handles(f"{API}.repositories.list")
def list_repositories(call: Call) -> Thing:
    """A location's repositories."""
    project, location = _place(call)
    found = [proto(thing) for thing in call.children(f"projects/{project}/locations/{location}/repositories")]
    return {"repositories": found} if found else {}


@handles(f"{API}.repositories.patch")
def patch(call: Call) -> Thing:
    """Change what can change: at once, without an operation."""
    changed = masked(_repository(call), call.body, call.query("updateMask"), CHANGEABLE)
    changed["vulnerabilityScanningConfig"] = {**(changed.get("vulnerabilityScanningConfig") or {}), **SCANNING}
    _check(changed)
    changed["updateTime"] = timestamp_utc()
    return proto(call.put(call.target, changed))


@handles(f"{API}.repositories.delete")
def delete(call: Call) -> Thing:
    """The repository and everything in it."""
    _repository(call)
    call.delete(call.target)
    call.state.note("policies").pop(call.key(call.target), None)
    project, location = _place(call)
    response = {"@type": f"{TYPE}google.protobuf.Empty"}
    return started(call, f"projects/{project}/locations/{location}/operations", response)


@handles(f"{API}.repositories.packages.list")
def list_packages(call: Call) -> Thing:
    """The images of a repository, by what the registry behind has."""
    _repository(call)
    found = [proto(thing) for thing in call.children(f"{call.target}/packages")]
    place = call.target.split("/")
    prefix = f"{place[3]}/{place[1]}/{place[5]}/"
    for name in registry.images(call.google):
        if name.startswith(prefix):
            found.append({"name": f"{call.target}/packages/{quote(name.removeprefix(prefix), safe='')}"})
    return {"packages": found} if found else {}


@handles(f"{API}.operations.get")
def operation(call: Call) -> Thing:
    """How far it is."""
    return looked_at(call, call.target)


@handles(f"{API}.repositories.getIamPolicy")
def get_policy(call: Call) -> Thing:
    """Who may pull and push."""
    _repository(call)
    return policies.read(call, call.key(call.target), policies.requested_version(call))


@handles(f"{API}.repositories.setIamPolicy")
def set_policy(call: Call) -> Thing:
    """Replace who may pull and push."""
    _repository(call)
    return policies.write(call, call.key(call.target), call.body.get("policy"))
