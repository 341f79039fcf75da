# SPDX-License-Identifier: Apache-2.0
"""``dagster-gce drill``: restore the newest backup into a throw-away PostgreSQL and prove that it is whole."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_files,
    backup_place,
    backup_settings,
    backup_storage,
    backup_take,
    jobs,
    recovery,
    restore_database,
    throw_away,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_files import DamagedError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_manifest import Manifest
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_settings import Settings

JOB = "drill"
CONTAINER = "dagster-gce-drill"
FOLDER = ".drill"
START_SECONDS = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--backup", default="latest", help="a stamp; latest")
    parser.add_argument(
        "--place", choices=("auto", "directory", "bucket"), default="auto", help="where it is taken from"
    )
    parser.add_argument("--identity", default="", help="file with age's private key; - reads it from standard input")
    parser.add_argument("--wait", action="store_true", help="wait for a drill that is running")


def main(arguments: argparse.Namespace) -> int:
    """Do it."""
    try:
        secret = read_identity(arguments.identity)
        refuse(backup_settings.load(), arguments.backup, arguments.place, secret)
    except OSError as error:
        print(f"--identity {arguments.identity}: {error.strerror}", file=sys.stderr)
        return 2
    except jobs.JobError as error:
        print(f"drill: {error}", file=sys.stderr)
        return 1

    def work() -> jobs.Result:
        return drill(backup_settings.load(), arguments.backup, arguments.place, secret)

    return jobs.run(JOB, work, wait=arguments.wait)


def refuse(settings: Settings, wanted: str, place_name: str, identity: str) -> None:
    """Refuse a backup that does not exist and a key that is another's, which are mistakes of whoever asks.

    Said before the job begins, they are not kept as its failure. What is damaged is the job's to find.

    Raises:
        jobs.JobError: no such backup, not this key.
    """
    if wanted == "latest" and not identity:
        return
    try:
        place = backup_take.choose(settings, place_name)
        manifest = backup_place.find(place, wanted)
        if not manifest.encrypted or not identity:
            return
        name = manifest.file("machine.tar.gz")
        with backup_files.identity_file(identity) as key, tempfile.TemporaryDirectory(dir=jobs.LOCKS) as folder:
            path = place.fetch(f"{manifest.stamp}/{name}", manifest.files[name].size, os.path.join(folder, name))
            backup_files.check_identity(key, path)
    except DamagedError:
        return


def read_identity(path: str) -> str:
    """age's private key from a file or standard input; empty where none is named."""
    if path == "-":
        return sys.stdin.read()
    if not path:
        return ""
    with open(path, encoding="utf-8") as stream:
        return stream.read()


def drill(settings: Settings, wanted: str = "latest", place_name: str = "auto", identity: str = "") -> jobs.Result:
    """Prove a backup, from where it is farthest. Needs the lock of the job ``drill``.

    Raises:
        jobs.JobError: it cannot be restored, and why. Its details name the last backup that could.
    """
    proven = jobs.state(JOB).get("details", {}).get("proven", "")
    try:
        return _drill(settings, wanted, place_name, identity or settings.identity, proven)
    except jobs.JobError as error:
        error.details = {"proven": proven}  # type: ignore[attr-defined]  # kept in the state file
        raise


def _drill(settings: Settings, wanted: str, place_name: str, identity: str, proven: str) -> jobs.Result:
    started = time.monotonic()
    place = backup_take.choose(settings, place_name)
    manifest = backup_place.find(place, wanted)
    _remove_leftovers(settings)
    with _folder(settings, manifest.stamp) as folder, backup_files.identity_file(identity) as key:
        paths = backup_place.fetch(place, manifest, folder, settings)
        if manifest.encrypted and not key:
            if settings.continuous:
                recovery.compare(settings, place, folder)
            return _checksums_only(place, manifest, proven, started)
        backup_files.check_identity(key, paths[manifest.file("database.dump")])
        archives = _read_archives(manifest, paths, key)
        rows = _restore(settings, manifest, paths[manifest.file("database.dump")], key)
        continuous = recovery.prove(settings, place, folder, key) if settings.continuous else ""
    seconds = time.monotonic() - started
    age = time.time() - manifest.moment
    run = (manifest.database["newest_run"] or {}).get("run_id", "none")
    return jobs.Result(
        summary=f"{manifest.stamp} from {place.name} restored in {seconds:.1f} s: {rows} rows in "
        f"{len(manifest.tables)} tables as in the manifest, last run {run}, {archives} files of the storage readable"
        f"{continuous}",
        details={
            "stamp": manifest.stamp,
            "place": place.name,
            "seconds": round(seconds, 1),
            "rows": rows,
            "proven": manifest.stamp,
            "restored": True,
        },
        metrics=_metrics(seconds, age),
    )


