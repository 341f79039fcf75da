"""Years of history made of real rows, and how long the webserver takes while upkeep removes it."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from tests.e2e.harness import Machine

ASSETS = 50
DAYS = 700

# What the UI asks most, as its pages do.
_RUN = "runId status jobName creationTime startTime endTime tags { key value } assetSelection { path }"
QUERIES = {
    "runs page": f"""{{ runsOrError(limit: 26) {{ ... on Runs {{ results {{ {_RUN} }} }} }}
        runTagKeysOrError {{ ... on RunTagKeys {{ keys }} }} }}""",
    "runs by state": "{ runsOrError(filter: {statuses: [QUEUED, STARTED, STARTING]}) { ... on Runs { count } } }",
    "a run's events": """query ($run: ID!) { logsForRun(runId: $run, limit: 1000) { ... on EventConnection {
        events { __typename ... on MessageEvent { message timestamp stepKey level } } cursor hasMore } } }""",
    "assets page": """{ assetRecordsOrError(limit: 100) { ... on AssetRecordConnection {
        assets { id key { path } } cursor } } }""",
    "an asset": """{ assetOrError(assetKey: {path: ["upkeep_7"]}) { ... on Asset { assetMaterializations(limit: 50) {
        runId timestamp partition metadataEntries { label } } } } }""",
    "instance health": """{ instance { daemonHealth { allDaemonStatuses { daemonType healthy lastHeartbeatTime } } }
        workspaceOrError { ... on Workspace { locationEntries { name loadStatus } } } }""",
}


def sql(machine: Machine, statements: str, timeout: float = 600) -> list[str]:
    """What PostgreSQL answers, a line a row."""
    psql = 'docker exec -i dagster-postgres sh -c \'psql -qtAX -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" "$POSTGRES_DB"\''
    return machine.ssh(f"{psql} <<'END_OF_SQL'\n{statements}\nEND_OF_SQL\n", timeout=timeout).splitlines()


def number(machine: Machine, statement: str) -> int:
    """The only value of a query."""
    return int(sql(machine, statement)[0])


def fill(machine: Machine, run: str, rows: int) -> None:
    """Copy a run with all its events, and a materialization for each copy, over two years until there are so many rows.

    Args:
        machine: the machine.
        run: a finished run.
        rows: how many rows of event_logs to add, roughly.
    """
    code = (
        "from dagster import DagsterInstance, AssetMaterialization\\n"
        "instance = DagsterInstance.get()\\n"
        f"[instance.report_runless_asset_event(AssetMaterialization(f'upkeep_{{n}}', metadata={{'rows': n}}))"
        f" for n in range({ASSETS})]\\n"
    )
    machine.ssh(f'printf "{code}" | docker exec -i dagster-webserver python -', timeout=120)
    each = number(machine, f"SELECT count(*) FROM event_logs WHERE run_id = '{run}'") + 1
    copies = max(1, rows // each)
    sql(machine, f"""
        SET timezone = 'UTC';
        CREATE TEMP TABLE copies AS SELECT n, gen_random_uuid()::text AS id,
            now()::timestamp - interval '1 day' * (2 + {DAYS}.0 * ({copies} - n) / {copies}) AS at
            FROM generate_series(1, {copies}) n;
        INSERT INTO runs (run_id, snapshot_id, pipeline_name, mode, status, run_body, create_timestamp,
            update_timestamp, start_time, end_time)
            SELECT c.id, t.snapshot_id, t.pipeline_name, t.mode, t.status, replace(t.run_body, t.run_id, c.id), c.at,
                c.at, extract(epoch FROM c.at), extract(epoch FROM c.at) + 5
            FROM copies c, runs t WHERE t.run_id = '{run}' ORDER BY c.n;
        INSERT INTO run_tags (run_id, key, value)
            SELECT c.id, t.key, t.value FROM copies c, run_tags t WHERE t.run_id = '{run}' ORDER BY c.n;
        CREATE TEMP TABLE made AS SELECT row_number() OVER (ORDER BY id) AS n, e.* FROM event_logs e
            WHERE e.dagster_event_type = 'ASSET_MATERIALIZATION' AND e.asset_key LIKE '["upkeep!_%"]' ESCAPE '!'
            ORDER BY id LIMIT {ASSETS};
        INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition)
            SELECT c.id, x.event, x.dagster_event_type, c.at, x.step_key, x.asset_key, x.partition FROM copies c,
            LATERAL (
                SELECT e.id, replace(e.event, e.run_id, c.id) AS event, e.dagster_event_type, e.step_key, e.asset_key,
                    e.partition FROM event_logs e WHERE e.run_id = '{run}'
                UNION ALL SELECT 1e15, m.event, m.dagster_event_type, m.step_key, m.asset_key, m.partition FROM made m
                    WHERE m.n = c.n % {ASSETS} + 1
            ) x ORDER BY c.n, x.id;
        ANALYZE runs; ANALYZE run_tags; ANALYZE event_logs;
    """, timeout=1800)  # fmt: skip


@dataclass
class Latency:
    """The queries again and again while the ``with`` block runs; seconds of each."""

    machine: Machine
    run: str
    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in QUERIES})
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Latency:
        self.machine.tunnel()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            for name, query in QUERIES.items():
                started = time.monotonic()
                try:
                    self.machine.graphql(query, timeout=60, **({"run": self.run} if "$run" in query else {}))
                except (OSError, AssertionError, ValueError) as failure:
                    self.failures.append(f"{name}: {failure}")
                self.seconds[name].append(time.monotonic() - started)
            self._stop.wait(0.1)

    def median(self, name: str) -> float:
        """Milliseconds."""
        return 1000 * statistics.median(self.seconds[name])

    def p95(self, name: str) -> float:
        """Milliseconds."""
        found = sorted(self.seconds[name])
        return 1000 * found[min(len(found) - 1, round(0.95 * len(found)))]


def table(measured: dict[str, Latency]) -> str:
    """A line a query: median and 95th percentile in each phase."""
    lines = [f"{'milliseconds (median/p95)':<26}" + "".join(f"{phase:>18}" for phase in measured)]
    for name in QUERIES:
        cells = (f"{each.median(name):.0f}/{each.p95(name):.0f}" for each in measured.values())
        lines.append(f"{name:<26}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


def measure(machine: Machine, run: str, seconds: float, work: Callable[[], None] | None = None) -> Latency:
    """Ask for so long, or while something is done."""
    with Latency(machine, run) as found:
        if work:
            work()
        else:
            time.sleep(seconds)
    return found
