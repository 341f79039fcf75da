# SPDX-License-Identifier: Apache-2.0
"""What a field of Google's means, so that an option can be compared with it, and how it is changed.

A *form* turns a value of either side into one spelling: Google writes 64-bit integers as text, references as URLs with
a host and an API version, and leaves out what is empty. Forms know nothing of names or calls:

    integer("50") == integer(50)
    link("https://www.googleapis.com/compute/v1/projects/p/global/networks/n") == link("projects/p/global/networks/n")

`unordered` and `listing` make forms of lists, `mapping` one of a dict in which only the keys that are asked
for count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Form = Callable[[Any], Any]

_LINK = re.compile(
    r"^(?:https?://[^/]+/)?(?:compute/)?(?:v1|beta|alpha|staging_v1)/(?=projects/)|^https?://[^/]+/(?=projects/)|^//[^/]+/"
)


def text(value: Any) -> str | None:
    """Text, as it is."""
    return None if value is None else str(value)


def integer(value: Any) -> int | None:
    """A whole number; Google writes 64-bit ones as text."""
    return None if value is None else int(value)


def number(value: Any) -> float | None:
    """A number; Google's single-precision floats come back a little off (0.5 does not, 0.3 does)."""
    return None if value is None else round(float(value), 5)


def boolean(value: Any) -> bool | None:
    """Yes or no."""
    return None if value is None else bool(value)


def link(value: Any) -> str | None:
    """A reference by the resource's path (``projects/p/global/networks/n``), without host and API version."""
    return None if value is None else _LINK.sub("", str(value), count=1)


def same(value: Any) -> Any:
    """Any value, as it is."""
    return value


def listing(form: Form = same) -> Form:
    """A list whose order counts."""
    return lambda value: None if value is None else [form(item) for item in value]


def unordered(form: Form = same) -> Form:
    """A list whose order does not count."""
    return lambda value: None if value is None else sorted((form(item) for item in value), key=_sort_key)


def mapping(**forms: Form) -> Form:
    """A dict, key by key; keys that are not named here are not looked at, and empty ones do not count."""

    def convert(value: Any) -> Any:
        if value is None:
            return None
        found = {key: form(value.get(key)) for key, form in forms.items()}
        return {key: item for key, item in found.items() if item is not None}

    return convert


def only_asked(found: Any, asked: Any) -> Any:
    """The part of ``found`` that ``asked`` speaks about: keys that nobody asked for are somebody else's.

    Lists are compared as a whole, what is in them too: a firewall rule for TCP is not one for TCP's port 22.
    """
    if isinstance(found, Mapping) and isinstance(asked, Mapping):
        return {key: only_asked(found[key], value) for key, value in asked.items() if key in found}
    return found


def pick(resource: Mapping[str, Any] | None, path: str) -> Any:
    """The value at a dotted path; None where it is missing."""
    found: Any = resource
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def place(resource: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a dotted path."""
    *parents, last = path.split(".")
    for key in parents:
        resource = resource.setdefault(key, {})
    resource[last] = value


def _sort_key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


# How a field changes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Patch:
    """With PATCH on the resource, together with every other such field."""


@dataclass(frozen=True)
class Fixed:
    """Not at all: a difference is an error that ends with ``choices`` ("delete … and run again, or …")."""

    choices: str


@dataclass(frozen=True, eq=False)
class Method:
    """With a method of its own; fields that share one Method object are changed in one call.

    Attributes:
        name: the last part of the method's path (``setLabels``).
        body: makes the request's body from the wanted values by API path, the resource as it is, and the module's
            options.
        verb: HTTP method.
        query: as body, for query parameters (the body may then be None).
    """

    name: str
    body: Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any] | None]
    verb: str = "POST"
    query: Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]] | None = None


Change = Patch | Fixed | Method
PATCH = Patch()


@dataclass(frozen=True)
class Field:
    """One option and the field that it manages. An option that is None is not managed.

    Attributes:
        option: the module's option.
        api: dotted path in the resource.
        form: both sides' common spelling.
        default: what Google means when the field is missing in an answer.
        change: how a difference is removed.
        send: the value for Google, made from the option's value and all options; None means "not managed" as well.
        merge: the value for Google, made from :attr:`send`'s and what is there (labels: other people's stay).
        refuse: why this very change cannot be made (a range that would shrink), or None; gets what is and what is
            wanted, both in their form.
        on_create: whether the insert takes it; otherwise it is changed right after.
        hidden: whether a diff shows only that it changes.
    """

    option: str
    api: str
    form: Form = text
    default: Any = None
    change: Change = PATCH
    send: Callable[[Any, Mapping[str, Any]], Any] | None = None
    merge: Callable[[Any, Any, Mapping[str, Any]], Any] | None = None
    refuse: Callable[[Any, Any], str | None] | None = None
    on_create: bool = True
    hidden: bool = False

    def wanted(self, options: Mapping[str, Any], resource: Mapping[str, Any] | None) -> Any:
        """What Google is to hold, as it is sent; None where the option does not manage it."""
        value = options.get(self.option)
        if value is None:
            return None
        if self.send is not None:
            value = self.send(value, options)
        if self.merge is not None and value is not None:
            value = self.merge(value, pick(resource, self.api), options)
        return value

    def compare(self, resource: Mapping[str, Any], wanted: Any) -> tuple[Any, Any]:
        """What is and what is wanted, both in their form and as far as somebody asked."""
        found = pick(resource, self.api)
        there, asked = self.form(self.default if found is None else found), self.form(wanted)
        # What was merged holds all that is there anyway.
        return (there if self.merge else only_asked(there, asked)), asked


# Labels --------------------------------------------------------------------------------------------------------------


def merge_labels(wanted: Any, found: Any, options: Mapping[str, Any]) -> dict[str, str]:
    """The labels that a resource is to have.

    Keys of the option ``labels`` get its values. Every other label is somebody else's (a cost report's, Google's own
    ``goog-…``) and stays, unless ``purge_labels`` asks for them to go; ``goog-…`` stays even then, since Google puts it
    back.
    """
    kept = {
        key: value
        for key, value in (found or {}).items()
        if not options.get("purge_labels") or str(key).startswith("goog-")
    }
    return {**kept, **{str(key): str(value) for key, value in wanted.items()}}


SET_LABELS = Method(
    "setLabels",
    body=lambda wanted, found, options: {
        "labels": wanted["labels"],
        "labelFingerprint": found.get("labelFingerprint", ""),
    },
)


def labels(change: Change = SET_LABELS, *, on_create: bool = True) -> Field:
    """The field for the options ``labels`` and ``purge_labels``."""
    return Field("labels", "labels", form=same, default={}, change=change, merge=merge_labels, on_create=on_create)
