# SPDX-License-Identifier: Apache-2.0
"""Point-in-time recovery: an ordinary backup of a moment in the past, made of a base and the WAL.

PostgreSQL recovers in a throw-away container; what it has then is dumped as the stack's database is for any backup. A
restore takes that one like every other, with all that it refuses, proves, and takes up again where it was killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files, releases
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_database,
    backup_files,
    backup_manifest,
    backup_place,
    backup_retention,
    backup_take,
    jobs,
    recovery_cluster,
    recovery_plan,
    restore_database,
    restore_plan,
    wal,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_files import DamagedError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_manifest import Manifest
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_settings import Settings
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_storage import ARCHIVES
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.recovery_plan import Way
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.restore_plan import Wanted

REASON = "recovery"
_OWN = files.Owner(0, 0, 0o600)
Progress = Callable[[str], Any]


class Recovered(backup_place.Directory):
    """The backup that a recovery has made; its compute logs stay where the base came from."""

    def __init__(self, path: str, origin: backup_place.Place) -> None:
        super().__init__(path)
        self.origin = origin
        self.name = f"{origin.name} by recovery"

    def fetch(self, name: str, size: int, target: str) -> str:
        """See `backup_place.Place`."""
        if name.startswith(f"{ARCHIVES}/"):
            return self.origin.fetch(name, size, target)
        return super().fetch(name, size, target)


def prepare(
    settings: Settings, wanted: Wanted, to: str, unfinished: str = "", progress: Progress = lambda text: None
) -> Wanted:
    """Make the backup of a moment, and ask for that one. Nothing of the present is touched.

    Args:
        wanted: what else was asked for.
        to: the moment, or ``latest``.
        unfinished: the stamp of the backup whose restore was killed after the swap: ``latest`` means that one then.

    Raises:
        jobs.JobError: it cannot be made, and why.
    """
    recovery_plan.moment_of(to)
    origin = backup_take.choose(settings, wanted.place)
    there = Recovered(os.path.join(settings.directory, backup_place.RECOVERED), origin)
    if unfinished in there.stamps() and to == recovery_plan.LATEST:
        return dataclasses.replace(wanted, backup=unfinished, source=there)
    # Nobody removes a base or its WAL meanwhile, and nobody else recovers.
    with jobs.lock("restore", wait=True), jobs.lock("backup", wait=True):
        if to == recovery_plan.LATEST and settings.continuous:
            # Up to now and not to half a minute ago, if PostgreSQL can still be asked.
            jobs.run(wal.JOB, lambda: wal.store(settings), wait=True, quiet=True)
        fresh = restore_plan.fresh_system()
        with jobs.lock(wal.JOB, wait=True):
            way = recovery_plan.find(origin, to, fresh)
            if way.stamp in there.stamps():
                with contextlib.suppress(DamagedError):
                    if backup_place.manifest(there, way.stamp).content.get("origin") == origin.name:
                        return dataclasses.replace(wanted, backup=way.stamp, source=there)
            recovery_plan.check_version(way)
            backup_place.require_key(way.base, wanted.identity or settings.identity)
            forget(settings)
            # The mode is the last folder's alone.
            for folder in (there.path, os.path.join(there.path, way.stamp)):
                os.makedirs(folder, mode=0o700, exist_ok=True)
            recovery_cluster.hold_mark(way, _downloads(there.path))
        try:
            with backup_files.identity_file(wanted.identity or settings.identity) as key:
                _recover(settings, way, there, key, progress)
        except BaseException:
            forget(settings)
            raise
    return dataclasses.replace(wanted, backup=way.stamp, source=there)


def forget(settings: Settings) -> None:
    """Remove what a recovery has made."""
    shutil.rmtree(os.path.join(settings.directory, backup_place.RECOVERED), ignore_errors=True)


def _recover(settings: Settings, way: Way, there: Recovered, key: str, progress: Progress) -> None:
    started = time.monotonic()
    folder = os.path.join(there.path, way.stamp)
    recipients = way.base.content.get("recipients") or []
    name = f"database.dump{backup_files.ENCRYPTED if recipients else ''}"
    floor = backup_files.floor_of(folder, settings.min_free_bytes, settings.min_free_percent)
    with (
        _cluster(settings, way, there.path, key, progress) as container,
        backup_database.snapshot(container) as seen,
    ):
        contents = seen.contents()
        versions, revision = {"postgres": seen.version()}, seen.schema_revision()
        source = backup_database.dump(container, seen.id, settings.compression)
        stored = backup_files.write(os.path.join(folder, name), source, recipients, floor)
    before, newest = _around(way)
    content = {
        "format": backup_manifest.FORMAT, "stamp": way.stamp, "reason": REASON, "origin": there.origin.name,
        "host": way.base.content.get("host", ""), "seconds": round(time.monotonic() - started, 3),
        "versions": {"dagster": before.content["versions"]["dagster"], **versions}, "schema_revision": revision,
        "release": before.content.get("release"), "database": contents, "base": {}, "recipients": recipients,
        "secrets": False, "system": way.base.base["system"], "files": {name: asdict(stored)},
        "logs": newest.content.get("logs", []),
    }  # fmt: skip
    files.replace(os.path.join(folder, backup_manifest.NAME), Manifest(content).render(), _OWN)
    progress(f"recovered in {time.monotonic() - started:.0f} s: {sum(contents['tables'].values())} rows")


@contextlib.contextmanager
def _cluster(settings: Settings, way: Way, folder: str, key: str, progress: Progress) -> Iterator[str]:
    """The cluster as it was then, in a container; everything that it is made of was compared with its checksum."""
    downloads = _downloads(folder)
    try:
        progress(
            f"recovering {releases.stamp(way.moment)} from the base of {way.base.stamp} and {len(way.pieces)} segments "
            f"of WAL in {way.place.name}"
        )
        path, wal_paths = _fetch(settings, way, downloads)
        backup_files.check_identity(key, path)
        with recovery_cluster.started(settings, way, path, wal_paths, key) as container:
            yield container
    finally:
        shutil.rmtree(downloads, ignore_errors=True)


def _downloads(folder: str) -> str:
    path = os.path.join(folder, ".downloads")
    os.makedirs(path, mode=0o700, exist_ok=True)
    return path


def _newest(settings: Settings, place: backup_place.Place, folder: str) -> Way:
    """The way to the last mark, for a drill."""
    with jobs.lock(wal.JOB, wait=True):
        if not isinstance(place, backup_place.Directory):
            # What was listed when the drill began may be gone.
            place = backup_take.bucket(settings)
        way = recovery_plan.find(place, recovery_plan.LATEST)
        recovery_cluster.hold_mark(way, _downloads(folder))
    return way


def _fetch(settings: Settings, way: Way, folder: str) -> tuple[str, dict[str, str]]:
    """The base and the segments of the WAL on this machine, compared with their checksums."""
    base = backup_place.fetch(way.place, way.base, folder, settings, base=True)
    return base[way.base.file(backup_manifest.BASE)], recovery_cluster.fetch(settings, way, folder)


def _around(way: Way) -> tuple[Manifest, Manifest]:
    """The last backup before the moment, for what served then, and the newest one, for the compute logs."""
    found = [stamp for stamp in way.place.stamps() if (backup_retention.moment_of(stamp) or 0) <= way.moment]
    before = newest = way.base
    with contextlib.suppress(DamagedError):
        before = backup_place.manifest(way.place, found[-1]) if found else before
        newest = backup_place.manifest(way.place, way.place.stamps()[-1])
    return before, newest


def compare(settings: Settings, place: backup_place.Place, folder: str) -> None:
    """For the drill without a key: whether the newest base and its WAL are what was written.

    Raises:
        jobs.JobError: they are not.
    """
    way = _newest(settings, place, folder)
    _fetch(settings, way, _downloads(folder))


def prove(settings: Settings, place: backup_place.Place, folder: str, key: str) -> str:
    """For the drill: recover the newest base with its WAL to the end; what came of it, in words.

    Raises:
        jobs.JobError: it cannot be done.
    """
    way = _newest(settings, place, folder)
    with _cluster(settings, way, folder, key, lambda text: None) as container:
        name = str(way.base.database["name"])
        rows = sum(restore_database.count(name, container).values())
        revision = restore_database.schema_revision(name, container)
    if not revision and way.base.content["schema_revision"]:
        raise DamagedError(f"the base of backup {way.base.stamp}: found no schema of Dagster's after the recovery")
    return (
        f"; continuous: the base of {way.base.stamp} and {len(way.pieces)} segments recovered to "
        f"{releases.stamp(way.moment)}, {rows} rows"
    )
