# SPDX-License-Identifier: Apache-2.0
"""How the collection's own modules are started: as Ansible does, without the packing where that is a detour.

Ansible packs a module with all that it imports and sends it to a Python which compiles it anew: half a second a task.
On the controller, the same files lie compiled in the collection's folder; on a machine, kept_modules.py keeps them.
There the module is run as its author runs it by hand: `python -m` with the options as JSON on standard input
(https://docs.ansible.com/ansible/latest/dev_guide/developing_modules_general.html, "Verifying your module code
locally"). It is a process of its own all the same, with the task's environment, user and check mode. Whatever is out
of the ordinary (async, delegation, a connection without pipelining, another user than root) goes Ansible's own way.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.json import Direction, get_module_decoder, get_module_encoder
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.dataops.dagster_gce.plugins.plugin_utils import kept_modules

display = Display()

# How options and result are spelled, for modules that do not name another: Ansible's own default.
PROFILE = "legacy"
# The folder with `ansible_collections` in it.
COLLECTIONS = Path(__file__).parents[5]


class OwnModule(ActionBase):
    """Runs a module of this collection, with the same result as Ansible's way of running it."""

    def _execute_module(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """As Ansible's, whose options all have names."""
        task_vars: dict[str, Any] = options.get("task_vars") or {}
        name = options.get("module_name") or self._task.action
        python = "" if arguments else self._python(task_vars)
        if python:
            given = options.get("module_args")
            found = self._run(name, dict(self._task.args if given is None else given), task_vars, python)
            if found is not None:
                return found
        packed: dict[str, Any] = super()._execute_module(*arguments, **options)
        return packed

    def _run(self, name: str, options: dict[str, Any], task_vars: dict[str, Any], python: str) -> dict[str, Any] | None:
        """Run the module; None where the machine cannot keep it."""
        self._update_module_args(name, options, task_vars)
        encoder = get_module_encoder(PROFILE, Direction.CONTROLLER_TO_MODULE)
        document = json.dumps({"ANSIBLE_MODULE_ARGS": options}, cls=encoder)
        return self._run_here(name, document) if self._is_here(python) else self._run_there(name, document, python)

    def _python(self, task_vars: dict[str, Any]) -> str:
        """The path of the Python to run the module with; empty where Ansible has to find out, or is the one to do it.

        The variables of a host that a task is delegated to stand elsewhere; Ansible's own way knows where.
        """
        if self._task.async_val or self._task.delegate_to:
            return ""
        named = constants.config.get_config_value("INTERPRETER_PYTHON", variables=task_vars)
        python = str(self._templar.template(named))
        if not python.startswith("/"):
            return ""
        if self._is_here(python):
            return python
        shell: Any = self._connection._shell
        plain = self._connection.transport != "local" and shell.SHELL_FAMILY == "sh"
        return python if plain and self._is_pipelining_enabled("new") else ""

    def _is_here(self, python: str) -> bool:
        """Whether the module would be run by this very user with this very Python."""
        return self._connection.transport == "local" and not self._connection.become and python == sys.executable

    def _import_name(self, name: str) -> str:
        """The module as Python imports it."""
        loader = self._shared_loader_obj.module_loader
        found = loader.find_plugin_with_context(name, collection_list=self._task.collections).resolved_fqcn
        collection, _, module = str(found).rpartition(".")
        return f"ansible_collections.{collection}.plugins.modules.{module}"

    def _run_here(self, name: str, document: str) -> dict[str, Any]:
        """Run the module in the controller's Python."""
        module = self._import_name(name)
        display.vvv(f"running {module} with the controller's Python")
        done = subprocess.run(
            # -P: what lies in the current folder is not imported.
            [sys.executable, "-P", "-m", module],
            input=document,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        return _result(name, done.stdout, done.stderr, done.returncode)

    def _run_there(self, name: str, document: str, python: str) -> dict[str, Any] | None:
        """Run the module that the machine keeps, and have it keep it first where it does not; None where it cannot."""
        module = self._import_name(name)
        words = [kept_modules.FOLDER, kept_modules.name(), module]
        display.vvv(f"running {module} as the machine keeps it")
        options = document.encode()
        # A shell of the machine's may say something before.
        done = self._python_there(python, kept_modules.START, words, options)
        if done["stdout"].rstrip().endswith(kept_modules.ABSENT):
            archive = kept_modules.archive()
            packed = b"%d\n%b%b" % (len(archive), archive, options)
            done = self._python_there(python, kept_modules.KEEP, words, packed)
        if done["stdout"].rstrip().endswith(kept_modules.REFUSED):
            display.vvv(f"the machine keeps no modules for this user: {module} is sent as Ansible does")
            return None
        return _result(name, done["stdout"], done["stderr"], done["rc"])

    def _python_there(self, python: str, program: str, words: list[str], given: bytes) -> Any:
        command = " ".join(shlex.quote(word) for word in [python, "-c", program, *words])
        environment = self._compute_environment_string()
        return self._low_level_execute_command(f"{environment} {command}".strip(), in_data=given)

    def _environment(self) -> dict[str, str]:
        """The controller's environment with the task's own, and the collections where Python looks for them."""
        own: dict[str, Any] = {}
        self._compute_environment_string(own)
        found = {**os.environ, **{name: str(value) for name, value in own.items()}}
        found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(COLLECTIONS), found.get("PYTHONPATH")]))
        return found


def _result(name: str, output: str, errors: str, status: int) -> dict[str, Any]:
    """What a module has printed; an exception that it did not expect is a failure with the traceback, as at Ansible's.

    Raises:
        AnsibleActionFail: it has ended without a result.
    """
    decoder = get_module_decoder(PROFILE, Direction.MODULE_TO_CONTROLLER)
    try:
        result: dict[str, Any] = json.loads(output[output.index("{") :], cls=decoder)
    except ValueError:
        if "Traceback (most recent call last)" in errors:
            return {"failed": True, "msg": f"Module failed: {errors.strip().splitlines()[-1]}", "exception": errors}
        raise AnsibleActionFail(
            f"{name}: expected a result as JSON, found {output.strip()[:200]!r} (exit status {status}); what was said "
            f"besides: {errors.strip() or 'nothing'}"
        ) from None
    return result
