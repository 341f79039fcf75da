# SPDX-License-Identifier: Apache-2.0
"""Files of PostgreSQL's WAL among the backups: what their names say, and which of them belong together.

``wal/<system>-<segment>-<sha256>.gz[.age]`` is a whole segment. ``wal/<system>-<segment>.<until>-<sha256>.gz[.age]``, a
mark, is a segment as far as it was written then: with all segments before it, it has everything up to the moment
``until``, and a transaction after it. The system is the number by which PostgreSQL tells one cluster from another;
the checksum is the file's own, encrypted or not, so that nothing else has to be read to know a damaged one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

FOLDER = "wal"
_NAME = re.compile(
    r"(?P<system>[0-9]{1,20})-(?P<segment>[0-9A-F]{24})(?:\.(?P<until>[0-9]{8}T[0-9]{6}Z))?-(?P<sha256>[0-9a-f]{64})"
    r"\.gz(?:\.age)?"
)
_SEGMENT = re.compile(r"[0-9A-F]{24}")


@dataclass(frozen=True)
class Piece:
    """A file of the folder; ``until`` is empty where it is a whole segment."""

    name: str
    size: int
    system: str
    segment: str
    until: str
    sha256: str

    @property
    def path(self) -> str:
        """Its name at a place."""
        return f"{FOLDER}/{self.name}"


def name_of(system: str, segment: str, until: str, sha256: str, suffix: str) -> str:
    """The name of a piece; ``suffix`` is that of encrypted files, or empty."""
    return f"{system}-{segment}{f'.{until}' if until else ''}-{sha256}.gz{suffix}"


def is_segment(name: str) -> bool:
    """Whether PostgreSQL calls a whole segment so."""
    return _SEGMENT.fullmatch(name) is not None


def parse(name: str, size: int = 0) -> Piece | None:
    """A piece by its name; None where it is none."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    return Piece(name, size, found["system"], found["segment"], found["until"] or "", found["sha256"])


@dataclass
class Archive:
    """What there is of one system."""

    whole: dict[str, Piece] = field(default_factory=dict)
    marks: list[Piece] = field(default_factory=list)

    @property
    def newest(self) -> Piece | None:
        """The mark that reaches farthest."""
        return max(self.marks, key=lambda each: (each.until, each.segment), default=None)

    def chain(self, start: str, end: str, segment_size: int) -> list[Piece]:
        """The pieces from one segment to another without a gap; it ends where one is missing."""
        newest = self.newest
        found: list[Piece] = []
        segment = start
        while segment <= end:
            piece = self.whole.get(segment)
            if piece is None and newest is not None and newest.segment == segment:
                piece = newest
            if piece is None:
                break
            found.append(piece)
            segment = following(segment, segment_size)
        return found


def archives(names: Mapping[str, int]) -> dict[str, Archive]:
    """What a place has in its folder, by system."""
    found: dict[str, Archive] = {}
    for name in sorted(names):
        piece = parse(name, names[name])
        if piece is None:
            continue
        archive = found.setdefault(piece.system, Archive())
        if piece.until:
            archive.marks.append(piece)
        else:
            archive.whole.setdefault(piece.segment, piece)
    return found


def unneeded(names: Mapping[str, int], starts: Mapping[str, str], expired: Iterable[str] = ()) -> list[str]:
    """The pieces that nobody can use any more.

    Args:
        names: what is there.
        starts: the first segment that a base needs, by system; of a system that is not named, all stay.
        expired: systems of which nothing is needed.
    """
    gone = []
    all_gone = set(expired)
    newest = {system: archive.newest for system, archive in archives(names).items()}
    for name in sorted(names):
        piece = parse(name)
        if piece is None:
            continue
        last = newest[piece.system]
        superseded = bool(piece.until) and last is not None and piece.name != last.name and piece.until < last.until
        if piece.system in all_gone or superseded or piece.segment < starts.get(piece.system, ""):
            gone.append(name)
    return gone


def following(segment: str, segment_size: int) -> str:
    """The name of the segment after this one, on the same timeline."""
    per_file = (1 << 32) // segment_size
    number = int(segment[8:16], 16) * per_file + int(segment[16:], 16) + 1
    return f"{segment[:8]}{number // per_file:08X}{number % per_file:08X}"


def segment_of(lsn: int, timeline: int, segment_size: int) -> str:
    """The segment that holds the byte before a position; that of the record that ends there."""
    number = max(lsn - 1, 0) // segment_size
    per_file = (1 << 32) // segment_size
    return f"{timeline:08X}{number // per_file:08X}{number % per_file:08X}"


def lsn_of(text: str) -> int:
    """A position as PostgreSQL writes it (``0/3000148``) as a number."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) | int(low, 16)
