#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The machine's half of the module dagster_command: put the file in place."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dagster_command
short_description: Place the command dagster-gce on the machine
version_added: 1.0.0
description:
  - Makes one executable file of the collection's own code, which needs Python and the C(docker) command only, and
    puts it on the machine with the settings that say where Dagster stands.
  - One remote task. The file is sent only where the machine has another one.
author: dataops (@dataops)
extends_documentation_fragment:
  - dataops.dagster_gce.attributes
  - dataops.dagster_gce.dagster
  - dataops.dagster_gce.dagster.root
options:
  state:
    description: Whether the command is there. V(absent) keeps what jobs have written below O(root).
    type: str
    choices: [present, absent]
    default: present
  path:
    description: The command.
    type: path
    default: /usr/local/bin/dagster-gce
  postgres_container:
    description: Name of PostgreSQL's container.
    type: str
    default: dagster-postgres
  storage:
    description: >-
      The volume with the files of I/O managers and compute logs, or the path of a folder that machines share.
    type: str
    default: dagster-storage
    version_added: 1.1.0
  sha256:
    description: Set by the action; checksum of the command.
    type: str
  content:
    description: Set by the action; the command itself, in base64.
    type: str
"""

EXAMPLES = r"""
- name: The command dagster-gce
  dataops.dagster_gce.dagster_command:
    root: /opt/dagster
"""

RETURN = r"""
sha256:
  description: Checksum of the command.
  returned: success
  type: str
parts:
  description: Which parts have left something in the folder of settings, such as C(watch).
  returned: success
  type: list
  elements: str
"""

import base64
import contextlib
import hashlib
import json
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config

EXECUTABLE = files.Owner(0, 0, 0o755)
FOLDER = files.Owner(0, 0, 0o755)
SETTINGS = files.Owner(0, 0, 0o600)
STATE = files.Owner(0, 0, 0o750)

# What the command has to know of the stack.
STACK = (
    "root",
    "webserver_url",
    "webserver_container",
    "daemon_container",
    "postgres_container",
    "location",
    "storage",
)


class Command:
    """What stands on the machine, and what should."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.path: str = module.params["path"]
        self.absent: bool = module.params["state"] == "absent"
        self.diff: list[dict[str, str]] = []
        stack = {name: module.params[name] for name in STACK}
        self.settings = (json.dumps(stack, indent=1, sort_keys=True) + "\n").encode()
        self.state_folder = os.path.join(module.params["root"], "state")

    def run(self) -> None:
        """Compare, write if needed, end the module."""
        sha256 = self.module.params["sha256"]
        if not self.absent and not sha256:
            self.module.fail_json(msg="this module runs through its action only: dataops.dagster_gce.dagster_command")
        try:
            if self.absent:
                self._remove()
            elif self._command_differs(sha256):
                if self.module.params["content"] is None and not self.module.check_mode:
                    self.module.exit_json(changed=False, needs_content=True)
                self._write(self.path, base64.b64decode(self.module.params["content"] or ""), EXECUTABLE)
            if not self.absent:
                self._folder(config.FOLDER, FOLDER)
                self._folder(self.state_folder, STATE)
                self._settings()
        except OSError as error:
            self.module.fail_json(msg=f"cannot write {error.filename or self.path}: {error.strerror}")
        self.module.exit_json(changed=bool(self.diff), diff=self.diff, sha256=sha256 or "", parts=self.parts())

    def parts(self) -> list[str]:
        """The parts that have left something in the folder of settings."""
        with contextlib.suppress(FileNotFoundError):
            return sorted({name.removesuffix(".json") for name in os.listdir(config.FOLDER)})
        return []

    def _command_differs(self, sha256: str) -> bool:
        found = files.read(self.path)
        before = hashlib.sha256(found).hexdigest() if found is not None else ""
        if before == sha256 and not files.differs(self.path, EXECUTABLE):
            return False
        self._note(self.path, f"sha256 {before}\n" if before else "", f"sha256 {sha256}\n")
        return True

    def _settings(self) -> None:
        path = config.path("command")
        before = files.read(path)
        if before != self.settings or files.differs(path, SETTINGS):
            self._note(path, (before or b"").decode("utf-8", "replace"), self.settings.decode())
            self._write(path, self.settings, SETTINGS)

    def _remove(self) -> None:
        for path in (self.path, config.path("command")):
            if os.path.lexists(path):
                self._note(path, "present\n", "")
                if not self.module.check_mode:
                    os.unlink(path)
        if not self.module.check_mode:
            with contextlib.suppress(OSError):
                os.rmdir(config.FOLDER)  # only where no part has settings any more

    def _folder(self, path: str, owner: files.Owner) -> None:
        if files.differs(path, owner):
            self._note(path, "", f"folder, root {owner.mode:04o}\n")
            if not self.module.check_mode:
                files.make_folder(path, owner)

    def _write(self, path: str, content: bytes, owner: files.Owner) -> None:
        if not self.module.check_mode:
            if not os.path.isdir(os.path.dirname(path)):
                files.make_folder(os.path.dirname(path), FOLDER)
            files.replace(path, content, owner)

    def _note(self, path: str, before: str, after: str) -> None:
        self.diff.append({"before_header": path, "after_header": path, "before": before, "after": after})


def main() -> None:
    """Run the module."""
    arguments: dict[str, Any] = {
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "path": {"type": "path", "default": "/usr/local/bin/dagster-gce"},
        "root": {"type": "path", "default": "/opt/dagster"},
        "webserver_url": {"type": "str", "default": "http://127.0.0.1:3000"},
        "webserver_container": {"type": "str", "default": "dagster-webserver"},
        "daemon_container": {"type": "str", "default": "dagster-daemon"},
        "postgres_container": {"type": "str", "default": "dagster-postgres"},
        "location": {"type": "str", "default": "dagster_core"},
        "storage": {"type": "str", "default": "dagster-storage"},
        "sha256": {"type": "str"},
        # No secret, but hundreds of kilobytes that would stand in the journal and under -vvv.
        "content": {"type": "str", "no_log": True},
    }
    Command(AnsibleModule(arguments, supports_check_mode=True)).run()


if __name__ == "__main__":
    main()
