#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Backup, restore and restore drill, from a play."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dagster_backup
short_description: Take, restore or prove a backup of Dagster
version_added: 1.0.0
description:
  - Does what C(dagster-gce backup), C(restore) and C(drill) do on the machine, with the settings that the role
    P(dataops.dagster_gce.dagster_backup#role) has left there.
  - A private key is handed to the machine for as long as it is needed, in memory.
author: dataops (@dataops)
extends_documentation_fragment:
  - dataops.dagster_gce.attributes
attributes:
  check_mode:
    details: A restore says what it would do and what would be lost. The other operations do nothing.
  diff_mode:
    support: none
  idempotent:
    support: none
options:
  operation:
    description:
      - V(backup) takes one. V(restore) brings one back; a restore that was killed goes on where it stopped.
      - V(drill) restores one into a throw-away container and proves it.
      - V(back) swaps the database that the last restore put aside back; V(drop_old) removes what restores put aside.
    type: str
    choices: [backup, restore, drill, back, drop_old]
    required: true
  backup:
    description: The backup's stamp, or V(latest).
    type: str
    default: latest
  to:
    description:
      - A moment in UTC such as V(2026-11-30T12:00:00Z), or V(latest) for the last one that was received. A restore
        brings back that one, out of continuous backup, in place of O(backup).
    type: str
    default: ""
  place:
    description: Where it is taken from. V(auto) is the bucket, if there is one.
    type: str
    choices: [auto, directory, bucket]
    default: auto
  identity:
    description: age's private key, for encrypted backups. Default is the one on the machine.
    type: str
    default: ""
  confirm:
    description: Whether a restore goes on where runs get lost.
    type: bool
    default: false
  without_backup:
    description: Whether a restore takes no backup of the present state first.
    type: bool
    default: false
  reason:
    description: Why the backup is taken. What is not V(timer) stays a week at least.
    type: str
    default: play
"""

EXAMPLES = r"""
- name: Back to the newest backup
  dataops.dagster_gce.dagster_backup:
    operation: restore
    confirm: true
"""

RETURN = r"""
summary:
  description: What was done, or would be done in check mode.
  returned: success
  type: str
details:
  description: The same for programs.
  returned: success
  type: dict
problems:
  description: What a person has to know.
  returned: success
  type: list
  elements: str
"""

import contextlib
import io
from typing import NoReturn

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_settings,
    backup_take,
    config,
    database,
    drill,
    jobs,
    recovery,
    restore_plan,
    restore_run,
)


class Backup:
    """The module's work; every method that fails ends the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.operation: str = module.params["operation"]

    def run(self) -> NoReturn:
        """Do it and end the module."""
        params = self.module.params
        try:
            if self.operation == "drop_old":
                summary = "" if self.module.check_mode else restore_run.drop_old()
                self.module.exit_json(changed=summary.startswith("removed"), summary=summary, details={}, problems=[])
            settings = backup_settings.load()
            wanted = restore_plan.Wanted(
                params["backup"], params["place"], params["identity"], params["confirm"], params["without_backup"]
            )
            if params["to"] and self.operation == "restore":
                # Touches nothing, so that check mode can tell what would be lost.
                wanted = recovery.prepare(settings, wanted, params["to"], restore_run.unfinished())
            if self.module.check_mode:
                summary = restore_plan.make(settings, wanted).text() if self.operation == "restore" else ""
                self.module.exit_json(changed=self.operation != "drill", summary=summary, details={}, problems=[])
            if self.operation == "restore":
                restore_run.refuse(settings, wanted)
            elif self.operation == "drill":
                drill.refuse(settings, wanted.backup, wanted.place, wanted.identity)
            work = {
                "backup": lambda: backup_take.take(settings, params["reason"]),
                "restore": lambda: restore_run.restore(settings, wanted),
                "drill": lambda: drill.drill(settings, wanted.backup, wanted.place, wanted.identity),
                "back": restore_run.back,
            }[self.operation]
        except (jobs.JobError, config.ConfigError, database.DatabaseError, docker_cli.DockerError) as error:
            self.module.fail_json(msg=str(error))
        job = "restore" if self.operation == "back" else self.operation
        # What the job prints is in its state file, too; standard output is the module's answer.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            status = jobs.run(job, work, wait=True)
        if params["to"] and not status:
            recovery.forget(settings)
        found = jobs.state(job)
        if status:
            self.module.fail_json(msg=found.get("summary") or said.getvalue(), details=found.get("details", {}))
        self.module.exit_json(
            changed=self.operation != "drill",
            summary=found.get("summary", ""),
            details=found.get("details", {}),
            problems=[str(each.get("text", "")) for each in found.get("problems", [])],
        )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "operation": {
                "type": "str",
                "choices": ["backup", "restore", "drill", "back", "drop_old"],
                "required": True,
            },
            "backup": {"type": "str", "default": "latest"},
            "to": {"type": "str", "default": ""},
            "place": {"type": "str", "choices": ["auto", "directory", "bucket"], "default": "auto"},
            "identity": {"type": "str", "default": "", "no_log": True},
            "confirm": {"type": "bool", "default": False},
            "without_backup": {"type": "bool", "default": False},
            "reason": {"type": "str", "default": "play"},
        },
        supports_check_mode=True,
    )
    Backup(module).run()


if __name__ == "__main__":
    main()
