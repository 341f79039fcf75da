#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""One secret file in a folder of its own."""

from __future__ import annotations

DOCUMENTATION = r"""
module: secret_file
short_description: One secret file in a folder of its own
description:
  - Writes a secret for a container's user, or removes it; folder and file in one remote task.
  - The content is never shown. The task needs no C(no_log), which would hide its error messages too.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment:
  - dataops.dagster_gce.attributes
  - dataops.dagster_gce.owned_file
attributes:
  diff_mode:
    details: Says whether the file is there and whether it changes, never what it holds.
options:
  path:
    description: The file.
    type: path
    required: true
  state:
    description: Whether the file has to be there. The folder is kept either way.
    type: str
    choices: [present, absent]
    default: present
  content:
    description: The secret. Required for O(state=present).
    type: str
  mode:
    default: "0400"
  folder_mode:
    description: The folder's mode, quoted octal.
    type: str
    default: "0700"
"""

EXAMPLES = r"""
- name: Place the service account's key
  dataops.dagster_gce.secret_file:
    path: /opt/dagster/dagster_home/secrets/service-account.json
    content: "{{ vault_service_account }}"
    owner: 10001
    group: 10001
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import file_task, files


class SecretFile(file_task.FileTask):
    """The module's work; every method that fails ends the module."""

    def __init__(self, module: AnsibleModule) -> None:
        super().__init__(module)
        params = module.params
        self.content: bytes | None = params["content"].encode() if params["state"] == "present" else None
        self.file_owner, self.folder_owner = self.owner(), self.owner("folder_mode")

    def run(self) -> None:
        """Compare, write or remove if needed, end the module."""
        folder = os.path.dirname(os.path.abspath(self.path))
        before = files.read(self.path)
        rewrite = before != self.content
        regrant = self.content is not None and files.differs(self.path, self.file_owner)
        folder_differs = files.differs(folder, self.folder_owner)
        if not self.module.check_mode:
            try:
                if folder_differs:
                    files.make_folder(folder, self.folder_owner)
                if self.content is None:
                    if before is not None:
                        os.unlink(self.path)
                        files.sync_folder(folder)
                elif rewrite:
                    files.replace(self.path, self.content, self.file_owner)
                elif regrant:
                    files.give(self.path, self.file_owner)
            except OSError as error:
                self.fail_to_write(error)
        self.end(
            changed=rewrite or regrant or folder_differs,
            before="" if before is None else "(hidden)\n",
            after="" if self.content is None else ("(hidden)\n" if not rewrite else "(new, hidden)\n"),
            path=self.path,
        )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "content": {"type": "str", "no_log": True},
            "owner": {"type": "int", "default": 0},
            "group": {"type": "int", "default": 0},
            "mode": {"type": "str", "default": "0400"},
            "folder_mode": {"type": "str", "default": "0700"},
        },
        required_if=[("state", "present", ("content",))],
        supports_check_mode=True,
    )
    SecretFile(module).run()


if __name__ == "__main__":
    main()
