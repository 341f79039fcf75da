# SPDX-License-Identifier: Apache-2.0
"""Which base and which WAL lead to a moment, and whether any do."""

from __future__ import annotations

import calendar
import contextlib
import time
from dataclasses import dataclass

from ansible_collections.dataops.dagster_gce.plugins.module_utils import releases
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_base,
    backup_place,
    backup_retention,
    database,
    jobs,
    wal_files,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_files import DamagedError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_manifest import Manifest
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.wal_files import Piece

LATEST = "latest"


@dataclass(frozen=True)
class Way:
    """From a base by its WAL to a moment (seconds since the epoch)."""

    place: backup_place.Place
    base: Manifest
    moment: float
    pieces: list[Piece]
    # The first segment that is missing on the way; empty where none is.
    missing: str = ""

    @property
    def stamp(self) -> str:
        """The name of the backup that the recovery makes."""
        return backup_retention.stamp(self.moment)


def moment_of(text: str) -> float | None:
    """The moment that was asked for; None for ``latest``.

    Raises:
        jobs.JobError: it is none.
    """
    if text == LATEST:
        return None
    try:
        return float(calendar.timegm(time.strptime(text, releases.STAMP)))
    except ValueError:
        raise jobs.JobError(
            f"dagster_restore_to: found {text!r}; expected latest, or a moment in UTC such as 2026-11-30T12:00:00Z"
        ) from None


def find(place: backup_place.Place, to: str, fresh: str = "") -> Way:
    """The newest base before a moment, and the WAL from there.

    Args:
        fresh: a cluster that ``latest`` does not mean where there is another one: this machine's, which has no runs.

    Raises:
        jobs.JobError: no base or no WAL is so old, or so young.
    """
    asked = moment_of(to)
    bases = _bases(place)
    archives = wal_files.archives(place.names(wal_files.FOLDER))
    usable = [each for each in bases if _until(each, archives) >= each.base["moment"]]
    if not usable:
        what = f"no WAL behind the {len(bases)} bases" if bases else "no base"
        raise jobs.JobError(
            f"dagster_restore_to: found {what} of continuous backup in {place.name}; expected one with its WAL, which "
            "dagster_backup_continuous: true has within minutes. Nothing has been touched"
        )
    if asked is None:
        usable = [each for each in usable if each.base["system"] != fresh] or usable
    latest = max(_until(each, archives) for each in usable)
    moment = latest if asked is None else asked
    before = [each for each in usable if each.base["moment"] <= moment]
    if not before or _until(before[-1], archives) < moment:
        covered = " or ".join(
            f"from {releases.stamp(first)} to {releases.stamp(last)}" for first, last in ranges(place)
        )
        raise jobs.JobError(
            f"dagster_restore_to: found {to}; expected latest, or a moment {covered}, which the base backups and the "
            f"WAL in {place.name} cover. Nothing has been touched"
        )
    base = before[-1]
    system, size = str(base.base["system"]), int(base.base["segment_size"])
    later = [each for each in bases if each.base["system"] == system and each.base["moment"] > moment]
    newest = archives[system].newest
    # The end of the next base is later than the moment; what comes after that is not needed.
    end = str(later[0].base["end"]) if later else newest.segment if newest else ""
    pieces = archives[system].chain(str(base.base["start"]), end, size)
    last_piece = pieces[-1].segment if pieces else ""
    missing = "" if last_piece == end else wal_files.following(last_piece, size) if pieces else str(base.base["start"])
    return Way(place, base, moment, pieces, missing)


def check_version(way: Way) -> None:
    """Files of a cluster are read by the version that wrote them only.

    Raises:
        jobs.JobError: this machine has another one.
    """
    found = int(database.query("SHOW server_version_num", database="postgres")[0][0]) // 10000
    if found != way.base.postgres_major:
        raise jobs.JobError(
            f"the base of backup {way.base.stamp} is PostgreSQL {way.base.postgres_major}'s: found PostgreSQL {found} "
            f"on this machine; expected {way.base.postgres_major}. An ordinary backup (dagster_restore_backup) can be "
            "restored into a newer one"
        )


def ranges(place: backup_place.Place) -> list[tuple[float, float]]:
    """The first and the last moment that can be restored, of each cluster; a gap between is not looked for."""
    archives = wal_files.archives(place.names(wal_files.FOLDER))
    found: dict[str, tuple[float, float]] = {}
    for each in _bases(place):
        until = _until(each, archives)
        if until >= each.base["moment"]:
            found.setdefault(str(each.base["system"]), (float(each.base["moment"]), until))
    return sorted(found.values())


def _bases(place: backup_place.Place) -> list[Manifest]:
    """Bases that can be read, by the moment from which they can be used."""
    found = []
    for stamp in backup_base.stamps(place):
        # A damaged one is the drill's to tell; an older one and more WAL lead to the same moment.
        with contextlib.suppress(DamagedError):
            found.append(backup_place.manifest(place, stamp))
    return sorted((each for each in found if each.base), key=lambda each: float(each.base["moment"]))


def _until(base: Manifest, archives: dict[str, wal_files.Archive]) -> float:
    """Up to when there is WAL of a base's cluster."""
    archive = archives.get(str(base.base["system"]))
    newest = archive.newest if archive else None
    return backup_retention.moment_of(newest.until) or 0.0 if newest else 0.0
