#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""A new password of Dagster's database."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_password
short_description: A new password of Dagster's database, without a restart
version_added: 1.0.0
description:
  - Changes the password in PostgreSQL, in the files that the containers read and in C(.env), in one transaction.
  - No container is restarted. Connections that are open stay; new ones read the file.
  - One that was killed is ended by the next one.
  - The password is never shown. The task needs no C(no_log), which would hide its error messages too.
author: dataops (@dataops)
extends_documentation_fragment:
  - dataops.dagster_gce.attributes
  - dataops.dagster_gce.dagster.root
attributes:
  diff_mode:
    details: Says that the password changes, never what it is.
  idempotent:
    support: partial
    details: With O(password), the same one again changes nothing. Without it each run makes a new one.
options:
  password:
    description: The new password. Empty makes one on the machine.
    type: str
    default: ""
  container:
    description: PostgreSQL's container.
    type: str
    default: dagster-postgres
  uid:
    description: User in Dagster's images.
    type: int
    default: 10001
"""

EXAMPLES = r"""
- name: Another password
  dataops.dagster_gce.postgres_password:
"""

RETURN = r"""
resumed:
  description: Whether this ended what an interrupted rotation had begun.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import password_rotation


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        {
            "password": {"type": "str", "default": "", "no_log": True},
            "root": {"type": "path", "default": "/opt/dagster"},
            "container": {"type": "str", "default": "dagster-postgres"},
            "uid": {"type": "int", "default": 10001},
        },
        supports_check_mode=True,
    )
    given = module.params
    rotation = password_rotation.Rotation(password_rotation.Place(given["root"], given["container"], given["uid"]))
    try:
        if module.check_mode:
            outcome = password_rotation.Outcome(rotation.would_change(given["password"]))
        else:
            outcome = rotation.rotate(given["password"])
    except password_rotation.RotationError as error:
        module.fail_json(msg=str(error))
    diff = {
        "before_header": "PostgreSQL's password",
        "after_header": "PostgreSQL's password",
        "before": "(hidden)\n",
        "after": "(new, hidden)\n" if outcome.changed else "(hidden)\n",
    }
    module.exit_json(changed=outcome.changed, resumed=outcome.resumed, diff=diff)


if __name__ == "__main__":
    main()
