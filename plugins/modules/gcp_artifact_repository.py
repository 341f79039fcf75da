#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""A repository for container images in Artifact Registry."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gcp_artifact_repository
short_description: A repository for container images in Artifact Registry
description:
  - Makes a Docker repository and keeps its settings as they are given.
  - Nothing is replaced to make a change; what Google cannot change in place is an error that says so.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: [dataops.dagster_gce.attributes, dataops.dagster_gce.google]
options:
  name:
    description: The repository's id.
    type: str
    required: true
  location:
    description: A region (C(europe-west1)) or multi-region (C(europe)).
    type: str
    required: true
  state:
    description: Whether it has to be there. V(absent) refuses one that holds something, unless O(delete_images).
    type: str
    choices: [present, absent]
    default: present
  delete_images:
    description: Whether O(state=absent) may delete what the repository holds.
    type: bool
    default: false
  description:
    description: Text for people.
    type: str
  labels:
    description: Labels that it has to have.
    type: dict
  purge_labels:
    description: Whether labels that O(labels) does not name are taken away; those of Google's (C(goog-…)) stay.
    type: bool
    default: false
  immutable_tags:
    description:
      - Whether a tag names one image for ever.
      - Google cannot delete an image that has a tag then, by O(cleanup_policies) neither.
    type: bool
  cleanup_policies:
    description:
      - What Google deletes, and what it keeps although a rule would delete it.
      - The list is the whole truth; an empty one takes every policy away.
    type: list
    elements: dict
    suboptions:
      id:
        description: The policy's name.
        type: str
        required: true
      action:
        description: Whether what matches is deleted or kept.
        type: str
        choices: [delete, keep]
        required: true
      older_than:
        description: Matches images that were pushed longer ago, for example C(30d) (units s, m, h, d).
        type: str
      newer_than:
        description: Matches images that were pushed since, for example C(7d).
        type: str
      tag_state:
        description: Matches images with a tag, without one, or both.
        type: str
        choices: [tagged, untagged, any]
      tag_prefixes:
        description: Matches images with a tag that begins with one of these.
        type: list
        elements: str
      version_name_prefixes:
        description: Matches images whose digest begins with one of these.
        type: list
        elements: str
      package_name_prefixes:
        description: Matches images whose name begins with one of these.
        type: list
        elements: str
      keep_count:
        description: Keeps so many of the newest versions of each image. Only with O(cleanup_policies[].action=keep).
        type: int
  cleanup_dry_run:
    description: Whether policies only write into the audit log what they would delete.
    type: bool
  vulnerability_scanning:
    description: V(inherited) scans where the project has the Container Scanning API (which costs), V(disabled) never.
    type: str
    choices: [inherited, disabled]
  kms_key_name:
    description: Key that encrypts the content, C(projects/…/cryptoKeys/…). It cannot be changed later.
    type: str
"""

EXAMPLES = r"""
- name: A home for the user code's images
  dataops.dagster_gce.gcp_artifact_repository:
    project: example-project
    location: europe-west1
    name: dagster-core-prod
    cleanup_policies:
      - {id: old, action: delete, older_than: 90d}
      - {id: rollback, action: keep, keep_count: 20}
  register: repository

- name: Say where images go
  ansible.builtin.debug:
    msg: "docker push {{ repository.registry }}/docker_dagster_core:…"
"""

RETURN = r"""
registry:
  description: The address in front of an image's name, also in check mode before there is such a repository.
  returned: success
  type: str
  sample: europe-west1-docker.pkg.dev/example-project/dagster-core-prod
resource:
  description: The repository as Google has it; in check mode as it would be.
  returned: success
  type: dict
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_client import Client
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_fields import (
    PATCH,
    Field,
    Fixed,
    boolean,
    labels,
    place,
    text,
    unordered,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_resource import Kind, Resource, Step, run

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"([1-9][0-9]{0,9})([smhd])")
REPLACE = "give what it has, or make a repository of another name"

