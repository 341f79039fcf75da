# SPDX-License-Identifier: Apache-2.0
"""What a restore would do and what would be lost, before anything is touched."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli, releases
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_files,
    backup_place,
    backup_take,
    config,
    database,
    jobs,
    restore_swap,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_files import megabytes
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_manifest import Manifest
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_settings import Settings

# Runs that the plays launch as a proof are nobody's loss.
_PROOF = "NOT EXISTS (SELECT 1 FROM run_tags t WHERE t.run_id = r.run_id AND t.key = 'dataops.dagster_gce/proof')"
_SHOWN = 10
# The reason of the backups that restores take.
BEFORE_A_RESTORE = "restore"


@dataclass(frozen=True)
class Wanted:
    """What was asked for."""

    backup: str
    place: str = "auto"
    identity: str = ""
    confirm: bool = False
    without_backup: bool = False
    # Where it stands, if not at ``place``: what a recovery has made.
    source: backup_place.Place | None = None


@dataclass
class Plan:
    """A backup, and what of the present it would replace."""

    place: backup_place.Place
    manifest: Manifest
    lost: int = 0
    shown: list[str] = field(default_factory=list)

    def text(self) -> str:
        """For people."""
        found = self.manifest
        run = found.database["newest_run"] or {}
        last = f"last run {run['run_id']} ({run['job']}, {run['status']})" if run else "no run"
        lines = [
            f"backup {found.stamp} of {found.content.get('host', 'an unknown machine')} from {self.place.name}: "
            f"Dagster {found.content['versions']['dagster'] or 'unknown'}, PostgreSQL {found.postgres_major}, "
            f"{megabytes(found.size)}, {sum(found.tables.values())} rows, {found.tables.get('runs', 0)} runs, {last}",
        ]
        if found.database.get("in_flight"):
            lines.append(f"{found.database['in_flight']} runs were in flight when it was taken; they end as failed")
        if self.lost:
            lines.append(f"{self.lost} runs of this machine are not in it and would be lost:")
            lines += [f"  {each}" for each in self.shown]
            if self.lost > len(self.shown):
                lines.append(f"  and {self.lost - len(self.shown)} older ones")
        else:
            lines.append("no run of this machine would be lost")
        return "\n".join(lines)


def make(settings: Settings, wanted: Wanted) -> Plan:
    """Find the backup, see whether it can be restored here, and what would be lost.

    Raises:
        jobs.JobError: it cannot, and why.
    """
    place = wanted.source or backup_take.choose(settings, wanted.place)
    # The newest one may be what the last restore (this one, before it was killed) has taken of what it replaced.
    manifest = backup_place.find(place, wanted.backup, but=BEFORE_A_RESTORE)
    _check_versions(manifest)
    _check_room(settings, manifest)
    backup_place.require_key(manifest, wanted.identity or settings.identity)
    plan = Plan(place, manifest)
    look_at_what_is_lost(plan)
    return plan


def _check_versions(manifest: Manifest) -> None:
    found = int(database.query("SHOW server_version_num", database="postgres")[0][0]) // 10000
    if found < manifest.postgres_major:
        raise jobs.JobError(
            f"backup {manifest.stamp} was made by PostgreSQL {manifest.postgres_major}: found PostgreSQL {found} on "
            f"this machine; expected {manifest.postgres_major} or newer: upgrade it first (playbooks/upgrade.yml)"
        )
    made_by = str(manifest.content["versions"]["dagster"])
    image = docker_cli.inspect("container", config.stack().daemon_container)
    if image is None:
        raise jobs.JobError("this machine has no Dagster yet; run site.yml first")
    here = restore_swap.dagster_version()
    if made_by and here and _version(made_by) > _version(here):
        raise jobs.JobError(
            f"backup {manifest.stamp} was made by Dagster {made_by}: found Dagster {here} on this machine, which does "
            f"not know its database's schema; expected {made_by} or newer: run site.yml with that version first"
        )


def fresh_system() -> str:
    """The number of this machine's cluster, if it has no runs but those of the plays: it was just made; else empty."""
    name = restore_swap.main_database()
    runs = f"SELECT count(*) FROM runs r WHERE {_PROOF}"  # noqa: S608
    there = database.query("SELECT to_regclass('runs') IS NOT NULL", database=name) == [["t"]]
    return "" if there and database.query(runs, database=name) != [["0"]] else _system()


def _system() -> str:
    """The number of this machine's cluster."""
    return database.query("SELECT system_identifier FROM pg_control_system()", database="postgres")[0][0]


def _version(text: str) -> tuple[int, ...]:
    parts = []
    for part in text.split(".")[:3]:
        digits = "".join(each for each in part if each.isdigit())
        parts.append(int(digits or 0))
    return tuple(parts)


def _check_room(settings: Settings, manifest: Manifest) -> None:
    """The restored database stands beside the present one."""
    folder = docker_cli.run(["info", "--format", "{{.DockerRootDir}}"]).stdout.strip() or "/var/lib/docker"
    if os.path.isdir(folder):
        floor = backup_files.floor_of(folder, settings.min_free_bytes, settings.min_free_percent) // 2
        needed = int(manifest.database["size"]) * 5 // 4
        backup_files.require_room(folder, floor, f"the database of backup {manifest.stamp}", needed)


def look_at_what_is_lost(plan: Plan) -> None:
    """Note the runs that are in this machine's database and not in the backup."""
    restore_swap.heal()
    name = restore_swap.main_database()
    if database.query("SELECT to_regclass('runs') IS NOT NULL", database=name) != [["t"]]:
        return
    newest = plan.manifest.database["newest_run"]
    known = database.query(f"SELECT id FROM runs WHERE run_id = '{newest['run_id']}'", database=name) if newest else []  # noqa: S608
    # The machine's own backup: what came after it. Another machine's, or another history: everything. Of the very
    # cluster whose WAL was recovered the last run may be one that somebody has removed since.
    later = f"r.id > {int(known[0][0])}" if known else "true"
    system = plan.manifest.content.get("system")
    if not known and system and system == _system():
        later = f"r.create_timestamp > to_timestamp({plan.manifest.moment:.0f}) AT TIME ZONE 'UTC'"
    plan.lost = int(database.query(f"SELECT count(*) FROM runs r WHERE {later} AND {_PROOF}", database=name)[0][0])  # noqa: S608
    rows = database.query(
        "SELECT run_id, pipeline_name, status, extract(epoch FROM create_timestamp)::bigint FROM runs r"  # noqa: S608
        f" WHERE {later} AND {_PROOF} ORDER BY id DESC LIMIT {_SHOWN}",
        database=name,
    )
    plan.shown = [f"{row[0]}  {row[1]}  {row[2]}  {releases.stamp(float(row[3] or 0))}" for row in rows]
