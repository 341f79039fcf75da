# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL's data from one major version to another: dumped by the new version, restored into a volume of its own.

The old volume is only read. Both servers run without a network and share one Unix socket's folder, so that nothing else
can write to either of them meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_database import (
    Contents,
    DatabaseError,
    Server,
    differences,
)

OLD = "dagster-postgres-upgrade-old"
NEW = "dagster-postgres-upgrade-new"
LABEL = "dataops.dagster_gce.upgrade"
# Short, since the path of a Unix socket is; the folder above it keeps others out, whom PostgreSQL would trust.
SOCKETS = "/run/dagster-gce-upgrade/sockets"
_START_SECONDS = 180
_COMMON = (
    *("--detach", "--restart", "no", "--network", "none", "--shm-size", "256m", "--stop-timeout", "120"),
    *("--security-opt", "no-new-privileges", "--pull", "never", "--volume", f"{SOCKETS}:/sockets"),
)


@dataclass(frozen=True)
class Copy:
    """From where to where.

    Attributes:
        password: of the superuser, for the new server; where it is unknown, a random one.
        folder: on the machine, for the dumps.
    """

    old_image: str
    old_volume: str
    new_image: str
    new_volume: str
    superuser: str
    password: str
    folder: str
    upgrade: str


@dataclass
class Copied:
    """What was copied, and what somebody should know about it."""

    contents: Contents = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def discard(volume: str, upgrade: str) -> None:
    """Remove what a copy has left: its servers, and the new volume if that very upgrade has made it."""
    for name in (OLD, NEW):
        if docker_cli.inspect("container", name) is not None:
            # The old server's data is in use here: it gets its time.
            docker_cli.run(["stop", "--time", "120", name], check=False, timeout=180)
            docker_cli.run(["rm", "--force", "--volumes", name], check=False)
    found = docker_cli.inspect("volume", volume) if volume else None
    if found and (found.get("Labels") or {}).get(LABEL) == upgrade:
        docker_cli.run(["volume", "rm", volume])
    shutil.rmtree(os.path.dirname(SOCKETS), ignore_errors=True)


def run(copy: Copy, say: Callable[[str], None]) -> Copied:
    """Copy everything and compare; both servers are down when it returns.

    Raises:
        DatabaseError, docker_cli.DockerError: nothing of the old volume was changed.
    """
    parent = os.path.dirname(SOCKETS)
    os.makedirs(parent, mode=0o700, exist_ok=True)
    os.makedirs(SOCKETS, exist_ok=True)
    os.chmod(SOCKETS, 0o1777)  # noqa: S103  the postgres user of either image writes here; the parent is closed
    try:
        return _run(copy, say)
    finally:
        for name in (NEW, OLD):
            with contextlib.suppress(docker_cli.DockerError):
                if docker_cli.inspect("container", name) is not None:
                    docker_cli.run(["stop", "--time", "120", name], timeout=180)
                    docker_cli.run(["rm", "--force", "--volumes", name])
        shutil.rmtree(parent, ignore_errors=True)


def _run(copy: Copy, say: Callable[[str], None]) -> Copied:
    _start_old(copy)
    _start_new(copy)
    new = Server(NEW, copy.superuser)
    here = Server(OLD, copy.superuser)
    # The new version's programs read the old server.
    old = Server(NEW, copy.superuser, host="/sockets")
    here.wait(_START_SECONDS)
    new.wait(_START_SECONDS)
    spaces = [row[0] for row in here.script("SELECT spcname FROM pg_tablespace WHERE oid >= 16384")]
    if spaces:
        raise DatabaseError(f"found tablespaces of its own ({', '.join(spaces)}); expected none: move them back first")
    result = Copied(notes=_settings(here))
    say("counting what is there")
    result.contents = here.all_contents()
    result.notes += _roles(copy, old, new)
    for database, found in result.contents.items():
        rows = sum(count for name, count in found.items() if "." in name and not name.startswith("sequence "))
        if database == "postgres" and rows == 0 and not any("." in name for name in found):
            continue
        say(f"copying database {database}: {rows} rows")
        path = os.path.join(copy.folder, f"{_file_name(database)}.dump")
        own = database == "postgres"
        old.dump(database, path, create=not own)
        new.restore_parallel(f"/dumps/{os.path.basename(path)}", database, create=not own, jobs=os.cpu_count() or 2)
    say("comparing")
    wrong = differences(result.contents, new.all_contents())
    if wrong:
        raise DatabaseError("what was copied differs:\n" + "\n".join(f"- {each}" for each in wrong[:20]))
    say("ANALYZE")
    for database in result.contents:
        new.script("ANALYZE", database)
    result.notes += _collation(here, new)
    # The data must be on the disk before anything relies on it.
    docker_cli.run(["stop", "--time", "120", NEW], timeout=180)
    ended = docker_cli.inspect("container", NEW)
    if ended is None or ended["State"]["ExitCode"] != 0:
        raise DatabaseError(f"{NEW} did not end cleanly ({ended['State'] if ended else 'it is gone'})")
    return result


