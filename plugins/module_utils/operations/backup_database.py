# SPDX-License-Identifier: Apache-2.0
"""The dump of the database, and what was in it: both of one snapshot, while runs are written."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import database, jobs
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_files import BLOCK, pipe

# PostgreSQL shows it in pg_stat_activity: what a killed backup left is known by it.
APPLICATION = "dagster-gce backup"
_END = "-- dagster-gce: end of the answer"
_TO = '--username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --no-password'
_SESSION = f"exec psql --no-psqlrc --quiet --no-align --tuples-only --set=ON_ERROR_STOP=1 {_TO} --field-separator='\t'"
# Everybody else goes first: a backup may take its time.
_DUMP = f'exec nice -n 10 pg_dump {_TO} --format=custom --compress="$2" --snapshot="$1" --lock-wait-timeout=120s'
# To the end and to nowhere: every block of the dump has to be readable.
_READ_BACK = "exec nice -n 10 pg_restore --file=/dev/null"

_TABLES = """
SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_toast'
ORDER BY 1
"""
_NEWEST_RUN = """
SELECT run_id, status, pipeline_name, id, extract(epoch FROM create_timestamp)::bigint
FROM runs ORDER BY id DESC LIMIT 1
"""
_IN_FLIGHT = "SELECT count(*) FROM runs WHERE status IN ('STARTING', 'STARTED', 'CANCELING');"
_LEFTOVERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = 'dagster-gce backup' AND pid <> pg_backend_pid()
"""


class Snapshot:
    """One transaction that sees the database as it was when it began."""

    def __init__(self, process: subprocess.Popen[str], said: IO[bytes]) -> None:
        self._process = process
        self._said = said
        self.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;")
        self.id = self.ask("SELECT pg_export_snapshot();")[0][0]

    def ask(self, sql: str) -> list[list[str]]:
        """The rows of a statement.

        Raises:
            jobs.JobError: PostgreSQL refused it, or the connection broke.
        """
        asking, answer = pipe(self._process.stdin), pipe(self._process.stdout)
        try:
            asking.write(f"{sql.strip()}\n\\echo '{_END}'\n")
            asking.flush()
            rows = []
            while (line := answer.readline()).rstrip("\n") != _END:
                if not line:
                    raise BrokenPipeError
                rows.append(line.rstrip("\n").split("\t"))
            return rows
        except BrokenPipeError:
            self._process.wait(10)
            self._said.seek(0)
            reason = docker_cli.last_lines(self._said.read().decode("utf-8", "replace"), 3)
            raise jobs.JobError(f"PostgreSQL did not answer the backup: {reason or 'the connection ended'}") from None

    def contents(self) -> dict[str, Any]:
        """What is in the database, as the manifest states it."""
        tables = [row[0] for row in self.ask(f"{_TABLES.strip()};")]
        counts = {}
        if tables:
            # Names as PostgreSQL itself quotes them (regclass).
            parts = [f"SELECT '{name}', count(*) FROM {name}" for name in tables]  # noqa: S608
            counts = {row[0]: int(row[1]) for row in self.ask(" UNION ALL ".join(parts) + ";")}
        found: dict[str, Any] = {
            "name": self.ask("SELECT current_database();")[0][0],
            "size": int(self.ask("SELECT pg_database_size(current_database());")[0][0]),
            "tables": counts,
            "newest_run": None,
            "newest_event": 0,
            "in_flight": 0,
        }
        if "runs" in counts:
            for row in self.ask(f"{_NEWEST_RUN.strip()};"):
                found["newest_run"] = {
                    "run_id": row[0], "status": row[1], "job": row[2], "id": int(row[3]), "created": int(row[4] or 0),
                }  # fmt: skip
            found["in_flight"] = int(self.ask(_IN_FLIGHT)[0][0])
        if "event_logs" in counts:
            found["newest_event"] = int(self.ask("SELECT coalesce(max(id), 0) FROM event_logs;")[0][0])
        return found

    def version(self) -> int:
        """PostgreSQL's version as a number: 170006."""
        return int(self.ask("SHOW server_version_num;")[0][0])

    def schema_revision(self) -> str:
        """The revision of Dagster's schema; empty where there is none."""
        if self.ask("SELECT to_regclass('alembic_version') IS NOT NULL;")[0][0] != "t":
            return ""
        return ",".join(sorted(row[0] for row in self.ask("SELECT version_num FROM alembic_version;")))


@contextlib.contextmanager
def snapshot(container: str) -> Iterator[Snapshot]:
    """A snapshot of the stack's database, as long as the block runs."""
    environment = {**os.environ, "PGAPPNAME": APPLICATION, "PGOPTIONS": "-c statement_timeout=0"}
    command = [docker_cli.DOCKER, "exec", "-i", "-e", "PGAPPNAME", "-e", "PGOPTIONS", container, "sh", "-c", _SESSION]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True, env=environment
        )
        try:
            yield Snapshot(process, said)
        finally:
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    if stream is not None:
                        stream.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def dump(container: str, snapshot_id: str, compression: int) -> Iterator[bytes]:
    """The dump, piece by piece; each piece is read back by pg_restore, before it is encrypted or lies anywhere.

    Raises:
        jobs.JobError: pg_dump failed, or pg_restore could not read what it wrote.
    """
    arguments = ["exec", "-e", "PGAPPNAME", container, "sh", "-c", _DUMP, "pg_dump", snapshot_id, str(compression)]
    environment = {**os.environ, "PGAPPNAME": APPLICATION}
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as objected:
        reader = subprocess.Popen(
            [docker_cli.DOCKER, "exec", "-i", container, "sh", "-c", _READ_BACK],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=objected,
        )  # fmt: skip
        writer = subprocess.Popen([docker_cli.DOCKER, *arguments], stdout=subprocess.PIPE, stderr=said, env=environment)
        output, check = pipe(writer.stdout), pipe(reader.stdin)
        try:
            while block := output.read(BLOCK):
                with contextlib.suppress(BrokenPipeError):
                    check.write(block)
                yield block
            with contextlib.suppress(BrokenPipeError):
                check.close()
            _require(writer.wait(), said, "pg_dump failed")
            _require(reader.wait(), objected, "pg_restore cannot read the dump that pg_dump wrote")
        finally:
            for process in (writer, reader):
                if process.poll() is None:
                    process.kill()
                    process.wait()
            output.close()


def _require(status: int, said: IO[bytes], what: str) -> None:
    if status:
        said.seek(0)
        raise jobs.JobError(f"{what}: {docker_cli.last_lines(said.read().decode('utf-8', 'replace'), 3) or status}")


def end_leftovers() -> None:
    """End what a killed backup left in PostgreSQL: its snapshot would keep vacuum from its work.

    Needs the job's lock, or it would end a backup that is being taken.
    """
    database.query(_LEFTOVERS)
