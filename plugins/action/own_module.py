# SPDX-License-Identifier: Apache-2.0
"""The action of every module that has none of its own; meta/runtime.yml says which."""

from __future__ import annotations

from ansible.plugins.action.normal import ActionModule as NormalAction

from ansible_collections.dataops.dagster_gce.plugins.plugin_utils.own_module import OwnModule


class ActionModule(OwnModule, NormalAction):
    """Runs the module that the task names."""
