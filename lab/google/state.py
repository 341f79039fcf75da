"""What the lab's Google knows: one store for every API, kept in a file where it is to outlive the process."""

from __future__ import annotations

import base64
import copy
import datetime
import hashlib
import json
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Thing = dict[str, Any]


class State:
    """Resources by key, and what no answer shows.

    A key is the API's name and the resource's path: ``compute/projects/p/global/networks/n``,
    ``iam/projects/p/serviceAccounts/a@p.iam.gserviceaccount.com``. A thing is stored as the API answers it.
    ``notes`` holds the rest (enabled services, tokens, keys, policies, running operations), by topic.

    Whoever changes something holds ``lock``; handlers do already.

    :param file: where to keep it all as JSON; None: in memory only.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.lock = threading.RLock()
        self.file = file
        self.things: dict[str, Thing] = {}
        self.notes: dict[str, dict[str, Any]] = {}
        if file and file.exists():
            kept = json.loads(file.read_text())
            self.things, self.notes = kept["things"], kept["notes"]

    def get(self, key: str) -> Thing | None:
        """The thing itself, not a copy."""
        return self.things.get(key)

    def put(self, key: str, thing: Thing) -> Thing:
        self.things[key] = thing
        return thing

    def delete(self, key: str) -> Thing | None:
        return self.things.pop(key, None)

    def children(self, prefix: str) -> list[tuple[str, Thing]]:
        """What stands directly below ``prefix``, by name: (key, thing)."""
        start = prefix.rstrip("/") + "/"
        return sorted(
            (key, thing) for key, thing in self.things.items() if key.startswith(start) and "/" not in key[len(start) :]
        )

    def note(self, topic: str) -> dict[str, Any]:
        """The notes of one topic, a dict to change in place. Only what JSON can hold."""
        return self.notes.setdefault(topic, {})

    def clear(self) -> None:
        self.things.clear()
        self.notes.clear()

    def copy(self) -> tuple[dict[str, Thing], dict[str, dict[str, Any]]]:
        """Everything, to be given to ``restore``."""
        return copy.deepcopy(self.things), copy.deepcopy(self.notes)

    def restore(self, kept: tuple[dict[str, Thing], dict[str, dict[str, Any]]]) -> None:
        self.things, self.notes = copy.deepcopy(kept[0]), copy.deepcopy(kept[1])

    def save(self) -> None:
        """Write the file, if there is one; a killed process leaves the old one whole."""
        if self.file:
            with self.lock:
                text = json.dumps({"things": self.things, "notes": self.notes})
            self.file.parent.mkdir(parents=True, exist_ok=True)
            fresh = self.file.with_suffix(".new")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as target:
                target.write(text)
            fresh.replace(self.file)


def new_id() -> str:
    """An id as Google writes it: 64 bits, as text."""
    return str(random.getrandbits(62) + 2**62)


def timestamp() -> str:
    """Now, as compute writes it: with milliseconds, in California."""
    pacific = datetime.timezone(datetime.timedelta(hours=-8))
    return datetime.datetime.now(pacific).isoformat(timespec="milliseconds")


def timestamp_utc() -> str:
    """Now, as the newer APIs write it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def fingerprint(value: object) -> str:
    """A hash of a value in base64, as compute's fingerprints and the etags of policies are."""
    text = json.dumps(value, sort_keys=True, default=str).encode()
    return base64.b64encode(hashlib.sha256(text).digest()[:8]).decode()


def texts(value: object) -> Iterator[str]:
    """Every string anywhere in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
