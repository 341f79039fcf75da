# SPDX-License-Identifier: Apache-2.0
"""From what the receiver has written to files of the backups: compressed, encrypted if asked, with their checksums."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator
from typing import IO

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_bucket,
    backup_files,
    backup_place,
    jobs,
    wal_files,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_files import BLOCK, DamagedError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_settings import Settings
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.wal_files import Piece
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.wal_server import Mark, Server

# What the receiver has written stands here as it is, a folder a system.
SPOOL = ".wal"
PARTIAL = ".partial"
# A mark is written again and again until its segment is full.
_MARK_COMPRESSION = 1


def spool(settings: Settings, system: str) -> str:
    """The receiver's folder, closed to all but root."""
    path = os.path.join(settings.directory, SPOOL, system)
    os.makedirs(path, mode=0o700, exist_ok=True)
    os.makedirs(os.path.join(settings.directory, wal_files.FOLDER), mode=0o700, exist_ok=True)
    os.chmod(settings.directory, 0o700)
    return path


def store_whole(settings: Settings, system: str) -> int:
    """Store the segments that are whole and not stored yet; returns how many.

    The newest one stays with the receiver, too: it goes on behind that one after a restart.
    """
    folder = spool(settings, system)
    whole = sorted(name for name in os.listdir(folder) if wal_files.is_segment(name))
    archive = wal_files.archives(backup_place.Directory(settings.directory).names(wal_files.FOLDER)).get(
        system, wal_files.Archive()
    )
    stored = 0
    for segment in whole:
        if segment not in archive.whole:
            _store(settings, os.path.join(folder, segment), system, segment, "", settings.compression)
            stored += 1
    for segment in whole[:-1]:
        os.unlink(os.path.join(folder, segment))
    return stored


def store_mark(settings: Settings, server: Server, mark: Mark, until: str) -> Piece:
    """Store the segment of a mark as far as it is written; the marks before it go."""
    folder = spool(settings, server.system)
    name = ""
    # The receiver may rename the segment at any time: it is full.
    for suffix in (PARTIAL, "", PARTIAL):
        with contextlib.suppress(FileNotFoundError):
            path = os.path.join(folder, mark.segment + suffix)
            name = _store(settings, path, server.system, mark.segment, until, _MARK_COMPRESSION)
            break
    piece = wal_files.parse(name)
    if piece is None:
        raise jobs.JobError(
            f"found no {mark.segment} in {folder}; expected what the receiver writes, which has reported to have it"
        )
    directory = backup_place.Directory(settings.directory)
    for other in wal_files.unneeded(directory.names(wal_files.FOLDER), {}):
        directory.remove(f"{wal_files.FOLDER}/{other}")
    return piece


def _store(settings: Settings, path: str, system: str, segment: str, until: str, compression: int) -> str:
    target = os.path.join(settings.directory, wal_files.FOLDER)
    partial = os.path.join(settings.directory, SPOOL, "new")
    floor = backup_files.floor_of(target, settings.min_free_bytes, settings.min_free_percent)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(partial)
    with open(path, "rb") as stream:
        stored = backup_files.write(partial, _compressed(stream, compression), settings.recipients, floor)
    backup_files.check(partial, stored.size, stored.sha256)
    suffix = backup_files.ENCRYPTED if settings.recipients else ""
    name = wal_files.name_of(system, segment, until, stored.sha256, suffix)
    os.rename(partial, os.path.join(target, name))
    files.sync_folder(target)
    return name


def _compressed(stream: IO[bytes], level: int) -> Iterator[bytes]:
    """gzip's format."""
    packer = zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    while block := stream.read(BLOCK):
        if packed := packer.compress(block):
            yield packed
    yield packer.flush()


def send(settings: Settings, bucket: backup_bucket.Bucket, mark: Piece, sent: dict[str, str]) -> dict[str, str]:
    """Upload what the bucket lacks up to a mark, the mark last.

    Args:
        sent: what this has returned before: the last segment and mark that are there.

    Raises:
        jobs.JobError: Google refused, or a file here is damaged.
    """
    known = sent if (sent.get("bucket"), sent.get("system")) == (bucket.name, mark.system) else {}
    archive = wal_files.archives(backup_place.Directory(settings.directory).names(wal_files.FOLDER))[mark.system]
    last = known.get("segment", "")
    for segment in sorted(each for each in archive.whole if each > last):
        _put(settings, bucket, archive.whole[segment])
        last = segment
    _put(settings, bucket, mark)
    before = known.get("mark", "")
    if before and before != mark.path and settings.prune_bucket:
        # One that stays is a few megabytes, which the next backup's removal finds.
        with contextlib.suppress(jobs.JobError):
            bucket.remove(before)
    return {"bucket": bucket.name, "system": mark.system, "segment": last, "mark": mark.path}


def _put(settings: Settings, bucket: backup_bucket.Bucket, piece: Piece) -> None:
    path = os.path.join(settings.directory, piece.path)
    stored = backup_files.measure(path)
    if stored.sha256 != piece.sha256:
        raise DamagedError(f"{piece.name}: its content has changed since it was written: {path} is damaged")
    bucket.put(path, piece.path, stored)
