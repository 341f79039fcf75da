"""Upkeep on a real PostgreSQL with Dagster's own storage: what Dagster knows of assets is the same before and after."""

# No annotations of the future: Dagster looks at those of assets.

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from ansible_collections.dataops.dagster_gce.plugins.module_utils.graphql import FINISHED
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    upkeep_database,
    upkeep_policy,
    upkeep_session,
)

CONTAINER = f"upkeep-test-{os.getpid()}"
DAY = 86400
PARTITIONS = dagster.StaticPartitionsDefinition(["north", "south", "west"])


@dagster.asset(code_version="1")
def whole() -> dagster.MaterializeResult[None]:
    return dagster.MaterializeResult(data_version=dagster.DataVersion("same"), metadata={"rows": 3})


@dagster.asset(deps=[whole], code_version="1")
def beyond(context: dagster.AssetExecutionContext) -> None:
    context.log.info("a line of the log")


@dagster.asset(partitions_def=PARTITIONS)
def parts(context: dagster.AssetExecutionContext) -> dagster.MaterializeResult[None]:
    if context.run.tags.get("fail"):
        raise ValueError("as asked")
    return dagster.MaterializeResult(data_version=dagster.DataVersion(context.run.tags.get("version", "0")))


@dagster.asset(partitions_def=PARTITIONS, deps=[parts])
def after_parts() -> None:
    pass


@dagster.asset_check(asset=whole)
def has_rows(context: dagster.AssetCheckExecutionContext) -> dagster.AssetCheckResult:
    return dagster.AssetCheckResult(passed="bad" not in context.run.tags)


@dagster.op
def speak(context: dagster.OpExecutionContext) -> None:
    context.log.info("a line of the log")


@dagster.job
def plain() -> None:
    speak()


@dagster.job
def kept_job() -> None:
    speak()


ASSETS: list[Any] = [whole, beyond, parts, after_parts]
DEFINITIONS = dagster.Definitions(assets=ASSETS, asset_checks=[has_rows], jobs=[plain, kept_job])


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """The port of a PostgreSQL of the stack's version."""
    if not shutil.which("docker") or subprocess.run(["docker", "image", "inspect", "postgres:17"],
                                                    capture_output=True, check=False).returncode:  # fmt: skip
        pytest.skip("no Docker Engine with postgres:17 here")
    environment = ["-e", "POSTGRES_USER=dagster", "-e", "POSTGRES_PASSWORD=secret", "-e", "POSTGRES_DB=dagster"]
    # As on a machine without NVMe, but its data is not worth waiting for.
    docker("run", "-d", "--name", CONTAINER, *environment, "-p", "127.0.0.1::5432",
           "--tmpfs", "/var/lib/postgresql/data", "postgres:17", "-c", "fsync=off")  # fmt: skip
    try:
        yield int(docker("port", CONTAINER, "5432").splitlines()[0].rpartition(":")[2])
    finally:
        docker("rm", "-f", "-v", CONTAINER)


