# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL in a throw-away container, from a base and its WAL, as it was at a moment."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import subprocess
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from typing import IO

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli, releases
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_files,
    backup_place,
    database,
    jobs,
    throw_away,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_files import DamagedError, pipe
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_settings import Settings
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.recovery_plan import Way

CONTAINER = "dagster-gce-recovery"
# A day's WAL of a busy database; a recovery that goes on for longer hangs.
PATIENCE = 4 * 3600.0
_LOG = "/tmp/postgres.log"
_UNPACK = 'mkdir -p "$PGDATA" && chmod 0700 "$PGDATA" && exec tar --extract --file=- "$@" --directory "$PGDATA"'
_VERIFY = 'exec pg_verifybackup --no-parse-wal --exit-on-error "$PGDATA"'
# Where there is no archive, recovery looks into pg_wal.
_START = f"""
touch "$PGDATA/recovery.signal"
postgres "$@" >{_LOG} 2>&1
echo "$?" >/tmp/ended
"""
_SETTINGS = (
    "restore_command=false", "recovery_target_action=promote", "recovery_target_timeline=current", "hot_standby=off",
    "archive_mode=off", "primary_conninfo=", "synchronous_standby_names=", "listen_addresses=127.0.0.1", "port=5432",
    "shared_buffers=128MB", "ssl=off", "logging_collector=off", "log_destination=stderr", "shared_preload_libraries=",
)  # fmt: skip


def hold_mark(way: Way, folder: str) -> None:
    """Have the mark's file in a folder of our own: where it stands a newer one takes its place at any time.

    Needs the lock of the job ``wal`` from the moment at which the way was found.
    """
    for piece in way.pieces:
        target = os.path.join(folder, piece.name)
        if piece.until and way.place.fetch(piece.path, piece.size, target) != target:
            # One that is missing is told by the comparison.
            with contextlib.suppress(FileNotFoundError):
                os.link(way.place.fetch(piece.path, piece.size, target), target)


def fetch(settings: Settings, way: Way, folder: str) -> dict[str, str]:
    """The pieces of the WAL on this machine, each compared with its checksum; paths by segment.

    Args:
        folder: for downloads; `hold_mark` has been at work there.

    Raises:
        DamagedError: one is missing or changed.
        jobs.JobError: no room for them.
    """
    if not isinstance(way.place, backup_place.Directory):
        floor = backup_files.floor_of(folder, settings.min_free_bytes, settings.min_free_percent)
        total = sum(piece.size for piece in way.pieces)
        backup_files.require_room(folder, floor, f"the WAL from {way.place.name}", total)
    paths = {}
    for piece in way.pieces:
        path = os.path.join(folder, piece.name)
        if not piece.until:
            path = way.place.fetch(piece.path, piece.size, path)
        backup_files.check(path, piece.size, piece.sha256)
        paths[piece.segment] = path
    return paths


@contextlib.contextmanager
def started(settings: Settings, way: Way, base: str, pieces: Mapping[str, str], key: str) -> Iterator[str]:
    """The recovered cluster, as long as the block runs; the container's name.

    Raises:
        DamagedError: the base or the WAL is not what it was.
        jobs.JobError: the WAL does not reach the moment.
    """
    about = way.base.base
    size = int(way.base.database["size"]) * 3 // 2 + len(pieces) * int(about["segment_size"])
    throw_away.require_room(settings, size, "a recovery")
    user, name = str(about["user"]), str(way.base.database["name"])
    arguments = (CONTAINER, "recovery", settings.drill_memory, user, name, ["infinity"], "sleep")
    # A drill and a restore may want one at the same time.
    with jobs.lock("recovery", wait=True), throw_away.container(*arguments):
        with backup_files.plain(base, key) as stream:
            _inside(["sh", "-c", _UNPACK, "tar", "--gzip"], stream, f"the base of backup {way.base.stamp}")
        _inside(["sh", "-c", _VERIFY], None, f"the base of backup {way.base.stamp}")
        _unpack_wal(pieces, int(about["segment_size"]), key)
        _start(way)
        _wait(way, user)
        # It may be a moment in which a restore was swapping names and let nobody in.
        database.execute(
            f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS true', database="postgres", container=CONTAINER
        )
        yield CONTAINER


def _inside(command: list[str], stdin: IO[bytes] | None, what: str) -> None:
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(
            [docker_cli.DOCKER, "exec", "-i", CONTAINER, *command],
            stdin=subprocess.DEVNULL if stdin is None else stdin, stdout=said, stderr=said, check=False,
        )  # fmt: skip
        if done.returncode:
            said.seek(0)
            text = docker_cli.last_lines(said.read().decode("utf-8", "replace"), 3)
            raise DamagedError(f"{what} is damaged: {text or done.returncode}")


def _unpack_wal(pieces: Mapping[str, str], segment_size: int, key: str) -> None:
    """Every segment into pg_wal, as a stream: no plain copy lies on the machine but in the container."""
    process = subprocess.Popen(
        [docker_cli.DOCKER, "exec", "-i", CONTAINER, "sh", "-c", _UNPACK, "tar"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    target = pipe(process.stdin)
    try:
        with target, tarfile.open(fileobj=target, mode="w|") as archive:
            for segment, path in pieces.items():
                content = _segment(path, key)
                if len(content) != segment_size:
                    raise DamagedError(f"{os.path.basename(path)}: found {len(content)} bytes, expected {segment_size}")
                entry = tarfile.TarInfo(f"pg_wal/{segment}")
                entry.size, entry.mode = segment_size, 0o600
                archive.addfile(entry, io.BytesIO(content))
        if process.wait():
            raise jobs.JobError(f"the WAL cannot be unpacked in {CONTAINER}: tar ended with {process.returncode}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _segment(path: str, key: str) -> bytes:
    try:
        with backup_files.plain(path, key) as stream, gzip.open(stream) as content:
            return bytes(content.read())
    except (OSError, EOFError, zlib.error) as error:
        raise DamagedError(f"{os.path.basename(path)}: cannot be read ({error}): {path} is damaged") from error


def _start(way: Way) -> None:
    target = time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(way.moment))
    options = [word for each in (*_SETTINGS, f"recovery_target_time={target}") for word in ("-c", each)]
    command = ["exec", "--detach", CONTAINER, "sh", "-c", _START, "postgres", *options, *throw_away.SPEED]
    docker_cli.run(command)


def _wait(way: Way, user: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not throw_away.answers(CONTAINER, user):
        ended = docker_cli.run(["exec", CONTAINER, "cat", "/tmp/ended"], check=False)
        if ended.ok or time.monotonic() > deadline:
            said = docker_cli.run(["exec", CONTAINER, "tail", "-n", "20", _LOG], check=False).stdout
            if way.missing:
                raise jobs.JobError(
                    f"dagster_restore_to: found {releases.stamp(way.moment)}; the WAL in {way.place.name} does not "
                    f"lead there: segment {way.missing} is missing. Expected a moment before that, or after the next "
                    "base. Nothing has been touched"
                )
            fatal = "\n".join(line for line in said.splitlines() if "FATAL" in line or "PANIC" in line)
            raise DamagedError(
                f"the WAL behind the base of backup {way.base.stamp} cannot be recovered from: "
                f"{docker_cli.last_lines(fatal or said, 4) or 'PostgreSQL hangs'}"
            )
        time.sleep(0.5)
