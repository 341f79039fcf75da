#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""A firewall rule of a VPC network."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_firewall
short_description: Firewall rule of a VPC network
description:
  - Makes, changes or removes one firewall rule.
  - Without a source Google opens an ingress rule to the whole internet. Here that has to be said with
    O(source_ranges=0.0.0.0/0).
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: [dataops.dagster_gce.attributes, dataops.dagster_gce.google]
attributes:
  idempotent:
    details: A run that changes nothing is one GET.
options:
  name:
    description: The rule's name.
    type: str
    required: true
  state:
    description: Whether it has to be there.
    type: str
    choices: [present, absent]
    default: present
  network:
    description:
      - The network it belongs to, a name or a full path such as C(projects/p/global/networks/n).
      - Required for O(state=present). It cannot be changed afterwards.
    type: str
  description:
    description: Text for people.
    type: str
  direction:
    description: Whether it is about what comes in or what goes out. It cannot be changed afterwards.
    type: str
    choices: [INGRESS, EGRESS]
    default: INGRESS
  priority:
    description: 0 (first) to 65535. Google's default is 1000.
    type: int
  allowed:
    description: What is let through. One of O(allowed) and O(denied) is required for O(state=present).
    type: list
    elements: dict
    suboptions:
      protocol:
        description: V(tcp), V(udp), V(icmp), V(esp), V(ah), V(sctp), V(ipip), V(all) or a protocol's number.
        type: str
        required: true
      ports:
        description: Ports or ranges of ports (V(8000-8080)) of TCP, UDP and SCTP; all without it.
        type: list
        elements: str
  denied:
    description: What is stopped. A rule cannot change from one to the other.
    type: list
    elements: dict
    suboptions:
      protocol:
        description: As for O(allowed).
        type: str
        required: true
      ports:
        description: As for O(allowed).
        type: list
        elements: str
  source_ranges:
    description: Where the traffic comes from. One of the sources is required for O(direction=INGRESS).
    type: list
    elements: str
  source_tags:
    description: Network tags of the machines it comes from.
    type: list
    elements: str
  source_service_accounts:
    description: Service accounts of the machines it comes from.
    type: list
    elements: str
  destination_ranges:
    description: Where the traffic goes to.
    type: list
    elements: str
  target_tags:
    description: Network tags of the machines that the rule is for; all machines without it.
    type: list
    elements: str
  target_service_accounts:
    description: Service accounts of the machines that the rule is for.
    type: list
    elements: str
  disabled:
    description: Whether the rule is there without being enforced.
    type: bool
  log_config:
    description: Whether hits are logged.
    type: dict
    suboptions:
      enable:
        description: Whether hits are logged.
        type: bool
        required: true
      metadata:
        description: Whether names of machines, networks and places are added to an entry.
        type: str
        choices: [INCLUDE_ALL_METADATA, EXCLUDE_ALL_METADATA]
"""

EXAMPLES = r"""
- name: Let SSH in through Identity-Aware Proxy, and from nowhere else
  dataops.dagster_gce.gce_firewall:
    project: example-project
    name: dagster-iap-ssh-prod
    network: dagster-network-prod
    source_ranges: [35.235.240.0/20]
    target_tags: [dagster]
    allowed:
      - protocol: tcp
        ports: ["22"]
"""

RETURN = r"""
resource:
  description: The rule as Google has it; in check mode as it would be, as far as that is known.
  returned: success
  type: dict
"""

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_fields import (
    Field,
    Fixed,
    boolean,
    integer,
    link,
    mapping,
    text,
    unordered,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_networks import (
    bad_range,
    canonical_range,
    network_path,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_resource import (
    NAME,
    NAME_WORDS,
    Kind,
    Resource,
    run,
)

SOURCES = ("source_ranges", "source_tags", "source_service_accounts")
PORTS = re.compile(r"\d{1,5}(-\d{1,5})?")
WITH_PORTS = ("tcp", "udp", "sctp", "6", "17", "132")


def rules(value: list[Mapping[str, Any]], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Protocols and ports in Google's spelling."""
    return [
        {"IPProtocol": rule["protocol"].lower(), **({"ports": rule["ports"]} if rule.get("ports") else {})}
        for rule in value
    ]


