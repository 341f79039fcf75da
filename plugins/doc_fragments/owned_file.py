# SPDX-License-Identifier: Apache-2.0
"""Options of the modules that write a file for one user."""

from __future__ import annotations


class ModuleDocFragment:
    """Ids and not names, since a container's user has no name on the machine."""

    DOCUMENTATION = r"""
options:
  owner:
    description: The owner's id.
    type: int
    default: 0
  group:
    description: The group's id.
    type: int
    default: 0
  mode:
    description: The file's mode, quoted octal.
    type: str
"""
