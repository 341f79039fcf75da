#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""A key of a service account: whether Google takes it, and its end."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gcp_service_account_key
short_description: Ask Google for a token with a service account's key, or delete a key
description:
  - V(accepted) exchanges the key for a token, as Google's libraries do, and throws the token away. Nothing is changed.
  - V(absent) deletes a key by its id. Google then gives no token for it; those that it gave live for up to an hour.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: [dataops.dagster_gce.attributes, dataops.dagster_gce.google]
options:
  state:
    description: What to hold the key to.
    type: str
    choices: [accepted, absent]
    default: accepted
  key:
    description: The key's JSON. Required for O(state=accepted).
    type: jsonarg
  email:
    description: The service account's address. Required for O(state=absent).
    type: str
  key_id:
    description: The key's id, C(private_key_id) in its JSON. Required for O(state=absent).
    type: str
"""

EXAMPLES = r"""
- name: Does Google take the new key?
  dataops.dagster_gce.gcp_service_account_key:
    project: example-project
    key: "{{ vault_service_account }}"

- name: The old one is worth nothing any more
  dataops.dagster_gce.gcp_service_account_key:
    project: example-project
    state: absent
    email: dagster@example-project.iam.gserviceaccount.com
    key_id: 0123456789abcdef0123456789abcdef01234567
"""

RETURN = r"""
email:
  description: The service account.
  returned: success
  type: str
"""

import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_auth
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_client import Client
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError


def accepted(params: dict[str, Any]) -> str:
    """Ask for a token; returns the account's address.

    Raises:
        google_auth.GoogleAuthenticationError: the key is none, or Google gives no token for it.
    """
    google_auth.access_token({"auth_kind": "serviceaccount", "service_account_contents": params["key"]})
    return str(json.loads(params["key"])["client_email"])


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        {
            **google_auth.argument_spec(),
            "state": {"type": "str", "choices": ["accepted", "absent"], "default": "accepted"},
            "key": {"type": "jsonarg", "no_log": True},
            "email": {"type": "str"},
            "key_id": {"type": "str", "no_log": False},
        },
        required_if=[("state", "accepted", ("key",)), ("state", "absent", ("email", "key_id"))],
        supports_check_mode=True,
    )
    if google_auth.IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("google-auth"), exception=google_auth.IMPORT_ERROR)
    params = module.params
    try:
        if params["state"] == "accepted":
            module.no_log_values -= google_auth.public_values({"service_account_contents": params["key"]})
            module.exit_json(changed=False, email=accepted(params))
        client = Client(params)
        name = f"projects/{params['project']}/serviceAccounts/{params['email']}/keys/{params['key_id']}"
        account = client.get("iam", name.rpartition("/")[0]) or {}
        there = any(each["name"] == name for each in account.get("keys", ()))
        if there and not module.check_mode:
            client.change("iam", "DELETE", name, what=f"delete the key {params['key_id']} of {params['email']}")
    except google_auth.GoogleAuthenticationError as error:
        module.fail_json(msg=f"{error}. Nothing was changed")
    except GoogleError as error:
        module.fail_json(msg=str(error))
    shown = f"{params['key_id']}\n"
    module.exit_json(
        changed=there,
        email=params["email"],
        diff={
            "before_header": f"key of {params['email']}",
            "after_header": f"key of {params['email']}",
            "before": shown if there else "",
            "after": "",
        },
    )


if __name__ == "__main__":
    main()