POLICY = {
    "id": {"type": "str", "required": True},
    "action": {"type": "str", "choices": ["delete", "keep"], "required": True},
    "older_than": {"type": "str"},
    "newer_than": {"type": "str"},
    "tag_state": {"type": "str", "choices": ["tagged", "untagged", "any"]},
    "tag_prefixes": {"type": "list", "elements": "str"},
    "version_name_prefixes": {"type": "list", "elements": "str"},
    "package_name_prefixes": {"type": "list", "elements": "str"},
    "keep_count": {"type": "int"},
}
SPEC: dict[str, dict[str, Any]] = {
    "location": {"type": "str", "required": True},
    "delete_images": {"type": "bool", "default": False},
    "description": {"type": "str"},
    "labels": {"type": "dict"},
    "purge_labels": {"type": "bool", "default": False},
    "immutable_tags": {"type": "bool"},
    "cleanup_policies": {"type": "list", "elements": "dict", "options": POLICY},
    "cleanup_dry_run": {"type": "bool"},
    "vulnerability_scanning": {"type": "str", "choices": ["inherited", "disabled"]},
    "kms_key_name": {"type": "str"},
}


def seconds(duration: str) -> str:
    """``30d`` as Google spells it: ``2592000s``."""
    match = DURATION.fullmatch(duration)
    return f"{int(match[1]) * UNITS[match[2]]}s" if match else duration


