# SPDX-License-Identifier: Apache-2.0
"""What a person has to finish for the machine to be safe: a rotation that was killed, an update that waits."""

from __future__ import annotations

import os
import time

from ansible_collections.dataops.dagster_gce.plugins.module_utils import password_rotation
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.jobs import CRITICAL, WARNING, Problem

# A rotation takes a second.
PATIENCE = 60.0
# Debian and Ubuntu write this when a kernel or a library waits for a restart.
REBOOT_REQUIRED = "/run/reboot-required"
REBOOT_DAYS = 7


def of_rotation(root: str) -> list[Problem]:
    """A new password that may be in the database and not in the files, or the other way round."""
    age = _age(password_rotation.Place(root).pending)
    if age is None or age < PATIENCE:
        return []
    text = (
        "a rotation of the database's password was interrupted: new connections may be refused; run"
        " playbooks/rotate_secrets.yml again, which ends it"
    )
    return [Problem("rotation", CRITICAL, text)]


def of_reboot() -> list[Problem]:
    """A security update that has no effect before the machine restarts."""
    age = _age(REBOOT_REQUIRED)
    if age is None or age < REBOOT_DAYS * 86400:
        return []
    text = (
        f"an installed upgrade has waited {age / 86400:.0f} days for a restart of the machine; restart it when few runs"
        " are in flight, or set host_hardening_reboot: true"
    )
    return [Problem("reboot", WARNING, text)]


def _age(path: str) -> float | None:
    try:
        return time.time() - os.stat(path).st_mtime
    except OSError:
        return None
