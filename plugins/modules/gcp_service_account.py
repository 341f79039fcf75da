#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""A service account of a project."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gcp_service_account
short_description: A service account of a Google Cloud project
description:
  - Makes a service account, and keeps its words as they are given. Makes no keys.
  - Its roles are given by M(dataops.dagster_gce.gcp_iam_member).
  - Waits until Google shows a new account, which may take seconds.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: [dataops.dagster_gce.attributes, dataops.dagster_gce.google]
options:
  name:
    description: The part of its address before the C(@).
    type: str
    required: true
  state:
    description:
      - V(absent) deletes the account. A new one of the same name is another one for Google, without any roles.
    type: str
    choices: [present, absent]
    default: present
  display_name:
    description: A name for people.
    type: str
  description:
    description: What the account is for.
    type: str
  disabled:
    description: Whether nothing may use it for now. Not given, it stays as it is.
    type: bool
"""

EXAMPLES = r"""
- name: The identity of the machine
  dataops.dagster_gce.gcp_service_account:
    project: example-project
    name: dagster-vm-prod
    display_name: Dagster (prod)
"""

RETURN = r"""
email:
  description: Its address, also in check mode before there is such an account.
  returned: success
  type: str
  sample: dagster-vm-prod@example-project.iam.gserviceaccount.com
member:
  description: The account as a member of IAM policies.
  returned: success
  type: str
  sample: serviceAccount:dagster-vm-prod@example-project.iam.gserviceaccount.com
resource:
  description: The account as Google has it; in check mode as it would be.
  returned: success
  type: dict
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_client import Client
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_fields import Field, Method, boolean, place
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_resource import (
    Kind,
    Plan,
    Resource,
    Step,
    run,
)

# Google shows a new account "within 60 seconds" (https://cloud.google.com/iam/docs/service-accounts-create).
VISIBLE_SECONDS = 90.0
PAUSE_SECONDS = 1.0
# Several servers answer, and not all of them know it at once.
IN_A_ROW = 3
SHORT_PAUSE_SECONDS = 0.2

KIND = Kind(
    name="service account",
    api="iam",
    collection="projects/{project}/serviceAccounts",
    patterns={
        "name": (
            r"[a-z][-a-z0-9]{4,28}[a-z0-9]",
            "6 to 30 lower-case letters, digits or hyphens, a letter first, no hyphen last",
        )
    },
    fields=(
        Field("display_name", "displayName", default=""),
        Field("description", "description", default=""),
        Field(
            "disabled",
            "disabled",
            form=boolean,
            default=False,
            on_create=False,
            change=Method("", body=lambda wanted, found, options: {}),
        ),
    ),
)


def email_of(name: str, project: str) -> str:
    """The account's address; in a project ``domain:id`` it is ``name@id.domain.iam.gserviceaccount.com``."""
    domain, colon, short = project.rpartition(":")
    return f"{name}@{short}{'.' + domain if colon else ''}.iam.gserviceaccount.com"


class ServiceAccount(Resource):
    """Its path has the address, and its requests wrap it."""

    def __init__(self, kind: Kind, options: Mapping[str, Any], client: Client) -> None:
        super().__init__(kind, options, client)
        self.email = email_of(self.name, options["project"])
        self.path = f"{self.collection}/{self.email}"
        self.made: dict[str, Any] | None = None

    def read(self) -> dict[str, Any] | None:
        """As Google has it; right after the creation what was shown last, which is known to be there."""
        made, self.made = self.made, None
        return made or super().read()

    def create(self, plan: Plan) -> None:
        """Make it, and wait until Google finds it."""
        account: dict[str, Any] = {}
        for step in plan.steps:
            if step.field.on_create:
                place(account, step.field.api, step.wanted)
        body = {"accountId": self.name, "serviceAccount": account}
        self.client.change("iam", "POST", self.collection, body=body, what=f"create {self}")
        self.made = self.wait_until_shown()

    def wait_until_shown(self) -> dict[str, Any]:
        """The new account, once Google has shown it several times in a row."""
        deadline = time.monotonic() + VISIBLE_SECONDS
        times = 0
        while True:
            try:
                found = super().read()
            except GoogleError as error:
                # The caller could read before: a server that does not know the account yet says this as well.
                if error.code != 403:
                    raise
                found = None
            times = times + 1 if found else 0
            if found and times == IN_A_ROW:
                return found
            if time.monotonic() > deadline:
                raise GoogleError(
                    f"create {self}",
                    message=f"Google does not show it {VISIBLE_SECONDS:.0f} s later.",
                    advice="Run again.",
                )
            time.sleep(SHORT_PAUSE_SECONDS if found else PAUSE_SECONDS)

    def patch(self, steps: Sequence[Step], found: Mapping[str, Any]) -> None:
        """One PATCH; the mask stands in the body here."""
        account: dict[str, Any] = {}
        for step in steps:
            place(account, step.field.api, step.wanted)
        body = {"serviceAccount": account, "updateMask": ",".join(step.field.api for step in steps)}
        self.client.change("iam", "PATCH", self.path, body=body, what=f"change {self}")

    def call_method(self, method: Method, steps: Sequence[Step], found: Mapping[str, Any]) -> None:
        """Switch it off or on."""
        verb = "disable" if steps[0].wanted else "enable"
        self.client.change("iam", "POST", f"{self.path}:{verb}", body={}, what=f"{verb} {self}")

    def predicted(self, plan: Plan, found: Mapping[str, Any] | None) -> dict[str, Any]:
        """As check mode returns it."""
        if plan.action == "delete":
            return {}
        resource = {"name": self.path, "email": self.email, **(found or {})}
        for step in plan.steps:
            place(resource, step.field.api, step.wanted)
        return resource

    def results(self) -> dict[str, Any]:
        """What policies and instances name it by; known before there is such an account."""
        return {"email": self.email, "member": f"serviceAccount:{self.email}"}


def main() -> None:
    """Run the module."""
    run(
        KIND,
        {"display_name": {"type": "str"}, "description": {"type": "str"}, "disabled": {"type": "bool"}},
        resource=ServiceAccount,
    )


if __name__ == "__main__":
    main()
