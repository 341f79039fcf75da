#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""A subnetwork of Compute Engine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_subnetwork
short_description: Subnetwork of Compute Engine
description:
  - Makes, changes or removes a subnetwork of a custom-mode VPC network.
  - Nothing is replaced to make a change. A range can grow in place; what Google cannot change is an error that says so.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: [dataops.dagster_gce.attributes, dataops.dagster_gce.google]
attributes:
  idempotent:
    details: A run that changes nothing is one GET.
options:
  name:
    description: The subnetwork's name.
    type: str
    required: true
  region:
    description: Its region.
    type: str
    required: true
  state:
    description: Whether it has to be there. V(absent) fails while a machine or an address uses it.
    type: str
    choices: [present, absent]
    default: present
  network:
    description:
      - The network it belongs to, a name or a full path such as C(projects/p/global/networks/n).
      - Required for O(state=present). It cannot be changed afterwards.
    type: str
  ip_cidr_range:
    description:
      - Its range of internal addresses, for example V(10.10.0.0/24).
      - Required for O(state=present). It can be widened to a range that holds the old one, never narrowed or moved.
    type: str
  description:
    description: Text for people. It is set when the subnetwork is made and cannot be changed afterwards.
    type: str
  private_ip_google_access:
    description: Whether machines without an external address reach Google's APIs.
    type: bool
  log_config:
    description: Flow logs. What is not given here stays as it is.
    type: dict
    suboptions:
      enable:
        description: Whether flows are logged.
        type: bool
        required: true
      aggregation_interval:
        description: How long flows are put together into one entry.
        type: str
        choices: [INTERVAL_5_SEC, INTERVAL_30_SEC, INTERVAL_1_MIN, INTERVAL_5_MIN, INTERVAL_10_MIN, INTERVAL_15_MIN]
      flow_sampling:
        description: The share of flows that is logged, 0 to 1.
        type: float
      metadata:
        description: Whether names of machines, networks and places are added to an entry.
        type: str
        choices: [INCLUDE_ALL_METADATA, EXCLUDE_ALL_METADATA]
      filter_expr:
        description: Which flows are logged, as an expression in CEL.
        type: str
"""

EXAMPLES = r"""
- name: Have a subnetwork whose machines reach Google without an external address
  dataops.dagster_gce.gce_subnetwork:
    project: example-project
    region: europe-west1
    name: dagster-subnetwork-prod
    network: dagster-network-prod
    ip_cidr_range: 10.10.0.0/24
    private_ip_google_access: true
    log_config:
      enable: true
      flow_sampling: 0.1
"""

RETURN = r"""
resource:
  description: The subnetwork as Google has it; in check mode as it would be, as far as that is known.
  returned: success
  type: dict
"""

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_fields import (
    Field,
    Fixed,
    Method,
    boolean,
    link,
    mapping,
    number,
    text,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_networks import bad_range, network_path
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_resource import Kind, run

EXPAND = Method("expandIpCidrRange", body=lambda wanted, found, options: {"ipCidrRange": wanted["ipCidrRange"]})
SET_ACCESS = Method(
    "setPrivateIpGoogleAccess",
    body=lambda wanted, found, options: {"privateIpGoogleAccess": wanted["privateIpGoogleAccess"]},
)


def log_config(value: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The option in Google's spelling."""
    names = {
        "enable": "enable",
        "aggregation_interval": "aggregationInterval",
        "flow_sampling": "flowSampling",
        "metadata": "metadata",
        "filter_expr": "filterExpr",
    }
    return {api: value[option] for option, api in names.items() if value.get(option) is not None}


def cannot_become(found: str | None, wanted: str) -> str | None:
    """Why a range cannot become another one."""
    if found is None:
        return None
    old, new = ip_network(found), ip_network(wanted)
    if old.version == new.version and new.supernet_of(old):  # type: ignore[arg-type]
        return None
    return (
        f"a range can only be widened to one that holds it (for example {old.supernet()}): keep {old}, give a wider "
        "range, or make a second subnetwork and move the machines"
    )


KIND = Kind(
    name="subnetwork",
    collection="projects/{project}/regions/{region}/subnetworks",
    sent_back=("fingerprint",),
    fields=(
        Field(
            "network",
            "network",
            form=link,
            send=network_path,
            change=Fixed("make a subnetwork of another name in the other network"),
        ),
        Field("description", "description", default="", change=Fixed("leave the option out, or give the present text")),
        Field("ip_cidr_range", "ipCidrRange", change=EXPAND, refuse=cannot_become),
        Field("private_ip_google_access", "privateIpGoogleAccess", form=boolean, default=False, change=SET_ACCESS),
        Field(
            "log_config",
            "logConfig",
            form=mapping(enable=boolean, aggregationInterval=text, flowSampling=number, metadata=text, filterExpr=text),
            default={"enable": False},
            send=log_config,
        ),
    ),
)

SPEC: dict[str, dict[str, Any]] = {
    "region": {"type": "str", "required": True},
    "network": {"type": "str"},
    "ip_cidr_range": {"type": "str"},
    "description": {"type": "str"},
    "private_ip_google_access": {"type": "bool"},
    "log_config": {
        "type": "dict",
        "options": {
            "enable": {"type": "bool", "required": True},
            "aggregation_interval": {
                "type": "str",
                "choices": [
                    "INTERVAL_5_SEC",
                    "INTERVAL_30_SEC",
                    "INTERVAL_1_MIN",
                    "INTERVAL_5_MIN",
                    "INTERVAL_10_MIN",
                    "INTERVAL_15_MIN",
                ],
            },
            "flow_sampling": {"type": "float"},
            "metadata": {"type": "str", "choices": ["INCLUDE_ALL_METADATA", "EXCLUDE_ALL_METADATA"]},
            "filter_expr": {"type": "str"},
        },
    },
}


def mistakes(options: Mapping[str, Any]) -> list[str]:
    """What Google would refuse."""
    found = bad_range("ip_cidr_range", options["ip_cidr_range"], prefixes=range(4, 30))
    sampling = (options["log_config"] or {}).get("flow_sampling")
    if sampling is not None and not 0 <= sampling <= 1:
        found.append(f"log_config.flow_sampling: found {sampling}; expected 0 to 1")
    return found


def main() -> None:
    """Run the module."""
    run(KIND, SPEC, check=mistakes, required_if=[("state", "present", ("network", "ip_cidr_range"))])


if __name__ == "__main__":
    main()
