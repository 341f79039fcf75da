#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: bring Dagster or PostgreSQL to another version, or back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dagster_upgrade
short_description: Bring Dagster or PostgreSQL to another version without losing anything, or go back
version_added: 1.0.0
description:
  - V(prepare) looks, refuses what cannot work, dumps the database, rehearses a migration of Dagster's schema on a
    copy, holds the queue, lets runs in flight end where the data changes hands, copies the data to another major
    version of PostgreSQL and migrates the schema. After it the roles C(dagster_home) and C(dagster_stack) start what
    is new, and V(finish) closes the upgrade. V(back) takes all of it back.
  - Each step is in a journal on the machine before it begins. An upgrade that was killed is taken back, or gone on
    with, by the next V(prepare).
  - Needs Python's standard library and the docker command on the machine; must run as root.
author: dataops (@dataops)
extends_documentation_fragment:
  - dataops.dagster_gce.attributes
  - dataops.dagster_gce.dagster.root
attributes:
  check_mode:
    details: Shows the plan and touches nothing.
  diff_mode:
    details: Shows the versions before and after.
options:
  operation:
    description:
      - What to do. V(postgres_back) goes back to the volume that the last upgrade of PostgreSQL left; V(confirm)
        removes that volume. V(adopt) takes over a Dagster that the article's compose file has made.
    type: str
    choices: [prepare, finish, back, postgres_back, confirm, adopt]
    default: prepare
  image:
    description: Image of the webserver and the daemon to go to. Needed by V(prepare).
    type: str
    default: ""
  postgres_image:
    description: Image of PostgreSQL to go to. Empty stays at the one that runs.
    type: str
    default: ""
  postgres_volume:
    description: Name of the volume for another major version of PostgreSQL. Empty takes C(dagster-postgres-<version>).
    type: str
    default: ""
  expected_version:
    description: Dagster's version in O(image), to be shown in check mode, where the image may not have been built.
    type: str
    default: ""
  wait_for_runs:
    description:
      - Seconds that runs in flight get to end. Without it they get an hour where the data changes hands, and go on
        otherwise.
    type: int
  webserver_url:
    description: Address of the webserver as seen from the machine.
    type: str
    default: http://127.0.0.1:3000
  reason:
    description: Why it is taken back, for the audit log.
    type: str
    default: ""
  confirm:
    description: Whether V(postgres_back) may lose what came since the upgrade.
    type: bool
    default: false
  answer_seconds:
    description: Seconds in which the stack has to be healthy again on the way back.
    type: int
    default: 240
  lock_wait:
    description: Seconds to wait for a deploy to end.
    type: float
    default: 60
  who:
    description: Who upgrades, for the lock and the audit log.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Everything up to the start of what is new
  dataops.dagster_gce.dagster_upgrade:
    image: dagster_daemon_webserver:0123456789ab
    postgres_image: postgres:17
"""

RETURN = r"""
pending:
  description: Whether there is something to start and to prove now.
  returned: success
  type: bool
title:
  description: From which version to which.
  returned: success
  type: str
lines:
  description: The plan, as people read it.
  returned: success
  type: list
  elements: str
notes:
  description: What somebody should know.
  returned: success
  type: list
  elements: str
result:
  description: V(unchanged), V(predicted), V(prepared), V(ok) or V(rolled_back).
  returned: success
  type: str
postgres_image:
  description: The image of PostgreSQL with which the stack has to be started.
  returned: success
  type: str
database:
  description: C(user) and C(name) of the database that was adopted.
  returned: success
  type: dict
downtime:
  description: Seconds for which the webserver did not answer.
  returned: success
  type: float
"""

import dataclasses
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import upgrade, upgrade_adopt

ARGUMENTS: dict[str, Any] = {
    "operation": {
        "type": "str",
        "choices": ["prepare", "finish", "back", "postgres_back", "confirm", "adopt"],
        "default": "prepare",
    },
    "root": {"type": "path", "default": "/opt/dagster"},
    "image": {"type": "str", "default": ""},
    "postgres_image": {"type": "str", "default": ""},
    "postgres_volume": {"type": "str", "default": ""},
    "expected_version": {"type": "str", "default": ""},
    "wait_for_runs": {"type": "int"},
    "webserver_url": {"type": "str", "default": "http://127.0.0.1:3000"},
    "reason": {"type": "str", "default": ""},
    "confirm": {"type": "bool", "default": False},
    "answer_seconds": {"type": "int", "default": 240},
    "lock_wait": {"type": "float", "default": 60},
    "who": {"type": "str", "default": ""},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True, required_if=[("operation", "prepare", ["image"])])
    names = {each.name for each in dataclasses.fields(upgrade.Options)}
    task = upgrade.Upgrade(upgrade.Options(**{name: value for name, value in module.params.items() if name in names}))
    operation = module.params["operation"]
    try:
        if module.check_mode:
            _predict(module, task, operation)
        if operation == "adopt":
            outcome = upgrade_adopt.Adopt(task.options).adopt()
            module.exit_json(**dataclasses.asdict(outcome), diff=_diff(outcome))
        outcome = task.back(module.params["reason"]) if operation == "back" else getattr(task, operation)()
    except upgrade.UpgradeError as error:
        module.fail_json(msg=str(error), **dataclasses.asdict(task.outcome))
    module.exit_json(**dataclasses.asdict(outcome), diff=_diff(outcome))


def _predict(module: AnsibleModule, task: upgrade.Upgrade, operation: str) -> None:
    """What would be done; ends the module."""
    outcome = upgrade_adopt.Adopt(task.options).predict() if operation == "adopt" else task.outcome
    outcome.result = "predicted"
    if operation == "prepare":
        # What was interrupted may have left nothing that runs and could be asked.
        outcome.changed = bool(task.interrupted()) or task.plan(missing_images=True).pending
    module.exit_json(**dataclasses.asdict(outcome), diff=_diff(outcome))


def _diff(outcome: upgrade.Outcome) -> dict[str, str]:
    changed = outcome.changed and outcome.title
    return {"before": "", "after": f"{outcome.title}\n" if changed else ""}


if __name__ == "__main__":
    main()
