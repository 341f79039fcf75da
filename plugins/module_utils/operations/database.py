# SPDX-License-Identifier: Apache-2.0
"""SQL through ``psql`` in PostgreSQL's own container: its local socket needs no password, and nothing is installed."""

from __future__ import annotations

import csv
import io

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config

# User and database are the container's own; a database that is named stands in place of it.
_PSQL = (
    'exec psql --no-psqlrc --username="$POSTGRES_USER" --dbname="${1:-$POSTGRES_DB}"'
    ' --set=ON_ERROR_STOP=1 --no-password --tuples-only "$2" --file=-'
)


class DatabaseError(Exception):
    """PostgreSQL cannot be reached or refused the statement; the text holds what it said."""


def query(sql: str, *, timeout: float = 30, database: str = "", container: str = "") -> list[list[str]]:
    """The rows of a query as text, NULL as an empty text.

    Args:
        sql: one or more statements; rows of all of them are returned.
        timeout: seconds for each statement in PostgreSQL; the command gets five more.
        database: another database than the container's POSTGRES_DB.
        container: another container than the stack's.

    Raises:
        DatabaseError: also when the container or the engine is not there.
    """
    # Without --quiet the tags of commands would stand among the rows.
    printed = _psql("\\set QUIET on\n" + sql, timeout, database, container, "--csv")
    return list(csv.reader(io.StringIO(printed)))


def execute(sql: str, *, timeout: float = 30, database: str = "", container: str = "") -> list[str]:
    """Run statements and return what psql prints, a line each: command tags (``DELETE 5000``) and rows.

    Every statement is a transaction of its own unless ``sql`` says BEGIN. Arguments and errors as for `query`.
    """
    return _psql(sql, timeout, database, container, "--no-align").splitlines()


def _psql(sql: str, timeout: float, database: str, container: str, output: str) -> str:
    target = container or config.stack().postgres_container
    options = f"-c statement_timeout={round(timeout * 1000)} -c client_min_messages=warning"
    try:
        done = docker_cli.run(
            ["exec", "-i", "-e", "PGOPTIONS", target, "sh", "-c", _PSQL, "psql", database, output],
            input=sql,
            env={"PGOPTIONS": options},
            timeout=timeout + 5,
            check=False,
        )
    except docker_cli.DockerError as error:
        raise DatabaseError(f"PostgreSQL in {target}: {error}") from error
    if not done.ok:
        raise DatabaseError(f"PostgreSQL in {target}: {docker_cli.last_lines(done.stderr, 5)}")
    return done.stdout
