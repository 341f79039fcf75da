#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: the settings of one part of what looks after the machine, and its systemd units."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dagster_jobs
short_description: Settings and timers of one part of the command dagster-gce
version_added: 1.0.0
description:
  - Writes C(/etc/dagster-gce/PART.json) and a systemd service for each job, with a timer where it has a schedule;
    enables and starts them. Units of the part that are no longer listed are stopped and removed.
  - One remote task. systemd reloads only when a unit changes. A timer that somebody has stopped is started again.
  - New units have to pass C(systemd-analyze verify) before they are put in place.
author: dataops (@dataops)
extends_documentation_fragment:
  - dataops.dagster_gce.attributes
attributes:
  diff_mode:
    details: Of O(secret_settings) only whether they change.
options:
  part:
    description: The part's name, also that of its settings file.
    type: str
    required: true
  state:
    description: V(absent) removes the part's timers, services and settings, and nothing else.
    type: str
    choices: [present, absent]
    default: present
  settings:
    description: The part's settings, as the code of the command reads them.
    type: dict
    default: {}
  secret_settings:
    description: Merged into O(settings), level by level. Never shown or logged.
    type: dict
    default: {}
  jobs:
    description: The part's jobs.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the job; its units are C(dagster-gce-NAME.service) and C(.timer).
        type: str
        required: true
      command:
        description: Arguments of C(dagster-gce).
        type: str
        required: true
      schedule:
        description: When it runs, in the form of systemd's C(OnCalendar=). Caught up when the machine was off.
        type: str
        default: ""
      every:
        description: How long after the end of one run the next begins, such as V(30s).
        type: str
        default: ""
      after_boot:
        description: How long after boot the first run begins. Default is O(jobs[].every), or none with a schedule.
        type: str
        default: ""
      random_delay:
        description: Up to how much later than scheduled it begins, so that not all machines begin at once.
        type: str
        default: ""
      timeout:
        description: Seconds after which a run is ended; 0 for never. Does not count for a service that stays.
        type: int
        default: 0
      every_at_most:
        description: Seconds without a success after which the job is overdue; 0 where it cannot be.
        type: int
        default: 0
      description:
        description: The unit's description.
        type: str
        default: ""
      service:
        description: More settings of the unit's section C([Service]), such as a sandbox.
        type: dict
        default: {}
  program:
    description: The command.
    type: path
    default: /usr/local/bin/dagster-gce
"""

EXAMPLES = r"""
- name: Settings and timer of the upkeep
  dataops.dagster_gce.dagster_jobs:
    part: upkeep
    settings:
      days: 90
    jobs:
      - name: upkeep
        command: upkeep
        schedule: "*-*-* 03:17:00"
        timeout: 7200
        every_at_most: 180000

- name: Without it
  dataops.dagster_gce.dagster_jobs:
    part: upkeep
    state: absent
"""

RETURN = r"""
units:
  description: The units that are enabled and started.
  returned: success
  type: list
  elements: str
