# SPDX-License-Identifier: Apache-2.0
"""``dagster-gce wal``: what is received of the WAL becomes part of the backups; ``wal receive`` is who receives it."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli, releases
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_base,
    backup_files,
    backup_place,
    backup_retention,
    backup_settings,
    backup_take,
    config,
    database,
    jobs,
    throw_away,
    wal_server,
    wal_store,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_settings import Settings
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.wal_files import Piece
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.wal_server import Server

JOB = "wal"
CONTAINER = "dagster-gce-receive"
# A base that could not be taken is not asked for again at once.
ASK_AGAIN = 900.0
# For how long the status tells of a gap that a new base has ended.
TELL_SECONDS = 86400.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("action", nargs="?", choices=("store", "receive"), default="store", help="default: store")


def main(arguments: argparse.Namespace) -> int:
    """Do it."""
    if arguments.action == "store":
        return jobs.run(JOB, lambda: store(backup_settings.load()), quiet=True)
    try:
        receive(backup_settings.load())
    except (jobs.JobError, database.DatabaseError, docker_cli.DockerError, OSError) as error:
        print(f"wal receive: {error}", file=sys.stderr)
    return 1


def receive(settings: Settings) -> None:
    """Become PostgreSQL's own receiver, in a container of the stack's image; returns never.

    Raises:
        jobs.JobError: it cannot be started. systemd tries again.
    """
    user = wal_server.environment()["POSTGRES_USER"]
    server = wal_server.look()
    folder = wal_store.spool(settings, server.system)
    docker_cli.run(["rm", "--force", CONTAINER], check=False, timeout=120)
    _require_room(settings)
    wal_server.limit(settings.continuous_slot_bytes)
    slot = wal_server.slot()
    if slot is None or slot.lost:
        with jobs.lock(JOB, wait=True):
            # Behind what is here there is a gap then, for whose WAL the receiver would ask again and again.
            wal_store.store_whole(settings, server.system)
            shutil.rmtree(folder)
            wal_store.spool(settings, server.system)
            wal_server.make_slot()
    stack = config.stack().postgres_container
    # root without any capability, to whom the folder belongs; trusted by pg_hba.conf on the loopback that it shares.
    command = [
        docker_cli.DOCKER, "run", "--rm", "--name", CONTAINER, "--label", "dataops.dagster_gce=receive",
        "--network", f"container:{stack}", "--user", "0:0", "--cap-drop", "ALL",
        "--security-opt", "no-new-privileges=true", "--read-only", "--pids-limit", "16", "--memory", "128m",
        "--log-driver", "none", "--volume", f"{folder}:/wal", "--entrypoint", "pg_receivewal", throw_away.image(),
        "--host", "127.0.0.1", "--username", user, "--no-password", "--directory", "/wal", "--slot", wal_server.SLOT,
        "--synchronous", "--no-loop",
    ]  # fmt: skip
    sys.stdout.flush()
    os.execvp(command[0], command)  # noqa: S606 (nothing of it is a shell's)


def _require_room(settings: Settings) -> None:
    floor = backup_files.floor_of(settings.directory, settings.min_free_bytes, settings.min_free_percent)
    backup_files.require_room(settings.directory, floor, "the WAL")


def store(settings: Settings) -> jobs.Result:
    """Store what is received, send it to the bucket. Needs the lock of the job ``wal``.

    What fails for a moment (PostgreSQL starts again, Google does not answer) is no problem before it is overdue.
    """
    before: dict[str, Any] = jobs.state(JOB).get("details", {})
    details: dict[str, Any] = {"since": time.time(), "until": "", "uploaded": "", "sent": {}, "gap": {}, **before}
    result = jobs.Result(details=details)
    try:
        server = wal_server.look()
        mark = wal_server.mark(server)
        wal_server.wait_until_received(mark.lsn)
        stored = wal_store.store_whole(settings, server.system)
        until = backup_retention.stamp(mark.moment)
        piece = wal_store.store_mark(settings, server, mark, until)
        details["until"] = until
        result.summary = f"received up to {until}, {stored} new segments in {settings.directory}"
        _look_for_gaps(settings, server, mark.segment, details, before)
        if settings.bucket:
            _send(settings, piece, until, result)
        found = wal_server.slot()
        retained = found.retained if found else 0
    except (jobs.JobError, database.DatabaseError, docker_cli.DockerError, OSError) as error:
        retained = 0
        _late(settings, "wal_received", "until", f"history is not kept: {error}", result)
        try:
            _require_room(settings)
        except jobs.JobError:
            # Else it would fill the disk; it starts again when there is room. PostgreSQL keeps a limited part for it.
            docker_cli.run(["rm", "--force", CONTAINER], check=False, timeout=120)
    result.problems += _gaps(details)
    result.metrics = _metrics(settings, details, retained)
    return result


def _send(settings: Settings, mark: Piece, until: str, result: jobs.Result) -> None:
    try:
        bucket = backup_take.bucket(settings)
        result.details["sent"] = wal_store.send(settings, bucket, mark, result.details["sent"])
        result.details["uploaded"] = until
        result.summary += f", in {bucket.name}"
    except jobs.JobError as error:
        _late(settings, "wal_uploaded", "uploaded", f"history does not reach the bucket: {error}", result)


def _late(settings: Settings, name: str, key: str, text: str, result: jobs.Result) -> None:
    """A problem, where the moment that ``key`` names is too long ago."""
    result.summary = text
    since = backup_retention.moment_of(result.details[key]) or result.details["since"]
    if time.time() - since > settings.continuous_overdue:
        last = releases.stamp(since) if result.details[key] else "nothing"
        result.ok = False
        result.problems.append(jobs.Problem(name, jobs.CRITICAL, f"found the WAL up to {last}: {text}"))


def _look_for_gaps(
    settings: Settings, server: Server, segment: str, details: dict[str, Any], before: dict[str, Any]
) -> None:
    """Ask for a base where none stands before an unbroken WAL."""
    directory = backup_place.Directory(settings.directory)
    found = backup_base.newest(directory, server.system)
    reason = backup_base.broken(directory, found, server, segment)
    details["base"] = found.stamp if found else ""
    if found is None and before.get("base"):
        # Somebody has removed the backups.
        details["asked"] = 0.0
    if details["gap"]:
        base = backup_base.newest(directory, server.system, details["gap"]["base"])
        if not backup_base.broken(directory, base, server, segment):
            # What was missing is there again.
            details["gap"] = {}
    if reason and found and details["gap"].get("base") != found.stamp:
        # The mark before this one: up to there it was whole.
        details["gap"] = {"base": found.stamp, "from": before.get("until", ""), "noticed": time.time(), "to": ""}
        details["asked"] = 0.0
    if details["gap"] and not details["gap"]["to"] and not reason and found:
        details["gap"]["to"] = found.stamp
    if reason and time.time() - float(details.get("asked", 0)) > ASK_AGAIN:
        details["asked"] = time.time()
        # Its base is due; not waited for.
        subprocess.run(["systemctl", "start", "--no-block", "dagster-gce-backup.service"], check=False, timeout=30)


def _gaps(details: dict[str, Any]) -> list[jobs.Problem]:
    gap = details["gap"]
    if not gap or (gap["to"] and time.time() - gap["noticed"] > TELL_SECONDS):
        return []
    end = f"the base of backup {gap['to']}" if gap["to"] else "the next base, which is asked for"
    return [
        jobs.Problem(
            "wal_gap",
            jobs.WARNING if gap["to"] else jobs.CRITICAL,
            f"a part of the WAL is missing: no moment between {gap['from'] or gap['base']} and {end} can be restored; "
            "`journalctl -u dagster-gce-receive` tells for how long it was not received",
        )
    ]


def _metrics(settings: Settings, details: dict[str, Any], retained: int) -> list[jobs.Metric]:
    found = [
        jobs.Metric("dagster_gce_wal_retained_bytes", retained, "WAL that PostgreSQL keeps for the receiver."),
    ]
    for key, name, what in (
        ("until", "received", "Up to when everything is received from PostgreSQL."),
        ("uploaded", "uploaded", "Up to when everything is in the bucket."),
        ("base", "base", "When the newest base backup was taken."),
    ):
        moment = backup_retention.moment_of(details.get(key) or "")
        if moment is not None and (key != "uploaded" or settings.bucket):
            found.append(jobs.Metric(f"dagster_gce_wal_{name}_timestamp_seconds", moment, what))
    return found