def policies(given: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The option as Google's map of policies."""
    result = {}
    for policy in given:
        one: dict[str, Any] = {"id": policy["id"], "action": policy["action"].upper()}
        if policy.get("keep_count") is not None:
            one["mostRecentVersions"] = {"keepCount": policy["keep_count"]}
            if policy.get("package_name_prefixes"):
                one["mostRecentVersions"]["packageNamePrefixes"] = policy["package_name_prefixes"]
        else:
            one["condition"] = {
                api: value
                for api, value in (
                    # Google matches prefixes among images with a tag only, and wants that said.
                    (
                        "tagState",
                        (policy.get("tag_state") or ("tagged" if policy.get("tag_prefixes") else "any")).upper(),
                    ),
                    ("tagPrefixes", policy.get("tag_prefixes")),
                    ("versionNamePrefixes", policy.get("version_name_prefixes")),
                    ("packageNamePrefixes", policy.get("package_name_prefixes")),
                    ("olderThan", policy.get("older_than") and seconds(policy["older_than"])),
                    ("newerThan", policy.get("newer_than") and seconds(policy["newer_than"])),
                )
                if value
            }
        result[policy["id"]] = one
    return result


def canonical_policies(found: Mapping[str, Any] | None) -> Any:
    """Both sides' spelling: no empty keys, whole seconds, lists in one order, a tag state that is always said."""
    if found is None:
        return None
    result = {}
    for name, policy in found.items():
        one: dict[str, Any] = {"action": policy.get("action")}
        if recent := policy.get("mostRecentVersions"):
            one["keep_count"] = int(recent.get("keepCount") or 0)
            one["package_name_prefixes"] = unordered(text)(recent.get("packageNamePrefixes") or [])
        if "condition" in policy or not recent:
            condition = policy.get("condition") or {}
            state = condition.get("tagState") or "ANY"
            one["tag_state"] = "ANY" if state == "TAG_STATE_UNSPECIFIED" else state
            for option, api in (("older_than", "olderThan"), ("newer_than", "newerThan")):
                if condition.get(api):
                    number = f"{float(str(condition[api]).rstrip('s')):.9f}"
                    one[option] = number.rstrip("0").rstrip(".") + "s"
            for option, api in (
                ("tag_prefixes", "tagPrefixes"),
                ("version_name_prefixes", "versionNamePrefixes"),
                ("package_name_prefixes", "packageNamePrefixes"),
            ):
                if condition.get(api):
                    one[option] = unordered(text)(condition[api])
        result[str(name)] = {key: value for key, value in one.items() if value not in (None, [])}
    return result


KIND = Kind(
    name="repository",
    api="artifactregistry",
    collection="projects/{project}/locations/{location}/repositories",
    id_parameter="repositoryId",
    patterns={
        "name": (r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", "1 to 63 lower-case letters, digits or hyphens, a letter first"),
        "location": (r"[a-z]+(-[a-z]+[0-9]+)?", "a region such as europe-west1, or a multi-region: asia, europe, us"),
        "kms_key_name": (
            r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+",
            "projects/…/locations/…/keyRings/…/cryptoKeys/…",
        ),
    },
    fields=(
        Field("format", "format", change=Fixed("make a repository of another name")),
        Field("description", "description", default=""),
        labels(PATCH),
        Field("immutable_tags", "dockerConfig.immutableTags", form=boolean, default=False),
        Field(
            "cleanup_policies",
            "cleanupPolicies",
            form=canonical_policies,
            default={},
            send=policies,
            merge=lambda wanted, found, options: wanted,
        ),
        Field("cleanup_dry_run", "cleanupPolicyDryRun", form=boolean, default=False),
        Field(
            "vulnerability_scanning",
            "vulnerabilityScanningConfig.enablementConfig",
            default="INHERITED",
            send=lambda value, options: str(value).upper(),
        ),
        Field("kms_key_name", "kmsKeyName", change=Fixed(REPLACE)),
    ),
)


def registry_of(project: str, location: str, name: str) -> str:
    """The address of images; a project ``domain:id`` is a folder ``domain/id`` there."""
    return f"{location}-docker.pkg.dev/{project.replace(':', '/')}/{name}"


class Repository(Resource):
    """A repository, which is never deleted with something in it by accident."""

    def __init__(self, kind: Kind, options: Mapping[str, Any], client: Client) -> None:
        # Only for images: what else Artifact Registry keeps has no use here.
        super().__init__(kind, {**options, "format": "DOCKER"}, client)

    def check(self, found: Mapping[str, Any] | None) -> Sequence[str]:
        """Refuse to delete images without the word for it."""
        if found is None or self.options["state"] != "absent" or self.options["delete_images"]:
            return ()
        size = int(found.get("sizeBytes") or 0)
        held = f"{size / 1e6:.1f} MB of images" if size else ""
        if not held:
            # Google counts the bytes from time to time: what was pushed a minute ago may not be among them.
            query = {"pageSize": 1}
            what = f"see what {self} holds"
            answer = self.client.call(self.kind.api, "GET", f"{self.path}/packages", query=query, what=what)
            names = [unquote(str(package["name"]).rpartition("/")[2]) for package in answer.get("packages", [])]
            held = f"images ({names[0]})" if names else ""
        if not held:
            return ()
        return (f"{self} holds {held}, and state=absent would delete them: give delete_images=true, or keep it",)

    def patch(self, steps: Sequence[Step], found: Mapping[str, Any]) -> None:
        """One PATCH; its mask names whole messages, since each of them is all ours."""
        body: dict[str, Any] = {}
        for step in steps:
            place(body, step.field.api, step.wanted)
        query = {"updateMask": ",".join(body)}
        self.client.change(self.kind.api, "PATCH", self.path, body=body, query=query, what=f"change {self}")

    def results(self) -> dict[str, Any]:
        """Where its images are."""
        return {"registry": registry_of(self.options["project"], self.options["location"], self.name)}


def mistakes(options: Mapping[str, Any]) -> list[str]:
    """What is wrong with the policies, before any call."""
    found: list[str] = []
    seen: set[str] = set()
    for policy in options.get("cleanup_policies") or []:
        where = f"cleanup_policies[{policy['id']}]"
        if policy["id"] in seen:
            found.append(f"{where}: found two policies of this id; expected one")
        seen.add(policy["id"])
        for option in ("older_than", "newer_than"):
            if policy.get(option) and not DURATION.fullmatch(policy[option]):
                found.append(
                    f"{where}.{option}: found {policy[option]!r}; expected a whole number and s, m, h or d, as 30d"
                )
        conditions = [name for name in POLICY if name not in ("id", "action", "keep_count") and policy.get(name)]
        if policy.get("keep_count") is not None:
            if policy["action"] != "keep" or policy["keep_count"] < 1:
                is_there = f"{policy['keep_count']} with action {policy['action']}"
                found.append(f"{where}.keep_count: found {is_there}; expected 1 or more, with keep")
            if foreign := [name for name in conditions if name != "package_name_prefixes"]:
                found.append(f"{where}.{foreign[0]}: found together with keep_count; expected one of the two")
        elif not conditions:
            found.append(f"{where}: found no condition; expected one such as older_than, or keep_count")
        elif policy.get("tag_prefixes") and policy.get("tag_state") not in (None, "tagged"):
            found.append(f"{where}.tag_state: found {policy['tag_state']!r} with tag_prefixes; expected 'tagged'")
    return found


def main() -> None:
    """Run the module."""
    run(KIND, SPEC, resource=Repository, check=mistakes)


if __name__ == "__main__":
    main()
