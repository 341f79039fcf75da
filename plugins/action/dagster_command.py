# SPDX-License-Identifier: Apache-2.0
"""The controller's half of the module dagster_command: make the file, and send it only where it differs."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import zipapp
from ansible_collections.dataops.dagster_gce.plugins.plugin_utils.remote_half import RemoteHalf


class ActionModule(RemoteHalf):
    """See plugins/modules/dagster_command.py for the options."""

    MODULE = "dataops.dagster_gce.dagster_command"
    INTERNAL = ("sha256", "content")

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """One remote call where the machine has this command already, two otherwise."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        options = self._options()
        command = _command()
        options["sha256"] = hashlib.sha256(command).hexdigest()
        answer = self._remote(options, task_vars)
        if answer.pop("needs_content", False):
            answer = self._remote({**options, "content": base64.b64encode(command).decode()}, task_vars)
        result.update(answer)
        return result


@functools.cache
def _command() -> bytes:
    return zipapp.build(os.path.dirname(os.path.dirname(os.path.abspath(zipapp.__file__))))
