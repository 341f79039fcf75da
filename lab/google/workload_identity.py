"""Workload identity pools and their providers. Tokens are :mod:`lab.google.oauth`'s."""

from __future__ import annotations

import re

from .errors import Refusal
from .handlers import Call, handles
from .state import Thing
from .wire import TYPE, looked_at, masked, proto, started

API = "iam.projects.locations.workloadIdentityPools"
POOL = "google.iam.v1.WorkloadIdentityPool"


def _make(call: Call, kind: str, collection: str, name: str) -> Thing:
    if not re.fullmatch(r"[a-z][a-z0-9-]{2,30}[a-z0-9]", name) or name.startswith("gcp-"):
        raise Refusal(400, f"The id '{name}' is not valid: 4 to 32 lower-case letters, digits and dashes.")
    number = call.state.note("projects")[call.project]["number"]
    parent = re.sub(r"^projects/[^/]+", f"projects/{call.project}", call.target)
    path = f"{parent}/{collection}/{name}"
    if call.find(path):
        raise Refusal(409, "Requested entity already exists")
    thing = {**call.body, "name": path.replace(f"projects/{call.project}", f"projects/{number}"), "state": "ACTIVE"}
    call.put(path, thing)
    return _started(call, kind, path, thing)


def _started(call: Call, kind: str, path: str, thing: Thing) -> Thing:
    return started(call, f"{path}/operations", {"@type": f"{TYPE}{kind}", **proto(thing)})


def _check_provider(thing: Thing) -> None:
    if "google.subject" not in (thing.get("attributeMapping") or {}):
        raise Refusal(400, "The attribute mapping must map google.subject.")
    issuer = (thing.get("oidc") or {}).get("issuerUri", "")
    if not issuer.startswith("https://"):
        raise Refusal(400, "The issuer URI must begin with https://.")
    # Google refuses providers of everybody without a condition that looks at a claim.
    if "githubusercontent.com" in issuer and "assertion." not in thing.get("attributeCondition", ""):
        raise Refusal(400, "The attribute condition must reference one of the provider's claims.")


def _change(call: Call, kind: str, allowed: set[str]) -> Thing:
    changed = masked(call.thing(), call.body, call.query("updateMask"), allowed)
    if kind != POOL:
        _check_provider(changed)
    return _started(call, kind, call.target, call.put(call.target, changed))


@handles(f"{API}.create")
def create(call: Call) -> Thing:
    """A new pool; the answer is a long-running operation."""
    return _make(call, POOL, "workloadIdentityPools", call.query("workloadIdentityPoolId"))


@handles(f"{API}.get", f"{API}.providers.get")
def get(call: Call) -> Thing:
    """One pool, or one provider."""
    return proto(call.thing())


@handles(f"{API}.patch")
def patch(call: Call) -> Thing:
    """Change a pool."""
    return _change(call, POOL, {"displayName", "description", "disabled"})


@handles(f"{API}.providers.create")
def create_provider(call: Call) -> Thing:
    """A new provider of a pool that is there."""
    call.thing()
    _check_provider(call.body)
    return _make(call, f"{POOL}Provider", "providers", call.query("workloadIdentityPoolProviderId"))


@handles(f"{API}.providers.patch")
def patch_provider(call: Call) -> Thing:
    """Change a provider."""
    allowed = {"displayName", "description", "disabled", "oidc", "attributeMapping", "attributeCondition"}
    return _change(call, f"{POOL}Provider", allowed)


@handles(f"{API}.operations.get", f"{API}.providers.operations.get")
def operation(call: Call) -> Thing:
    """How far it is."""
    return looked_at(call, call.target)
