# SPDX-License-Identifier: Apache-2.0
"""What goes into an image: its files, a hash over them, and a tar that is the same for the same files.

The hash is the image's tag, so it must depend on nothing but what the build sees: times, owners and a checkout's
umask stay out of it.
"""

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

# Left out wherever they appear: they differ between two checkouts of one commit.
IGNORED = (
    "__pycache__",
    ".git",
    "*.py[co]",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".venv",
    ".DS_Store",
    ".gitkeep",
)
# Never sent, whatever a pattern matches: a layer of an image is no place for a secret.
SECRET_NAMES = (".env*", "*.pem", "service-account*.json", "service_account*.json", "id_rsa*", "id_ed25519*")
SECRET_FOLDERS = ("files/secrets",)
_PRIVATE_KEY = b"PRIVATE KEY-----"
# 1980: the earliest time a zip can hold. Any constant does.
_TIME = 315532800
_CHUNK = 1 << 20


class ContextError(ValueError):
    """The files cannot be sent; the message names the option or the file."""


@dataclass(frozen=True)
class Entry:
    """One file or symbolic link of the context."""

    path: str
    executable: bool
    sha256: str
    size: int
    link: str = ""


@dataclass(frozen=True)
class Context:
    """The files of one image; ``content_hash`` is 64 hexadecimal digits."""

    source: Path
    dockerfile: str
    entries: tuple[Entry, ...]
    build_args: Mapping[str, str] = field(default_factory=dict)

    @property
    def content_hash(self) -> str:
        """64 hexadecimal digits over everything that the build sees."""
        described = {
            "format": 1,
            "dockerfile": self.dockerfile,
            "build_args": dict(sorted(self.build_args.items())),
            "files": [[each.path, each.executable, each.sha256, each.link] for each in self.entries],
        }
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(each.size for each in self.entries)

    def write_tar(self, target: IO[bytes]) -> None:
        """Write the files as tar.gz, byte for byte the same for the same files.

        Raises:
            ContextError: a file is no longer what was hashed.
        """
        with (
            gzip.GzipFile(fileobj=target, mode="wb", mtime=0, compresslevel=6, filename="") as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for each in self.entries:
                info = tarfile.TarInfo(each.path)
                info.mtime = _TIME
                info.mode = 0o755 if each.executable else 0o644
                if each.link:
                    info.type, info.linkname = tarfile.SYMTYPE, each.link
                    tar.addfile(info)
                    continue
                content = (self.source / each.path).read_bytes()
                if hashlib.sha256(content).hexdigest() != each.sha256:
                    raise ContextError(f"{each.path}: changed while it was being packed; run again")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def scan(
    source: str | os.PathLike[str],
    include: Sequence[str],
    dockerfile: str,
    build_args: Mapping[str, str] | None = None,
    exclude: Sequence[str] = (),
) -> Context:
    """Find and hash what an image is made of.

    Args:
        source: folder on the controller; every path is relative to it.
        include: files, folders (whole) and globs (``**`` crosses folders).
        dockerfile: the Dockerfile; need not be in ``include``.
        build_args: arguments that change the result, so that they are part of the hash.
        exclude: globs of paths to leave out; a folder's glob leaves out what is in it.

    Raises:
        ContextError: a path outside of ``source``, an ``include`` that matches nothing, a secret.
    """
    root = Path(source)
    if not root.is_dir():
        raise ContextError(f"source: {source} is no folder on the controller")
    root = root.resolve()
    for option, patterns in (("include", include), ("exclude", exclude), ("dockerfile", [dockerfile])):
        for pattern in patterns:
            if not pattern or PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
                raise ContextError(f"{option}: found {pattern!r}; expected a path inside of {root}")
    if not (root / dockerfile).is_file():
        raise ContextError(f"dockerfile: {root / dockerfile} does not exist")
    found: set[str] = {PurePosixPath(dockerfile).as_posix()}
    for pattern in include:
        matched = set(_matching(root, pattern))
        if not matched:
            raise ContextError(f"include: {pattern!r} matches no file in {root}")
        found |= matched
    kept = [path for path in found if path == dockerfile or not _excluded(path, exclude)]
    return Context(root, dockerfile, tuple(_entry(root, path) for path in sorted(kept)), dict(build_args or {}))


def _matching(root: Path, pattern: str) -> Iterable[str]:
    """Paths of the files that ``pattern`` names, folders walked, IGNORED left out."""
    for found in root.glob(pattern):
        if found.is_dir() and not found.is_symlink():
            for folder, folders, names in os.walk(found):
                folders[:] = [name for name in folders if not _ignored(name)]
                links = [name for name in folders if (Path(folder) / name).is_symlink()]
                for name in [*names, *links]:
                    if not _ignored(name):
                        yield (Path(folder) / name).relative_to(root).as_posix()
        elif not any(_ignored(part) for part in found.relative_to(root).parts):
            yield found.relative_to(root).as_posix()


def _ignored(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in IGNORED)


def _excluded(path: str, exclude: Sequence[str]) -> bool:
    candidates = [path, *(parent.as_posix() for parent in PurePosixPath(path).parents)]
    return any(fnmatch.fnmatchcase(each, pattern.rstrip("/")) for each in candidates for pattern in exclude)


def _entry(root: Path, path: str) -> Entry:
    """Hash one file; refuse what must not leave the controller."""
    _refuse_secret_name(path)
    full = root / path
    state = full.lstat()
    if stat.S_ISLNK(state.st_mode):
        target = os.readlink(full)
        if os.path.isabs(target) or not (full.parent / target).resolve().is_relative_to(root):
            raise ContextError(f"{path}: a link to {target}, outside of {root}; expected a link inside of it")
        return Entry(path, False, "", 0, target)
    if not stat.S_ISREG(state.st_mode):
        raise ContextError(f"{path}: neither a file nor a link")
    digest = hashlib.sha256()
    with full.open("rb") as stream:
        first = True
        while chunk := stream.read(_CHUNK):
            if first and _holds_private_key(path, chunk):
                raise ContextError(
                    f"{path}: holds a private key; an image is no place for a secret. "
                    "Exclude it, and hand it to dagster_home_service_account or to the container's environment"
                )
            first = False
            digest.update(chunk)
    return Entry(path, bool(state.st_mode & stat.S_IXUSR), digest.hexdigest(), state.st_size)


def _refuse_secret_name(path: str) -> None:
    name = PurePosixPath(path).name
    inside = [each for each in SECRET_FOLDERS if f"/{path}".find(f"/{each}/") >= 0]
    by_name = [each for each in SECRET_NAMES if fnmatch.fnmatchcase(name, each)]
    if inside or by_name:
        raise ContextError(
            f"{path}: looks like a secret ({(inside or by_name)[0]}); an image is no place for one. "
            "Exclude it, or rename it if it is none"
        )


def _holds_private_key(path: str, chunk: bytes) -> bool:
    """A key by its content: a PEM file under another name, or a service account's JSON."""
    head = chunk.lstrip()[:64]
    if head.startswith(b"-----BEGIN ") and _PRIVATE_KEY in head:
        return True
    return path.endswith(".json") and b'"private_key"' in chunk and _PRIVATE_KEY in chunk
