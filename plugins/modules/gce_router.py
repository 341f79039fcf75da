#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""A Cloud Router with its NAT gateways."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_router
short_description: Cloud Router with NAT
description:
  - Makes, changes or removes a Cloud Router and the Cloud NAT gateways on it, which let machines without an external
    address out.
  - Gateways of the router that are not named here stay as they are, and so do settings of a gateway that are not given.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: [dataops.dagster_gce.attributes, dataops.dagster_gce.google]
attributes:
  idempotent:
    details: A run that changes nothing is one GET.
options:
  name:
    description: The router's name.
    type: str
    required: true
  region:
    description: Its region.
    type: str
    required: true
  state:
    description: Whether it has to be there. With V(absent) its NAT gateways go too.
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
  nats:
    description: NAT gateways that the router has to have.
    type: list
    elements: dict
    suboptions:
      name:
        description: The gateway's name.
        type: str
        required: true
      nat_ip_allocate_option:
        description: Whether Google chooses the external addresses or O(nats[].nat_ips) names them.
        type: str
        choices: [AUTO_ONLY, MANUAL_ONLY]
        default: AUTO_ONLY
      nat_ips:
        description: Regional external addresses, by name or full path; for V(MANUAL_ONLY).
        type: list
        elements: str
      source_subnetwork_ip_ranges_to_nat:
        description: Which subnetworks of the region use it.
        type: str
        choices: [ALL_SUBNETWORKS_ALL_IP_RANGES, ALL_SUBNETWORKS_ALL_PRIMARY_IP_RANGES, LIST_OF_SUBNETWORKS]
        default: ALL_SUBNETWORKS_ALL_IP_RANGES
      subnetworks:
        description: Subnetworks, by name or full path, with all their ranges; for V(LIST_OF_SUBNETWORKS).
        type: list
        elements: str
      min_ports_per_vm:
        description: Ports that each machine has for certain, a power of two. Google's default is 64.
        type: int
      max_ports_per_vm:
        description: Ports that a machine can have at most, with dynamic allocation.
        type: int
      enable_dynamic_port_allocation:
        description: Whether machines get more ports as they need them.
        type: bool
      log_config:
        description: Whether translations or errors are logged.
        type: dict
        suboptions:
          enable:
            description: Whether anything is logged.
            type: bool
            required: true
          filter:
            description: What is logged.
            type: str
            choices: [ERRORS_ONLY, TRANSLATIONS_ONLY, ALL]
  purge_nats:
    description: Whether NAT gateways that O(nats) does not name are removed from the router.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Let machines without an external address out
  dataops.dagster_gce.gce_router:
    project: example-project
    region: europe-west1
    name: dagster-router-prod
    network: dagster-network-prod
    nats:
      - name: dagster-nat-prod
        log_config:
          enable: true
          filter: ERRORS_ONLY
"""

RETURN = r"""
resource:
  description: The router as Google has it; in check mode as it would be, as far as that is known.
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
    address_path,
    network_path,
    subnetwork_path,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_resource import NAME, NAME_WORDS, Kind, run

# What an answer has and no request may have.
READ_ONLY = ("effectiveTcpTimeWaitTimeoutSec",)

# Options of a gateway whose value goes to Google as it is.
PLAIN = {
    "name": "name",
    "nat_ip_allocate_option": "natIpAllocateOption",
    "source_subnetwork_ip_ranges_to_nat": "sourceSubnetworkIpRangesToNat",
    "min_ports_per_vm": "minPortsPerVm",
    "max_ports_per_vm": "maxPortsPerVm",
    "enable_dynamic_port_allocation": "enableDynamicPortAllocation",
}

SUBNETWORKS = unordered(mapping(name=link, sourceIpRangesToNat=unordered(text)))
# Only what an option can set is compared; the rest of a gateway is kept as it is.
GATEWAY = mapping(
    name=text,
    natIpAllocateOption=text,
    natIps=unordered(link),
    sourceSubnetworkIpRangesToNat=text,
    subnetworks=SUBNETWORKS,
    minPortsPerVm=integer,
    maxPortsPerVm=integer,
    enableDynamicPortAllocation=boolean,
    logConfig=mapping(enable=boolean, filter=text),
)


