#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Whose tokens a workload identity pool takes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gcp_workload_identity_provider
short_description: An OpenID Connect provider of a workload identity pool
description:
  - Says whose tokens a pool takes, what of them becomes an identity, and which are refused.
  - Whoever issues tokens for everybody, as GitHub does, needs a condition.
  - Deletes none, since Google keeps a deleted one's name for 30 days.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: [dataops.dagster_gce.attributes, dataops.dagster_gce.google]
options:
  name:
    description: The provider's id.
    type: str
    required: true
  pool:
    description: The pool's id.
    type: str
    required: true
  state:
    description: The provider has to be there.
    type: str
    choices: [present]
    default: present
  issuer_uri:
    description: Who issues the tokens, with C(https://).
    type: str
    required: true
  attribute_mapping:
    description: Attributes of Google's side, and the expression (CEL) over the token's claims that each is.
    type: dict
    required: true
  attribute_condition:
    description: An expression (CEL) that is true for tokens that may come in.
    type: str
    required: true
  display_name:
    description: A name for people.
    type: str
  disabled:
    description: Whether nobody gets in for now. Not given, it stays as it is.
    type: bool
"""

EXAMPLES = r"""
- name: One repository's workflows
  dataops.dagster_gce.gcp_workload_identity_provider:
    project: example-project
    pool: dagster-github-prod
    name: github
    issuer_uri: https://token.actions.githubusercontent.com
    attribute_mapping:
      google.subject: assertion.sub
      attribute.repository: assertion.repository
    attribute_condition: assertion.repository == 'example/pipelines' && assertion.repository_id == '123456789'
"""

RETURN = r"""
provider:
  description:
    - What clients call it, as the action google-github-actions/auth.
    - In check mode, before there is such a provider, the project's id stands where Google has its number.
  returned: success
  type: str
  sample: projects/123456789/locations/global/workloadIdentityPools/dagster-github-prod/providers/github
resource:
  description: The provider as Google has it; in check mode as it would be.
  returned: success
  type: dict
"""

from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_fields import Field, boolean, same
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_resource import Kind, run
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_workload_identity import ID, Deletable

KIND = Kind(
    name="workload identity provider",
    api="iam",
    collection="projects/{project}/locations/global/workloadIdentityPools/{pool}/providers",
    id_parameter="workloadIdentityPoolProviderId",
    update_mask=True,
    patterns={"name": ID, "pool": ID, "issuer_uri": (r"https://\S+", "an address that begins with https://")},
    fields=(
        Field("display_name", "displayName", default=""),
        Field("disabled", "disabled", form=boolean, default=False),
        Field("issuer_uri", "oidc.issuerUri"),
        # As a whole: a mapping that nobody asks for would be one more way in.
        Field(
            "attribute_mapping", "attributeMapping", form=same, default={}, merge=lambda wanted, found, options: wanted
        ),
        Field("attribute_condition", "attributeCondition", default=""),
    ),
)


class Provider(Deletable):
    """A provider, by the name that clients have."""

    def results(self) -> dict[str, Any]:
        """What clients call it."""
        return {"provider": self.named}


def main() -> None:
    """Run the module."""
    run(
        KIND,
        {
            "pool": {"type": "str", "required": True},
            "issuer_uri": {"type": "str", "required": True},
            "attribute_mapping": {"type": "dict", "required": True},
            "attribute_condition": {"type": "str", "required": True},
            "display_name": {"type": "str"},
            "disabled": {"type": "bool"},
        },
        resource=Provider,
        states=("present",),
    )


if __name__ == "__main__":
    main()
