# SPDX-License-Identifier: Apache-2.0
"""Files of a backup: written with their checksums, encrypted on the way if asked, read back from the disk."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TypeVar

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import jobs

BLOCK = 1 << 20
# How often the free space is looked at while a file grows.
LOOK_EVERY = 64 << 20
ENCRYPTED = ".age"

Text = TypeVar("Text", bytes, str)


class DamagedError(jobs.JobError):
    """A backup is not what its manifest says."""


@dataclass(frozen=True)
class Stored:
    """A file as it was written; ``md5`` is spelled as Google Cloud Storage does (base64)."""

    size: int
    sha256: str
    md5: str


def write(path: str, source: Iterable[bytes], recipients: Sequence[str] = (), floor: int = 0) -> Stored:
    """Write what ``source`` yields, through age where there are recipients.

    Args:
        path: a new file, readable by root only.
        floor: bytes that have to stay free on the disk.

    Raises:
        jobs.JobError: no room, or age refused.
    """
    digests = (hashlib.sha256(), hashlib.md5(usedforsecurity=False))
    size, looked = 0, -LOOK_EVERY
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
        for block in _encrypted(source, recipients) if recipients else source:
            if size - looked >= LOOK_EVERY:
                looked = size
                require_room(os.path.dirname(path), floor, f"writing {os.path.basename(path)}")
            target.write(block)
            size += len(block)
            for digest in digests:
                digest.update(block)
        target.flush()
        os.fsync(target.fileno())
    return Stored(size, digests[0].hexdigest(), base64.b64encode(digests[1].digest()).decode())


def measure(path: str) -> Stored:
    """Size and checksums of a small file that is there."""
    with open(path, "rb") as stream:
        content = stream.read()
    md5 = hashlib.md5(content, usedforsecurity=False).digest()
    return Stored(len(content), hashlib.sha256(content).hexdigest(), base64.b64encode(md5).decode())


def check(path: str, size: int, sha256: str) -> None:
    """Read a file from the disk, not from memory, and compare.

    Raises:
        DamagedError: it is missing, or not what it should be.
    """
    name = os.path.basename(path)
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            found = os.fstat(stream.fileno()).st_size
            if found != size:
                raise DamagedError(f"{name}: found {found} bytes, expected {size}: {path} is damaged")
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while block := stream.read(BLOCK):
                digest.update(block)
    except FileNotFoundError as error:
        raise DamagedError(f"{name}: there is no such file any more: {path}") from error
    except OSError as error:
        raise DamagedError(f"{name}: cannot be read ({error.strerror}): {path}") from error
    if digest.hexdigest() != sha256:
        raise DamagedError(f"{name}: its content has changed since it was written (sha256 differs): {path} is damaged")


@contextlib.contextmanager
def plain(path: str, identity: str = "") -> Iterator[IO[bytes]]:
    """Read a file of a backup, decrypted where it is encrypted.

    Args:
        path: the file.
        identity: the file with age's private key.

    Raises:
        jobs.JobError: the identity is missing or another one's, or what is encrypted was changed.
    """
    if not path.endswith(ENCRYPTED):
        with open(path, "rb") as stream:
            yield stream
        return
    need_age()
    if not identity:
        raise jobs.JobError(
            f"{os.path.basename(path)} is encrypted: found no identity; expected age's private key in "
            "dagster_backup_identity (or --identity FILE)"
        )
    # What age says goes to a file: a pipe that nobody reads would stop it.
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            ["age", "--decrypt", "--identity", identity, path], stdout=subprocess.PIPE, stderr=said
        )
        whole = failed = False
        output = pipe(process.stdout)
        try:
            yield output
            whole = not output.read(1)
        except BaseException:
            failed = True
            raise
        finally:
            output.close()
            try:
                status = process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                status = -process.wait()
            # What age refuses explains why a reader found too little; -13 is only a reader that stopped early.
            if (whole or failed) and status > 0:
                said.seek(0)
                raise _refusal(said.read().decode("utf-8", "replace"), path)


def _refusal(text: str, path: str) -> jobs.JobError:
    lines = [line for line in text.splitlines() if line.startswith("age: error:")] or [text.strip() or "nothing"]
    reason = lines[0].removeprefix("age: error:").strip()
    name = os.path.basename(path)
    if "no identity matched" in reason:
        return jobs.JobError(
            f"{name}: it was not encrypted for this identity; expected the private key of one of the recipients that "
            "its manifest.json names (dagster_backup_identity)"
        )
    if "malformed" in reason or "unknown identity" in reason or "identity file" in reason:
        return jobs.JobError(
            f"dagster_backup_identity: age does not take it ({reason}); expected a line AGE-SECRET-KEY-1…"
        )
    return DamagedError(f"{name}: cannot be decrypted ({reason}): {path} is damaged")


def pipe(stream: IO[Text] | None) -> IO[Text]:
    """A process's stream, which is there because it was asked for."""
    if stream is None:
        raise RuntimeError("the process was started without this pipe")
    return stream


