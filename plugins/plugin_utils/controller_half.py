# SPDX-License-Identifier: Apache-2.0
"""Modules that run on the controller anyway, without the wrapping that a machine would need.

Ansible packs a module with all that it imports and sends it to a Python which compiles it anew: half a second a task,
also where that Python is the controller's own. There it finds the same files, compiled, in the collection's folder. So
the module is run as its author runs it by hand: `python -m` with the options as JSON on standard input
(https://docs.ansible.com/ansible/latest/dev_guide/developing_modules_general.html, "Verifying your module code
locally"). It is a process of its own all the same, with the task's environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.json import Direction, get_module_decoder, get_module_encoder
from ansible.plugins.action.normal import ActionModule as NormalAction
from ansible.utils.display import Display

display = Display()

# How options and result are spelled, for modules that do not name another: Ansible's own default.
PROFILE = "legacy"
# The folder with `ansible_collections` in it.
COLLECTIONS = Path(__file__).parents[5]


class ControllerHalf(NormalAction):
    """Runs the module in the controller's Python where the task would run it there; elsewhere as Ansible does."""

    def _execute_module(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """As Ansible's, which :meth:`run` calls without a module or options of its own."""
        task_vars: dict[str, Any] = options.get("task_vars") or {}
        if not self._stays_here(task_vars):
            found: dict[str, Any] = super()._execute_module(*arguments, **options)
            return found
        module_options = dict(self._task.args)
        self._update_module_args(self._task.action, module_options, task_vars)
        return self._run_here(module_options)

    def _stays_here(self, task_vars: dict[str, Any]) -> bool:
        """Whether the module would be run by this very user with this very Python."""
        if self._connection.transport != "local" or self._connection.become or self._task.async_val:
            return False
        # The variables of a host that a task is delegated to stand elsewhere; Ansible's own way knows where.
        interpreter = task_vars.get("ansible_python_interpreter")
        return not self._task.delegate_to and self._templar.template(interpreter) == sys.executable

    def _run_here(self, module_options: dict[str, Any]) -> dict[str, Any]:
        """Run the module; returns its result.

        Raises:
            AnsibleActionFail: it has ended without one.
        """
        # This very class is `….plugins.action.NAME`.
        module = type(self).__module__.replace(".action.", ".modules.")
        encoder = get_module_encoder(PROFILE, Direction.CONTROLLER_TO_MODULE)
        display.vvv(f"running {module} with the controller's Python")
        done = subprocess.run(
            # -P: what lies in the current folder is not imported.
            [sys.executable, "-P", "-m", module],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": module_options}, cls=encoder),
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        decoder = get_module_decoder(PROFILE, Direction.MODULE_TO_CONTROLLER)
        try:
            result: dict[str, Any] = json.loads(done.stdout, cls=decoder)
        except ValueError:
            raise AnsibleActionFail(
                f"{self._task.action}: expected a result as JSON, found {done.stdout.strip()[:200]!r} (exit status "
                f"{done.returncode}); this is an error of the module: {done.stderr.strip()}"
            ) from None
        return result

    def _environment(self) -> dict[str, str]:
        """The controller's environment with the task's own, and the collections where Python looks for them."""
        own: dict[str, Any] = {}
        self._compute_environment_string(own)
        found = {**os.environ, **{name: str(value) for name, value in own.items()}}
        found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(COLLECTIONS), found.get("PYTHONPATH")]))
        return found
