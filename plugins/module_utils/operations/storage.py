# SPDX-License-Identifier: Apache-2.0
"""Where I/O managers and compute logs have their files on this machine: a volume, or a folder that machines share."""

from __future__ import annotations

import os

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config


def name() -> str:
    """The volume's name or the folder's path, as the roles have written it."""
    return config.stack().storage


def folder() -> str:
    """Its path on this machine; empty if there is none."""
    found = name()
    if os.path.isabs(found):
        return found if os.path.isdir(found) else ""
    volume = docker_cli.inspect("volume", found)
    return str(volume["Mountpoint"]) if volume else ""
