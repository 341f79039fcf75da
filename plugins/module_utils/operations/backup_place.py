# SPDX-License-Identifier: Apache-2.0
"""Where backups stand: one folder a backup with its manifest, and the folder ``logs`` that they share."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from typing import Protocol

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_files,
    backup_manifest,
    backup_retention,
    jobs,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_files import DamagedError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_manifest import Manifest
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_settings import Settings
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_storage import ARCHIVES

PARTIAL = ".partial-"
# What a recovery has made, until it is restored.
RECOVERED = ".recovered"


class Place(Protocol):
    """A directory or a bucket. Names are relative: ``<stamp>/<file>``, ``logs/<archive>``."""

    name: str

    def stamps(self) -> list[str]:
        """The backups that have a manifest, oldest first."""

    def read(self, name: str) -> bytes:
        """A small file's content. Raises DamagedError where it is missing."""

    def names(self, folder: str) -> dict[str, int]:
        """The files of a folder (a stamp, or ``logs``) with their sizes."""

    def fetch(self, name: str, size: int, target: str) -> str:
        """A file on this machine: its own path, or ``target`` after a download. Raises DamagedError."""

    def remove(self, name: str) -> None:
        """Remove a file; one that is gone is fine."""


def manifest(place: Place, stamp: str) -> Manifest:
    """A backup's manifest.

    Raises:
        DamagedError: it was changed.
    """
    found = backup_manifest.parse(
        place.read(f"{stamp}/{backup_manifest.NAME}"), f"{place.name}/{stamp}/{backup_manifest.NAME}"
    )
    if found.stamp != stamp:
        raise DamagedError(f"{place.name}/{stamp}/{backup_manifest.NAME} is another backup's: {found.stamp}")
    return found


def find(place: Place, wanted: str, but: str = "") -> Manifest:
    """A backup by its stamp, or the newest one (``latest``).

    Args:
        but: the reason of backups that are not meant by ``latest``.

    Raises:
        jobs.JobError: there is none such.
    """
    stamps = place.stamps()
    if wanted == "latest":
        for stamp in reversed(stamps):
            found = manifest(place, stamp)
            if found.reason != but:
                return found
    if wanted not in stamps:
        known = ", ".join(stamps[-5:]) or "none"
        raise jobs.JobError(f"no backup {wanted} in {place.name}: expected `latest` or one of those there: {known}")
    return manifest(place, wanted)


def fetch(place: Place, manifest: Manifest, folder: str, settings: Settings, base: bool = False) -> dict[str, str]:
    """Files of a backup on this machine, each compared with its checksum; paths by name.

    Args:
        base: the base of continuous backup only, and not all but that.

    Raises:
        DamagedError: one is missing or changed.
        jobs.JobError: no room for them.
    """
    wanted = {
        name: (f"{manifest.stamp}/{name}", stored)
        for name, stored in manifest.files.items()
        if (name.removesuffix(backup_files.ENCRYPTED) == backup_manifest.BASE) == base
    }
    if not base:
        wanted |= {name: (f"{ARCHIVES}/{name}", stored) for name, stored in manifest.logs.items()}
    if not isinstance(place, Directory):
        floor = backup_files.floor_of(folder, settings.min_free_bytes, settings.min_free_percent)
        total = sum(stored.size for _, stored in wanted.values())
        backup_files.require_room(folder, floor, f"backup {manifest.stamp} from {place.name}", total)
    paths = {}
    for name, (path, stored) in wanted.items():
        paths[name] = place.fetch(path, stored.size, os.path.join(folder, name))
        backup_files.check(paths[name], stored.size, stored.sha256)
    return paths


def require_key(manifest: Manifest, key: str) -> None:
    """Refuse an encrypted backup for which nobody has given a key."""
    if manifest.encrypted:
        backup_files.need_age()
        if not key:
            raise jobs.JobError(
                f"backup {manifest.stamp} is encrypted: found no private key; expected the one of "
                f"{' or '.join(manifest.content['recipients'])} in dagster_backup_identity (or --identity FILE)"
            )


def remove_backup(place: Place, stamp: str) -> None:
    """Remove a backup; its manifest first, so that half of it is never taken for one."""
    place.remove(f"{stamp}/{backup_manifest.NAME}")
    for name in place.names(stamp):
        place.remove(f"{stamp}/{name}")
    if isinstance(place, Directory):
        with contextlib.suppress(OSError):
            os.rmdir(os.path.join(place.path, stamp))


def remove_unused_archives(place: Place) -> list[str]:
    """Remove archives of files that no backup names any more; returns their names.

    One that is a day old at most may belong to a backup that is being written. Where a manifest cannot be read, all
    stay.
    """
    used: set[str] = set()
    try:
        for stamp in place.stamps():
            used |= set(manifest(place, stamp).logs)
    except DamagedError:
        return []
    gone = []
    for name in place.names(ARCHIVES):
        written = backup_retention.moment_of(name.partition("-")[0])
        if name not in used and written is not None and time.time() - written > backup_retention.HALF_SECONDS:
            place.remove(f"{ARCHIVES}/{name}")
            gone.append(name)
    return gone


class Directory:
    """Backups in a directory of this machine."""

    def __init__(self, path: str) -> None:
        self.path = self.name = path

    def prepare(self) -> None:
        """Make the directory, closed to all but root, and remove what killed backups left."""
        os.makedirs(os.path.join(self.path, ARCHIVES), mode=0o700, exist_ok=True)
        os.chmod(self.path, 0o700)
        for name in os.listdir(self.path):
            if name.startswith(PARTIAL):
                shutil.rmtree(os.path.join(self.path, name), ignore_errors=True)
        for name in os.listdir(os.path.join(self.path, ARCHIVES)):
            if name.startswith(PARTIAL):
                os.unlink(os.path.join(self.path, ARCHIVES, name))

    def stamps(self) -> list[str]:
        """See `Place`."""
        try:
            names = os.listdir(self.path)
        except OSError:
            return []
        return sorted(
            name
            for name in names
            if backup_retention.moment_of(name) is not None
            and os.path.exists(os.path.join(self.path, name, backup_manifest.NAME))
        )

    def read(self, name: str) -> bytes:
        """See `Place`."""
        try:
            with open(os.path.join(self.path, name), "rb") as stream:
                return stream.read()
        except OSError as error:
            raise DamagedError(f"{self.path}/{name}: {error.strerror}") from error

    def names(self, folder: str) -> dict[str, int]:
        """See `Place`."""
        path = os.path.join(self.path, folder)
        try:
            return {name: os.path.getsize(os.path.join(path, name)) for name in sorted(os.listdir(path))}
        except OSError:
            return {}

    def fetch(self, name: str, size: int, target: str) -> str:
        """See `Place`; nothing is copied."""
        return os.path.join(self.path, name)

    def remove(self, name: str) -> None:
        """See `Place`."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.path, name))
