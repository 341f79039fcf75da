# SPDX-License-Identifier: Apache-2.0
"""What modules say of check mode, diff mode and a second run."""

from __future__ import annotations


class ModuleDocFragment:
    """A module adds C(details) where there is more to say, or a C(support) of its own."""

    # A module that changes something.
    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Predicts the change without making it.
    support: full
  diff_mode:
    description: Shows what differs, before and after.
    support: full
  idempotent:
    description: The same options change nothing.
    support: full
"""

    # A module that only looks.
    READS = r"""
attributes:
  check_mode:
    description: It only looks, also in check mode.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
  idempotent:
    description: It changes nothing.
    support: full
"""
