# SPDX-License-Identifier: Apache-2.0
"""What looks after the machine when nobody does: the command ``dagster-gce`` and its jobs (docs/operations.md)."""
