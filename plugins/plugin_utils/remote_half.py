# SPDX-License-Identifier: Apache-2.0
"""What actions share whose module sends something to the machine only where that has another one."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail

from ansible_collections.dataops.dagster_gce.plugins.plugin_utils.own_module import OwnModule


class RemoteHalf(OwnModule):
    """An action whose module of the same name does the work on the machine.

    Attributes:
        MODULE: the module's full name.
        INTERNAL: options of the module that only the action may set.
    """

    MODULE: ClassVar[str]
    INTERNAL: ClassVar[tuple[str, ...]]

    # True would make a folder on the machine before every call; few need one.
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def _options(self) -> dict[str, Any]:
        """The task's options.

        Raises:
            AnsibleActionFail: one of them is internal.
        """
        options = dict(self._task.args)
        for internal in self.INTERNAL:
            if internal in options:
                raise AnsibleActionFail(f"{internal} is set by the action itself; leave it out")
        return options

    def _remote(self, options: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Run the module on the machine."""
        answer: dict[str, Any] = self._execute_module(
            module_name=self.MODULE, module_args=options, task_vars=task_vars, wrap_async=False
        )
        return answer
