#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""A bucket of Cloud Storage, made for backups."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gcp_bucket
short_description: A bucket of Cloud Storage for backups
description:
  - Makes a bucket that is never open to the internet and whose access IAM alone governs, and keeps its settings as they
    are given.
  - Nothing is replaced to make a change; what Google cannot change in place is an error that says so.
  - A bucket is deleted only when it holds nothing.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: [dataops.dagster_gce.attributes, dataops.dagster_gce.google]
options:
  name:
    description: The bucket's name, which is the only one in the world.
    type: str
    required: true
  location:
    description:
      - A region (C(europe-west3)), dual-region (C(eur4)) or multi-region (C(eu)). Another one than the machine's
        survives its loss.
    type: str
    default: us
  state:
    description: Whether it has to be there. Google refuses V(absent) for a bucket that holds something.
    type: str
    choices: [present, absent]
    default: present
  storage_class:
    description: What objects cost to keep and to read. Backups that live for weeks only are cheapest in V(STANDARD).
    type: str
    choices: [STANDARD, NEARLINE, COLDLINE, ARCHIVE]
  labels:
    description: Labels that it has to have.
    type: dict
  purge_labels:
    description: Whether labels that O(labels) does not name are taken away; those of Google's (C(goog-…)) stay.
    type: bool
    default: false
  delete_after_days:
    description:
      - Google deletes objects that are older. For machines that may not delete (C(dagster_backup_bucket_prune=false)).
      - It is the bucket's whole lifecycle. 0 takes every rule away.
    type: int
  retention_days:
    description:
      - Nobody can delete or overwrite an object that is younger, not even the machine that wrote it. 0 takes the policy
        away.
      - With it, C(dagster_backup_bucket_prune) has to be false.
    type: int
  soft_delete_days:
    description: How long Google keeps what was deleted, 0 or 7 to 90. Google's own default is 7.
    type: int
"""

EXAMPLES = r"""
- name: A home for backups, in another region than the machine
  dataops.dagster_gce.gcp_bucket:
    project: example-project
    name: example-project-dagster-backups
    location: europe-west1

- name: One that a stolen machine cannot empty
  dataops.dagster_gce.gcp_bucket:
    project: example-project
    name: example-project-dagster-vault
    location: europe-west1
    retention_days: 14
    delete_after_days: 35
"""

RETURN = r"""
url:
  description: The bucket as C(gs://…), also in check mode before there is one.
  returned: success
  type: str
  sample: gs://example-project-dagster-backups
resource:
  description: The bucket as Google has it; in check mode as it would be.
  returned: success
  type: dict
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_client import Client
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_fields import (
    PATCH,
    Field,
    Fixed,
    boolean,
    integer,
    labels,
    place,
    text,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_resource import Kind, Plan, Resource, Step, run

DAY = 86400
SPEC: dict[str, dict[str, Any]] = {
    "location": {"type": "str", "default": "us"},
    "storage_class": {"type": "str", "choices": ["STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"]},
    "labels": {"type": "dict"},
    "purge_labels": {"type": "bool", "default": False},
    "delete_after_days": {"type": "int"},
    "retention_days": {"type": "int"},
    "soft_delete_days": {"type": "int"},
}


def lifecycle(days: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """The option as Google's rules."""
    return {"rule": [{"action": {"type": "Delete"}, "condition": {"age": days}}] if days else []}


def canonical_rules(found: Mapping[str, Any] | None) -> Any:
    """Both sides' spelling: no rules are an empty list."""
    return None if found is None else list(found.get("rule") or [])


KIND = Kind(
    name="bucket",
    api="storage",
    collection="b",
    patterns={
        "name": (
            r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]",
            "3 to 63 lower-case letters, digits, hyphens, underscores or dots, a letter or digit first and last",
        ),
        "location": (r"[A-Za-z0-9-]+", "a region such as europe-west3, or a multi-region such as eu"),
    },
    fields=(
        Field(
            "location",
            "location",
            form=lambda value: None if value is None else str(value).lower(),
            change=Fixed("give the one that it has, or make a bucket of another name"),
        ),
        Field("uniform_access", "iamConfiguration.uniformBucketLevelAccess.enabled", form=boolean, default=False),
        Field("public_access_prevention", "iamConfiguration.publicAccessPrevention", default="inherited"),
        Field("storage_class", "storageClass", form=text, default="STANDARD"),
        labels(PATCH),
        Field(
            "delete_after_days",
            "lifecycle",
            form=canonical_rules,
            default={},
            send=lifecycle,
            merge=lambda wanted, found, options: wanted,
        ),
        Field(
            "retention_days",
            "retentionPolicy.retentionPeriod",
            form=integer,
            default=0,
            send=lambda value, options: str(value * DAY),
        ),
        Field(
            "soft_delete_days",
            "softDeletePolicy.retentionDurationSeconds",
            form=integer,
            default=7 * DAY,
            send=lambda value, options: str(value * DAY),
        ),
    ),
)


class Bucket(Resource):
    """A bucket, which never is open to all."""

    def __init__(self, kind: Kind, options: Mapping[str, Any], client: Client) -> None:
        super().__init__(kind, {**options, "uniform_access": True, "public_access_prevention": "enforced"}, client)

    def create_body(self, plan: Plan) -> dict[str, Any]:
        """Without a retention of no seconds, which Google does not take."""
        return _without_no_retention({**super().create_body(plan), "name": self.name}, gone=False)

    def create(self, plan: Plan) -> None:
        """Make it; the project is a parameter here."""
        query = {"project": self.options["project"]}
        try:
            self.client.change("storage", "POST", "b", body=self.create_body(plan), query=query, what=f"create {self}")
        except GoogleError as error:
            # Google's words for a bucket that an earlier attempt has made, whose answer was lost, or that others have.
            if (error.code, error.reason) != (409, "conflict") or self.read() is None:
                raise

    def patch(self, steps: Sequence[Step], found: Mapping[str, Any]) -> None:
        """One PATCH, which Google merges with what is there: null takes away."""
        body: dict[str, Any] = {}
        for step in steps:
            place(body, step.field.api, step.wanted)
        if "labels" in body:
            body["labels"] = {**dict.fromkeys(found.get("labels") or {}), **body["labels"]}
        body = _without_no_retention(body, gone=True)
        self.client.change("storage", "PATCH", self.path, body=body, what=f"change {self}")

    def results(self) -> dict[str, Any]:
        """How tools call it."""
        return {"url": f"gs://{self.name}"}


def _without_no_retention(body: dict[str, Any], gone: bool) -> dict[str, Any]:
    if (body.get("retentionPolicy") or {}).get("retentionPeriod") == "0":
        del body["retentionPolicy"]
        if gone:
            body["retentionPolicy"] = None
    return body


def mistakes(options: Mapping[str, Any]) -> list[str]:
    """What is wrong with the days, before any call."""
    found = []
    for name in ("delete_after_days", "retention_days"):
        days = options.get(name)
        if days is not None and not 0 <= days <= 36500:
            found.append(f"{name}: found {days}; expected 0 to 36500")
    days = options.get("soft_delete_days")
    if days is not None and days != 0 and not 7 <= days <= 90:
        found.append(f"soft_delete_days: found {days}; expected 0, or 7 to 90")
    retention, age = options.get("retention_days") or 0, options.get("delete_after_days") or 0
    if retention and age and age < retention:
        found.append(f"delete_after_days: found {age} with retention_days {retention}; expected as many days at least")
    return found


def main() -> None:
    """Run the module."""
    run(KIND, SPEC, resource=Bucket, check=mistakes)


if __name__ == "__main__":
    main()
