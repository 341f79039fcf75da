"""What the newer APIs (all but compute) have in common: proto3's JSON, field masks, long-running operations."""

from __future__ import annotations

import copy
import re
import time
import uuid
from typing import Any

from .errors import Refusal
from .handlers import Call
from .state import Thing

TYPE = "type.googleapis.com/"


def proto(thing: Thing) -> Thing:
    """A thing without its empty values: proto3's JSON has no false, no 0, no empty text, list or map."""
    result: Thing = {}
    for name, value in thing.items():
        if isinstance(value, dict):
            result[name] = proto(value)  # an empty message is something
        elif value not in (None, False, "", 0, "0", []):
            result[name] = copy.deepcopy(value)
    return result


def masked(thing: Thing, change: Thing, mask: str, allowed: set[str]) -> Thing:
    """A copy of a thing with the fields that a mask names taken from a change; what the change lacks goes.

    :param mask: ``labels,docker_config.immutable_tags``; empty: every field that the change has.
    :param allowed: the first parts of paths that may change.
    :raises Refusal: 400 for a field that may not.
    """
    result = copy.deepcopy(thing)
    paths = [part.strip() for part in mask.split(",") if part.strip()] or list(change)
    for path in paths:
        names = [_camel(name) for name in path.split(".")]
        if names[0] not in allowed:
            if names[0] in change and change[names[0]] == thing.get(names[0]):
                continue
            raise Refusal(400, f"Update of field '{path}' is not supported.")
        _take(change, result, names)
    return result


def same_bytes(given: str, current: str) -> bool:
    """Whether two texts in base64 are the same bytes: gcloud answers with - and _ where it got + and /."""
    return given.translate(str.maketrans("-_", "+/")) == current.translate(str.maketrans("-_", "+/"))


def _camel(name: str) -> str:
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)


def _take(source: Thing, target: Thing, names: list[str]) -> None:
    name, *rest = names
    if rest:
        _take(source.get(name) or {}, target.setdefault(name, {}), rest)
    elif name in source:
        target[name] = copy.deepcopy(source[name])
    else:
        target.pop(name, None)


def started(call: Call, name: str, response: Thing, metadata: Thing | None = None, **more: Any) -> Thing:
    """A long-running operation that is not done yet.

    :param name: where it will be found, without its id: ``projects/p/locations/l/operations``.
    :param response: what it ends with.
    :param more: kept with it.
    """
    path = f"{name}{'.' if name.startswith('operations/') else '/'}{uuid.uuid4()}"
    operations = call.google.operations
    call.state.note(f"{call.api} operations")[path] = {
        "at": time.time() + operations.seconds,
        "polls": operations.polls,
        "response": response,
        "metadata": metadata or {},
        **more,
    }
    answer: Thing = {"name": path}
    if metadata:
        answer["metadata"] = metadata
    return answer


def looked_at(call: Call, path: str) -> Thing:
    """A long-running operation, one look further."""
    note = call.state.note(f"{call.api} operations").get(path)
    if note is None:
        raise Refusal(404, f"Operation {path} not found.")
    note["polls"] -= 1
    answer: Thing = {"name": path}
    if note["metadata"]:
        answer["metadata"] = note["metadata"]
    if not note.get("stuck") and (note["polls"] <= 0 or time.time() >= note["at"]):
        note["polls"] = 0
        answer["done"] = True
        answer.update({"error": note["error"]} if "error" in note else {"response": note["response"]})
    return answer