def gateways(value: list[Mapping[str, Any]], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The option in Google's spelling, without what was not given."""
    found = []
    for nat in value:
        gateway: dict[str, Any] = {api: nat[option] for option, api in PLAIN.items() if nat.get(option) is not None}
        if nat.get("nat_ips"):
            gateway["natIps"] = [address_path(address, options) for address in nat["nat_ips"]]
        if nat.get("subnetworks"):
            gateway["subnetworks"] = [
                {"name": subnetwork_path(name, options), "sourceIpRangesToNat": ["ALL_IP_RANGES"]}
                for name in nat["subnetworks"]
            ]
        if nat.get("log_config"):
            gateway["logConfig"] = {key: item for key, item in nat["log_config"].items() if item is not None}
        found.append(gateway)
    return found


def merge_gateways(wanted: Any, found: Any, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The router's gateways with ours in their places: PATCH replaces the whole list."""
    ours = {gateway["name"]: gateway for gateway in wanted}
    kept: list[dict[str, Any]] = []
    for gateway in found or []:
        name = gateway.get("name")
        if name not in ours:
            if not options["purge_nats"]:
                kept.append(writable(gateway))
            continue
        mine = ours.pop(name)
        merged = {**writable(gateway), **mine}
        if "logConfig" in mine:
            merged["logConfig"] = {**gateway.get("logConfig", {}), **mine["logConfig"]}
        # Addresses and subnetworks belong to their modes; Google refuses those of another.
        if mine["natIpAllocateOption"] == "AUTO_ONLY":
            merged.pop("natIps", None)
        if mine["sourceSubnetworkIpRangesToNat"] != "LIST_OF_SUBNETWORKS":
            merged.pop("subnetworks", None)
        kept.append(merged)
    return [*kept, *ours.values()]


def writable(gateway: Mapping[str, Any]) -> dict[str, Any]:
    """A gateway as it may be sent back."""
    return {key: value for key, value in gateway.items() if key not in READ_ONLY}


KIND = Kind(
    name="router",
    collection="projects/{project}/regions/{region}/routers",
    fields=(
        Field(
            "network",
            "network",
            form=link,
            send=network_path,
            change=Fixed("make a router of another name in the other network"),
        ),
        Field("description", "description", default=""),
        Field("nats", "nats", form=unordered(GATEWAY), default=[], send=gateways, merge=merge_gateways),
    ),
)

SPEC: dict[str, dict[str, Any]] = {
    "region": {"type": "str", "required": True},
    "network": {"type": "str"},
    "description": {"type": "str"},
    "nats": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "nat_ip_allocate_option": {
                "type": "str",
                "choices": ["AUTO_ONLY", "MANUAL_ONLY"],
                "default": "AUTO_ONLY",
            },
            "nat_ips": {"type": "list", "elements": "str"},
            "source_subnetwork_ip_ranges_to_nat": {
                "type": "str",
                "choices": [
                    "ALL_SUBNETWORKS_ALL_IP_RANGES",
                    "ALL_SUBNETWORKS_ALL_PRIMARY_IP_RANGES",
                    "LIST_OF_SUBNETWORKS",
                ],
                "default": "ALL_SUBNETWORKS_ALL_IP_RANGES",
            },
            "subnetworks": {"type": "list", "elements": "str"},
            "min_ports_per_vm": {"type": "int"},
            "max_ports_per_vm": {"type": "int"},
            "enable_dynamic_port_allocation": {"type": "bool"},
            "log_config": {
                "type": "dict",
                "options": {
                    "enable": {"type": "bool", "required": True},
                    "filter": {"type": "str", "choices": ["ERRORS_ONLY", "TRANSLATIONS_ONLY", "ALL"]},
                },
            },
        },
    },
    "purge_nats": {"type": "bool", "default": False},
}


def mistakes(options: Mapping[str, Any]) -> list[str]:
    """What Google would refuse."""
    found: list[str] = []
    nats = options["nats"] or []
    names = [nat["name"] for nat in nats]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        found.append(f"nats: found {twice[0]!r} more than once; expected names that differ")
    for nat in nats:
        where = f"nats[{nat['name']}]"
        if not re.fullmatch(NAME, nat["name"]):
            found.append(f"nats: found the name {nat['name']!r}; expected {NAME_WORDS}")
        pairs = (
            ("nat_ips", "nat_ip_allocate_option", "MANUAL_ONLY"),
            ("subnetworks", "source_subnetwork_ip_ranges_to_nat", "LIST_OF_SUBNETWORKS"),
        )
        for values, mode, name in pairs:
            if bool(nat[values]) != (nat[mode] == name):
                given = "given" if nat[values] else "not given"
                found.append(f"{where}.{values}: {given} with {mode}={nat[mode]}; expected together with {name}")
        for option in ("min_ports_per_vm", "max_ports_per_vm"):
            ports = nat[option]
            if ports is not None and (ports < 32 or ports > 65536 or ports & (ports - 1)):
                found.append(f"{where}.{option}: found {ports}; expected a power of two from 32 to 65536")
    return found


def main() -> None:
    """Run the module."""
    run(KIND, SPEC, check=mistakes, required_if=[("state", "present", ("network",))])


if __name__ == "__main__":
    main()