def need_age() -> None:
    """Say so if age is not installed."""
    if shutil.which("age") is None:
        raise jobs.JobError("age is not installed, and the backup is encrypted; run `apt-get install age`, or site.yml")


@contextlib.contextmanager
def identity_file(secret: str) -> Iterator[str]:
    """A file in memory with age's private key, as long as the block runs; an empty name where there is no key."""
    if not secret.strip():
        yield ""
        return
    os.makedirs(jobs.LOCKS, mode=0o700, exist_ok=True)
    handle, path = tempfile.mkstemp(prefix="identity-", dir=jobs.LOCKS)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(secret.strip() + "\n")
        yield path
    finally:
        os.unlink(path)


def check_identity(identity: str, path: str) -> None:
    """Whether the identity opens an encrypted file; reads its beginning only.

    Raises:
        jobs.JobError: it does not.
    """
    if not path.endswith(ENCRYPTED):
        return
    with plain(path, identity) as stream:
        stream.read(1)


def produced(work: Callable[[IO[bytes]], None]) -> Iterator[bytes]:
    """What ``work`` writes into the file that it is given, while it does."""
    receiving, sending = os.pipe()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            with os.fdopen(sending, "wb") as stream:
                work(stream)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    with os.fdopen(receiving, "rb", buffering=0) as stream:
        thread.start()
        while block := stream.read(BLOCK):
            yield block
    thread.join()
    if failures:
        raise failures[0]


def _encrypted(source: Iterable[bytes], recipients: Sequence[str]) -> Iterator[bytes]:
    need_age()
    arguments = [word for each in recipients for word in ("--recipient", each)]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            ["age", "--encrypt", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said
        )
        output = pipe(process.stdout)
        failures: list[BaseException] = []

        def feed(stdin: IO[bytes]) -> None:
            try:
                with stdin:
                    for block in source:
                        stdin.write(block)
            except BrokenPipeError:
                pass  # age says why
            except BaseException as error:
                # Half a source must not become a whole file.
                process.kill()
                failures.append(error)

        thread = threading.Thread(target=feed, args=(pipe(process.stdin),), daemon=True)
        thread.start()
        try:
            while block := output.read(BLOCK):
                yield block
            thread.join()
            status = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            output.close()
        if failures:
            raise failures[0]
        if status:
            said.seek(0)
            reason = said.read().decode("utf-8", "replace").strip().splitlines()
            raise jobs.JobError(
                f"dagster_backup_recipients: age refused ({(reason or ['no reason'])[0]}); expected public keys age1…"
            )


def require_room(folder: str, floor: int, what: str, needed: int = 0) -> None:
    """Refuse to fill the disk.

    Raises:
        jobs.JobError: less than ``floor`` bytes would stay free.
    """
    free = shutil.disk_usage(folder).free
    if free - needed < floor:
        need = f"about {megabytes(needed)} and " if needed else ""
        raise jobs.JobError(
            f"no room for {what} in {folder}: found {megabytes(free)} free, expected {need}{megabytes(floor)} that "
            "stay free; remove old backups (dagster_backup_keep), run upkeep, or grow the disk"
        )


def floor_of(folder: str, min_bytes: int, min_percent: int) -> int:
    """The bytes that have to stay free on the disk of ``folder``."""
    total = shutil.disk_usage(folder).total
    # On a small disk (a test's, a tiny machine's) the fixed part must not be all of it.
    return max(min(min_bytes, total // 5), total * min_percent // 100)


def megabytes(size: float) -> str:
    """A size for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
