# Copyright (c) 2026, the dataops.dagster_gce authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Things that carry the collection's label, and are let alone where they do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_fields import (
    SET_LABELS,
    Change,
    Field,
    labels,
    pick,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_links import MANAGED_BY, is_ours
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_resource import Resource

LABEL = "=".join(next(iter(MANAGED_BY.items())))

SPEC: dict[str, dict[str, Any]] = {
    "labels": {"type": "dict", "default": {}},
    "purge_labels": {"type": "bool", "default": False},
    "adopt": {"type": "bool", "default": False},
}
"""The options that every such module has."""


def owned_labels(change: Change = SET_LABELS, *, api: str = "labels") -> Field:
    """The field for the option `labels`, with the collection's own label among them."""
    return dataclasses.replace(
        labels(change), api=api, send=lambda value, options: {**{k: str(v) for k, v in value.items()}, **MANAGED_BY}
    )


def refusal(what: str, found_labels: Mapping[str, str] | None, adopt: bool) -> list[str]:
    """Why something that was found is not touched."""
    if adopt or is_ours(found_labels):
        return []
    return [
        f"{what}: there is one already, and it does not have the label {LABEL}, so somebody else made it. "
        "Choose another name, or take it over with adopt: true"
    ]


class Owned(Resource):
    """A thing that is refused where somebody else made it."""

    labels_at = "labels"

    def check(self, found: Mapping[str, Any] | None) -> list[str]:
        """Refuse what has not our label."""
        if found is None:
            return []
        return refusal(str(self), pick(found, self.labels_at), self.options["adopt"])
