# SPDX-License-Identifier: Apache-2.0
"""The options of modules whose things carry labels (plugins/module_utils/google_owned.py has their specification)."""

from __future__ import annotations


class ModuleDocFragment:
    """Labels, and what happens to things of somebody else."""

    DOCUMENTATION = r"""
options:
  labels:
    description:
      - Labels by key. Others are left alone.
      - The label C(managed-by=dataops-dagster-gce) is always set.
    type: dict
    default: {}
  purge_labels:
    description: Whether labels that O(labels) does not mention are removed. Google's own (C(goog-…)) stay.
    type: bool
    default: false
  adopt:
    description:
      - Whether one of this name may be taken over that does not have the label C(managed-by=dataops-dagster-gce).
      - If not, it is somebody else's, and an error.
    type: bool
    default: false
"""
