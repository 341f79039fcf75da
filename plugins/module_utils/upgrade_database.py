# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: S608 - psql has no parameters: texts go through literal() and identifier(), the rest are our own names
"""A PostgreSQL in a container, as an upgrade needs it: ask it, dump it, restore into it, compare two of them.

Everything goes through the container's Unix socket with PostgreSQL's own programs.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli

Contents = dict[str, dict[str, int]]

IN_FLIGHT = ("STARTING", "STARTED", "CANCELING")

_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' ORDER BY 1
"""
_SEQUENCES = """
SELECT 'sequence ' || format('%I.%I', schemaname, sequencename), coalesce(last_value, -1) FROM pg_sequences ORDER BY 1
"""
_OBJECTS = """
SELECT 'indexes', count(*) FROM pg_indexes WHERE schemaname !~ '^pg_' AND schemaname <> 'information_schema'
UNION ALL SELECT 'constraints', count(*) FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
  WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.contype <> 'n'
UNION ALL SELECT 'views', count(*) FROM pg_views WHERE schemaname !~ '^pg_' AND schemaname <> 'information_schema'
"""


class DatabaseError(Exception):
    """PostgreSQL refused, or does not answer; the message says what it said."""


def literal(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def identifier(text: str) -> str:
    """A name as SQL writes it."""
    return '"' + text.replace('"', '""') + '"'


@dataclass(frozen=True)
class Server:
    """PostgreSQL in a running container.

    Attributes:
        container: the container that has the programs.
        user: whom to connect as.
        host: folder of the socket of another server, as that container sees it; empty for its own.
    """

    container: str
    user: str
    host: str = ""

    def _command(self, program: str, *arguments: str, exec_as: str = "") -> list[str]:
        host = ["-h", self.host] if self.host else []
        user = ["--user", exec_as] if exec_as else []
        return ["exec", "-i", *user, self.container, program, *host, "-U", self.user, *arguments]

    def script(self, sql: str, database: str = "postgres", timeout: float = 3600) -> list[list[str]]:
        """Run SQL, stopping at the first error; returns the rows of what it selects.

        Raises:
            DatabaseError
        """
        options = ("-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", database)
        try:
            done = docker_cli.run(self._command("psql", *options), input=sql, timeout=timeout)
        except docker_cli.DockerError as error:
            raise DatabaseError(f"PostgreSQL in {self.container}: {error}") from error
        return [line.split("\t") for line in done.stdout.splitlines() if line]

    def value(self, sql: str, database: str = "postgres") -> str:
        """The first column of the first row; empty where there is none."""
        rows = self.script(sql, database)
        return rows[0][0] if rows else ""

    def wait(self, seconds: float) -> None:
        """Wait until it takes connections over TCP; the server that makes a new cluster answers on its socket only.

        Raises:
            DatabaseError: it does not in time, or has ended.
        """
        deadline = time.monotonic() + seconds
        ready = ["exec", self.container, "pg_isready", "-q", "-h", "127.0.0.1", "-U", self.user, "-d", "postgres"]
        while not docker_cli.run(ready, check=False).ok:
            found = docker_cli.inspect("container", self.container)
            state = found["State"]["Status"] if found else "gone"
            if state not in ("running", "created") or time.monotonic() > deadline:
                said = docker_cli.run(["logs", "--tail", "15", self.container], check=False)
                raise DatabaseError(
                    f"PostgreSQL in {self.container} does not take connections after {seconds:g} s (it is {state})."
                    f" Its last log lines:\n{docker_cli.last_lines(said.stdout + said.stderr, 15)}"
                )
            time.sleep(0.3)

    def databases(self) -> list[str]:
        """The names of all databases but the templates."""
        return [row[0] for row in self.script("SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1")]

    def size(self) -> int:
        """Bytes of all databases together."""
        return int(self.value("SELECT sum(pg_database_size(oid))::bigint FROM pg_database"))

    def contents(self, database: str) -> dict[str, int]:
        """The rows of every table, the value of every sequence, how many indexes, constraints and views there are."""
        tables = [row[0] for row in self.script(_TABLES, database)]
        parts = [f"SELECT {literal(name)}, count(*) FROM {name}" for name in tables]
        found = {row[0]: int(row[1]) for row in self.script(" UNION ALL ".join(parts), database)} if parts else {}
        for sql in (_SEQUENCES, _OBJECTS):
            found |= {row[0]: int(row[1]) for row in self.script(sql, database)}
        return found

    def all_contents(self) -> Contents:
        """``contents`` of every database."""
        return {name: self.contents(name) for name in self.databases()}

    def revision(self, database: str) -> str:
        """The revision of Dagster's schema; empty where there is none yet."""
        if not self.value("SELECT to_regclass('alembic_version')", database):
            return ""
        return ",".join(sorted(row[0] for row in self.script("SELECT version_num FROM alembic_version", database)))

    def runs_in_flight(self, database: str) -> list[list[str]]:
        """Id, job and status of each run that has a worker."""
        if not self.value("SELECT to_regclass('runs')", database):
            return []
        states = ", ".join(literal(each) for each in IN_FLIGHT)
        return self.script(f"SELECT run_id, pipeline_name, status FROM runs WHERE status IN ({states})", database)

    def newest(self, database: str) -> dict[str, int]:
        """The highest id of the tables that only ever grow at their end."""
        found = {}
        for table in ("runs", "event_logs", "job_ticks"):
            if self.value(f"SELECT to_regclass({literal(table)})", database):
                found[table] = int(self.value(f"SELECT coalesce(max(id), 0) FROM {table}", database))
        return found

    def dump(self, database: str, path: str, *, create: bool = False, timeout: float = 86400) -> None:
        """``pg_dump -Fc`` into a file of the machine that only root may read; read back before it counts.

        Raises:
            DatabaseError
        """
        options = ["-Fc", "-Z", "1", "--lock-wait-timeout=120s", *(["-C"] if create else []), "-d", database]
        self._to_file(self._command("pg_dump", *options), path, timeout)
        self.check_dump(path, timeout)

    def globals(self, path: str) -> None:
        """Roles with their passwords, and what they may, as SQL."""
        self._to_file(self._command("pg_dumpall", "--globals-only", "-l", "postgres"), path, 600)

    def check_dump(self, path: str, timeout: float = 86400) -> None:
        """Read a dump to its end.

        Raises:
            DatabaseError: a block of it cannot be read.
        """
        command = ["exec", "-i", self.container, "pg_restore", "-f", "/dev/null"]
        self._from_file(command, path, timeout)

    def restore(self, path: str, database: str, *, timeout: float = 86400) -> None:
        """A dump into an empty database.

        Raises:
            DatabaseError
        """
        self._from_file(self._command("pg_restore", "--exit-on-error", "-d", database), path, timeout)

    def restore_parallel(self, inside: str, database: str, *, create: bool, jobs: int, timeout: float = 86400) -> None:
        """A dump that the container sees at ``inside``, with several connections; as root, who may read it.

        Raises:
            DatabaseError
        """
        options = ["--exit-on-error", "-j", str(jobs), *(["-C", "-d", "postgres"] if create else ["-d", database])]
        try:
            docker_cli.run(self._command("pg_restore", *options, inside, exec_as="0"), timeout=timeout)
        except docker_cli.DockerError as error:
            raise DatabaseError(f"restoring {database}: {error}") from error

    def _to_file(self, command: list[str], path: str, timeout: float) -> None:
        temporary = f"{path}.part"
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as output:
            try:
                done = subprocess.run(
                    [docker_cli.DOCKER, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE,
                    timeout=timeout, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired as error:
                raise DatabaseError(f"{command[3]} of {self.container} did not end within {timeout:g} s") from error
            output.flush()
            os.fsync(output.fileno())
        if done.returncode:
            said = docker_cli.last_lines(done.stderr.decode("utf-8", "replace"), 8)
            raise DatabaseError(f"{os.path.basename(path)} could not be written ({done.returncode}): {said}")
        os.rename(temporary, path)

    def _from_file(self, command: list[str], path: str, timeout: float) -> None:
        with open(path, "rb") as source:
            try:
                done = subprocess.run(
                    [docker_cli.DOCKER, *command], stdin=source, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                    timeout=timeout, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired as error:
                raise DatabaseError(f"{path} could not be restored within {timeout:g} s") from error
        if done.returncode:
            said = docker_cli.last_lines(done.stderr.decode("utf-8", "replace"), 8)
            raise DatabaseError(f"{path} cannot be restored ({done.returncode}): {said}")

    def create(self, database: str, like: str) -> None:
        """An empty database with the owner, the encoding and the collation of another."""
        sql = "SELECT pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype FROM pg_database"
        rows = self.script(f"{sql} WHERE datname = {literal(like)}")
        owner, encoding, collate, ctype = rows[0]
        self.script(
            f"CREATE DATABASE {identifier(database)} OWNER {identifier(owner)} TEMPLATE template0"
            f" ENCODING {literal(encoding)} LC_COLLATE {literal(collate)} LC_CTYPE {literal(ctype)}"
        )

    def drop(self, database: str) -> None:
        """Remove a database, whoever is connected to it."""
        # WITH (FORCE) is known since PostgreSQL 13, the oldest that is supported here.
        self.script(f"DROP DATABASE IF EXISTS {identifier(database)} WITH (FORCE)")

    def exists(self, database: str) -> bool:
        """Whether there is such a database."""
        return bool(self.value(f"SELECT 1 FROM pg_database WHERE datname = {literal(database)}"))

    def swap(self, restored: str, database: str, aside: str) -> None:
        """Put ``restored`` in the place of ``database``, which is called ``aside`` from then on, in one transaction."""
        both = f"{literal(restored)}, {literal(database)}"
        self.script(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ({both})"
            " AND pid <> pg_backend_pid();\n"
            f"BEGIN; ALTER DATABASE {identifier(database)} RENAME TO {identifier(aside)};"
            f" ALTER DATABASE {identifier(restored)} RENAME TO {identifier(database)}; COMMIT;"
        )


def differences(before: Contents, after: Contents) -> list[str]:
    """What two servers do not have in common, one sentence each."""
    lines = []
    for database in sorted({*before, *after}):
        old, new = before.get(database), after.get(database)
        if old is None or new is None:
            lines.append(f"database {database} is {'new' if old is None else 'missing'}")
            continue
        lines += [
            f"{database}: {name}: found {new.get(name, 'none')}, expected {old.get(name, 'none')}"
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        ]
    return lines


def superuser(container: str) -> str:
    """The role with which the cluster in a container was made, asked as the container's own POSTGRES_USER.

    Raises:
        DatabaseError
    """
    found = docker_cli.inspect("container", container)
    if found is None:
        raise DatabaseError(f"there is no container {container}")
    user = environment(found).get("POSTGRES_USER", "postgres")
    return Server(container, user).value("SELECT rolname FROM pg_roles WHERE oid = 10")


def environment(inspected: Mapping[str, Any]) -> dict[str, str]:
    """A container's variables."""
    return dict(each.split("=", 1) for each in inspected["Config"]["Env"] or () if "=" in each)
