# SPDX-License-Identifier: Apache-2.0
"""The module of the same name, run without detours where it runs on the controller."""

from __future__ import annotations

from ansible_collections.dataops.dagster_gce.plugins.plugin_utils.controller_half import ControllerHalf


class ActionModule(ControllerHalf):
    """See plugins/modules/gcp_oslogin_key.py for the options."""
