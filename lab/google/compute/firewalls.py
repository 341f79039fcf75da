"""Firewall rules."""

from __future__ import annotations

import ipaddress
import re

from ..errors import Refusal, invalid
from ..handlers import Call
from ..state import Thing
from .common import Collection, self_link

PROTOCOLS = {"tcp", "udp", "icmp", "esp", "ah", "sctp", "ipip", "all"}
WITH_PORTS = {"tcp", "udp", "sctp", "6", "17", "132"}


def check(call: Call, path: str, rule: Thing) -> None:
    """What Google refuses, and what it fills in."""
    rule.setdefault("network", self_link(f"projects/{call.project}/global/networks/default"))
    incoming = rule["direction"] == "INGRESS"
    if incoming and not any(rule.get(name) for name in ("sourceRanges", "sourceTags", "sourceServiceAccounts")):
        rule["sourceRanges"] = ["0.0.0.0/0"]
    if not incoming and not rule.get("destinationRanges"):
        rule["destinationRanges"] = ["0.0.0.0/0"]
    if bool(rule.get("allowed")) == bool(rule.get("denied")):
        raise invalid(
            "resource.allowed", rule.get("allowed", ""), "Exactly one of 'allowed' and 'denied' must be specified."
        )
    if not 0 <= int(rule["priority"]) <= 65535:
        raise invalid("resource.priority", rule["priority"], "Must be between 0 and 65535.")
    rule["priority"] = int(rule["priority"])
    for first, second in (("sourceServiceAccounts", "sourceTags"), ("targetServiceAccounts", "targetTags")):
        if rule.get(first) and rule.get(second):
            raise Refusal(
                400, f"Invalid value for field 'resource.{second}': tags and service accounts exclude each other."
            )
    for field in ("sourceRanges", "destinationRanges"):
        for position, value in enumerate(rule.get(field, ())):
            _range(f"resource.{field}[{position}]", value)
    for field in ("allowed", "denied"):
        for position, entry in enumerate(rule.get(field, ())):
            _protocol(f"resource.{field}[{position}]", entry)
    rule["logConfig"] = {"enable": False, **rule.get("logConfig", {})}
    for field in ("sourceRanges", "sourceTags", "targetTags", "targetServiceAccounts", "allowed", "denied"):
        if rule.get(field) == []:
            del rule[field]


def _range(field: str, value: str) -> None:
    try:
        ipaddress.ip_network(value)
    except ValueError:
        raise invalid(field, value, "Must be a valid CIDR range.") from None


def _protocol(field: str, entry: Thing) -> None:
    protocol = str(entry.get("IPProtocol", "")).lower()
    if protocol not in PROTOCOLS and not (protocol.isdigit() and int(protocol) < 256):
        raise invalid(f"{field}.IPProtocol", entry.get("IPProtocol"), "Must be a known protocol or its number.")
    entry["IPProtocol"] = protocol
    for position, port in enumerate(entry.get("ports", ())):
        numbers = [int(number) for number in port.split("-")] if re.fullmatch(r"\d+(-\d+)?", port) else [-1]
        if (
            protocol not in WITH_PORTS
            or numbers != sorted(numbers)
            or not all(0 <= number <= 65535 for number in numbers)
        ):
            raise invalid(
                f"{field}.ports[{position}]", port, "Ports may only be given as 22 or 8000-8080, for TCP, UDP or SCTP."
            )


def change(call: Call, path: str, rule: Thing) -> None:
    """What is for ever."""
    before = call.thing(path)
    for name in ("name", "network", "direction"):
        if rule.get(name) != before.get(name):
            raise invalid(f"resource.{name}", rule.get(name), "It cannot be changed.")
    check(call, path, rule)


FIREWALLS = Collection(
    "firewalls",
    "global",
    kind="compute#firewall",
    defaults={"direction": "INGRESS", "priority": 1000, "disabled": False},
    references={"network": "networks"},
    check=check,
    change=change,
)
FIREWALLS.serve("get", "list", "insert", "patch", "delete")