@dataclass
class Here:
    """An instance and its database."""

    instance: dagster.DagsterInstance
    database: str
    runs: dict[str, str] = field(default_factory=dict)

    def session(self, lock_timeout: float = 2) -> upkeep_session.Session:
        return upkeep_session.Session(lock_timeout=lock_timeout, name=self.database, container=CONTAINER)

    def sql(self, statement: str) -> list[list[str]]:
        with self.session() as session:
            return session.query(statement)

    def number(self, statement: str) -> int:
        return int(self.sql(statement)[0][0])

    def clean(self, dry: bool = False, **settings: Any) -> upkeep_database.Removed:
        with self.session() as session:
            return upkeep_database.Cleaner(session, upkeep_policy.read(settings), dry).run()

    def age(self, days: float) -> None:
        """Let everything that is there now have happened so many days earlier."""
        seconds = days * DAY
        past = f"- interval '{seconds} seconds'"
        for statement in (
            f"UPDATE event_logs SET timestamp = timestamp {past}",
            f"UPDATE runs SET end_time = end_time - {seconds}, start_time = start_time - {seconds},"
            f" create_timestamp = create_timestamp {past}, update_timestamp = update_timestamp {past}",
            f"UPDATE asset_check_executions SET create_timestamp = create_timestamp {past}",
            f"UPDATE job_ticks SET timestamp = timestamp {past}",
            f"UPDATE bulk_actions SET timestamp = timestamp {past}",
        ):
            self.sql(statement)

    def make(self, *selection: Any, partition: str | None = None, **tags: str) -> str:
        """Materialize assets; returns the run."""
        done = dagster.materialize(
            [*ASSETS, has_rows], instance=self.instance, selection=list(selection), partition_key=partition,
            tags=tags, raise_on_error=False,
        )  # fmt: skip
        return done.run_id

    def run(self, job: str = "plain", **tags: str) -> str:
        return DEFINITIONS.get_job_def(job).execute_in_process(instance=self.instance, tags=tags).run_id

    def known(self) -> dict[str, Any]:
        """What Dagster tells of its assets."""
        instance = self.instance
        found: dict[str, Any] = {}
        for definition in ASSETS:
            key = definition.key
            record = instance.get_asset_records([key])[0]
            last = record.asset_entry.last_materialization_record
            assert last
            found[key.to_user_string()] = {
                "newest": last.storage_id,
                "run": record.asset_entry.last_run_id,
                "run is there": bool(instance.get_run_by_id(last.run_id)),
                "planned": instance.event_log_storage.get_latest_planned_materialization_info(key),
                "tags": instance.event_log_storage.get_event_tags_for_asset(key, filter_event_id=last.storage_id),
            }
            if definition.partitions_def:
                instance.wipe_asset_cached_status([key])
                cached = get_and_update_asset_status_cache_value(instance, key, PARTITIONS)
                assert cached
                found[key.to_user_string()] |= {
                    "made": sorted(instance.get_materialized_partitions(key)),
                    "failed": sorted(cached.deserialize_failed_partition_subsets(PARTITIONS).get_partition_keys()),
                    "newest of each": {
                        name: instance.get_latest_storage_id_by_partition(
                            key, dagster.DagsterEventType.ASSET_MATERIALIZATION, set(PARTITIONS.get_partition_keys())
                        ).get(name)
                        for name in PARTITIONS.get_partition_keys()
                    },
                }
        graph = DEFINITIONS.resolve_asset_graph()
        stale = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        found["stale"] = {
            "beyond": stale.get_status(dagster.AssetKey("beyond")),
            **{
                name: stale.get_status(dagster.AssetKey("after_parts"), name)
                for name in PARTITIONS.get_partition_keys()
            },
        }
        checks = instance.event_log_storage.get_asset_check_summary_records(list(has_rows.check_keys))
        for check, summary in checks.items():
            newest, verdict = summary.last_check_execution_record, summary.last_completed_check_execution_record
            assert newest
            assert verdict
            found[f"check {check.name}"] = (newest.id, newest.status, verdict.id)
        return found


@contextmanager
def database(server: int, home: Path, template: str = "template1") -> Iterator[Here]:
    """A new database, like another one, and an instance on it."""
    name = f"upkeep_{time.monotonic_ns()}"
    # Over TCP: while the image sets itself up, only the socket answers.
    created = ["createdb", "-h", "127.0.0.1", "-U", "dagster", "-T", template, name]
    command = ["docker", "exec", "-e", "PGPASSWORD=secret", CONTAINER, *created]
    deadline = time.monotonic() + 60
    while (done := subprocess.run(command, capture_output=True, text=True, check=False)).returncode:
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.3)
    url = {"username": "dagster", "password": "secret", "hostname": "127.0.0.1", "port": server, "db_name": name}
    content = {"storage": {"postgres": {"postgres_db": url}}, "telemetry": {"enabled": False}}
    (home / "dagster.yaml").write_text(json.dumps(content))
    with dagster.DagsterInstance.from_config(str(home)) as instance:
        yield Here(instance, name)


