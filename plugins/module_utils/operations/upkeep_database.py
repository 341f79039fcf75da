# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: S608 - psql has no parameters here: texts go through upkeep_policy.text, the rest are numbers and names of ours
"""Old rows of Dagster's database: which may go, and their removal in small transactions.

By SQL and not by ``DagsterInstance.delete_run``, which takes every event of a run in one statement: also the newest
materialization of an asset, without which the asset counts as never made, its sensors and automation begin again, and
the partition is missing. What stays, and why, was read in Dagster 1.13's storage code; docs/upkeep.md has the list.

In a dry run nothing is deleted: what would go is noted in temporary tables, which the later steps look at as they look
at the tables themselves otherwise. So both take the same decisions.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ansible_collections.dataops.dagster_gce.plugins.module_utils.graphql import FINISHED
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import upkeep_policy
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.upkeep_policy import Policy
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.upkeep_session import (
    PASSING,
    RefusedError,
    Session,
)

# What happened inside a run, step by step. Only what is named here ever goes before its run: an event that a later
# Dagster brings stays. A log line has no type at all.
STEP_BY_STEP = (
    "STEP_INPUT",
    "STEP_OUTPUT",
    "STEP_START",
    "STEP_SUCCESS",
    "STEP_SKIPPED",
    "STEP_UP_FOR_RETRY",
    "STEP_RESTARTED",
    "STEP_WORKER_STARTING",
    "STEP_WORKER_STARTED",
    "STEP_EXPECTATION_RESULT",
    "RESOURCE_INIT_STARTED",
    "RESOURCE_INIT_SUCCESS",
    "OBJECT_STORE_OPERATION",
    "ASSET_STORE_OPERATION",
    "LOADED_INPUT",
    "HANDLED_OUTPUT",
    "HOOK_COMPLETED",
    "HOOK_SKIPPED",
    "LOGS_CAPTURED",
)
# Says why a run failed where the user code does not (its container died, say): goes early only if the run did not fail.
ENGINE = "ENGINE_EVENT"

# What an asset's state is read from: the newest of each asset, or of each of its partitions, stays for ever.
OF_ASSETS = (
    "ASSET_MATERIALIZATION",
    "ASSET_OBSERVATION",
    "ASSET_MATERIALIZATION_PLANNED",
    "ASSET_FAILED_TO_MATERIALIZE",
    "FRESHNESS_STATE_CHANGE",
)
_BACKFILLS_ENDED = ("COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED")

# Columns that the statements below use; a schema without them is one that nobody has thought about here.
_NEEDED = {
    "event_logs": {"id", "run_id", "event", "dagster_event_type", "timestamp", "asset_key", "partition"},
    "asset_event_tags": {"event_id", "key", "value"},
    "asset_check_executions": {"id", "asset_key", "check_name", "partition", "run_id", "execution_status"},
    "runs": {"id", "run_id", "status", "pipeline_name", "end_time", "update_timestamp", "backfill_id"},
    "run_tags": {"run_id", "key", "value"},
    "job_ticks": {"id", "selector_id", "job_origin_id", "timestamp"},
    "bulk_actions": {"id", "key", "status", "timestamp"},
    "backfill_tags": {"backfill_id"},
    "concurrency_slots": {"run_id", "deleted"},
    "pending_steps": {"run_id"},
}
_RUNS_AT_ONCE = 200
_TRIES = 3

_FINISHED = ", ".join(upkeep_policy.text(each) for each in FINISHED)
_ENDED = "coalesce(r.end_time, extract(epoch FROM r.update_timestamp))"
_NOW = "extract(epoch FROM now())"


@dataclass
class Removed:
    """How many rows went (or would go), by table or kind."""

    rows: dict[str, int] = field(default_factory=dict)
    batches: int = 0
    slowest_batch: float = 0.0
    waited: float = 0.0
    unfinished: str = ""
    refused: list[str] = field(default_factory=list)

    def add(self, kind: str, count: int) -> None:
        """Count rows of a kind."""
        if count:
            self.rows[kind] = self.rows.get(kind, 0) + count


class OutOfTimeError(Exception):
    """The night is over; the rest is done in the next one."""


class Cleaner:
    """The work on the tables.

    Args:
        session: where the statements go.
        policy: what may go.
        dry: count, and delete nothing.
        breathe: called after each batch with the seconds that it took; returns how long it waited.
        deadline: monotonic time after which nothing more is begun.
    """

    def __init__(
        self,
        session: Session,
        policy: Policy,
        dry: bool = False,
        breathe: Callable[[float], float] = lambda seconds: 0.0,
        deadline: float = float("inf"),
    ) -> None:
        self.session = session
        self.policy = policy
        self.dry = dry
        self.breathe = breathe
        self.deadline = deadline
        self.removed = Removed()

    def run(self) -> Removed:
        """Everything, each step on what the one before has left."""
        missing = self.missing_columns()
        if missing:
            self.removed.refused.append(
                f"Dagster's tables are not as expected (missing: {', '.join(missing)}): run `dagster instance migrate`"
                " (playbooks/upgrade.yml does), or this version of the collection does not know this Dagster;"
                " nothing was removed from the database"
            )
            return self.removed
        self.prepare()
        steps = (self.asset_history, self.step_events, self.checks, self.runs, self.backfills, self.ticks)
        try:
            for step in steps:
                try:
                    step()
                except RefusedError as error:
                    self.removed.refused.append(f"{step.__name__.replace('_', ' ')}: {error}")
        except OutOfTimeError as error:
            self.removed.unfinished = str(error)
        return self.removed

    def missing_columns(self) -> list[str]:
        """What Dagster's tables lack of what is used here."""
        rows = self.session.query(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema()"
        )
        found = {(table, column) for table, column in rows}
        return [
            f"{table}.{column}"
            for table, columns in _NEEDED.items()
            for column in sorted(columns)
            if (table, column) not in found
        ]

    def prepare(self) -> None:
        """The temporary tables: what would be gone in a dry run, and which events a kept one names as its inputs."""
        for statement in (
            "CREATE TEMPORARY TABLE upkeep_events (id bigint PRIMARY KEY)",
            "CREATE TEMPORARY TABLE upkeep_runs (run_id text PRIMARY KEY)",
            "CREATE TEMPORARY TABLE upkeep_checks (id bigint PRIMARY KEY)",
            "CREATE TEMPORARY TABLE upkeep_inputs (id bigint PRIMARY KEY)",
            "CREATE TEMPORARY TABLE upkeep_check_runs (run_id text PRIMARY KEY)",
        ):
            self.session.query(statement)

    # -- one batch -----------------------------------------------------------------------------------------------

    def batch(self, sql: str) -> list[str]:
        """Run a statement, patiently: what passes (a lock, a busy disk) is tried again."""
        for attempt in range(1, _TRIES + 1):
            if time.monotonic() > self.deadline:
                raise OutOfTimeError("the time for one night is over")
            started = time.monotonic()
            try:
                row = self.session.query(sql)[0]
            except RefusedError as error:
                if error.state not in PASSING or attempt == _TRIES:
                    raise
                self.removed.waited += self.breathe(5.0)
                continue
            seconds = time.monotonic() - started
            self.removed.batches += 1
            self.removed.slowest_batch = max(self.removed.slowest_batch, seconds)
            self.removed.waited += self.breathe(seconds)
            return row
        raise AssertionError("unreachable")

    def _gone(self, table: str, into: str, key: str = "id", doomed: str = "doomed") -> str:
        """The part of a statement that removes the rows of the list ``doomed``, or notes them."""
        if self.dry:
            return f"gone AS (INSERT INTO {into} SELECT {key} FROM {doomed} ON CONFLICT DO NOTHING)"
        return f"gone AS (DELETE FROM {table} USING {doomed} WHERE {table}.{key} = {doomed}.{key})"

    def _walk(self, statement: Callable[[int, int], str], kind: str) -> None:
        """Go through a table in the order of its ids, to its end: a clock that once went wrong must not end it early.

        The statement returns the last id, how many rows it saw, and how many it removed.
        """
        cursor, rows = 0, self.policy.batch_rows
        while True:
            last, seen, gone = (int(each or 0) for each in self.batch(statement(cursor, rows)))
            self.removed.add(kind, gone)
            if seen < rows:
                return
            cursor = last

    # -- assets --------------------------------------------------------------------------------------------------

    def asset_history(self) -> None:
        """Events of assets that a newer one of the same asset and partition has replaced."""
        if not upkeep_policy.shortest(self.policy, "assets_days"):
            return
        self._walk(self.inputs_page, "")
        for event_type in OF_ASSETS:
            self._walk(functools.partial(self.asset_page, event_type), "asset events")

    def inputs_page(self, cursor: int, rows: int) -> str:
        """The statement that notes, for one page, which events the newest materializations have used.

        Whether a partition is stale is told by comparing what it was made of with what there is now. Only the event's
        own text names that.
        """
        newer = "n.asset_key = p.asset_key AND n.dagster_event_type = 'ASSET_MATERIALIZATION' AND n.id > p.id"
        return f"""WITH page AS MATERIALIZED (
            SELECT e.id, e.asset_key, e.partition FROM event_logs e
            WHERE e.dagster_event_type = 'ASSET_MATERIALIZATION' AND e.id > {cursor} ORDER BY e.id LIMIT {rows}
        ), newest AS MATERIALIZED (
            SELECT p.id FROM page p
            WHERE CASE WHEN p.partition IS NULL
                  THEN NOT EXISTS (SELECT 1 FROM event_logs n WHERE {newer} AND n.partition IS NULL)
                  ELSE NOT EXISTS (SELECT 1 FROM event_logs n WHERE {newer} AND n.partition = p.partition) END
        ), used AS (
            INSERT INTO upkeep_inputs
            SELECT DISTINCT found.pointer[1]::bigint FROM newest JOIN event_logs e ON e.id = newest.id,
                regexp_matches(e.event, 'dagster/input_event_pointer/[^"]*":\\s*"([0-9]{{1,18}})"', 'g') found(pointer)
            ON CONFLICT DO NOTHING
        )
        SELECT max(id), count(*), 0 FROM page"""

    def asset_page(self, event_type: str, cursor: int, rows: int) -> str:
        """The statement for one page of `asset_history`."""
        kind = upkeep_policy.text(event_type)
        newer = f"n.asset_key = p.asset_key AND n.dagster_event_type = {kind} AND n.id > p.id"
        tags = "" if self.dry else ", tags AS (DELETE FROM asset_event_tags WHERE event_id IN (SELECT id FROM doomed))"
        return f"""WITH page AS MATERIALIZED (
            SELECT e.id, e.run_id, e.asset_key, e.partition, e.timestamp FROM event_logs e
            WHERE e.dagster_event_type = {kind} AND e.id > {cursor} ORDER BY e.id LIMIT {rows}
        ), old AS MATERIALIZED (
            SELECT p.* FROM page p LEFT JOIN runs r ON r.run_id = p.run_id
            WHERE extract(epoch FROM p.timestamp) < {_NOW} - 86400 * ({upkeep_policy.days(self.policy, "assets_days")})
              AND (r.run_id IS NULL OR r.status IN ({_FINISHED}))
        ), doomed AS MATERIALIZED (
            SELECT p.id FROM old p
            WHERE p.asset_key IS NOT NULL
              AND CASE WHEN p.partition IS NULL
                  THEN EXISTS (SELECT 1 FROM event_logs n WHERE {newer} AND n.partition IS NULL)
                  ELSE EXISTS (SELECT 1 FROM event_logs n WHERE {newer} AND n.partition = p.partition) END
              AND NOT EXISTS (SELECT 1 FROM upkeep_inputs i WHERE i.id = p.id)
        ), {self._gone("event_logs", "upkeep_events")}{tags}
        SELECT max(id), count(*), (SELECT count(*) FROM doomed) FROM page"""

    # -- runs and what happened in them ----------------------------------------------------------------------------

    def step_events(self) -> None:
        """What happened step by step in runs that ended long ago; how a run ended, and why, stays with it."""
        if not upkeep_policy.shortest(self.policy, "events_days"):
            return
        limit = upkeep_policy.days(self.policy, "events_days")
        for failed in (False, True):
            states = "'FAILURE'" if failed else "'SUCCESS', 'CANCELED'"
            types = STEP_BY_STEP if failed else (*STEP_BY_STEP, ENGINE)
            which = f"(e.dagster_event_type IS NULL OR e.dagster_event_type = ANY({upkeep_policy.texts(types)}))"
            where = f"""r.status IN ({states}) AND {_ENDED} < {_NOW} - 86400 * ({limit})
                AND EXISTS (SELECT 1 FROM event_logs e WHERE e.run_id = r.run_id AND {which})"""
            for runs in self._runs(where):
                self.events_of(runs, which, "step events")

    def _runs(self, where: str) -> Iterator[list[str]]:
        """Ids of the runs that a condition names, some at a time, oldest first."""
        cursor = "0"
        while True:
            found = self.batch(f"""WITH page AS MATERIALIZED (SELECT r.id, r.run_id FROM runs r
                WHERE r.id > {cursor} AND {where} ORDER BY r.id LIMIT {_RUNS_AT_ONCE})
                SELECT max(id), string_agg(run_id, ' ' ORDER BY id) FROM page""")
            last, listed = found[0], found[1].split()
            if not listed:
                return
            cursor = last
            yield listed

    def events_of(self, runs: Sequence[str], which: str, kind: str) -> None:
        """Remove the events ``e`` of some runs that fulfil a condition."""
        named = f"e.run_id = ANY({upkeep_policy.texts(runs)}) AND {which}"
        if self.dry:
            unseen = "NOT EXISTS (SELECT 1 FROM upkeep_events u WHERE u.id = e.id)"
            count = self.batch(f"""WITH doomed AS MATERIALIZED (
                SELECT e.id FROM event_logs e WHERE {named} AND {unseen}
            ), {self._gone("event_logs", "upkeep_events")} SELECT count(*) FROM doomed""")
            self.removed.add(kind, int(count[0]))
            return
        rows = self.policy.batch_rows
        while True:
            count = self.batch(f"""WITH doomed AS MATERIALIZED (
                SELECT e.id FROM event_logs e WHERE {named} LIMIT {rows}
            ), {self._gone("event_logs", "upkeep_events")}
            SELECT count(*) FROM doomed""")
            self.removed.add(kind, int(count[0]))
            if int(count[0]) < rows:
                return

    def runs(self) -> None:
        """Runs that ended long ago and that nothing refers to any more, with their events and tags."""
        if not upkeep_policy.shortest(self.policy, "runs_days"):
            return
        gone = "" if not self.dry else "WHERE NOT EXISTS (SELECT 1 FROM upkeep_checks u WHERE u.id = c.id)"
        self.session.query(
            "INSERT INTO upkeep_check_runs SELECT DISTINCT c.run_id FROM asset_check_executions c"
            f" {gone} {'AND' if gone else 'WHERE'} c.run_id IS NOT NULL ON CONFLICT DO NOTHING",
            600,
        )
        # A run goes before the one that it repeats: as often as chains are long.
        while True:
            before = self.removed.rows.get("runs", 0)
            for listed in self._runs(self.removable()):
                self.events_of(listed, "true", "events of removed runs")
                self.remove_runs(listed)
            if self.removed.rows.get("runs", 0) == before:
                return

    def removable(self) -> str:
        """The condition on a run ``r``: it ended long ago, and nobody would miss it."""
        return f"""r.status IN ({_FINISHED})
            AND {_ENDED} < {_NOW} - 86400 * ({upkeep_policy.days(self.policy, "runs_days")})
            AND NOT EXISTS (SELECT 1 FROM upkeep_runs u WHERE u.run_id = r.run_id)
            AND NOT EXISTS (SELECT 1 FROM event_logs e
                WHERE e.run_id = r.run_id AND e.dagster_event_type = ANY({upkeep_policy.texts(OF_ASSETS)})
                AND NOT EXISTS (SELECT 1 FROM upkeep_events u WHERE u.id = e.id))
            AND NOT EXISTS (SELECT 1 FROM upkeep_check_runs c WHERE c.run_id = r.run_id)
            AND {self._childless()}
            AND NOT EXISTS (SELECT 1 FROM concurrency_slots s WHERE s.run_id = r.run_id AND NOT s.deleted)
            AND NOT EXISTS (SELECT 1 FROM pending_steps s WHERE s.run_id = r.run_id)
            AND NOT EXISTS (SELECT 1 FROM bulk_actions b WHERE b.key = r.backfill_id
                AND b.status <> ALL({upkeep_policy.texts(_BACKFILLS_ENDED)}))"""

    @staticmethod
    def _childless() -> str:
        return """NOT EXISTS (SELECT 1 FROM run_tags t
                WHERE t.key IN ('dagster/root_run_id', 'dagster/parent_run_id') AND t.value = r.run_id
                AND t.run_id <> r.run_id
                AND NOT EXISTS (SELECT 1 FROM upkeep_runs u WHERE u.run_id = t.run_id))"""

    def remove_runs(self, listed: Sequence[str]) -> None:
        """Remove the runs themselves; their tags go with them (the foreign key cascades)."""
        found = self.batch(f"""WITH doomed AS MATERIALIZED (
            SELECT r.run_id FROM runs r WHERE r.run_id = ANY({upkeep_policy.texts(listed)})
              AND r.status IN ({_FINISHED}) AND {self._childless()}
        ), {self._gone("runs", "upkeep_runs", "run_id")} SELECT count(*) FROM doomed""")
        self.removed.add("runs", int(found[0]))

    # -- the rest --------------------------------------------------------------------------------------------------

    def checks(self) -> None:
        """Executions of asset checks that a newer one has replaced; the newest that gave a verdict stays too."""
        days = self.policy.checks_days
        if not days:
            return
        same = (
            "n.asset_key = c.asset_key AND n.check_name = c.check_name AND n.partition IS NOT DISTINCT FROM c.partition"
        )
        verdict = "IN ('SUCCEEDED', 'FAILED')"

        def page(cursor: int, rows: int) -> str:
            return f"""WITH page AS MATERIALIZED (
                SELECT c.* FROM asset_check_executions c WHERE c.id > {cursor} ORDER BY c.id LIMIT {rows}
            ), doomed AS MATERIALIZED (
                SELECT c.id FROM page c LEFT JOIN runs r ON r.run_id = c.run_id
                WHERE extract(epoch FROM c.create_timestamp) < {_NOW} - 86400 * {days:.6f}
                  AND (r.run_id IS NULL OR r.status IN ({_FINISHED}))
                  AND EXISTS (SELECT 1 FROM asset_check_executions n WHERE {same} AND n.id > c.id)
                  AND (c.execution_status NOT {verdict} OR EXISTS (SELECT 1 FROM asset_check_executions n
                       WHERE {same} AND n.id > c.id AND n.execution_status {verdict}))
            ), {self._gone("asset_check_executions", "upkeep_checks")}
            SELECT max(id), count(*), (SELECT count(*) FROM doomed) FROM page"""

        self._walk(page, "check executions")

    def backfills(self) -> None:
        """Backfills that ended long ago and have no run left."""
        days = self.policy.backfills_days
        if not days:
            return
        left = "NOT EXISTS (SELECT 1 FROM upkeep_runs u WHERE u.run_id = r.run_id)"
        tags = "" if self.dry else ", tags AS (DELETE FROM backfill_tags WHERE backfill_id IN (SELECT key FROM doomed))"
        gone = self._gone("bulk_actions", "upkeep_runs", "key") if not self.dry else "gone AS (SELECT 1)"

        def page(cursor: int, rows: int) -> str:
            return f"""WITH page AS MATERIALIZED (
                SELECT b.id, b.key, b.status, b.timestamp FROM bulk_actions b
                WHERE b.id > {cursor} ORDER BY b.id LIMIT {rows}
            ), doomed AS MATERIALIZED (
                SELECT b.key FROM page b
                WHERE b.status = ANY({upkeep_policy.texts(_BACKFILLS_ENDED)})
                  AND extract(epoch FROM b.timestamp) < {_NOW} - 86400 * {days:.6f}
                  AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.backfill_id = b.key AND {left})
                  AND NOT EXISTS (SELECT 1 FROM run_tags t JOIN runs r ON r.run_id = t.run_id
                      WHERE t.key = 'dagster/backfill' AND t.value = b.key AND {left})
            ), {gone}{tags}
            SELECT max(id), count(*), (SELECT count(*) FROM doomed) FROM page"""

        self._walk(page, "backfills")

    def ticks(self) -> None:
        """Ticks that Dagster's own retention leaves: it removes an instigator's only while that ticks."""
        days = self.policy.ticks_days
        if not days:
            return

        def page(cursor: int, rows: int) -> str:
            return f"""WITH page AS MATERIALIZED (
                SELECT k.id, k.selector_id, k.job_origin_id, k.timestamp FROM job_ticks k
                WHERE k.id > {cursor} ORDER BY k.id LIMIT {rows}
            ), doomed AS MATERIALIZED (
                SELECT k.id FROM page k
                WHERE extract(epoch FROM k.timestamp) < {_NOW} - 86400 * {days:.6f}
                  AND CASE WHEN k.selector_id IS NULL
                      THEN EXISTS (SELECT 1 FROM job_ticks n
                           WHERE n.job_origin_id = k.job_origin_id AND n.timestamp > k.timestamp)
                      ELSE EXISTS (SELECT 1 FROM job_ticks n
                           WHERE n.selector_id = k.selector_id AND n.timestamp > k.timestamp) END
            ), {self._gone("job_ticks", "upkeep_events")}
            SELECT max(id), count(*), (SELECT count(*) FROM doomed) FROM page"""

        if self.dry:
            # Its ids are another table's; nothing comes after it that would look.
            self.session.query("TRUNCATE upkeep_events")
        self._walk(page, "ticks")
