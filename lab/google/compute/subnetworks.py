"""Subnetworks: ranges that do not overlap, and may grow."""

from __future__ import annotations

import ipaddress

from ..errors import invalid
from ..handlers import Call, handles
from ..state import Thing, fingerprint
from .common import Collection, all_of, last, operation, ready

Network = ipaddress.IPv4Network
FLOW_LOGS = {"aggregationInterval": "INTERVAL_5_SEC", "flowSampling": 0.5, "metadata": "INCLUDE_ALL_METADATA"}
FIXED = ("name", "network", "region", "ipCidrRange", "purpose", "description", "privateIpGoogleAccess")


def parse_range(value: str, field: str) -> Network:
    """A range that Google takes: IPv4, /8 to /29, without host bits.

    :raises Refusal: 400 that names the field.
    """
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError:
        raise invalid(field, value, "Must be a valid IPv4 CIDR range.") from None
    if "/" not in value or not 8 <= network.prefixlen <= 29:
        raise invalid(field, value, "The prefix length must be between 8 and 29.")
    return network


def _overlap(call: Call, path: str, thing: Thing, wanted: Network, field: str) -> None:
    for other in all_of(call, "subnetworks"):
        if other["network"] == thing["network"] and not other["selfLink"].endswith("/" + path):
            ranges = [other["ipCidrRange"], *(entry["ipCidrRange"] for entry in other.get("secondaryIpRanges", ()))]
            if any(ipaddress.IPv4Network(taken).overlaps(wanted) for taken in ranges):
                where = f"existing subnetwork '{other['name']}' in region '{last(other['region'])}'"
                raise invalid(field, str(wanted), f"Invalid IPCidrRange: {wanted} conflicts with {where}.")


def check(call: Call, path: str, subnetwork: Thing) -> None:
    """A new subnetwork."""
    wanted = parse_range(subnetwork["ipCidrRange"], "resource.ipCidrRange")
    _overlap(call, path, subnetwork, wanted, "resource.ipCidrRange")
    _complete(call, path, subnetwork)


def _complete(call: Call, path: str, subnetwork: Thing) -> None:
    subnetwork["gatewayAddress"] = str(ipaddress.IPv4Network(subnetwork["ipCidrRange"])[1])
    for position, entry in enumerate(subnetwork.get("secondaryIpRanges", ())):
        field = f"resource.secondaryIpRanges[{position}].ipCidrRange"
        _overlap(call, path, subnetwork, parse_range(entry["ipCidrRange"], field), field)
    logs = dict(subnetwork.get("logConfig", {}))
    logs.setdefault("enable", bool(subnetwork.get("enableFlowLogs", False)))
    subnetwork["logConfig"] = {**FLOW_LOGS, **logs} if logs["enable"] else logs
    subnetwork["enableFlowLogs"] = logs["enable"]


def change(call: Call, path: str, subnetwork: Thing) -> None:
    """A patch: most things have a method of their own, or are for ever."""
    before = call.thing(path)
    for name in FIXED:
        if subnetwork.get(name) != before.get(name):
            raise invalid(f"resource.{name}", subnetwork.get(name), "It cannot be changed by a patch.")
    if "enableFlowLogs" in call.body and "logConfig" not in call.body:
        subnetwork["logConfig"]["enable"] = call.body["enableFlowLogs"]
    _complete(call, path, subnetwork)


SUBNETWORKS = Collection(
    "subnetworks",
    "regions",
    kind="compute#subnetwork",
    defaults={
        "privateIpGoogleAccess": False,
        "privateIpv6GoogleAccess": "DISABLE_GOOGLE_ACCESS",
        "purpose": "PRIVATE",
        "stackType": "IPV4_ONLY",
        "allowSubnetCidrRoutesOverlap": False,
    },
    references={"network": "networks"},
    check=check,
    change=change,
    has_fingerprint=True,
)
SUBNETWORKS.serve("get", "list", "aggregatedList", "insert", "patch", "delete")


def _changed(call: Call, subnetwork: Thing, kind: str) -> Thing:
    subnetwork.pop("fingerprint", None)
    subnetwork["fingerprint"] = fingerprint(subnetwork)
    return operation(call, call.target, kind)


@handles("compute.subnetworks.setPrivateIpGoogleAccess")
def set_private_ip_google_access(call: Call) -> Thing:
    """Google's APIs for machines without a public address."""
    subnetwork = call.thing()
    ready(call, call.target)
    subnetwork["privateIpGoogleAccess"] = bool(call.body.get("privateIpGoogleAccess", False))
    return _changed(call, subnetwork, "setPrivateIpGoogleAccess")


@handles("compute.subnetworks.expandIpCidrRange")
def expand(call: Call) -> Thing:
    """A range grows; it never shrinks or moves."""
    subnetwork = call.thing()
    ready(call, call.target)
    wanted = parse_range(call.body["ipCidrRange"], "resource.ipCidrRange")
    current = ipaddress.IPv4Network(subnetwork["ipCidrRange"])
    if wanted == current or not current.subnet_of(wanted):
        raise invalid(
            "resource.ipCidrRange", wanted, f"New range must be larger than and contain the current one, {current}."
        )
    _overlap(call, call.target, subnetwork, wanted, "resource.ipCidrRange")
    subnetwork["ipCidrRange"] = str(wanted)
    subnetwork["gatewayAddress"] = str(wanted[1])
    return _changed(call, subnetwork, "expandIpCidrRange")
