# Copyright (c) 2026, the dataops.dagster_gce authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The differences of one resource, the calls that mend them, and what Google cannot mend.

Pure data: the same plan is shown by check mode and diff, and carried out by the run.
"""

from __future__ import annotations

import typing as t
from collections.abc import Callable
from dataclasses import dataclass, field

Json = dict[str, t.Any]


@dataclass(frozen=True)
class Call:
    """One request that changes something."""

    verb: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: Json | None = None
    needs_stop: bool = False


@dataclass(frozen=True)
class Change:
    """One option that differs."""

    name: str
    before: t.Any
    after: t.Any
    calls: tuple[Call, ...]

    def __str__(self) -> str:
        """One line for the user."""
        return f"{self.name}: found {self.before!r}, asked for {self.after!r}"

    @property
    def needs_stop(self) -> bool:
        """Whether Google makes it on a stopped machine only."""
        return any(call.needs_stop for call in self.calls)


@dataclass(frozen=True)
class Refusal:
    """A difference that Google cannot mend in place."""

    name: str
    found: t.Any
    wanted: t.Any
    choices: str

    def __str__(self) -> str:
        """One line for the user."""
        return f"{self.name}: found {self.found!r}, asked for {self.wanted!r}; {self.choices}"


@dataclass
class Plan:
    """The changes in the order in which they are made, and what cannot be changed."""

    changes: list[Change] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    before: Json = field(default_factory=dict)
    after: Json = field(default_factory=dict)

    def compare(self, name: str, before: t.Any, after: t.Any, calls: Callable[[], list[Call]]) -> None:
        """Note a managed setting, and the change if it differs."""
        self.before[name], self.after[name] = before, after
        if before != after:
            self.changes.append(Change(name, before, after, tuple(calls())))

    def refuse(self, name: str, found: t.Any, wanted: t.Any, choices: str) -> None:
        """Note a difference that has no call."""
        self.refusals.append(Refusal(name, found, wanted, choices))

    @property
    def needs_stop(self) -> list[str]:
        """The settings that Google changes on a stopped machine only."""
        return [change.name for change in self.changes if change.needs_stop]
