# SPDX-License-Identifier: Apache-2.0
"""What Dagster keeps in files: compute logs (and, if asked, all of the volume), only what is new since the last backup.

Archives stand in the folder ``logs`` beside the backups and belong to every backup that names them. From time to time
one holds everything again, so that old ones can go.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import jobs, storage

COMPUTE_LOGS = "compute_logs"
INDEX = ".storage-index.json"
ARCHIVES = "logs"


def mountpoint() -> str:
    """Where the files stand on this machine.

    Raises:
        jobs.JobError: there is none.
    """
    found = storage.folder()
    if not found:
        raise jobs.JobError(f"found no {storage.name()}; expected the stack's volume, or a folder: run site.yml")
    return found


@dataclass
class Index:
    """Which files are in which archives: ``files`` has size and time of the last change by path."""

    archives: list[str] = field(default_factory=list)
    since: float = 0.0
    scope: str = ""
    files: dict[str, list[int]] = field(default_factory=dict)


def read_index(directory: str) -> Index:
    """The index that the last backup left; an empty one where there is none: the next archive holds everything."""
    try:
        with open(os.path.join(directory, INDEX), encoding="utf-8") as stream:
            found = json.load(stream)
        return Index(list(found["archives"]), float(found["since"]), str(found["scope"]), dict(found["files"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Index()


def write_index(directory: str, index: Index) -> None:
    """Keep it for the next backup."""
    content = json.dumps(index.__dict__).encode()
    files.replace(os.path.join(directory, INDEX), content, files.Owner(os.geteuid(), os.getegid(), 0o600))


def look(root: str, scope: str) -> dict[str, list[int]]:
    """Every regular file below ``root`` that is part of a backup: path, size, time of the last change (ns)."""
    found = {}
    start = os.path.join(root, COMPUTE_LOGS) if scope == "logs" else root
    for folder, folders, names in os.walk(start):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            with contextlib.suppress(FileNotFoundError):
                state = os.lstat(path)
                if os.path.isfile(path) and not os.path.islink(path):
                    found[os.path.relpath(path, root)] = [state.st_size, state.st_mtime_ns]
    return found


def plan(
    index: Index, there: dict[str, list[int]], scope: str, full_days: float, known: set[str]
) -> tuple[bool, list[str]]:
    """Whether the next archive holds everything, and which files it holds.

    Args:
        known: the archives that are really there; where one is missing, everything is written again.
    """
    whole = (
        not index.archives
        or index.scope != scope
        or time.time() - index.since > full_days * 86400
        or not set(index.archives) <= known
    )
    return whole, sorted(path for path, state in there.items() if whole or index.files.get(path) != state)


def pack(root: str, paths: list[str], target: IO[bytes]) -> None:
    """A tar of these files. One that grows meanwhile is taken as long as it was when it was opened."""
    with tarfile.open(fileobj=target, mode="w|gz", compresslevel=6, format=tarfile.PAX_FORMAT) as archive:
        for path in paths:
            with contextlib.suppress(FileNotFoundError), open(os.path.join(root, path), "rb") as stream:
                entry = archive.gettarinfo(arcname=path, fileobj=stream)
                archive.addfile(entry, io.BufferedReader(_Padded(stream, entry.size)))


class _Padded(io.RawIOBase):
    """A file of which exactly so many bytes are read; what was cut off meanwhile reads as zeros."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        super().__init__()
        self._stream, self._left = stream, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._left)
        data = self._stream.read(wanted)
        data += bytes(wanted - len(data))
        buffer[:wanted] = data
        self._left -= wanted
        return wanted


def members(stream: IO[bytes]) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """The files of an archive with their content, to its end.

    Raises:
        tarfile.TarError, EOFError, OSError, zlib.error: it is damaged.
    """
    with tarfile.open(fileobj=stream, mode="r|gz") as archive:
        for entry in archive:
            content = archive.extractfile(entry) if entry.isfile() else None
            if content is not None:
                yield entry, content


def unpack(stream: IO[bytes], root: str) -> int:
    """Put the files of an archive below ``root`` where they are missing or shorter; returns how many.

    What is longer there has grown since the backup and stays.
    """
    written = 0
    for entry, content in members(stream):
        parts = entry.name.split("/")
        if entry.name.startswith("/") or ".." in parts:
            continue
        path = os.path.join(root, entry.name)
        if os.path.islink(path) or (os.path.exists(path) and os.path.getsize(path) >= entry.size):
            continue
        _make_folders(root, parts[:-1], entry)
        handle = os.open(path + ".restoring", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as target:
            while block := content.read(1 << 20):
                target.write(block)
            os.fchown(target.fileno(), entry.uid, entry.gid)
            os.fchmod(target.fileno(), entry.mode & 0o777)
        os.utime(path + ".restoring", (entry.mtime, entry.mtime))
        os.rename(path + ".restoring", path)
        written += 1
    return written


def _make_folders(root: str, parts: list[str], entry: tarfile.TarInfo) -> None:
    path = root
    for part in parts:
        path = os.path.join(path, part)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o755)
            os.chown(path, entry.uid, entry.gid)
