# SPDX-License-Identifier: Apache-2.0
"""What continuous backup asks of PostgreSQL: its slot and what it keeps for it, a mark in the WAL, what is received."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config, database, jobs, wal_files

SLOT = "dagster_gce"
# Where the receiver works it has everything within milliseconds.
PATIENCE = 10.0
_LIMIT = "max_slot_wal_keep_size"
_LOOK = """
SELECT (SELECT system_identifier FROM pg_control_system()), (SELECT timeline_id FROM pg_control_checkpoint()),
 (SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'), current_setting('wal_level')
"""
_SLOT = f"""
SELECT active, wal_status, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint
FROM pg_replication_slots WHERE slot_name = '{SLOT}'
"""  # noqa: S608
# First the clock, then a transaction: whoever recovers to that moment finds one that is later, and so knows that all of
# it is there. Its commit is on the disk before the position is asked for.
_MARK = """
SET synchronous_commit = on;
SELECT floor(extract(epoch FROM clock_timestamp()))::bigint;
SELECT pg_logical_emit_message(true, 'dagster-gce', '');
SELECT pg_current_wal_flush_lsn();
"""
_RECEIVED = f"""
SELECT r.flush_lsn FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid
WHERE s.slot_name = '{SLOT}' AND r.flush_lsn IS NOT NULL
"""  # noqa: S608


class NotReceivedError(jobs.JobError):
    """PostgreSQL has written what the receiver does not have."""


@dataclass(frozen=True)
class Server:
    """The cluster whose WAL is received."""

    system: str
    timeline: int
    segment_size: int


@dataclass(frozen=True)
class Mark:
    """A moment (seconds since the epoch), and the position in the WAL that has all of it."""

    moment: int
    lsn: int
    segment: str


@dataclass(frozen=True)
class Slot:
    """The replication slot; ``retained`` are the bytes of WAL that PostgreSQL keeps for it."""

    active: bool
    lost: bool
    retained: int


def environment() -> dict[str, str]:
    """The variables of the stack's PostgreSQL.

    Raises:
        jobs.JobError: there is none, or PostgreSQL is on another machine.
    """
    name = config.stack().postgres_container
    found = docker_cli.inspect("container", name)
    if found is None:
        raise jobs.JobError(f"found no container {name}; expected the stack: run site.yml")
    variables = dict(each.split("=", 1) for each in found["Config"]["Env"] or [] if "=" in each)
    if variables.get("PGHOST"):
        raise jobs.JobError(
            f"dagster_backup_continuous: found a PostgreSQL on {variables['PGHOST']}; expected the stack's own. Who "
            "runs that one has point-in-time recovery for it (Cloud SQL: a setting); set it to false here"
        )
    return variables


def look() -> Server:
    """The cluster.

    Raises:
        jobs.JobError: its WAL cannot be received.
        database.DatabaseError: it does not answer.
    """
    system, timeline, segment_size, level = database.query(_LOOK, database="postgres")[0]
    if level not in ("replica", "logical"):
        raise jobs.JobError(
            f"dagster_backup_continuous: found wal_level {level!r}; expected PostgreSQL's default, replica: take it "
            "out of dagster_stack_postgres_settings"
        )
    return Server(system, int(timeline), int(segment_size))


def mark(server: Server) -> Mark:
    """Write a mark into the WAL."""
    rows = database.query(_MARK, database="postgres")
    lsn = wal_files.lsn_of(rows[-1][0])
    return Mark(int(rows[0][0]), lsn, wal_files.segment_of(lsn, server.timeline, server.segment_size))


def wait_until_received(lsn: int, patience: float = PATIENCE) -> None:
    """Wait until the receiver has everything up to a position on its disk.

    Raises:
        NotReceivedError: it does not get it.
    """
    deadline = time.monotonic() + patience
    while True:
        rows = database.query(_RECEIVED, database="postgres")
        if rows and wal_files.lsn_of(rows[0][0]) >= lsn:
            return
        if time.monotonic() > deadline:
            state = "is behind" if rows else "is not connected"
            raise NotReceivedError(f"the receiver of the WAL {state}; look at `journalctl -u dagster-gce-receive`")
        time.sleep(0.2)


def slot() -> Slot | None:
    """The slot, if there is one."""
    rows = database.query(_SLOT, database="postgres")
    return Slot(rows[0][0] == "t", rows[0][1] == "lost", int(rows[0][2])) if rows else None


def make_slot() -> None:
    """Make a slot that keeps the WAL from now on until it is received; one that was lost goes."""
    if slot():
        database.query(f"SELECT pg_drop_replication_slot('{SLOT}')", database="postgres")
    database.query(f"SELECT pg_create_physical_replication_slot('{SLOT}', true)", database="postgres")


def limit(size: int) -> None:
    """How many bytes a slot may keep: without its receiver it must not fill the disk, which it does unless told."""
    megabytes = max(size >> 20, 64)
    asked = f"SELECT setting, source FROM pg_settings WHERE name = '{_LIMIT}'"  # noqa: S608
    setting, source = database.query(asked, database="postgres")[0]
    if source != "command line" and setting != str(megabytes):
        database.execute(f"ALTER SYSTEM SET {_LIMIT} = '{megabytes}MB'", database="postgres")
        database.query("SELECT pg_reload_conf()", database="postgres")


def forget_slot() -> None:
    """Remove the slot of a receiver that is switched off, for which PostgreSQL would keep WAL."""
    found = slot()
    if found and not found.active:
        database.query(f"SELECT pg_drop_replication_slot('{SLOT}')", database="postgres")
        database.execute(f"ALTER SYSTEM RESET {_LIMIT}", database="postgres")
        database.query("SELECT pg_reload_conf()", database="postgres")
