# SPDX-License-Identifier: Apache-2.0
"""Which volume holds PostgreSQL's data: the article's, until an upgrade to another major version has made a new one."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files

# The article's.
DEFAULT = "dagster-postgres"


def path(root: str) -> str:
    """The record; it lies on the data disk, as the volumes do."""
    return os.path.join(root, "upgrades", "postgres.json")


def record(root: str) -> dict[str, Any]:
    """What the last upgrade wrote: ``volume``, ``image``, ``major`` and ``previous`` with the same; {} without one.

    Raises:
        ValueError: the file is there and says nothing; to guess could mean to start on the wrong data.
    """
    found = files.read(path(root))
    if found is None:
        return {}
    try:
        content = json.loads(found)
        if isinstance(content, dict) and isinstance(content["volume"], str) and content["volume"]:
            return content
    except (ValueError, KeyError):
        pass
    raise ValueError(
        f"{path(root)}: found {found[:80]!r}; expected JSON that names the volume of PostgreSQL's data"
        " (docker volume ls; the folders in upgrades/ tell which upgrade made which)"
    )


def name(root: str) -> str:
    """The volume that PostgreSQL's data is in, or will be.

    Raises:
        ValueError: see ``record``.
    """
    return str(record(root).get("volume", DEFAULT))


def save(root: str, content: dict[str, Any] | None) -> None:
    """Replace the record; None: back to the default volume."""
    where = path(root)
    if content is None:
        if os.path.exists(where):
            os.unlink(where)
            files.sync_folder(os.path.dirname(where))
        return
    files.make_folder(os.path.dirname(where), files.Owner(os.geteuid(), os.getegid(), 0o700))
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    files.replace(where, text.encode(), files.Owner(os.geteuid(), os.getegid(), 0o600))
