# SPDX-License-Identifier: Apache-2.0
"""What the engine works with: kinds of things, plans, and how both are shown. Nothing here calls Google."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_fields import Field
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_links import NAME, NAME_WORDS

PROJECT = r"([a-z][a-z0-9.-]*:)?[a-z][-a-z0-9]{4,28}[a-z0-9]"
REGION = r"[a-z]+(-[a-z]+)+[0-9]+"
ZONE = REGION + r"-[a-z]"


@dataclass(frozen=True)
class Kind:
    """A kind of thing.

    Attributes:
        name: in words, for messages ("subnetwork").
        collection: path of the collection, with options in braces
            (``projects/{project}/regions/{region}/subnetworks``).
        fields: what is managed.
        api: a key of ``google_http.APIS``.
        patterns: option → (regular expression, in words); ``name``, ``project``, ``region`` and ``zone`` have theirs
            already.
        sent_back: fields that PATCH has to send as they were read (``fingerprint``).
        id_parameter: the query parameter that names a new thing, where the body does not (``repositoryId``).
        update_mask: whether PATCH lists its fields in ``updateMask``.
    """

    name: str
    collection: str
    fields: tuple[Field, ...]
    api: str = "compute"
    patterns: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    sent_back: tuple[str, ...] = ()
    id_parameter: str | None = None
    update_mask: bool = False


@dataclass(frozen=True)
class Step:
    """One field that differs: in the form in which they are compared, and the value to send."""

    field: Field
    before: Any
    after: Any
    wanted: Any


@dataclass(frozen=True)
class Plan:
    """What has to be done, made from one reading.

    Attributes:
        action: ``create``, ``update``, ``delete`` or ``none``.
        steps: every managed field for a creation, those that differ for an update.
        before: managed options as they are; None where nothing is there.
        after: managed options as they will be; None where nothing will be there.
    """

    action: str
    steps: tuple[Step, ...] = ()
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        return self.action != "none"


class Refused(Exception):
    """The plan cannot be carried out; every reason is one line of the message."""


def bad_names(options: Mapping[str, Any], kind: Kind) -> list[str]:
    """Options that Google's own patterns refuse, before any call is made."""
    patterns = {
        "name": (NAME, NAME_WORDS),
        "project": (
            PROJECT,
            "a project's id (not its number or title): 6 to 30 lower-case letters, digits or hyphens, a letter first",
        ),
        "region": (REGION, "a region such as europe-west1"),
        "zone": (ZONE, "a zone such as europe-west1-b"),
        **kind.patterns,
    }
    return [
        f"{option}: found {options[option]!r}; expected {words}"
        for option, (pattern, words) in patterns.items()
        if isinstance(options.get(option), str) and not re.fullmatch(pattern, options[option])
    ]


def diff(title: str, plan: Plan) -> dict[str, Any]:
    """Ansible's diff of a plan; empty dicts stand for "not there"."""
    return {"before_header": title, "after_header": title, "before": plan.before or {}, "after": plan.after or {}}


def values(steps: Sequence[Step], side: str, *, changed: set[str] | None = None, new: bool = False) -> dict[str, Any]:
    """Options with their values; a hidden one shows only that it changes."""
    shown = {}
    for step in steps:
        value = getattr(step, side)
        if step.field.hidden and value is not None:
            differs = new or (side == "after" and step.field.option in (changed or set()))
            value = "(new, hidden)" if differs else "(hidden)"
        shown[step.field.option] = value
    return shown


def option_names(steps: Sequence[Step]) -> str:
    """The options of some steps, for a message."""
    return ", ".join(dict.fromkeys(step.field.option for step in steps))


def short(value: Any, part: Field) -> str:
    """A field's value in a message."""
    if part.hidden:
        return "another value"
    return "nothing" if value is None else repr(value)