def _checksums_only(place: backup_place.Place, manifest: Manifest, proven: str, started: float) -> jobs.Result:
    seconds = time.monotonic() - started
    return jobs.Result(
        summary=f"{manifest.stamp} from {place.name}: its checksums are right; not restored, for want of the key",
        details={"stamp": manifest.stamp, "place": place.name, "proven": proven, "restored": False},
        problems=[
            jobs.Problem(
                "drill_identity",
                jobs.WARNING,
                f"the drill has compared the checksums of backup {manifest.stamp} and has not restored it, since it is "
                "encrypted and this machine does not have the private key; run restore_drill.yml with "
                "dagster_backup_identity from time to time",
            )
        ],
        metrics=_metrics(seconds, time.time() - manifest.moment),
    )


def _read_archives(manifest: Manifest, paths: dict[str, str], key: str) -> int:
    """Read every archive to its end; how many files those of the storage hold."""
    number = 0
    for name in [manifest.file("machine.tar.gz"), *manifest.logs]:
        try:
            with backup_files.plain(paths[name], key) as stream:
                for _, content in backup_storage.members(stream):
                    while content.read(backup_files.BLOCK):
                        pass
                    number += name in manifest.logs
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise DamagedError(f"{name} of backup {manifest.stamp} cannot be read: {error}") from error
    return number


def _restore(settings: Settings, manifest: Manifest, dump: str, key: str) -> int:
    """Restore the dump and compare every table; returns the number of rows."""
    throw_away.require_room(settings, int(manifest.database["size"]) * 3 // 2, "a drill")
    command = ["postgres", *throw_away.SPEED]
    with throw_away.container(CONTAINER, "drill", settings.drill_memory, throw_away.USER, throw_away.USER, command):
        _wait_for_postgres()
        restore_database.load(CONTAINER, throw_away.USER, dump, key)
        rows = restore_database.compare(manifest, throw_away.USER, CONTAINER)
        revision = restore_database.schema_revision(throw_away.USER, CONTAINER)
    if revision != manifest.content["schema_revision"]:
        raise DamagedError(
            f"backup {manifest.stamp}: found Dagster's schema at revision {revision!r}, expected "
            f"{manifest.content['schema_revision']!r}"
        )
    return rows


def _wait_for_postgres() -> None:
    deadline = time.monotonic() + START_SECONDS
    while not throw_away.answers(CONTAINER, throw_away.USER):
        found = docker_cli.inspect("container", CONTAINER)
        if found is None or not found["State"]["Running"] or time.monotonic() > deadline:
            said = docker_cli.run(["logs", "--tail", "5", CONTAINER], check=False)
            raise jobs.JobError(f"the drill's PostgreSQL does not start: {docker_cli.last_lines(said.stderr, 3)}")
        time.sleep(0.5)


def _remove_leftovers(settings: Settings) -> None:
    throw_away.remove(CONTAINER)
    shutil.rmtree(os.path.join(settings.directory, FOLDER), ignore_errors=True)


@contextlib.contextmanager
def _folder(settings: Settings, stamp: str) -> Iterator[str]:
    """A folder for downloads; it says which backup is not to be removed meanwhile."""
    path = os.path.join(settings.directory, FOLDER)
    os.makedirs(path, mode=0o700)
    try:
        with open(os.path.join(settings.directory, backup_take.IN_USE), "w", encoding="utf-8") as stream:
            stream.write(stamp)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _metrics(seconds: float, age: float) -> list[jobs.Metric]:
    return [
        jobs.Metric("dagster_gce_drill_duration_seconds", round(seconds, 3), "How long the last restore drill took."),
        jobs.Metric(
            "dagster_gce_drill_backup_age_seconds", round(age), "Age of the backup that the last drill proved."
        ),
    ]
