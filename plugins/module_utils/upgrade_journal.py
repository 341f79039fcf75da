# SPDX-License-Identifier: Apache-2.0
"""How far an upgrade has come, on disk before each step begins: whoever is killed is taken up by the next run.

``upgrades/current.json`` is there as long as an upgrade is under way; ``upgrades/<id>/`` keeps what it needs to go
back, and its journal afterwards.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files, releases

# In this order; each is written when it begins.
STEPS = ("begun", "rehearsing", "quiescing", "dumping", "copying", "migrating", "switching", "starting", "returning")
# Before this one the old database is as it was, and nothing but the old files and containers is in place.
POINT = STEPS.index("migrating")

# Kept beside the one under way.
KEPT = 5


class Journal:
    """One upgrade. ``content`` is what the file holds."""

    def __init__(self, root: str, content: dict[str, Any]) -> None:
        self.root = root
        self.content = content

    @property
    def id(self) -> str:
        return str(self.content["id"])

    @property
    def step(self) -> str:
        return str(self.content["step"])

    @property
    def folder(self) -> str:
        return os.path.join(self.root, "upgrades", self.id)

    def past(self, step: str) -> bool:
        """Whether the step has begun."""
        reached = str(self.content.get("reached") or self.step)
        return STEPS.index(reached) >= STEPS.index(step)

    def save(self) -> None:
        owner = files.Owner(os.geteuid(), os.getegid(), 0o600)
        files.replace(path(self.root), (json.dumps(self.content, indent=2, sort_keys=True) + "\n").encode(), owner)

    def begin(self, step: str) -> None:
        """Say that a step begins."""
        if step == "returning" and self.step != "returning":
            self.content["reached"] = self.step
        self.content["step"] = step
        self.content.setdefault("times", {})[step] = releases.now()
        self.save()

    def end(self, result: str) -> None:
        """It is over: the journal goes to the upgrade's own folder."""
        self.content["result"] = result
        self.content["ended"] = releases.now()
        owner = files.Owner(os.geteuid(), os.getegid(), 0o600)
        text = json.dumps(self.content, indent=2, sort_keys=True) + "\n"
        files.replace(os.path.join(self.folder, "journal.json"), text.encode(), owner)
        os.unlink(path(self.root))
        files.sync_folder(os.path.dirname(path(self.root)))


def path(root: str) -> str:
    """The journal of the upgrade that is under way."""
    return os.path.join(root, "upgrades", "current.json")


def load(root: str) -> Journal | None:
    """The upgrade that is under way, or was when it was killed.

    Raises:
        ValueError: the file says nothing.
    """
    found = files.read(path(root))
    if found is None:
        return None
    try:
        content = json.loads(found)
        journal = Journal(root, content)
        if journal.step in STEPS and journal.id:
            return journal
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"{path(root)}: found {found[:80]!r}; expected the journal of an upgrade")


def start(root: str, content: dict[str, Any]) -> Journal:
    """A new upgrade."""
    name = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    private = files.Owner(os.geteuid(), os.getegid(), 0o700)
    files.make_folder(os.path.join(root, "upgrades"), private)
    journal = Journal(root, {**content, "id": name, "step": STEPS[0], "started": releases.now()})
    files.make_folder(journal.folder, private)
    return journal


def finished(root: str) -> list[dict[str, Any]]:
    """The journals of upgrades that are over, newest first."""
    folder = os.path.join(root, "upgrades")
    found = []
    for name in sorted(os.listdir(folder) if os.path.isdir(folder) else (), reverse=True):
        content = files.read(os.path.join(folder, name, "journal.json")) if name[:1].isdigit() else None
        if content:
            found.append(json.loads(content))
    return found
