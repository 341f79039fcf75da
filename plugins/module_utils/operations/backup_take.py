# SPDX-License-Identifier: Apache-2.0
"""Taking a backup: everything into a folder that nobody looks at, the manifest last, then the folder's name."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tarfile
import time
from dataclasses import asdict
from typing import IO, Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files, graphql
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_base,
    backup_bucket,
    backup_database,
    backup_files,
    backup_manifest,
    backup_place,
    backup_retention,
    backup_storage,
    config,
    database,
    jobs,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_files import Stored, megabytes
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_manifest import Manifest
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_settings import Settings

_SECRETS = (".env", "dagster_home/secrets")
# What of /opt/dagster belongs to a backup, secrets aside.
_MACHINE = ("dagster_home", "docker-compose-GCE.yml", "releases", "deploys.jsonl")
_OWN = files.Owner(0, 0, 0o600)
# The stamp of the backup that a drill reads.
IN_USE = ".drill/in-use"


def places(settings: Settings) -> list[backup_place.Place]:
    """Where backups stand, the nearest first."""
    found: list[backup_place.Place] = [backup_place.Directory(settings.directory)]
    if settings.bucket:
        found.append(bucket(settings))
    return found


def choose(settings: Settings, name: str) -> backup_place.Place:
    """A place by name; ``auto`` is the farthest: the bucket, if there is one."""
    found = places(settings)
    if name == "bucket" and not settings.bucket:
        raise jobs.JobError("there is no bucket: found dagster_backup_bucket empty; expected its name")
    return found[0] if name == "directory" else found[-1]


def bucket(settings: Settings) -> backup_bucket.Bucket:
    """The bucket of the settings."""
    return backup_bucket.make(settings.bucket, settings.prefix, settings.endpoint, settings.key_file)


def take(settings: Settings, reason: str = "timer", prune: bool = True) -> jobs.Result:
    """Take a backup, send it to the bucket, remove what is old. Needs the lock of the job ``backup``.

    Args:
        reason: ``timer``, or who asked for it.
        prune: whether old ones are removed; not before a restore, which may want one of them.

    Raises:
        jobs.JobError: there is no new backup; nothing of it is left.
    """
    directory = backup_place.Directory(settings.directory)
    directory.prepare()
    started = time.monotonic()
    problems: list[jobs.Problem] = []
    # Before a restore nobody waits for a base.
    manifest = _write(settings, directory, reason, problems if prune else None)
    seconds = time.monotonic() - started
    result = jobs.Result(
        summary=f"{manifest.stamp}: {megabytes(manifest.size)} in {seconds:.1f} s, "
        f"{sum(manifest.tables.values())} rows, {manifest.tables.get('runs', 0)} runs",
        details={"stamp": manifest.stamp, "size": manifest.size, "seconds": round(seconds, 1), "bucket": ""},
        problems=problems,
    )
    if manifest.base:
        result.summary += f", with a base of {megabytes(manifest.files[manifest.file(backup_manifest.BASE)].size)}"
    sent: bool | None = None
    if settings.bucket:
        sent = _send(settings, directory, manifest, result)
    result.details["removed"] = _remove_expired(directory, settings) if prune else []
    result.problems += _restored_over()
    result.metrics = _metrics(directory, manifest, seconds, sent)
    return result


def _write(
    settings: Settings, directory: backup_place.Directory, reason: str, problems: list[jobs.Problem] | None
) -> Manifest:
    container = config.stack().postgres_container
    backup_database.end_leftovers()
    floor = backup_files.floor_of(directory.path, settings.min_free_bytes, settings.min_free_percent)
    backup_files.require_room(directory.path, floor, "a backup", _estimate(directory))
    moment = time.time()
    if backup_retention.stamp(moment) in directory.stamps():
        time.sleep(1)
        moment = time.time()
    stamp = backup_retention.stamp(moment)
    partial = os.path.join(directory.path, backup_place.PARTIAL + stamp)
    os.mkdir(partial, 0o700)
    suffix = backup_files.ENCRYPTED if settings.recipients else ""
    written: dict[str, Stored] = {}
    try:
        with backup_database.snapshot(container) as seen:
            contents = seen.contents()
            versions = {"dagster": _dagster_version(), "postgres": seen.version()}
            revision = seen.schema_revision()
            name = f"database.dump{suffix}"
            source = backup_database.dump(container, seen.id, settings.compression)
            written[name] = backup_files.write(os.path.join(partial, name), source, settings.recipients, floor)
        base = backup_base.add(settings, os.path.join(partial, backup_manifest.BASE + suffix), floor, written, problems)
        name = f"machine.tar.gz{suffix}"
        source = backup_files.produced(lambda stream: _pack_machine(stream, settings))
        written[name] = backup_files.write(os.path.join(partial, name), source, settings.recipients, floor)
        # After the dump: no run of the dump lacks its logs.
        logs, index = _write_logs(settings, directory, stamp, suffix, floor)
        manifest = Manifest(
            {
                "format": backup_manifest.FORMAT,
                "stamp": stamp,
                "reason": reason,
                "host": socket.gethostname(),
                "seconds": round(time.time() - moment, 3),
                "versions": versions,
                "schema_revision": revision,
                "release": _serving(),
                "database": contents,
                "base": base,
                "recipients": list(settings.recipients),
                "secrets": settings.secrets,
                "files": {each: asdict(stored) for each, stored in written.items()},
                "logs": logs,
            }
        )
        for each, stored in written.items():
            backup_files.check(os.path.join(partial, each), stored.size, stored.sha256)
        files.replace(os.path.join(partial, backup_manifest.NAME), manifest.render(), _OWN)
        os.rename(partial, os.path.join(directory.path, stamp))
        files.sync_folder(directory.path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    # Only now: an index that names an archive of a backup that failed would leave its files out of the next one.
    if index is not None:
        backup_storage.write_index(directory.path, index)
    return manifest


def _estimate(directory: backup_place.Directory) -> int:
    """About how much the next backup takes: as the last one and half as much again, or half the database."""
    stamps = directory.stamps()
    if stamps:
        with contextlib.suppress(backup_files.DamagedError):
            return backup_place.manifest(directory, stamps[-1]).size * 3 // 2
    return int(database.query("SELECT pg_database_size(current_database())")[0][0]) // 2


def _write_logs(
    settings: Settings, directory: backup_place.Directory, stamp: str, suffix: str, floor: int
) -> tuple[list[dict[str, Any]], backup_storage.Index | None]:
    """Archive what is new of the volume; the archives that belong to this backup, and the index for the next one."""
    if settings.storage == "none":
        return [], None
    root = backup_storage.mountpoint()
    folder = os.path.join(directory.path, backup_storage.ARCHIVES)
    there = backup_storage.look(root, settings.storage)
    index = backup_storage.read_index(directory.path)
    # Encrypted for others is as good as not there.
    scope = f"{settings.storage} {' '.join(settings.recipients)}".strip()
    earlier = _archives_of_last(directory)
    known = {name for name in earlier if os.path.exists(os.path.join(folder, name))}
    whole, paths = backup_storage.plan(index, there, scope, settings.logs_full_days, known)
    listed = [] if whole else [earlier[name] for name in index.archives]
    if paths:
        name = f"{stamp}-{'full' if whole else 'part'}.tar.gz{suffix}"
        partial = os.path.join(folder, backup_place.PARTIAL + name)
        try:
            source = backup_files.produced(lambda stream: backup_storage.pack(root, paths, stream))
            stored = backup_files.write(partial, source, settings.recipients, floor)
            backup_files.check(partial, stored.size, stored.sha256)
            os.rename(partial, os.path.join(folder, name))
            files.sync_folder(folder)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial)
            raise
        listed.append({"name": name, "files": len(paths), **asdict(stored)})
    since = time.time() if whole else index.since
    return listed, backup_storage.Index([str(each["name"]) for each in listed], since, scope, there)


def _archives_of_last(directory: backup_place.Directory) -> dict[str, dict[str, Any]]:
    stamps = directory.stamps()
    if not stamps:
        return {}
    with contextlib.suppress(backup_files.DamagedError):
        found = backup_place.manifest(directory, stamps[-1]).content.get("logs", [])
        return {str(each["name"]): dict(each) for each in found}
    return {}


def _pack_machine(target: IO[bytes], settings: Settings) -> None:
    """What was set up on the machine, for people to look at; secrets only where they were asked for."""
    root = config.stack().root

    def wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if entry.name in _SECRETS and not settings.secrets else entry

    with tarfile.open(fileobj=target, mode="w|gz", format=tarfile.PAX_FORMAT) as archive:
        for name in (*_MACHINE, *_SECRETS[:1]):
            with contextlib.suppress(FileNotFoundError):
                archive.add(os.path.join(root, name), arcname=name, filter=wanted)


def _serving() -> dict[str, Any] | None:
    try:
        with open(os.path.join(config.stack().root, "releases", "current", "release.json"), encoding="utf-8") as stream:
            found: dict[str, Any] = json.load(stream)
            return found
    except (OSError, ValueError):
        return None


def _dagster_version() -> str:
    """Dagster's version, by the webserver; empty while it does not answer: a backup does not wait for it."""
    with contextlib.suppress(graphql.GraphQLError):
        return graphql.Webserver(config.stack().webserver_url, timeout=5).version()
    return ""


