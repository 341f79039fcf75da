# SPDX-License-Identifier: Apache-2.0
"""What workload identity pools and their providers have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_resource import Resource

ID = (
    r"(?!gcp-)[a-z][a-z0-9-]{2,30}[a-z0-9]",
    "4 to 32 lower-case letters, digits or hyphens, a letter first; not gcp-…, which is Google's",
)


class Deletable(Resource):
    """What Google keeps for 30 days after somebody has deleted it."""

    named = ""

    def read(self) -> dict[str, Any] | None:
        """As Google has it."""
        found = super().read()
        self.named = str((found or {}).get("name") or self.path)
        return found

    def check(self, found: Mapping[str, Any] | None) -> Sequence[str]:
        """Refuse what somebody has deleted: it would come back as it was."""
        if found is None or found.get("state") != "DELETED":
            return ()
        return (f"{self} was deleted, and Google keeps its name for 30 days: undelete it, or give another name",)
