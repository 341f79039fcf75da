#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""A pool of identities that come from elsewhere, as GitHub's."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gcp_workload_identity_pool
short_description: A workload identity pool of a Google Cloud project
description:
  - Makes a pool, and keeps its words as they are given. Who may come is said by
    M(dataops.dagster_gce.gcp_workload_identity_provider), what they may do by M(dataops.dagster_gce.gcp_iam_member).
  - Deletes none, since Google keeps a deleted one's name for 30 days.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: [dataops.dagster_gce.attributes, dataops.dagster_gce.google]
options:
  name:
    description: The pool's id.
    type: str
    required: true
  state:
    description: The pool has to be there.
    type: str
    choices: [present]
    default: present
  display_name:
    description: A name for people.
    type: str
  description:
    description: What it is for.
    type: str
  disabled:
    description: Whether nobody gets in for now. Not given, it stays as it is.
    type: bool
"""

EXAMPLES = r"""
- name: Identities of GitHub
  dataops.dagster_gce.gcp_workload_identity_pool:
    project: example-project
    name: dagster-github-prod
  register: pool
"""

RETURN = r"""
principal:
  description:
    - What members of IAM policies that come from here begin with. C(/subject/…) follows, or
      C(/attribute.<name>/<value>) behind C(principalSet:).
    - In check mode, before there is such a pool, the project's id stands where Google has its number.
  returned: success
  type: str
  sample: principal://iam.googleapis.com/projects/123456789/locations/global/workloadIdentityPools/dagster-github-prod
resource:
  description: The pool as Google has it; in check mode as it would be.
  returned: success
  type: dict
"""

from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_fields import Field, boolean
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_resource import Kind, run
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_workload_identity import ID, Deletable

KIND = Kind(
    name="workload identity pool",
    api="iam",
    collection="projects/{project}/locations/global/workloadIdentityPools",
    id_parameter="workloadIdentityPoolId",
    update_mask=True,
    patterns={"name": ID},
    fields=(
        Field("display_name", "displayName", default=""),
        Field("description", "description", default=""),
        Field("disabled", "disabled", form=boolean, default=False),
    ),
)


class Pool(Deletable):
    """A pool, by the name that members have."""

    def results(self) -> dict[str, Any]:
        """What members begin with."""
        return {"principal": f"principal://iam.googleapis.com/{self.named}"}


def main() -> None:
    """Run the module."""
    run(
        KIND,
        {"display_name": {"type": "str"}, "description": {"type": "str"}, "disabled": {"type": "bool"}},
        resource=Pool,
        states=("present",),
    )


if __name__ == "__main__":
    main()