def _send(settings: Settings, directory: backup_place.Directory, manifest: Manifest, result: jobs.Result) -> bool:
    """Bring the bucket up to date; what goes wrong there is a problem and no lost backup."""
    started = time.monotonic()
    vault = bucket(settings)
    try:
        there = set(vault.stamps())
        stamps = directory.stamps()
        asked_for = _asked_for(directory)
        # What an outage left behind is sent as well, as far as it would stay there.
        gone = backup_retention.expired(
            {*stamps, *there}, settings.bucket_keep, now=time.time(), asked_for=asked_for,
            never=backup_base.needed(directory, settings.continuous_days, time.time()),
        )  # fmt: skip
        missing = [stamp for stamp in stamps if stamp not in there and stamp not in gone]
        for stamp in sorted({*missing, manifest.stamp} - there):
            _upload(vault, directory, stamp)
        result.details["bucket"] = vault.name
        result.details["bucket_seconds"] = round(time.monotonic() - started, 1)
        result.summary += f"; in {vault.name} after {time.monotonic() - started:.1f} s"
    except jobs.JobError as error:
        result.ok = False
        result.summary = f"{result.summary}; it is in {directory.path} only: {error}"
        result.problems.append(
            jobs.Problem("backup_bucket", jobs.CRITICAL, f"backups do not reach the bucket: {error}")
        )
        return False
    if settings.prune_bucket:
        try:
            never = _never(directory) | set(backup_base.needed(vault, settings.continuous_days, time.time()))
            for stamp in backup_retention.expired(
                vault.stamps(), settings.bucket_keep, now=time.time(), never=never, asked_for=asked_for
            ):
                backup_place.remove_backup(vault, stamp)
            backup_place.remove_unused_archives(vault)
            backup_base.remove_unneeded_wal(vault, settings.continuous_days, time.time())
        except jobs.JobError as error:
            advice = (
                "allow storage.objects.delete, or leave it to a lifecycle rule with dagster_backup_bucket_prune: false"
            )
            result.problems.append(
                jobs.Problem("backup_bucket_prune", jobs.WARNING, f"old backups stay in the bucket: {error}; {advice}")
            )
    return True