def log_config(value: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was not given."""
    return {name: item for name, item in value.items() if item is not None}


RULES = unordered(mapping(IPProtocol=text, ports=unordered(text)))
RANGES = unordered(canonical_range)
WORDS = unordered(text)

KIND = Kind(
    name="firewall rule",
    collection="projects/{project}/global/firewalls",
    sent_back=("name",),
    fields=(
        Field(
            "network",
            "network",
            form=link,
            send=network_path,
            change=Fixed("make a rule of another name in the other network"),
        ),
        Field("description", "description", default=""),
        Field(
            "direction",
            "direction",
            default="INGRESS",
            change=Fixed("make a rule of another name for the other direction"),
        ),
        Field("priority", "priority", form=integer, default=1000),
        Field("allowed", "allowed", form=RULES, default=[], send=rules),
        Field("denied", "denied", form=RULES, default=[], send=rules),
        Field("source_ranges", "sourceRanges", form=RANGES, default=[]),
        Field("source_tags", "sourceTags", form=WORDS, default=[]),
        Field("source_service_accounts", "sourceServiceAccounts", form=WORDS, default=[]),
        Field("destination_ranges", "destinationRanges", form=RANGES, default=[]),
        Field("target_tags", "targetTags", form=WORDS, default=[]),
        Field("target_service_accounts", "targetServiceAccounts", form=WORDS, default=[]),
        Field("disabled", "disabled", form=boolean, default=False),
        Field(
            "log_config",
            "logConfig",
            form=mapping(enable=boolean, metadata=text),
            default={"enable": False},
            send=log_config,
        ),
    ),
)

RULE_OPTIONS: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "options": {"protocol": {"type": "str", "required": True}, "ports": {"type": "list", "elements": "str"}},
}
LIST: dict[str, Any] = {"type": "list", "elements": "str"}
SPEC: dict[str, dict[str, Any]] = {
    "network": {"type": "str"},
    "description": {"type": "str"},
    "direction": {"type": "str", "choices": ["INGRESS", "EGRESS"], "default": "INGRESS"},
    "priority": {"type": "int"},
    "allowed": RULE_OPTIONS,
    "denied": RULE_OPTIONS,
    "source_ranges": LIST,
    "source_tags": LIST,
    "source_service_accounts": LIST,
    "destination_ranges": LIST,
    "target_tags": LIST,
    "target_service_accounts": LIST,
    "disabled": {"type": "bool"},
    "log_config": {
        "type": "dict",
        "options": {
            "enable": {"type": "bool", "required": True},
            "metadata": {"type": "str", "choices": ["INCLUDE_ALL_METADATA", "EXCLUDE_ALL_METADATA"]},
        },
    },
}


class Firewall(Resource):
    """A rule that allows or denies, and never changes from one to the other."""

    def check(self, found: Mapping[str, Any] | None) -> list[str]:
        """Google has no change from allow to deny."""
        for wanted, other in (("allowed", "denied"), ("denied", "allowed")):
            if found is not None and self.options["state"] == "present" and self.options[wanted] and found.get(other):
                return [
                    f"{wanted}: {self} is a rule with `{other}`; Google cannot change it in place, and nothing is "
                    "replaced here: make a rule of another name, or delete this one first (state: absent)"
                ]
        return []


def mistakes(options: Mapping[str, Any]) -> list[str]:
    """What Google would refuse, or would open wider than anybody has said."""
    found: list[str] = []
    if options["priority"] is not None and not 0 <= options["priority"] <= 65535:
        found.append(f"priority: found {options['priority']}; expected 0 to 65535")
    for option in ("source_ranges", "destination_ranges"):
        for value in options[option] or []:
            found += bad_range(option, value, version=0)
    for option in ("source_tags", "target_tags"):
        found += [
            f"{option}: found {value!r}; expected {NAME_WORDS}"
            for value in options[option] or []
            if not re.fullmatch(NAME, value)
        ]
    for option in ("allowed", "denied"):
        for rule in options[option] or []:
            found += bad_ports(option, rule)
    if options["state"] == "present" and options["direction"] == "INGRESS":
        if not any(options[source] for source in SOURCES):
            found.append(
                "source_ranges: not given, nor source_tags or source_service_accounts; expected one of them, since "
                "Google would open the rule to 0.0.0.0/0. Say source_ranges: [0.0.0.0/0] if it is meant for everybody"
            )
    elif options["state"] == "present":
        found += [
            f"{source}: given with direction=EGRESS; expected destination_ranges"
            for source in SOURCES
            if options[source]
        ]
    return found


def bad_ports(option: str, rule: Mapping[str, Any]) -> list[str]:
    """What is wrong with the ports of one protocol."""
    protocol, ports = rule["protocol"].lower(), rule.get("ports") or []
    if ports and protocol not in WITH_PORTS:
        return [f"{option}: found ports with protocol {protocol}; expected them with tcp, udp or sctp only"]
    wrong = []
    for port in ports:
        ends = [int(end) for end in port.split("-")] if PORTS.fullmatch(port) else [65536]
        if max(ends) > 65535 or ends != sorted(ends):
            wrong.append(f"{option}: found port {port!r}; expected 0 to 65535 or a range such as 8000-8080")
    return wrong


def main() -> None:
    """Run the module."""
    run(
        KIND,
        SPEC,
        resource=Firewall,
        check=mistakes,
        required_if=[("state", "present", ("network",)), ("state", "present", ("allowed", "denied"), True)],
        mutually_exclusive=[("allowed", "denied")],
    )


if __name__ == "__main__":
    main()
