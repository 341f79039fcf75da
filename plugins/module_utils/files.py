# SPDX-License-Identifier: Apache-2.0
"""Files that are replaced in one step: readers see the old file or the new one, never half of it."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from dataclasses import dataclass


@dataclass(frozen=True)
class Owner:
    """Who may do what with a file. Ids and not names: a container's user has no name on the machine."""

    uid: int
    gid: int
    mode: int


def replace(path: str, content: bytes, owner: Owner) -> None:
    """Put ``content`` at ``path`` with its owner and mode set before anyone can see it.

    The rename stays inside the folder, which is what containers mount: a bind-mounted *file* would keep the old inode.
    """
    folder, base = os.path.split(os.path.abspath(path))
    handle, temporary = tempfile.mkstemp(prefix=f".{base}.", dir=folder)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            _own(stream.fileno(), owner)
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(folder)


def sync_folder(folder: str) -> None:
    """Make a rename or a removal in ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read(path: str) -> bytes | None:
    """The file's content, None where there is no file."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def differs(path: str, owner: Owner) -> bool:
    """Whether what stands at ``path`` has another owner or mode (or is not there)."""
    try:
        state = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return True
    return (state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)) != (owner.uid, owner.gid, owner.mode)


def give(path: str, owner: Owner) -> None:
    """Set owner and mode of what stands at ``path``; a link is refused, since its target may be anything."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        _own(handle, owner)
    finally:
        os.close(handle)


def make_folder(path: str, owner: Owner) -> None:
    """Make ``path`` with owner and mode, or set them; parents that are missing are open to read (0755)."""
    # Not left to the umask: on a hardened machine (027) the containers could not read what lies below.
    missing = []
    parent = os.path.dirname(os.path.abspath(path))
    while not os.path.isdir(parent):
        missing.append(parent)
        parent = os.path.dirname(parent)
    for folder in reversed(missing):
        os.mkdir(folder)
        os.chmod(folder, 0o755)  # noqa: S103  open on purpose: users inside the containers read below
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    give(path, owner)


def _own(handle: int, owner: Owner) -> None:
    state = os.fstat(handle)
    if (state.st_uid, state.st_gid) != (owner.uid, owner.gid):
        os.fchown(handle, owner.uid, owner.gid)
    os.fchmod(handle, owner.mode)
