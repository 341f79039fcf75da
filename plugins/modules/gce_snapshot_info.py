#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The snapshots of a project, the newest first."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_snapshot_info
short_description: The snapshots of a project on Compute Engine
description:
  - Reads the snapshots of one disk or of all, by label, the newest first.
  - The disk need not exist any more.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: [dataops.dagster_gce.attributes.reads, dataops.dagster_gce.google]
options:
  disk:
    description: Only snapshots of this disk, by name or path.
    type: str
  zone:
    description: The disk's zone. Required where O(disk) is a name.
    type: str
  labels:
    description: Labels that the snapshots have; an empty value stands for any.
    type: dict
    default: {}
  ready:
    description: Only snapshots that a disk can be made from.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: The newest snapshot of the data
  dataops.dagster_gce.gce_snapshot_info:
    project: example-project
    zone: europe-west3-c
    disk: dagster-prod-data
  register: snapshots

- name: A disk made from it
  dataops.dagster_gce.gce_disk:
    project: example-project
    zone: europe-west3-c
    name: dagster-drill-data
    snapshot: "{{ snapshots.snapshots[0].name }}"
    type: pd-balanced
"""

RETURN = r"""
snapshots:
  description:
    - The snapshots, the newest first, with C(name), C(created), C(status), C(disk), C(size_gb), C(bytes), C(scheduled),
      C(storage_locations) and C(labels).
  returned: success
  type: list
  elements: dict
resources:
  description: The same as Google has them.
  returned: success
  type: list
  elements: dict
"""

import datetime
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_auth, google_listing, google_resource
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_client import Client
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_links import Place, last, path

KIND = google_resource.Kind("snapshot", "projects/{project}/global/snapshots", ())


def snapshots(client: Client, options: dict[str, Any]) -> list[dict[str, Any]]:
    """The snapshots that are asked for.

    Raises:
        GoogleError: Google refuses.
    """
    wanted = google_listing.label_filter(options["labels"])
    disk = options["disk"] and Place(options["project"], options["zone"] or "").zonal("disks", options["disk"])
    pages = client.pages("compute", f"projects/{options['project']}/global/snapshots", query={"filter": wanted or None})
    found = [
        snapshot
        for snapshot in pages
        if (not disk or path(snapshot.get("sourceDisk", "")) == disk)
        and (not options["ready"] or snapshot.get("status") == "READY")
    ]
    return sorted(found, key=taken, reverse=True)


def taken(snapshot: dict[str, Any]) -> datetime.datetime:
    """When it was taken. Google writes the time of Mountain View, whose offset changes in spring and autumn."""
    return datetime.datetime.fromisoformat(snapshot["creationTimestamp"])


def summary(snapshot: dict[str, Any]) -> dict[str, Any]:
    """What playbooks ask about a snapshot, without URLs."""
    return {
        "name": snapshot["name"],
        "created": taken(snapshot).astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "status": snapshot.get("status", ""),
        "disk": last(snapshot.get("sourceDisk", "")),
        "size_gb": int(snapshot.get("diskSizeGb", 0)),
        "bytes": int(snapshot.get("storageBytes", 0)),
        "scheduled": snapshot.get("autoCreated", False),
        "storage_locations": snapshot.get("storageLocations", []),
        "labels": snapshot.get("labels", {}),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **google_auth.argument_spec(),
            "disk": {"type": "str"},
            "zone": {"type": "str"},
            "labels": {"type": "dict", "default": {}},
            "ready": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    google_resource.require_libraries(module)
    options = module.params
    mistakes = google_resource.bad_names(options, KIND)
    if options["disk"] and "/" not in options["disk"] and not options["zone"]:
        mistakes.append("zone: found nothing; expected the zone of the disk, since `disk` is a name")
    if mistakes:
        module.fail_json(msg="\n".join(mistakes))
    try:
        found = snapshots(Client(options), options)
    except GoogleError as error:
        google_resource.fail(module, error)
    module.exit_json(changed=False, snapshots=[summary(one) for one in found], resources=found)


if __name__ == "__main__":
    main()