def _start_old(copy: Copy) -> None:
    # Read-only for whoever might still come: what is written after the dump would be lost.
    settings = ("-c", "unix_socket_directories=/var/run/postgresql,/sockets", "-c", "default_transaction_read_only=on")
    docker_cli.run(
        ["run", *_COMMON, "--name", OLD, "--label", f"{LABEL}={copy.upgrade}", "--user", "postgres",
         "--tmpfs", "/var/run/postgresql:mode=1777", "--volume", f"{copy.old_volume}:/var/lib/postgresql/data",
         copy.old_image, "postgres", *settings],
        timeout=180,
    )  # fmt: skip


def _start_new(copy: Copy) -> None:
    made = docker_cli.inspect("volume", copy.new_volume)
    if made is None:
        label = ["--label", f"{LABEL}={copy.upgrade}", "--label", "dataops.dagster_gce=stack"]
        docker_cli.run(["volume", "create", *label, copy.new_volume])
    # For the copy only; the stack's own settings come with its container.
    settings = ("max_wal_size=2GB", "synchronous_commit=off", "autovacuum=off", "maintenance_work_mem=128MB")
    docker_cli.run(
        ["run", *_COMMON, "--name", NEW, "--label", f"{LABEL}={copy.upgrade}", "--user", "postgres",
         "--tmpfs", "/var/run/postgresql:mode=1777", "--volume", f"{copy.new_volume}:/var/lib/postgresql/data",
         "--volume", f"{copy.folder}:/dumps:ro", "-e", "POSTGRES_USER", "-e", "POSTGRES_PASSWORD",
         "-e", "POSTGRES_DB", copy.new_image, "postgres", *(part for each in settings for part in ("-c", each))],
        env={
            "POSTGRES_USER": copy.superuser,
            "POSTGRES_PASSWORD": copy.password or secrets.token_urlsafe(32),
            "POSTGRES_DB": "postgres",
        },
        timeout=180,
    )  # fmt: skip


def _roles(copy: Copy, old: Server, new: Server) -> list[str]:
    """Roles as they were. The superuser exists already; a password of the old MD5 form cannot be kept."""
    path = os.path.join(copy.folder, "globals.sql")
    old.globals(path)
    with open(path, encoding="utf-8") as stream:
        lines = stream.read().splitlines()
    kept, notes = roles_without(lines, copy.superuser)
    new.script("\n".join(kept) + "\n")
    return notes


def roles_without(lines: list[str], superuser: str) -> tuple[list[str], list[str]]:
    """pg_dumpall's SQL for another cluster in which ``superuser`` exists, and what somebody has to know.

    A new cluster asks for SCRAM, which a password stored as MD5 cannot answer: the superuser keeps the one with which
    the new cluster is made, which is the same.
    """
    quoted = re.escape(superuser)
    own = re.compile(rf'(CREATE|ALTER) ROLE (?:{quoted}|"{quoted}")(?: WITH (?P<rest>.*))?;')
    other = re.compile(r"ALTER ROLE (?P<name>\S+) WITH .*PASSWORD 'md5[0-9a-f]{32}'")
    kept, notes = [], []
    for line in lines:
        match = own.fullmatch(line)
        if match and (match[1] == "CREATE" or "PASSWORD 'SCRAM-SHA-256$" not in (match["rest"] or "")):
            continue
        old_form = other.match(line)
        if old_form:
            notes.append(
                f"the password of the role {old_form['name']} was stored as MD5, which the new server does not take:"
                f" set it again (ALTER ROLE {old_form['name']} PASSWORD …)"
            )
        kept.append(line)
    return kept, notes


def _settings(old: Server) -> list[str]:
    """Settings that lie in the old volume and stay there."""
    sql = "SELECT name || ' = ' || setting FROM pg_file_settings WHERE sourcefile LIKE '%postgresql.auto.conf'"
    found = [row[0] for row in old.script(sql)]
    if not found:
        return []
    return [
        "ALTER SYSTEM had set "
        + ", ".join(found)
        + " in the old volume; set dagster_stack_postgres_settings where it still matters"
    ]


def _collation(old: Server, new: Server) -> list[str]:
    def version(server: Server) -> str:
        return server.value("SELECT collversion FROM pg_collation WHERE collname = 'en_US.utf8' AND collprovider = 'c'")

    before, after = version(old), version(new)
    if before == after:
        return []
    return [f"the collation's version went from {before or 'unknown'} to {after or 'unknown'}; all indexes are new"]


def _file_name(database: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", database)
