# SPDX-License-Identifier: Apache-2.0
"""``dagster-gce backup``: take one; ``backup list`` and ``backup verify``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import releases
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_place,
    backup_settings,
    backup_take,
    jobs,
    recovery_plan,
    wal_files,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_files import (
    DamagedError,
    check,
    megabytes,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_settings import Settings

JOB = "backup"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--reason", default="timer", help="why: what is not the timer's stays a week at least")
    parser.add_argument("--wait", action="store_true", help="wait for a backup that is being taken")
    parts = parser.add_subparsers(dest="action", metavar="ACTION")
    listed = parts.add_parser("list", help="the backups that are there")
    listed.add_argument("--json", action="store_true", help="for programs")
    verify = parts.add_parser("verify", help="read a backup again and compare its checksums")
    verify.add_argument("backup", nargs="?", default="latest", help="a stamp; latest")


def main(arguments: argparse.Namespace) -> int:
    """Do it."""
    if arguments.action is None:
        return jobs.run(JOB, lambda: backup_take.take(backup_settings.load(), arguments.reason), wait=arguments.wait)
    try:
        settings = backup_settings.load()
        if arguments.action == "list":
            return _list(settings, arguments.json)
        return _verify(settings, arguments.backup)
    except jobs.JobError as error:
        print(f"backup {arguments.action}: {error}", file=sys.stderr)
        return 1


def _list(settings: Settings, as_json: bool) -> int:
    found: list[dict[str, Any]] = []
    for place in backup_take.places(settings):
        for stamp in place.stamps():
            entry: dict[str, Any] = {"stamp": stamp, "place": place.name}
            try:
                manifest = backup_place.manifest(place, stamp)
                run = manifest.database["newest_run"] or {}
                entry |= {
                    "size": manifest.size, "encrypted": manifest.encrypted, "reason": manifest.reason,
                    "base": bool(manifest.base),
                    "rows": sum(manifest.tables.values()), "runs": manifest.tables.get("runs", 0),
                    "newest_run": run.get("run_id", ""), "damaged": "",
                }  # fmt: skip
            except DamagedError as error:
                entry["damaged"] = str(error)
            found.append(entry)
    if as_json:
        print(json.dumps(found, indent=1))
        return 0
    for entry in found:
        if entry["damaged"]:
            print(f"{entry['stamp']}  {entry['place']}  DAMAGED: {entry['damaged']}")
        else:
            print(
                f"{entry['stamp']}  {entry['place']}  {megabytes(entry['size']):>9}  {entry['runs']} runs"
                f"  {'encrypted' if entry['encrypted'] else 'plain'}  {entry['reason']}"
                + ("  with a base" if entry["base"] else "")
            )
    for place in backup_take.places(settings):
        for first, last in recovery_plan.ranges(place):
            print(f"{place.name}: any moment from {releases.stamp(first)} to {releases.stamp(last)}")
    if not found:
        print("no backups")
    return 0


def _verify(settings: Settings, wanted: str) -> int:
    place = backup_place.Directory(settings.directory)
    started = time.monotonic()
    manifest = backup_place.find(place, wanted)
    for name, stored in manifest.files.items():
        check(f"{place.path}/{manifest.stamp}/{name}", stored.size, stored.sha256)
    for name, stored in manifest.logs.items():
        check(f"{place.path}/logs/{name}", stored.size, stored.sha256)
    pieces = [piece for name in place.names(wal_files.FOLDER) if (piece := wal_files.parse(name))]
    for piece in pieces:
        path = f"{place.path}/{piece.path}"
        # A mark that a newer one has replaced meanwhile is nobody's loss.
        if not piece.until or os.path.exists(path):
            check(path, os.path.getsize(path), piece.sha256)
    number = len(manifest.files) + len(manifest.logs) + len(pieces)
    print(f"{manifest.stamp}: {number} files are what they were ({time.monotonic() - started:.1f} s)")
    return 0