"""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config, units

FOLDER = files.Owner(0, 0, 0o755)
SETTINGS = files.Owner(0, 0, 0o600)
UNIT = files.Owner(0, 0, 0o644)

NAME = re.compile(r"[a-z][a-z0-9-]*")
NAME_IS = "lower case letters, digits and dashes"


class Jobs:
    """What stands on the machine, and what should."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        given = module.params
        self.part: str = given["part"]
        self.present: bool = given["state"] == "present"
        self.diff: list[dict[str, str]] = []
        if not NAME.fullmatch(self.part):
            module.fail_json(msg=f"part: found {self.part!r}; expected {NAME_IS}")
        self.jobs = [units.Job(**each) for each in given["jobs"]] if self.present else []
        for job in self.jobs:
            if not NAME.fullmatch(job.name):
                module.fail_json(msg=f"jobs: found the name {job.name!r}; expected {NAME_IS}")
        self.units: dict[str, str] = {}
        for job in self.jobs:
            try:
                self.units.update(units.files(self.part, job, given["program"]))
            except units.UnitError as error:
                module.fail_json(msg=str(error))

    def run(self) -> None:
        """Compare, change what differs, end the module."""
        stale = [name for name, text in self._own_units().items() if name not in self.units]
        rewrite = [name for name, text in self.units.items() if self._unit_differs(name, text)]
        settings = self._settings_differ()
        if rewrite:
            self._verify()
        started = [each.started_unit for each in self.jobs]
        idle = [] if self.module.check_mode and rewrite else self._not_started(started)
        for name in stale:
            self._note(os.path.join(units.FOLDER, name), self._read(name), "")
        for name in rewrite:
            self._note(os.path.join(units.FOLDER, name), self._read(name), self.units[name])
        for name in idle:
            if name not in rewrite:
                self._note(name, "not started, or not enabled\n", "enabled and started\n")
        if not self.module.check_mode:
            try:
                self._apply(stale, rewrite, idle, settings)
            except OSError as error:
                self.module.fail_json(msg=f"cannot write {error.filename or 'a file'}: {error.strerror}")
        self.module.exit_json(changed=bool(self.diff), diff=self.diff, units=started)

    def _apply(self, stale: list[str], rewrite: list[str], idle: list[str], settings: bool) -> None:
        if stale:
            self._systemctl("disable", "--now", *sorted(stale, key=lambda name: name.endswith(".service")))
            for name in stale:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(units.FOLDER, name))
        if settings:
            self._write_settings()
        for name in rewrite:
            files.replace(os.path.join(units.FOLDER, name), self.units[name].encode(), UNIT)
        if stale or rewrite:
            self._systemctl("daemon-reload")
        if stale:
            # A failed unit stays in the list of failed ones for ever otherwise.
            self._systemctl("reset-failed", *stale, check=False)
        if idle:
            self._systemctl("enable", "--now", *idle)
        # A service reads its settings when it starts; a timer has its times from its file.
        again = [
            each.started_unit
            for each in self.jobs
            if each.started_unit not in idle and (each.started_unit in rewrite or (each.stays and settings))
        ]
        if again:
            self._systemctl("restart", *again)

    def _own_units(self) -> dict[str, str]:
        """The unit files of this part that are there."""
        found = {}
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(units.FOLDER)):
                if name.startswith(units.PREFIX) and name.endswith((".service", ".timer")):
                    text = self._read(name)
                    if units.part_of(text) == self.part:
                        found[name] = text
        return found

    def _unit_differs(self, name: str, text: str) -> bool:
        path = os.path.join(units.FOLDER, name)
        return self._read(name) != text or files.differs(path, UNIT)

    def _read(self, name: str) -> str:
        return (files.read(os.path.join(units.FOLDER, name)) or b"").decode("utf-8", "replace")

    def _settings(self) -> dict[str, Any]:
        listed = {
            each.name: {
                "command": each.command,
                "schedule": each.schedule,
                "every": each.every,
                "every_at_most": each.every_at_most or None,
                "timeout": each.timeout,
                "stays": each.stays,
            }
            for each in self.jobs
        }
        return {**self.module.params["settings"], config.JOBS_KEY: listed}

    def _content(self) -> bytes:
        return _json(_merged(self._settings(), self.module.params["secret_settings"])).encode()

    def _settings_differ(self) -> bool:
        path = config.path(self.part)
        before = files.read(path)
        if not self.present:
            if before is not None:
                self._note(path, "present\n", "")
            return before is not None
        wanted = self._content()
        if before == wanted and not files.differs(path, SETTINGS):
            return False
        # Secrets may stand where none stood before: of what is there, only what is known to be none is shown.
        hidden = "(and secret settings)\n" if self.module.params["secret_settings"] else ""
        known = _json(_without_secrets(before, self._settings()))
        self._note(path, known if before is not None else "", _json(self._settings()) + hidden)
        return True

    def _write_settings(self) -> None:
        path = config.path(self.part)
        if self.present:
            if not os.path.isdir(config.FOLDER):
                files.make_folder(config.FOLDER, FOLDER)
            files.replace(path, self._content(), SETTINGS)
        else:
            os.unlink(path)

    def _verify(self) -> None:
        """New units, before they are put in place; where systemd is not there yet (check mode), nothing is said."""
        if not shutil.which("systemd-analyze"):
            return
        with tempfile.TemporaryDirectory(prefix="dagster-gce-units.") as folder:
            for name, text in self.units.items():
                # The program may come with this very play.
                text = text.replace(self.module.params["program"] + " ", "/bin/true ")
                with open(os.path.join(folder, name), "w", encoding="utf-8") as stream:
                    stream.write(text)
            status, _, errors = self.module.run_command(
                ["systemd-analyze", "--man=no", "--recursive-errors=no", "verify", *sorted(self.units)], cwd=folder
            )
        # Warnings (an unknown setting) end at 0.
        said = [line for line in errors.splitlines() if units.PREFIX in line]
        if status or said:
            self.module.fail_json(
                msg=f"part {self.part}: systemd refuses the units; nothing was changed:\n" + "\n".join(said or [errors])
            )

    def _not_started(self, names: list[str]) -> list[str]:
        if not names:
            return []
        if not shutil.which("systemctl"):
            if self.module.check_mode:
                return names
            self.module.fail_json(msg="systemctl: found no such command; expected a machine that systemd has started")
        shown = self._systemctl("show", "--property=Id,ActiveState,SubState,UnitFileState", *names, check=False)
        states = {}
        for block in shown.split("\n\n"):
            state = dict(line.partition("=")[::2] for line in block.splitlines())
            states[state.get("Id", "")] = state
        return [name for name in names if not _started(states.get(name, {}))]

    def _systemctl(self, *arguments: str, check: bool = True) -> str:
        status, output, errors = self.module.run_command(["systemctl", "--no-pager", *arguments])
        if status and check:
            self.module.fail_json(
                msg=f"`systemctl {' '.join(arguments)}` failed ({status}): {(errors or output).strip()}"
            )
        return str(output)

    def _note(self, path: str, before: str, after: str) -> None:
        self.diff.append({"before_header": path, "after_header": path, "before": before, "after": after})


