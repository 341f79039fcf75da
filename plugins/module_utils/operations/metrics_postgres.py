# SPDX-License-Identifier: Apache-2.0
"""Samples from the database: queue, runs, heartbeats, sizes. They come even when the webserver is down."""

from __future__ import annotations

import time

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import database, metrics_counters
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.jobs import Metric
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.metrics_sample import metric

# One psql for all: starting it costs more than the statements. The first column tells them apart.
_SQL = """
SELECT 'run', status, count(*), coalesce(extract(epoch FROM min(create_timestamp)), 0) FROM runs
  WHERE status IN ('QUEUED', 'NOT_STARTED', 'STARTING', 'STARTED', 'CANCELING', 'MANAGED') GROUP BY status;
SELECT 'daemon', daemon_type, extract(epoch FROM timestamp), 0 FROM daemon_heartbeats;
SELECT 'size', pg_database_size(current_database()), 0, 0;
SELECT 'connections', count(*), (SELECT setting FROM pg_settings WHERE name = 'max_connections'), 0
  FROM pg_stat_activity WHERE backend_type = 'client backend';
SELECT 'rows', relname, greatest(reltuples, 0)::bigint, pg_total_relation_size(oid) FROM pg_class
  WHERE relkind = 'r' AND relname IN ('runs', 'event_logs', 'job_ticks', 'run_tags');
"""


def postgres() -> list[Metric]:
    """Queue, runs, heartbeats, size and connections; never a scan of event_logs.

    Raises:
        database.DatabaseError: PostgreSQL does not answer.
    """
    samples: list[Metric] = []
    runs: dict[str, tuple[int, float]] = {}
    for kind, *row in database.query(_SQL, timeout=8):
        if kind == "run":
            runs[row[0]] = int(row[1]), float(row[2])
        elif kind == "daemon":
            text = "When the daemon last gave a sign."
            samples.append(metric("daemon_last_heartbeat_timestamp_seconds", float(row[1]), text, daemon=row[0]))
        elif kind == "size":
            samples.append(metric("postgres_size_bytes", float(row[0]), "Size of Dagster's database."))
        elif kind == "connections":
            samples.append(metric("postgres_connections", float(row[0]), "Connections that clients hold."))
            samples.append(metric("postgres_max_connections", float(row[1]), "Connections that there may be."))
        elif kind == "rows":
            text = "Rows of a table, as PostgreSQL's statistics estimate them."
            samples.append(metric("postgres_table_rows", float(row[1]), text, table=row[0]))
            text = "Size of a table with its indexes."
            samples.append(metric("postgres_table_size_bytes", float(row[2]), text, table=row[0]))
    for status in ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"):
        count = runs.get(status, (0, 0.0))[0]
        samples.append(metric("runs", count, "Runs that have not ended, by status.", status=status))
    count, oldest = runs.get("QUEUED", (0, 0.0))
    age = max(0.0, time.time() - oldest) if count else 0.0
    samples.append(metric("queue_oldest_seconds", round(age, 3), "For how long the oldest queued run waits."))
    for result, ended in metrics_counters.runs().items():
        samples.append(metric("runs_finished_total", ended, "Runs that have ended, by result.", result=result))
    return samples
