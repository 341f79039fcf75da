#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""One persistent disk on Compute Engine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_disk
short_description: One persistent disk on Compute Engine
description:
  - Makes a zonal disk, grows it while it is in use, and changes its labels and snapshot schedules.
  - Nothing is replaced to make a change. What Google cannot change is an error that names the option and the choices.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment:
  - dataops.dagster_gce.attributes
  - dataops.dagster_gce.google
  - dataops.dagster_gce.google_owned
options:
  name:
    description: The disk's name.
    type: str
    required: true
  zone:
    description: The zone that it is in.
    type: str
    required: true
  state:
    description: V(absent) deletes the disk with its data; one that is attached is refused.
    type: str
    choices: [present, absent]
    default: present
  size_gb:
    description:
      - Its size in GB. It can be raised at any time, and never lowered.
      - Needed to make a disk, unless O(image) or O(snapshot) gives it a size.
    type: int
  type:
    description: Its type, for example V(pd-balanced). Google cannot change it.
    type: str
  image:
    description:
      - What it is made of, C(project/family) for a family's newest image, or the path of one image.
      - A family is not compared with the image that the disk was made of.
    type: str
  snapshot:
    description: The snapshot that it is made of, by name or path.
    type: str
  resource_policies:
    description: The snapshot schedules that it has, by name or path, all of them.
    type: list
    elements: str
  kms_key:
    description: Path of the Cloud KMS key that encrypts it. Google cannot change it.
    type: str
  description:
    description: A description, given when it is made.
    type: str
"""

EXAMPLES = r"""
- name: The data disk of a machine
  dataops.dagster_gce.gce_disk:
    project: example-project
    zone: europe-west3-c
    name: dagster-prod-data
    size_gb: 100
    type: pd-balanced
    resource_policies: [dagster-snapshots-prod]

- name: A disk from a snapshot
  dataops.dagster_gce.gce_disk:
    project: example-project
    zone: europe-west3-c
    name: dagster-drill-data
    snapshot: dagster-prod-data-before-upgrade
    type: pd-balanced
"""

RETURN = r"""
resource:
  description: The disk as Google has it; in check mode as it would be, as far as that is known.
  returned: success
  type: dict
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_checks, google_owned
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_fields import (
    Field,
    Fixed,
    Method,
    integer,
    link,
    unordered,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_links import Place, image_path, last
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_resource import Kind, Step, run

ANOTHER = "make a disk of another name (from a snapshot, to keep the data) and attach that, or set the option back"
RESIZE = Method("resize", body=lambda wanted, found, options: {"sizeGb": wanted["sizeGb"]})
POLICIES = Method("addResourcePolicies", body=lambda wanted, found, options: None)


def place_of(options: Mapping[str, Any]) -> Place:
    """Where the disk is."""
    return Place(options["project"], options["zone"])


def shrinks(found: Any, wanted: Any) -> str | None:
    """Why a size is refused."""
    return "a disk only grows: ask for at least what it has" if wanted < found else None


def source_image(wanted: str, found: str | None, options: Mapping[str, Any]) -> str:
    """The image to send; a family has moved on since the disk was made, so whatever it was made of is right."""
    return found if found and "/family/" in wanted else wanted


def key(value: Any) -> Any:
    """A key without the version that Google adds to its path."""
    return None if value is None else re.sub(r"/cryptoKeyVersions/\d+$", "", str(value))


KIND = Kind(
    name="disk",
    collection="projects/{project}/zones/{zone}/disks",
    fields=(
        Field(
            "description", "description", default="", change=Fixed("leave the option out, or give the disk's own text")
        ),
        Field("size_gb", "sizeGb", form=integer, change=RESIZE, send=lambda value, options: str(value), refuse=shrinks),
        Field(
            "type",
            "type",
            form=link,
            change=Fixed(ANOTHER),
            send=lambda value, options: place_of(options).zonal("diskTypes", value),
        ),
        Field(
            "image",
            "sourceImage",
            form=link,
            change=Fixed(ANOTHER),
            send=lambda value, options: image_path(value),
            merge=source_image,
        ),
        Field(
            "snapshot",
            "sourceSnapshot",
            form=link,
            change=Fixed(ANOTHER),
            send=lambda value, options: place_of(options).everywhere("snapshots", value),
        ),
        Field("kms_key", "diskEncryptionKey.kmsKeyName", form=key, change=Fixed(ANOTHER)),
        google_owned.owned_labels(),
        Field(
            "resource_policies",
            "resourcePolicies",
            form=unordered(link),
            default=[],
            change=POLICIES,
            send=lambda value, options: [place_of(options).regional("resourcePolicies", name) for name in value],
        ),
    ),
)

SPEC: dict[str, dict[str, Any]] = {
    **google_owned.SPEC,
    "zone": {"type": "str", "required": True},
    "size_gb": {"type": "int"},
    "type": {"type": "str"},
    "image": {"type": "str"},
    "snapshot": {"type": "str"},
    "resource_policies": {"type": "list", "elements": "str"},
    "kms_key": {"type": "str", "no_log": False},
    "description": {"type": "str"},
}


class Disk(google_owned.Owned):
    """A disk, which is somebody's data."""

    def check(self, found: Mapping[str, Any] | None) -> list[str]:
        """Refuse to delete a disk in use, and to make one of no size."""
        if found is None:
            sized = any(self.options[name] for name in ("size_gb", "image", "snapshot"))
            if self.options["state"] == "present" and not sized:
                return [
                    f"size_gb: found nothing; {self} does not exist, and to make it a size, image or snapshot is needed"
                ]
            return []
        if refused := super().check(found):
            return refused
        if self.options["state"] == "absent" and found.get("users"):
            users = ", ".join(last(user) for user in found["users"])
            return [f"{self} is attached to {users}: nothing was deleted. Detach it first, or delete the instance"]
        return []

    def call_method(self, method: Method, steps: Sequence[Step], found: Mapping[str, Any]) -> None:
        """Schedules are removed and added by methods of their own; in that order, since a disk takes only so many."""
        if method is not POLICIES:
            super().call_method(method, steps, found)
            return
        before, after = set(steps[0].before), set(steps[0].after)
        for name, policies in (("removeResourcePolicies", before - after), ("addResourcePolicies", after - before)):
            if policies:
                self.client.change(
                    self.kind.api,
                    "POST",
                    f"{self.path}/{name}",
                    body={"resourcePolicies": sorted(policies)},
                    what=f"change resource_policies of {self}",
                )


def mistakes(options: Mapping[str, Any]) -> list[str]:
    """What Google would refuse."""
    lines = google_checks.labels("labels", options["labels"])
    if options["size_gb"] is not None and options["size_gb"] < 1:
        lines.append(f"size_gb: found {options['size_gb']}; expected a size in GB, for example 100")
    return lines


def main() -> None:
    """Run the module."""
    run(KIND, SPEC, resource=Disk, check=mistakes, mutually_exclusive=[("image", "snapshot")])


if __name__ == "__main__":
    main()
