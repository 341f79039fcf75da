#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""One snapshot of a disk on Compute Engine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_snapshot
short_description: One snapshot of a disk on Compute Engine
description:
  - Takes a snapshot of a zonal disk under a name, and waits until it is ready; later changes its labels.
  - The same name again takes no second snapshot.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment:
  - dataops.dagster_gce.attributes
  - dataops.dagster_gce.google
  - dataops.dagster_gce.google_owned
options:
  name:
    description: The snapshot's name.
    type: str
    required: true
  state:
    description: V(absent) deletes the snapshot.
    type: str
    choices: [present, absent]
    default: present
  disk:
    description: The disk, by name or path. Required for O(state=present).
    type: str
  zone:
    description: The disk's zone. Required where O(disk) is a name.
    type: str
  storage_locations:
    description: The region or multi-region where it is kept; Google takes the nearest multi-region if it is not given.
    type: list
    elements: str
  type:
    description: V(ARCHIVE) is cheaper to keep and dearer to read.
    type: str
    choices: [STANDARD, ARCHIVE]
  guest_flush:
    description: Whether the machine is asked to write out its caches first, for which it has to be set up.
    type: bool
    default: false
  description:
    description: A description, given when it is taken.
    type: str
"""

EXAMPLES = r"""
- name: A last snapshot of the data
  dataops.dagster_gce.gce_snapshot:
    project: example-project
    zone: europe-west3-c
    disk: dagster-prod-data
    name: dagster-prod-data-before-upgrade
    storage_locations: [europe-west3]
"""

RETURN = r"""
resource:
  description: The snapshot as Google has it; in check mode as it would be, as far as that is known.
  returned: success
  type: dict
"""

import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_checks, google_owned
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_fields import Field, Fixed, link, unordered
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_links import Place
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_resource import Kind, Plan, run

POLL_SECONDS = 2.0
ANOTHER = "take a snapshot of another name, or set the option back"


def disk_path(value: str, options: Mapping[str, Any]) -> str:
    """The disk's path."""
    return Place(options["project"], options["zone"] or "").zonal("disks", value)


KIND = Kind(
    name="snapshot",
    collection="projects/{project}/global/snapshots",
    fields=(
        Field("disk", "sourceDisk", form=link, change=Fixed(ANOTHER), send=disk_path),
        Field("description", "description", default="", change=Fixed(ANOTHER)),
        Field("storage_locations", "storageLocations", form=unordered(), change=Fixed(ANOTHER)),
        Field("type", "snapshotType", default="STANDARD", change=Fixed(ANOTHER)),
        google_owned.owned_labels(),
    ),
)

SPEC: dict[str, dict[str, Any]] = {
    **google_owned.SPEC,
    "disk": {"type": "str"},
    "zone": {"type": "str"},
    "storage_locations": {"type": "list", "elements": "str"},
    "type": {"type": "str", "choices": ["STANDARD", "ARCHIVE"]},
    "guest_flush": {"type": "bool", "default": False},
    "description": {"type": "str"},
}


class Snapshot(google_owned.Owned):
    """A snapshot, which is of use only when it is ready."""

    def check(self, found: Mapping[str, Any] | None) -> list[str]:
        """Refuse one that has failed: whoever has it at hand may delete the disk."""
        if refused := super().check(found):
            return refused
        if found is not None and found.get("status") == "FAILED" and self.options["state"] == "present":
            return [
                f"{self}: Google says FAILED, so the data is not in it. Delete it (state: absent, or gcloud compute "
                f"snapshots delete {self.name} --project={self.options['project']}) and take it again"
            ]
        return []

    def create_body(self, plan: Plan) -> dict[str, Any]:
        """With what Google takes and does not give back."""
        flush = {"guestFlush": True} if self.options["guest_flush"] else {}
        return {**super().create_body(plan), **flush}

    def apply(self, plan: Plan, found: dict[str, Any] | None) -> dict[str, Any]:
        """As the engine does, then wait until the data is stored, also of one that an interrupted run has begun."""
        result = super().apply(plan, found)
        deadline = time.monotonic() + self.client.timeout
        while result and result.get("status") in ("CREATING", "UPLOADING"):
            if time.monotonic() > deadline:
                raise GoogleError(
                    f"take {self}",
                    reason="TIMEOUT",
                    message=f"it is still {result['status']} after {self.client.timeout:.0f} s.",
                    advice="It goes on there: run again later, or set a larger timeout.",
                )
            time.sleep(POLL_SECONDS)
            result = self.read() or {}
        if result.get("status") == "FAILED":
            raise GoogleError(f"take {self}", message="Google says FAILED.", advice="Delete it and take it again.")
        return result


def mistakes(options: Mapping[str, Any]) -> list[str]:
    """What Google would refuse."""
    lines = google_checks.labels("labels", options["labels"])
    if options["state"] == "present" and not options["disk"]:
        lines.append("disk: found nothing; expected the disk to take the snapshot of")
    if options["disk"] and "/" not in options["disk"] and not options["zone"]:
        lines.append("zone: found nothing; expected the zone of the disk, since `disk` is a name")
    return lines


def main() -> None:
    """Run the module."""
    run(KIND, SPEC, resource=Snapshot, check=mistakes)


if __name__ == "__main__":
    main()