@pytest.fixture(scope="module")
def past(server: int, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """A database with a history, for copies."""
    with database(server, tmp_path_factory.mktemp("past")) as here:
        return here.database, history(here)


@pytest.fixture
def here(server: int, past: tuple[str, dict[str, str]], tmp_path: Path) -> Iterator[Here]:
    """An instance with a history."""
    with database(server, tmp_path, past[0]) as found:
        found.runs = past[1]
        yield found


@pytest.fixture
def empty(server: int, tmp_path: Path) -> Iterator[Here]:
    """An instance without one."""
    with database(server, tmp_path) as found:
        yield found


def history(here: Here) -> dict[str, str]:
    """Assets made again and again; one partition failed last, one asset used an older materialization."""
    runs = {}
    for _ in range(2):
        here.make(whole, beyond)
        for name in ("north", "south"):
            here.make(parts, after_parts, partition=name)
    # after_parts of the west used this one; made anew with the same version, it is not stale.
    runs["west"] = here.make(parts, after_parts, partition="west", version="7")
    here.make(parts, partition="west", version="7")
    runs["failed"] = here.make(parts, partition="south", fail="yes")
    runs["check"] = here.make(whole, bad="yes")
    runs["plain"] = here.run()
    runs["kept"] = here.run("kept_job")
    runs["tagged"] = here.run(keep="me")
    return runs


def test_dagster_knows_the_same_of_its_assets_after_everything_old_went(here: Here) -> None:
    here.age(400)
    before, rows = here.known(), here.number("SELECT count(*) FROM event_logs")
    dry = here.clean(dry=True)
    assert here.number("SELECT count(*) FROM event_logs") == rows
    removed = here.clean()
    assert removed.rows == dry.rows
    assert removed.refused == []
    assert here.known() == before
    assert before["parts"]["failed"] == ["south"]
    assert {name: str(each) for name, each in before["stale"].items()}["west"] == "StaleStatus.FRESH"
    # Much went all the same, and a second time there is nothing left to do.
    assert here.number("SELECT count(*) FROM event_logs") < rows / 2, removed.rows
    assert removed.rows["asset events"] > 10
    assert removed.rows["runs"] >= 5
    assert here.clean().rows == {}
    # Nothing hangs in the air.
    for orphans in (
        "SELECT count(*) FROM asset_event_tags WHERE event_id NOT IN (SELECT id FROM event_logs)",
        "SELECT count(*) FROM run_tags WHERE run_id NOT IN (SELECT run_id FROM runs)",
        "SELECT count(*) FROM event_logs WHERE run_id NOT IN (SELECT run_id FROM runs)",
    ):
        assert here.number(orphans) == 0, orphans


def test_the_work_goes_on_after_it(here: Here) -> None:
    here.age(400)
    here.clean()
    again = here.make(whole, beyond)
    run = here.instance.get_run_by_id(again)
    assert run
    assert run.status == dagster.DagsterRunStatus.SUCCESS
    assert here.instance.get_latest_materialization_event(dagster.AssetKey("beyond")).run_id == again  # type: ignore[union-attr]


def test_nothing_young_goes_and_nothing_where_days_are_0(here: Here) -> None:
    here.age(20)
    assert here.clean().rows == {}
    here.age(400)
    never: dict[str, Any] = {
        "runs_days": dict.fromkeys(FINISHED, 0),
        "events_days": 0,
        "assets_days": 0,
        "checks_days": 0,
        "ticks_days": 0,
        "backfills_days": 0,
    }
    assert here.clean(**never).rows == {}


def test_steps_go_before_their_run_and_why_it_failed_stays(here: Here) -> None:
    here.age(40)
    removed = here.clean()
    assert set(removed.rows) == {"step events"}
    left = {row[0] for row in here.sql(
        f"SELECT DISTINCT dagster_event_type FROM event_logs WHERE run_id = '{here.runs['failed']}'"
    )}  # fmt: skip
    assert "STEP_FAILURE" in left
    assert "PIPELINE_FAILURE" in left
    assert "STEP_START" not in left
    run = here.instance.get_run_stats(here.runs["plain"])
    assert run.start_time
    assert run.end_time


def test_an_exception_keeps_what_it_names(here: Here) -> None:
    here.age(400)
    here.clean(exceptions=[
        {"job": "kept*", "runs_days": 0, "events_days": 0},
        {"tag": "keep=me", "runs_days": 0},
    ])  # fmt: skip
    assert here.instance.get_run_by_id(here.runs["plain"]) is None
    assert here.instance.get_run_by_id(here.runs["kept"])
    assert here.instance.get_run_by_id(here.runs["tagged"])
    steps = "SELECT count(*) FROM event_logs WHERE dagster_event_type = 'STEP_START' AND run_id = '{}'"
    assert here.number(steps.format(here.runs["kept"])) == 1
    assert here.number(steps.format(here.runs["tagged"])) == 0


@pytest.mark.parametrize("status", ["QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"])
def test_a_run_that_has_not_ended_keeps_everything(empty: Here, status: str) -> None:
    run = empty.make(whole)
    empty.make(whole)
    empty.age(4000)
    empty.sql(f"UPDATE runs SET status = '{status}' WHERE run_id = '{run}'")
    events = f"SELECT count(*) FROM event_logs WHERE run_id = '{run}'"
    before = empty.number(events)
    empty.clean()
    assert empty.number(events) == before
    assert empty.number(f"SELECT count(*) FROM runs WHERE run_id = '{run}'") == 1


def test_a_run_stays_while_a_younger_one_repeats_it(empty: Here) -> None:
    first = empty.run()
    empty.age(400)
    second = empty.run(**{"dagster/root_run_id": first, "dagster/parent_run_id": first})
    empty.clean()
    assert empty.instance.get_run_by_id(first)
    empty.age(400)
    assert empty.clean().rows["runs"] == 2
    assert empty.instance.get_run_by_id(second) is None


def test_a_run_of_a_backfill_that_goes_on_stays(empty: Here) -> None:
    run = empty.run(**{"dagster/backfill": "abcd"})
    empty.sql(f"UPDATE runs SET backfill_id = 'abcd' WHERE run_id = '{run}'")
    empty.sql("INSERT INTO bulk_actions (key, status, timestamp, body) VALUES ('abcd', 'REQUESTED', now(), '{}')")
    empty.age(400)
    empty.clean()
    assert empty.instance.get_run_by_id(run)
    empty.sql("UPDATE bulk_actions SET status = 'COMPLETED_SUCCESS'")
    dry = empty.clean(dry=True).rows
    assert empty.clean().rows == dry
    assert (dry["runs"], dry["backfills"]) == (1, 1)


def test_old_ticks_go_but_the_last_of_each(empty: Here) -> None:
    ticks = "INSERT INTO job_ticks (job_origin_id, selector_id, status, type, timestamp, tick_body)"
    empty.sql(f"{ticks} SELECT 'o', 's' || n % 2, 'SUCCESS', 'SCHEDULE', now() - n * interval '1 hour', '' FROM "
             "generate_series(1, 20) n")  # fmt: skip
    empty.age(130)
    assert empty.clean(dry=True).rows == {"ticks": 18}
    assert empty.clean().rows == {"ticks": 18}


def test_batches_are_small(empty: Here) -> None:
    for _ in range(3):
        empty.run()
    empty.age(400)
    seen: list[float] = []

    def breathe(seconds: float) -> float:
        seen.append(seconds)
        return 0.0

    with empty.session() as session:
        policy = upkeep_policy.read({"batch_rows": 7})
        removed = upkeep_database.Cleaner(session, policy, breathe=breathe).run()
    assert removed.rows["runs"] == 3
    assert removed.batches == len(seen) > 3


def test_a_lock_that_somebody_holds_is_not_waited_for(empty: Here) -> None:
    empty.run()
    empty.age(400)
    with empty.session() as other, empty.session(0.2) as session:
        other.query("BEGIN")
        other.query("LOCK TABLE event_logs IN ACCESS EXCLUSIVE MODE")
        policy = upkeep_policy.read({})
        started = time.monotonic()
        removed = upkeep_database.Cleaner(session, policy).run()
        assert time.monotonic() - started < 40
        other.query("ROLLBACK")
    assert "lock timeout" in removed.refused[0]
    assert empty.clean().rows["runs"] == 1


def test_an_unknown_schema_is_left_alone(empty: Here) -> None:
    empty.run()
    empty.age(400)
    empty.sql("ALTER TABLE runs RENAME COLUMN backfill_id TO another")
    removed = empty.clean()
    assert removed.rows == {}
    assert "runs.backfill_id" in removed.refused[0]