def _started(state: Mapping[str, str]) -> bool:
    # A service that stays is between two starts for a moment after a crash; systemd sees to that.
    running = state.get("ActiveState") == "active" or state.get("SubState") == "auto-restart"
    return running and state.get("UnitFileState") == "enabled"


def _merged(settings: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(settings)
    for name, value in more.items():
        inner = merged.get(name)
        merged[name] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _without_secrets(found: bytes | None, settings: Mapping[str, Any]) -> Any:
    """What stands in the file, as far as the part's settings that are no secrets have the same keys."""
    try:
        there = json.loads(found or b"{}")
    except ValueError:
        return "(not JSON)"
    return _shared(there, settings)


def _shared(there: Any, wanted: Any) -> Any:
    if isinstance(there, dict) and isinstance(wanted, Mapping):
        return {name: _shared(value, wanted[name]) for name, value in there.items() if name in wanted}
    return there


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def main() -> None:
    """Run the module."""
    job: dict[str, Any] = {
        "name": {"type": "str", "required": True},
        "command": {"type": "str", "required": True},
        "schedule": {"type": "str", "default": ""},
        "every": {"type": "str", "default": ""},
        "after_boot": {"type": "str", "default": ""},
        "random_delay": {"type": "str", "default": ""},
        "timeout": {"type": "int", "default": 0},
        "every_at_most": {"type": "int", "default": 0},
        "description": {"type": "str", "default": ""},
        "service": {"type": "dict", "default": {}},
    }
    arguments: dict[str, Any] = {
        "part": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "settings": {"type": "dict", "default": {}},
        "secret_settings": {"type": "dict", "default": {}, "no_log": True},
        "jobs": {"type": "list", "elements": "dict", "default": [], "options": job},
        "program": {"type": "path", "default": "/usr/local/bin/dagster-gce"},
    }
    Jobs(AnsibleModule(arguments, supports_check_mode=True)).run()


if __name__ == "__main__":
    main()