def _upload(bucket: backup_bucket.Bucket, directory: backup_place.Directory, stamp: str) -> None:
    """One backup: its archives and files first, the manifest last."""
    manifest = backup_place.manifest(directory, stamp)
    there = bucket.objects()
    for name, stored in manifest.logs.items():
        path = f"{backup_storage.ARCHIVES}/{name}"
        if there.get(path) != stored.size:
            bucket.put(os.path.join(directory.path, path), path, stored)
    for name, stored in manifest.files.items():
        bucket.put(os.path.join(directory.path, stamp, name), f"{stamp}/{name}", stored)
    path = os.path.join(directory.path, stamp, backup_manifest.NAME)
    bucket.put(path, f"{stamp}/{backup_manifest.NAME}", backup_files.measure(path))


def _remove_expired(directory: backup_place.Directory, settings: Settings) -> list[str]:
    now = time.time()
    never = _never(directory) | set(backup_base.needed(directory, settings.continuous_days, now))
    gone = backup_retention.expired(
        directory.stamps(), settings.keep, now=now, never=never, asked_for=_asked_for(directory)
    )
    for stamp in gone:
        backup_place.remove_backup(directory, stamp)
    backup_place.remove_unused_archives(directory)
    backup_base.remove_unneeded_wal(directory, settings.continuous_days, now)
    recovered = os.path.join(directory.path, backup_place.RECOVERED)
    if os.path.isdir(recovered) and now - os.stat(recovered).st_mtime > backup_retention.HALF_SECONDS:
        shutil.rmtree(recovered, ignore_errors=True)
    # A folder whose manifest is gone is what a killed removal left.
    for name in os.listdir(directory.path):
        moment = backup_retention.moment_of(name)
        if moment and name not in directory.stamps() and time.time() - moment > backup_retention.HALF_SECONDS:
            shutil.rmtree(os.path.join(directory.path, name), ignore_errors=True)
    return gone


