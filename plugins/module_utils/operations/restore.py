# SPDX-License-Identifier: Apache-2.0
"""``dagster-gce restore``: bring a backup back, onto this machine or another one's onto this."""

from __future__ import annotations

import argparse
import sys

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_settings,
    database,
    drill,
    jobs,
    recovery,
    restore_plan,
    restore_run,
)

JOB = "restore"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("backup", nargs="?", default="", help="a stamp (`dagster-gce backup list`); latest")
    parser.add_argument("--to", default="", help="a moment in UTC (2026-11-30T12:00:00Z), or latest: continuous backup")
    parser.add_argument(
        "--place", choices=("auto", "directory", "bucket"), default="auto", help="where it is taken from"
    )
    parser.add_argument("--identity", default="", help="file with age's private key; - reads it from standard input")
    parser.add_argument("--plan", action="store_true", help="say what would be done and lost, and touch nothing")
    parser.add_argument("--confirm", action="store_true", help="restore although runs get lost")
    parser.add_argument("--without-backup", action="store_true", help="take no backup of the present state first")
    parser.add_argument("--drop-old", action="store_true", help="remove the databases that restores have put aside")
    parser.add_argument("--back", action="store_true", help="swap the database that the last restore put aside back")


def main(arguments: argparse.Namespace) -> int:
    """Do it."""
    try:
        if arguments.drop_old:
            print(restore_run.drop_old())
            return 0
        if arguments.back:
            return jobs.run(JOB, restore_run.back, wait=True)
        if not arguments.backup and not arguments.to:
            raise jobs.JobError(
                "which backup? expected a stamp, `latest` or --to MOMENT; `dagster-gce backup list` shows them"
            )
        if arguments.backup and arguments.to:
            raise jobs.JobError(f"found the backup {arguments.backup} and --to {arguments.to}; expected one of them")
        settings = backup_settings.load()
        wanted = restore_plan.Wanted(
            arguments.backup, arguments.place, drill.read_identity(arguments.identity), arguments.confirm,
            arguments.without_backup,
        )  # fmt: skip
        if arguments.to:
            wanted = recovery.prepare(settings, wanted, arguments.to, restore_run.unfinished(), _say)
        restore_run.refuse(settings, wanted, without_loss=not arguments.plan)
        if arguments.plan:
            print(restore_plan.make(settings, wanted).text())
            return 0
        status = jobs.run(JOB, lambda: restore_run.restore(settings, wanted, progress=_say), wait=True)
        if arguments.to and not status:
            recovery.forget(settings)
        return status
    except (jobs.JobError, database.DatabaseError, docker_cli.DockerError, OSError) as error:
        print(f"restore: {error}", file=sys.stderr)
        return 1


def _say(text: str) -> None:
    """At once, also into a file: a restore takes its time."""
    print(text, flush=True)
