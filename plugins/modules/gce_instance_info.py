#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The machines of a project."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_instance_info
short_description: The machines of a project on Compute Engine
description:
  - Reads one machine by name, or every machine that has certain labels, in all zones.
  - A zone that does not answer is an error, so the list is never short of machines.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: [dataops.dagster_gce.attributes.reads, dataops.dagster_gce.google]
options:
  name:
    description: One machine's name. A machine that is not there is an empty list.
    type: str
  zone:
    description: The zone of O(name).
    type: str
  labels:
    description: Labels that the machines have; an empty value stands for any.
    type: dict
    default: {}
  filter:
    description: An expression of Google's for the rest, for example C(status = RUNNING).
    type: str
    default: ""
  zones:
    description: Only these zones.
    type: list
    elements: str
    default: []
  regions:
    description: Only these regions.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Every machine of ours in production
  dataops.dagster_gce.gce_instance_info:
    project: example-project
    labels:
      managed-by: dataops-dagster-gce
      dagster-environment: prod
"""

RETURN = r"""
instances:
  description:
    - The machines by name, with C(name), C(id), C(zone), C(region), C(status), C(machine_type), C(internal_address),
      C(external_address), C(network), C(subnetwork), C(labels), C(tags), C(service_account) and C(disks).
  returned: success
  type: list
  elements: dict
resources:
  description: The same as Google has them.
  returned: success
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_auth, google_listing, google_resource
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_client import Client
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_links import Place

KIND = google_resource.Kind("instance", "projects/{project}/zones/{zone}/instances", ())


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **google_auth.argument_spec(),
            "name": {"type": "str"},
            "zone": {"type": "str"},
            "labels": {"type": "dict", "default": {}},
            "filter": {"type": "str", "default": ""},
            "zones": {"type": "list", "elements": "str", "default": []},
            "regions": {"type": "list", "elements": "str", "default": []},
        },
        required_together=[("name", "zone")],
        supports_check_mode=True,
    )
    google_resource.require_libraries(module)
    options = module.params
    if mistakes := google_resource.bad_names(options, KIND):
        module.fail_json(msg="\n".join(mistakes))
    try:
        client = Client(options)
        if options["name"]:
            path = Place(options["project"], options["zone"]).zonal("instances", options["name"])
            one = client.get("compute", path, what=f"read instance {options['name']}")
            found = [one] if one else []
        else:
            found = google_listing.instances(
                client,
                wanted=google_listing.label_filter(options["labels"], options["filter"]),
                zones=options["zones"],
                regions=options["regions"],
            )
    except GoogleError as error:
        google_resource.fail(module, error)
    module.exit_json(changed=False, instances=[google_listing.summary(one) for one in found], resources=found)


if __name__ == "__main__":
    main()