def _asked_for(directory: backup_place.Directory) -> set[str]:
    found = set()
    for stamp in directory.stamps():
        with contextlib.suppress(backup_files.DamagedError):
            if backup_place.manifest(directory, stamp).reason != "timer":
                found.add(stamp)
    return found


def _never(directory: backup_place.Directory) -> set[str]:
    """What stays, whatever its age: the last backup that a drill has restored, and the one that one reads right now."""
    proven = str(jobs.state("drill").get("details", {}).get("proven", ""))
    with contextlib.suppress(OSError), open(os.path.join(directory.path, IN_USE), encoding="utf-8") as stream:
        return {proven, stream.read().strip()}
    return {proven}


def _restored_over() -> list[jobs.Problem]:
    """Databases that restores have put aside and nobody has dropped."""
    rows = database.query(
        "SELECT datname, pg_database_size(datname) FROM pg_database WHERE datname LIKE 'dagster\\_before\\_%'"
    )
    return [
        jobs.Problem(
            f"restore_left_{name}",
            jobs.WARNING,
            f"the database {name} ({megabytes(int(size))}) is what a restore has put aside; when nobody misses "
            "anything of it, `dagster-gce restore --drop-old` removes it",
        )
        for name, size in rows
    ]


def _metrics(
    directory: backup_place.Directory, manifest: Manifest, seconds: float, sent: bool | None
) -> list[jobs.Metric]:
    found = [
        jobs.Metric("dagster_gce_backup_size_bytes", manifest.size, "Size of the newest backup."),
        jobs.Metric("dagster_gce_backup_duration_seconds", round(seconds, 3), "How long the newest backup took."),
        jobs.Metric("dagster_gce_backup_timestamp_seconds", manifest.moment, "When the newest backup was taken."),
        jobs.Metric("dagster_gce_backups", len(directory.stamps()), "Backups on the machine."),
    ]
    if sent is not None:
        found.append(
            jobs.Metric("dagster_gce_backup_uploaded", int(sent), "Whether the newest backup is in the bucket.")
        )
    return found
