# SPDX-License-Identifier: Apache-2.0
"""A dump back into a database, and the proof that all of it is there."""

from __future__ import annotations

import os
import subprocess
import tempfile

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import backup_files, database
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_files import DamagedError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_manifest import Manifest

HOURS = 3600.0
# All or nothing; the owner is who restores, since roles of another machine may have other names.
_LOAD = (
    'exec pg_restore --username="$POSTGRES_USER" --dbname="$1" --no-password --no-owner --no-privileges'
    " --exit-on-error --single-transaction"
)


def load(container: str, name: str, dump: str, key: str) -> None:
    """Restore the file ``dump`` into the empty database ``name``; decrypted on the way, so no plain copy lies anywhere.

    Raises:
        jobs.JobError: PostgreSQL refused it.
        DamagedError: the dump cannot be read to its end.
    """
    command = [docker_cli.DOCKER, "exec", "-i", "-e", "PGOPTIONS", container, "sh", "-c", _LOAD, "pg_restore", name]
    # What the dump's rows are worth is proven after this; until then speed counts.
    environment = {**os.environ, "PGOPTIONS": "-c statement_timeout=0 -c synchronous_commit=off"}
    with tempfile.TemporaryFile() as said, backup_files.plain(dump, key) as stream:
        done = subprocess.run(
            command, stdin=stream, stdout=subprocess.DEVNULL, stderr=said, env=environment, check=False
        )
        if done.returncode:
            said.seek(0)
            text = docker_cli.last_lines(said.read().decode("utf-8", "replace"), 4)
            raise DamagedError(f"{os.path.basename(dump)}: pg_restore failed: {text or done.returncode}")


def compare(manifest: Manifest, name: str, container: str = "") -> int:
    """Compare the rows of every table and the newest run with the manifest; returns the number of rows.

    Raises:
        DamagedError: something is missing.
    """
    expected = manifest.tables
    found = count(name, container)
    if found != expected:
        differ = sorted({*found, *expected}, key=lambda table: (found.get(table) == expected.get(table), table))
        table = differ[0]
        raise DamagedError(
            f"backup {manifest.stamp}: found {found.get(table, 'no')} rows in table {table}, expected "
            f"{expected.get(table, 'no such table')}"
        )
    run = manifest.database["newest_run"]
    if run:
        rows = database.query(
            "SELECT run_id FROM runs ORDER BY id DESC LIMIT 1", timeout=HOURS, database=name, container=container
        )
        if rows != [[run["run_id"]]]:
            raise DamagedError(f"backup {manifest.stamp}: its last run {run['run_id']} is not in the database")
        event = database.query(
            "SELECT coalesce(max(id), 0) FROM event_logs", timeout=HOURS, database=name, container=container
        )
        if int(event[0][0]) != int(manifest.database["newest_event"]):
            raise DamagedError(
                f"backup {manifest.stamp}: its last event {manifest.database['newest_event']} is not in the database"
            )
    return sum(found.values())


def count(name: str, container: str = "") -> dict[str, int]:
    """Rows by table."""
    tables = [
        row[0]
        for row in database.query(
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
            " AND n.nspname !~ '^pg_toast' ORDER BY 1",
            database=name,
            container=container,
        )
    ]
    if not tables:
        return {}
    # Names as PostgreSQL itself quotes them (regclass).
    parts = [f"SELECT '{table}', count(*) FROM {table}" for table in tables]  # noqa: S608
    rows = database.query(" UNION ALL ".join(parts), timeout=HOURS, database=name, container=container)
    return {row[0]: int(row[1]) for row in rows}


def schema_revision(name: str, container: str = "") -> str:
    """The revision of Dagster's schema in a database; empty where it has none."""
    rows = database.query("SELECT to_regclass('alembic_version') IS NOT NULL", database=name, container=container)
    if rows[0][0] != "t":
        return ""
    found = database.query("SELECT version_num FROM alembic_version", database=name, container=container)
    return ",".join(sorted(row[0] for row in found))
