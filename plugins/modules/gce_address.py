#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""A static regional address."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_address
short_description: Static regional IP address
description:
  - Reserves or releases a static address of a region, external or internal, and keeps its labels.
  - Nothing but labels can be changed on an address. Any other difference is an error, since a replaced address is a
    lost one.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: [dataops.dagster_gce.attributes, dataops.dagster_gce.google]
attributes:
  idempotent:
    details: A run that changes nothing is one GET.
options:
  name:
    description: The address's name.
    type: str
    required: true
  region:
    description: Its region.
    type: str
    required: true
  state:
    description: Whether it has to be there. V(absent) releases it, and it may never come back; it fails while it is in
        use.
    type: str
    choices: [present, absent]
    default: present
  address_type:
    description: Whether it is an address of the internet or of a subnetwork.
    type: str
    choices: [EXTERNAL, INTERNAL]
    default: EXTERNAL
  address:
    description: The address itself; chosen by Google without it.
    type: str
  subnetwork:
    description: The subnetwork of an internal address, by name or full path. Required for O(address_type=INTERNAL).
    type: str
  network_tier:
    description: Whether traffic takes Google's network (V(PREMIUM), Google's default) or the internet (V(STANDARD)).
    type: str
    choices: [PREMIUM, STANDARD]
  purpose:
    description: What an internal address is for; Google's default is V(GCE_ENDPOINT).
    type: str
    choices: [GCE_ENDPOINT, SHARED_LOADBALANCER_VIP]
  description:
    description: Text for people.
    type: str
  labels:
    description: Labels it has to have. Other labels stay.
    type: dict
  purge_labels:
    description: Whether labels that O(labels) does not name are removed (C(goog-…) stays).
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Keep an external address
  dataops.dagster_gce.gce_address:
    project: example-project
    region: europe-west1
    name: dagster-prod-address
    labels:
      managed-by: dataops-dagster-gce
  register: address

- name: Show it
  ansible.builtin.debug:
    msg: "{{ address.resource.address }}"
"""

RETURN = r"""
resource:
  description: The address as Google has it (RV(ignore:address) in it); in check mode as it would be, as far as that is
      known.
  returned: success
  type: dict
"""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_checks
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_fields import Field, Fixed, labels, link
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_networks import subnetwork_path
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_resource import Kind, run

OTHER = Fixed(
    "reserve an address of another name, or release this one first (state: absent; the address may then be lost)"
)

KIND = Kind(
    name="address",
    collection="projects/{project}/regions/{region}/addresses",
    fields=(
        Field("description", "description", default="", change=Fixed("leave the option out, or give the present text")),
        Field("address_type", "addressType", default="EXTERNAL", change=OTHER),
        Field("address", "address", change=OTHER),
        Field("subnetwork", "subnetwork", form=link, send=subnetwork_path, change=OTHER),
        Field("network_tier", "networkTier", default="PREMIUM", change=OTHER),
        Field("purpose", "purpose", default="GCE_ENDPOINT", change=OTHER),
        # Google's reference: "These can only be added or modified by the setLabels method."
        labels(on_create=False),
    ),
)

SPEC: dict[str, dict[str, Any]] = {
    "region": {"type": "str", "required": True},
    "address_type": {"type": "str", "choices": ["EXTERNAL", "INTERNAL"], "default": "EXTERNAL"},
    "address": {"type": "str"},
    "subnetwork": {"type": "str"},
    "network_tier": {"type": "str", "choices": ["PREMIUM", "STANDARD"]},
    "purpose": {"type": "str", "choices": ["GCE_ENDPOINT", "SHARED_LOADBALANCER_VIP"]},
    "description": {"type": "str"},
    "labels": {"type": "dict"},
    "purge_labels": {"type": "bool", "default": False},
}


def mistakes(options: Mapping[str, Any]) -> list[str]:
    """What Google would refuse."""
    found = google_checks.labels("labels", options["labels"])
    internal = options["address_type"] == "INTERNAL"
    if options["address"] is not None:
        try:
            ip_address(options["address"])
        except ValueError:
            found.append(f"address: found {options['address']!r}; expected an address such as 10.10.0.5")
    if options["state"] == "present" and internal != bool(options["subnetwork"]):
        expected = "one, for an internal address" if internal else "none, for an external address"
        found.append(f"subnetwork: found {options['subnetwork']!r}; expected {expected}")
    found += [
        f"{option}: found {options[option]!r} with address_type={options['address_type']}; expected {other} for it"
        for option, other, wrong in (("network_tier", "EXTERNAL", internal), ("purpose", "INTERNAL", not internal))
        if options[option] is not None and wrong
    ]
    return found


def main() -> None:
    """Run the module."""
    run(KIND, SPEC, check=mistakes)


if __name__ == "__main__":
    main()
