"""IAM policies: read, change with an etag, conditions."""

from __future__ import annotations

import copy
import re
from typing import Any

from .errors import Refusal
from .handlers import Call
from .state import Thing, fingerprint
from .wire import same_bytes

MEMBER = re.compile(
    r"allUsers|allAuthenticatedUsers|(user|serviceAccount|group|domain):\S+|principal(Set)?://iam\.googleapis\.com/\S+"
    r"|deleted:(user|serviceAccount|group):\S+\?uid=\d+"
)
ROLE = re.compile(r"roles/[A-Za-z0-9_.]+|(projects|organizations)/[^/]+/roles/[A-Za-z0-9_.]+")
GOOGLES = ("developer.gserviceaccount.com", "cloudservices.gserviceaccount.com")
CONFLICT = "There were concurrent policy changes. Please retry the whole read-modify-write with exponential backoff."


def read(call: Call, key: str, requested: int) -> Thing:
    """The policy at a key of the notes' ``policies``.

    :param requested: the policy version that the client understands. Below 3 a binding with a condition comes without
        it, under a role's name that exists for that purpose only.
    """
    policy: Thing = copy.deepcopy(call.state.note("policies").get(key, {}))
    conditional = any("condition" in binding for binding in policy.get("bindings", ()))
    if conditional and requested < 3:
        for binding in policy["bindings"]:
            if condition := binding.pop("condition", None):
                binding["role"] += f"_withcond_{fingerprint(condition).encode().hex()[:20]}"
    policy["version"] = 3 if conditional and requested >= 3 else 1
    policy["etag"] = etag(call, key)
    if not policy.get("bindings"):
        policy.pop("bindings", None)
    policy.pop("serial", None)
    return policy


def etag(call: Call, key: str) -> str:
    """The etag of a policy as it is now."""
    return fingerprint(call.state.note("policies").get(key, {}))


def write(call: Call, key: str, wanted: Any) -> Thing:
    """Replace a policy.

    :raises Refusal: 409 for an etag that is not the current one, 400 for members, roles and versions that Google
        refuses.
    """
    if not isinstance(wanted, dict):
        raise Refusal(400, "Request contains an invalid argument: policy is missing.")
    if wanted.get("etag") and not same_bytes(wanted["etag"], etag(call, key)):
        raise Refusal(409, CONFLICT, "aborted", state="ABORTED")
    bindings: dict[str, Thing] = {}
    for binding in wanted.get("bindings", ()):
        role, condition = binding.get("role", ""), binding.get("condition")
        if not ROLE.fullmatch(role) or "_withcond_" in role:
            raise Refusal(400, f"Role {role} is not supported for this resource.")
        if condition:
            if wanted.get("version") != 3:
                raise Refusal(400, "A policy with conditions must be written as version 3.")
            if not condition.get("expression") or not condition.get("title"):
                raise Refusal(400, "A condition needs a title and an expression.")
        for member in binding.get("members", ()):
            _check_member(call, member)
        merged = bindings.setdefault(f"{role} {fingerprint(condition)}", {"role": role, "members": []})
        if condition:
            merged["condition"] = condition
        merged["members"] = sorted({*merged["members"], *binding.get("members", ())})
    policies = call.state.note("policies")
    policies[key] = {
        "bindings": [bindings[name] for name in sorted(bindings) if bindings[name]["members"]],
        "serial": policies.get(key, {}).get("serial", 0) + 1,
    }
    return read(call, key, 3)


def _check_member(call: Call, member: str) -> None:
    if not MEMBER.fullmatch(member):
        kinds = "user:, serviceAccount:, group:, domain: or principal"
        raise Refusal(400, f"Invalid member: {member}. It must begin with {kinds}.")
    kind, _, email = member.partition(":")
    if kind == "serviceAccount" and not exists(call.google, email):
        raise Refusal(400, f"Service account {email} does not exist.")


def exists(google: Any, email: str) -> bool:
    """Whether there is such a service account: ours, a project's default ones, or a service agent of Google's."""
    name, _, domain = email.partition("@")
    projects = google.state.note("projects")
    if domain in GOOGLES or domain.startswith("gcp-sa-"):
        return True
    project = domain.removesuffix(".iam.gserviceaccount.com")
    return project in projects and f"iam/projects/{project}/serviceAccounts/{name}@{domain}" in google.state.things


def requested_version(call: Call) -> int:
    """The policy version that a client asks for, in the body or in the query."""
    options = call.body.get("options") or {}
    return int(options.get("requestedPolicyVersion", call.query("options.requestedPolicyVersion", "1")))
