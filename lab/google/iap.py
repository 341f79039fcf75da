"""Identity-Aware Proxy: who may open a tunnel to a machine."""

from __future__ import annotations

import re

from . import policies
from .errors import Refusal
from .handlers import Call, handles
from .state import Thing

TUNNEL = re.compile(r"projects/[^/]+/iap_tunnel(/zones/[^/]+(/instances/[^/]+)?)?")


def _key(call: Call) -> str:
    """The key of a tunnel's policy: by the project's id and the instance's name."""
    if not TUNNEL.fullmatch(call.target):
        raise Refusal(400, f"Invalid resource name: {call.target}")
    parts = call.target.split("/")
    parts[1] = call.project
    if len(parts) == 7:
        where = f"projects/{call.project}/zones/{parts[4]}/instances"
        found = [
            thing["name"]
            for key, thing in call.state.children(f"compute/{where}")
            if parts[6] in (thing["name"], thing["id"])
        ]
        if not found:
            raise Refusal(404, f"Requested entity was not found: {where}/{parts[6]}")
        parts[6] = found[0]
    return "iap/" + "/".join(parts)


@handles("iap.getIamPolicy")
def get_policy(call: Call) -> Thing:
    """Who may open a tunnel."""
    return policies.read(call, _key(call), policies.requested_version(call))


@handles("iap.setIamPolicy")
def set_policy(call: Call) -> Thing:
    """Replace who may open a tunnel."""
    return policies.write(call, _key(call), call.body.get("policy"))
