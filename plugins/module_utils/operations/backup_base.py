# SPDX-License-Identifier: Apache-2.0
"""The base of continuous backup: the whole cluster's files, from which the WAL leads to any later moment.

It is a file of an ordinary backup, so that whatever cares for those cares for it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_files,
    backup_place,
    backup_retention,
    config,
    database,
    jobs,
    wal_files,
    wal_server,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_files import (
    BLOCK,
    DamagedError,
    Stored,
    pipe,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_manifest import BASE, Manifest
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_settings import Settings
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.wal_server import Server

# To standard output in one archive, with PostgreSQL's own list of checksums in it. The WAL comes from the receiver.
_TAKE = (
    'exec nice -n 10 pg_basebackup --username="$POSTGRES_USER" --no-password --pgdata=- --format=tar --wal-method=none'
    ' --checkpoint=fast --compress="$1" --manifest-checksums=SHA256'
)


def stamps(place: backup_place.Place) -> list[str]:
    """The backups that have a base, oldest first."""
    return [stamp for stamp in place.stamps() if any(name.removesuffix(".age") == BASE for name in place.names(stamp))]


def newest(place: backup_place.Place, system: str, stamp: str = "") -> Manifest | None:
    """The newest base of a cluster, or the one of the backup ``stamp``."""
    for each in reversed([each for each in stamps(place) if stamp in ("", each)]):
        # A damaged one leads nowhere.
        with contextlib.suppress(DamagedError):
            found = backup_place.manifest(place, each)
            if found.base.get("system") == system:
                return found
    return None


def broken(place: backup_place.Place, base: Manifest | None, server: Server, segment: str) -> str:
    """Why nothing leads from a base to a segment of the WAL; empty where all is there."""
    if base is None:
        return "there is no base"
    archive = wal_files.archives(place.names(wal_files.FOLDER)).get(server.system, wal_files.Archive())
    found = archive.chain(base.base["start"], segment, server.segment_size)
    last = found[-1].segment if found else "nothing"
    return "" if last == segment else f"the WAL of base {base.stamp} ends with {last}"


def due(settings: Settings) -> bool:
    """Whether the newest base is too old, or leads nowhere."""
    server = wal_server.look()
    place = backup_place.Directory(settings.directory)
    base = newest(place, server.system)
    if base is None or time.time() - base.moment >= settings.continuous_base_hours * 3600:
        return True
    archive = wal_files.archives(place.names(wal_files.FOLDER)).get(server.system, wal_files.Archive())
    return archive.newest is not None and bool(broken(place, base, server, archive.newest.segment))


def add(
    settings: Settings, path: str, floor: int, written: dict[str, Stored], problems: list[jobs.Problem] | None
) -> dict[str, Any]:
    """Write a base into a backup that is being taken, where one is due; what the manifest says of it.

    Args:
        written: the backup's files, which gets this one.
        problems: gets why there is none: a backup without a base is better than none. None: nobody waits for one.
    """
    if problems is None:
        return {}
    if not settings.continuous:
        # Switched off: PostgreSQL keeps no WAL for it any more. A server elsewhere may not even say whether it does.
        with contextlib.suppress(database.DatabaseError):
            wal_server.forget_slot()
        return {}
    try:
        if due(settings):
            written[os.path.basename(path)], found = take(path, settings, floor)
            return found
    except (jobs.JobError, database.DatabaseError, docker_cli.DockerError) as error:
        problems.append(jobs.Problem("backup_base", jobs.CRITICAL, f"no base for continuous backup: {error}"))
    return {}


def take(path: str, settings: Settings, floor: int) -> tuple[Stored, dict[str, Any]]:
    """Write a base; what the manifest says of it.

    Raises:
        jobs.JobError: there is none, and nothing of it is left.
    """
    user = wal_server.environment()["POSTGRES_USER"]
    server = wal_server.look()
    container = config.stack().postgres_container
    # Its checkpoint is later than this, and all that it needs was written before the second one.
    start = wal_server.mark(server)
    try:
        stored = backup_files.write(
            path, _produced(container, max(settings.compression, 1)), settings.recipients, floor
        )
        backup_files.check(path, stored.size, stored.sha256)
        end = wal_server.mark(server)
        wal_server.wait_until_received(end.lsn, patience=60)
    except BaseException:
        if os.path.exists(path):
            os.unlink(path)
        raise
    return stored, {
        "system": server.system, "segment_size": server.segment_size, "user": user, "start": start.segment,
        "end": end.segment, "moment": end.moment, "seconds": end.moment - start.moment,
    }  # fmt: skip


def _produced(container: str, compression: int) -> Iterator[bytes]:
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [docker_cli.DOCKER, "exec", container, "sh", "-c", _TAKE, "pg_basebackup", str(compression)],
            stdout=subprocess.PIPE, stderr=said,
        )  # fmt: skip
        output = pipe(process.stdout)
        try:
            while block := output.read(BLOCK):
                yield block
            if process.wait():
                said.seek(0)
                text = docker_cli.last_lines(said.read().decode("utf-8", "replace"), 3)
                raise jobs.JobError(f"pg_basebackup failed: {text or process.returncode}")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            output.close()


def needed(place: backup_place.Place, days: float, now: float) -> list[str]:
    """The bases from which the moments of the last ``days`` days can be reached; none where no WAL is so young."""
    since = now - days * 86400
    marks = [archive.newest for archive in wal_files.archives(place.names(wal_files.FOLDER)).values()]
    if not any(mark and (backup_retention.moment_of(mark.until) or 0) >= since for mark in marks):
        return []
    found = stamps(place)
    before = [stamp for stamp in found if (backup_retention.moment_of(stamp) or 0) <= since]
    return [*before[-1:], *(stamp for stamp in found if stamp not in before)]


def remove_unneeded_wal(place: backup_place.Place, days: float, now: float) -> int:
    """Remove the WAL of before the oldest base that is still needed; returns how many files went."""
    names = place.names(wal_files.FOLDER)
    if not names:
        return 0
    starts: dict[str, str] = {}
    for stamp in needed(place, days, now):
        base = backup_place.manifest(place, stamp).base
        starts[base["system"]] = min(base["start"], starts.get(base["system"], base["start"]))
    expired = [
        system
        for system, archive in wal_files.archives(names).items()
        if archive.newest and (backup_retention.moment_of(archive.newest.until) or now) < now - days * 86400
    ]
    gone = wal_files.unneeded(names, starts, expired)
    for name in gone:
        place.remove(f"{wal_files.FOLDER}/{name}")
    return len(gone)
