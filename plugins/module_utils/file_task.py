# SPDX-License-Identifier: Apache-2.0
"""What the modules share that write one file on the machine."""

from __future__ import annotations

from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files


class FileTask:
    """The work of a module with an option C(path); every method that fails ends the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.path: str = module.params["path"]

    def owner(self, mode: str = "mode") -> files.Owner:
        """Owner, group and mode from the options; ``mode`` names the option that holds the mode."""
        params = self.module.params
        try:
            return files.Owner(params["owner"], params["group"], int(params[mode], 8))
        except ValueError:
            self.fail(f'{mode}: found {params[mode]!r}; expected quoted octal digits such as "0600"')

    def fail(self, message: str) -> NoReturn:
        """End the module with an error."""
        self.module.fail_json(msg=message)

    def fail_to_write(self, error: OSError) -> NoReturn:
        """End the module, since the file or its folder could not be written."""
        self.fail(f"cannot write {self.path}: {error.strerror}")

    def end(self, changed: bool, before: str, after: str, **result: Any) -> NoReturn:
        """End the module; ``before`` and ``after`` are what a diff shows of the file."""
        diff = {"before_header": self.path, "after_header": self.path, "before": before, "after": after}
        self.module.exit_json(changed=changed, diff=diff, **result)
