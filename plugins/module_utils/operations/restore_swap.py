# SPDX-License-Identifier: Apache-2.0
"""The restored database takes the present one's name; the present one stays beside it."""

from __future__ import annotations

import re
import time

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config, database, jobs

NEW = "dagster_restore_"
OLD = "dagster_before_"
ATTEMPTS = 20
_OURS = re.compile(rf"({NEW}|{OLD})[0-9a-z]+")


def main_database() -> str:
    """The name of Dagster's database."""
    found = docker_cli.inspect("container", config.stack().postgres_container)
    if found is None:
        raise jobs.JobError(f"found no container {config.stack().postgres_container}; expected the stack: run site.yml")
    environment = dict(each.split("=", 1) for each in found["Config"]["Env"] or [] if "=" in each)
    return environment.get("POSTGRES_DB") or environment.get("POSTGRES_USER") or "postgres"


def dagster_version() -> str:
    """Dagster's version in the image of the stack; empty where it cannot be told."""
    name = config.stack().daemon_container
    program = "import dagster; print(dagster.__version__)"
    done = docker_cli.run(["exec", name, "python3", "-c", program], check=False)
    if not done.ok:
        found = docker_cli.inspect("container", name)
        if found is None:
            return ""
        run = ["run", "--rm", "--network", "none", "--entrypoint", "python3", str(found["Image"]), "-c", program]
        done = docker_cli.run(run, check=False)
    return done.stdout.strip() if done.ok else ""


def existing() -> list[str]:
    """Databases that restores have made or put aside, oldest first."""
    rows = database.query("SELECT datname FROM pg_database", database="postgres")
    return sorted((row[0] for row in rows if _OURS.fullmatch(row[0])), key=lambda name: name.rpartition("_")[2])


def heal() -> None:
    """Let clients in again where a restore was killed right before the swap."""
    name = main_database()
    rows = database.query(f"SELECT datallowconn FROM pg_database WHERE datname = '{name}'", database="postgres")  # noqa: S608
    if rows == [["f"]]:
        database.execute(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS true', database="postgres")


def create(name: str) -> None:
    """An empty database beside the present one, of the same owner; one that is there (of a killed restore) goes."""
    main = main_database()
    drop(name)
    owner = database.query(
        f"SELECT quote_ident(pg_get_userbyid(datdba)) FROM pg_database WHERE datname = '{main}'",  # noqa: S608
        database="postgres",
    )[0][0]
    database.execute(f'CREATE DATABASE "{name}" OWNER {owner} TEMPLATE template0', timeout=120, database="postgres")


def drop(name: str) -> None:
    """Remove a database of a restore's; nobody else's."""
    if not _OURS.fullmatch(name):
        raise ValueError(f"{name} is no database of a restore's")
    _end_connections(name)
    database.execute(f'DROP DATABASE IF EXISTS "{name}"', timeout=600, database="postgres")


def swap(new: str, old: str) -> None:
    """Give ``new`` the name of Dagster's database, which becomes ``old``: both or neither.

    Raises:
        jobs.JobError: somebody stays connected.
    """
    main = main_database()
    # Nobody comes back between the end of the connections and the new name.
    database.execute(f'ALTER DATABASE "{main}" WITH ALLOW_CONNECTIONS false', database="postgres")
    try:
        for attempt in range(ATTEMPTS):
            _end_connections(main)
            _end_connections(new)
            try:
                database.execute(
                    f'BEGIN; ALTER DATABASE "{main}" RENAME TO "{old}";'
                    f' ALTER DATABASE "{new}" RENAME TO "{main}"; COMMIT;',
                    database="postgres",
                )
                break
            except database.DatabaseError as error:
                if attempt == ATTEMPTS - 1 or "accessed by other users" not in str(error):
                    raise
                time.sleep(0.5)
    except database.DatabaseError as error:
        heal()
        raise jobs.JobError(f"the restored database cannot take the place of the present one: {error}") from error
    # The name is the new one's, and what is put aside takes nobody in.
    database.execute(f'ALTER DATABASE "{main}" WITH ALLOW_CONNECTIONS true', database="postgres")


def _end_connections(name: str) -> None:
    database.query(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()",  # noqa: S608
        database="postgres",
    )
