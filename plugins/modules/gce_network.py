#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""A VPC network of Compute Engine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_network
short_description: VPC network of Compute Engine
description:
  - Makes, changes or removes a custom-mode VPC network, one without subnetworks of its own making.
  - Nothing is replaced to make a change; what Google cannot change in place is an error that says so.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: [dataops.dagster_gce.attributes, dataops.dagster_gce.google]
attributes:
  idempotent:
    details: A run that changes nothing is one GET.
options:
  name:
    description: The network's name.
    type: str
    required: true
  state:
    description: Whether it has to be there. V(absent) fails while subnetworks, firewall rules or machines use it.
    type: str
    choices: [present, absent]
    default: present
  description:
    description: Text for people. It is set when the network is made and cannot be changed afterwards.
    type: str
  routing_mode:
    description: Whether Cloud Routers advertise the routes of their own region or of all regions.
    type: str
    choices: [REGIONAL, GLOBAL]
  mtu:
    description:
      - Largest packet in bytes, 1300 to 8896. Google's default is 1460.
      - Machines take a new value over when they restart.
    type: int
"""

EXAMPLES = r"""
- name: Have a network
  dataops.dagster_gce.gce_network:
    project: example-project
    name: dagster-network-prod
    routing_mode: REGIONAL
"""

RETURN = r"""
resource:
  description: The network as Google has it; in check mode as it would be, as far as that is known.
  returned: success
  type: dict
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_fields import Field, Fixed, boolean, integer
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_resource import Kind, Plan, Resource, run

KIND = Kind(
    name="network",
    collection="projects/{project}/global/networks",
    fields=(
        Field(
            "description",
            "description",
            default="",
            change=Fixed("leave the option out, or give the network's own text"),
        ),
        Field("routing_mode", "routingConfig.routingMode", default="REGIONAL"),
        Field("mtu", "mtu", form=integer, default=1460),
    ),
)

SPEC: dict[str, dict[str, Any]] = {
    "description": {"type": "str"},
    "routing_mode": {"type": "str", "choices": ["REGIONAL", "GLOBAL"]},
    "mtu": {"type": "int"},
}


class Network(Resource):
    """A network that makes no subnetworks by itself."""

    def check(self, found: Mapping[str, Any] | None) -> list[str]:
        """Auto mode has a subnetwork in every region, which nobody asked for."""
        if found is not None and self.options["state"] == "present" and boolean(found.get("autoCreateSubnetworks")):
            return [
                f"{self} is in auto mode, expected custom mode. Convert it (it keeps its subnetworks, and there is no "
                f"way back): gcloud compute networks update {self.name} --switch-to-custom-subnet-mode "
                f"--project={self.options['project']}"
            ]
        return []

    def create_body(self, plan: Plan) -> dict[str, Any]:
        """Without the switch, Google would make a network of the legacy kind."""
        return {**super().create_body(plan), "autoCreateSubnetworks": False}


def mistakes(options: Mapping[str, Any]) -> list[str]:
    """What Google would refuse."""
    mtu = options["mtu"]
    if mtu is not None and not 1300 <= mtu <= 8896:
        return [f"mtu: found {mtu}; expected 1300 to 8896"]
    return []


def main() -> None:
    """Run the module."""
    run(KIND, SPEC, resource=Network, check=mistakes)


if __name__ == "__main__":
    main()
