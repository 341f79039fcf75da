# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: S608 - psql has no parameters here: texts go through upkeep_policy.text, the rest are numbers and names of ours
"""``dagster-gce upkeep``: removes by policy what is old, each night, so that the machine lasts for years."""

from __future__ import annotations

import argparse
import os
import re
import time
from dataclasses import dataclass, field

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.graphql import FINISHED
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    config,
    database,
    jobs,
    storage,
    upkeep_database,
    upkeep_docker,
    upkeep_files,
    upkeep_policy,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.upkeep_policy import Policy
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.upkeep_session import (
    RefusedError,
    Session,
)

JOB = "upkeep"
# Tables that lose rows here.
TABLES = (
    "event_logs",
    "asset_event_tags",
    "asset_check_executions",
    "runs",
    "run_tags",
    "job_ticks",
    "bulk_actions",
    "backfill_tags",
)
# A table is vacuumed where so much of it is dead, also when this night removed nothing from it.
_DEAD_SHARE = 0.1
# Waiting for the machine to calm down ends at last: a machine that is always busy needs upkeep too.
_LONGEST_WAIT = 10.0
_WAIT_FOR_CALM = 20


@dataclass
class Report:
    """What was removed, or would be."""

    dry: bool
    counts: dict[str, int] = field(default_factory=dict)
    bytes_freed: dict[str, int] = field(default_factory=dict)
    tables: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    details: dict[str, float] = field(default_factory=dict)

    def add(self, counts: dict[str, int], note: str = "") -> None:
        """Count what went; a note says why something stayed."""
        self.counts.update({name: self.counts.get(name, 0) + count for name, count in counts.items() if count})
        if note:
            self.notes.append(note)

    def summary(self) -> str:
        """One line."""
        parts = [f"{count} {name}" for name, count in self.counts.items()]
        freed = sum(self.bytes_freed.values())
        if freed:
            parts.append(f"{freed / 1e6:.0f} MB of files")
        verb = "would remove" if self.dry else "removed"
        return f"{verb} " + (", ".join(parts) or "nothing")

    def text(self) -> str:
        """What a person reads."""
        lines = [self.summary()]
        for name, table in self.tables.items():
            lines.append(
                f"  {name:<24} {table['rows']:>12,.0f} rows  {table['bytes'] / 1e6:>10,.1f} MB"
                f"  {table['dead']:>10,.0f} dead rows"
            )
        lines += [f"  {name}: {size / 1e6:,.1f} MB" for name, size in self.bytes_freed.items() if size]
        return "\n".join(
            [*lines, *(f"  note: {each}" for each in self.notes), *(f"  ! {each}" for each in self.refused)]
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")
    parser.add_argument("--emergency", action="store_true", help="only what gives room on the disk at once; no rows")
    parser.add_argument("--wait", action="store_true", help="wait for an upkeep that runs already")


def main(arguments: argparse.Namespace) -> int:
    """Do the work; returns the exit code."""
    if arguments.dry_run:
        try:
            print(keep_up(load_policy(), dry=True, emergency=arguments.emergency).text())
        except (jobs.JobError, database.DatabaseError, config.ConfigError) as error:
            print(f"upkeep: {error}")
            return 1
        return 0
    return jobs.run(JOB, lambda: work(arguments.emergency), wait=arguments.wait)


def load_policy() -> Policy:
    """The policy of this machine.

    Raises:
        jobs.JobError: its settings are none.
    """
    try:
        return upkeep_policy.read(config.load(JOB))
    except upkeep_policy.PolicyError as error:
        raise jobs.JobError(f"{error}; change the role's variables and run site.yml") from error


def work(emergency: bool = False) -> jobs.Result:
    """The job."""
    policy = load_policy()
    started = time.monotonic()
    report = keep_up(policy, emergency=emergency)
    print(report.text())
    problems = []
    if report.refused:
        problems.append(jobs.Problem("upkeep_refused", jobs.WARNING, f"upkeep could not do all: {report.refused[0]}"))
    logs = _unrotated()
    if logs:
        problems.append(
            jobs.Problem(
                "logs_without_limit",
                jobs.WARNING,
                f"the log of {', '.join(logs[:3])} grows without a limit; run site.yml and start the container again",
            )
        )
    if not ticks_are_removed():
        problems.append(
            jobs.Problem(
                "tick_retention",
                jobs.WARNING,
                f"{_dagster_yaml()} has no retention: ticks of schedules and sensors that go on are removed by nobody;"
                " set dagster_home_tick_retention and run site.yml",
            )
        )
    metrics = [
        jobs.Metric("dagster_gce_upkeep_removed", count, "What the last upkeep removed", labels={"kind": name})
        for name, count in sorted(report.counts.items())
    ]
    shown = (
        ("dagster_gce_table_bytes", "bytes", "Size of a table with its indexes and what is stored beside it"),
        ("dagster_gce_table_rows", "rows", "Rows of a table, as PostgreSQL estimates them"),
    )
    metrics += [
        jobs.Metric(metric, table[key], text, labels={"table": name})
        for metric, key, text in shown
        for name, table in sorted(report.tables.items())
    ]
    return jobs.Result(
        report.summary(),
        details={
            "removed": report.counts,
            "bytes_freed": report.bytes_freed,
            "tables": report.tables,
            "notes": report.notes,
            "refused": report.refused,
            "emergency": emergency,
            "seconds": round(time.monotonic() - started, 1),
            **report.details,
        },
        problems=problems,
        metrics=metrics,
    )


def _dagster_yaml() -> str:
    return os.path.join(config.stack().root, "dagster_home", "dagster.yaml")


def ticks_are_removed() -> bool:
    """Whether Dagster itself removes old ticks; true where nobody can tell."""
    try:
        with open(_dagster_yaml(), encoding="utf-8") as stream:
            return re.search(r"^retention:", stream.read(), re.MULTILINE) is not None
    except OSError:
        return True


def _unrotated() -> list[str]:
    try:
        return upkeep_docker.unrotated_logs()
    except docker_cli.DockerError:
        return []


def keep_up(policy: Policy, dry: bool = False, emergency: bool = False) -> Report:
    """Do all of it, or say what would be done.

    Args:
        policy: what may go.
        dry: remove nothing.
        emergency: only what frees space at once. Rows do not: PostgreSQL keeps the room for new ones, and to remove
            them takes room first.
    """
    report = Report(dry)
    _docker(policy, report, emergency)
    existing, protected = _compute_logs_that_stay(policy, report)
    if existing is not None:
        try:
            folder = storage.folder()
            if folder:
                count, size = upkeep_files.remove_compute_logs(
                    folder, existing, protected, policy.compute_logs_days, policy.ticks_days, dry
                )
                report.add({"compute logs": count})
                report.bytes_freed["compute logs"] = size
        except (docker_cli.DockerError, OSError) as error:
            report.notes.append(f"compute logs: {error}")
    if not dry:
        said = upkeep_files.shrink_journal(policy.journal_megabytes if not emergency else 100, policy.journal_days)
        report.bytes_freed["apt cache"], problem = upkeep_files.empty_apt_cache(
            0 if emergency else policy.apt_cache_megabytes
        )
        report.notes += [each for each in (said, problem) if each]
    if not emergency:
        _rows(policy, report)
    return report


def _docker(policy: Policy, report: Report, emergency: bool) -> None:
    if not report.dry:
        report.add(*upkeep_docker.clean_releases(policy))
        size, note = upkeep_docker.remove_build_cache(policy, everything=emergency)
        report.bytes_freed["build cache"] = size
        report.add({}, note)
    images, note = upkeep_docker.remove_images(policy, report.dry)
    report.add({"images": len(images)}, note)


def _compute_logs_that_stay(policy: Policy, report: Report) -> tuple[set[str] | None, set[str]]:
    """Ids of all runs, and of those whose logs stay; None where the database does not say."""
    days = upkeep_policy.days(policy, "compute_logs_days")
    finished = ", ".join(upkeep_policy.text(each) for each in FINISHED)
    stays = (
        f"r.status NOT IN ({finished}) OR ({days}) IS NULL"
        f" OR coalesce(r.end_time, 0) > extract(epoch FROM now()) - 86400 * ({days})"
    )
    try:
        rows = database.query(f"SELECT r.run_id, ({stays}) FROM runs r", timeout=300)
    except database.DatabaseError as error:
        report.notes.append(f"compute logs stay, since the database does not say which runs there are: {error}")
        return None, set()
    return {row[0] for row in rows}, {row[0] for row in rows if row[1] == "t"}


def _rows(policy: Policy, report: Report) -> None:
    deadline = time.monotonic() + policy.max_seconds
    try:
        with Session() as session:
            cleaner = upkeep_database.Cleaner(
                session, policy, report.dry, lambda seconds: breathe(policy, seconds), deadline
            )
            removed = cleaner.run()
            report.add(removed.rows)
            report.refused += removed.refused
            report.details = {
                "batches": removed.batches,
                "slowest_batch_seconds": round(removed.slowest_batch, 3),
                "waited_seconds": round(removed.waited, 1),
            }
            if removed.unfinished:
                report.notes.append(f"{removed.unfinished}; the next night goes on")
            if policy.vacuum and not report.dry and time.monotonic() < deadline:
                _vacuum(session, removed, report)
            report.tables = sizes(session)
    except database.DatabaseError as error:
        if report.dry:
            raise
        raise jobs.JobError(f"{report.summary()}; then: {error}") from error


def breathe(policy: Policy, seconds: float) -> float:
    """Wait after a batch, longer while the machine is busy; returns the seconds."""
    started = time.monotonic()
    time.sleep(min(_LONGEST_WAIT, max(0.01, seconds * policy.pause)))
    limit = policy.max_load * (os.cpu_count() or 1)
    patience = min(_LONGEST_WAIT, seconds * _WAIT_FOR_CALM)
    while os.getloadavg()[0] > limit and time.monotonic() - started < patience:
        time.sleep(0.2)
    return time.monotonic() - started


def _vacuum(session: Session, removed: upkeep_database.Removed, report: Report) -> None:
    """Make the room of removed rows usable again, gently, and renew the planner's statistics.

    Plain VACUUM takes no lock that readers or writers wait for. TRUNCATE, which would give pages at a table's end back,
    does; and old rows are at its beginning anyway. VACUUM FULL would lock the table for minutes.
    """
    # PostgreSQL counts with a delay of up to a second.
    time.sleep(1.1)
    for table, found in sizes(session).items():
        mostly_dead = found["dead"] > max(1000.0, _DEAD_SHARE * found["rows"])
        if not mostly_dead and not (removed.rows and found["dead"]):
            continue
        try:
            session.query("SET vacuum_cost_delay = '2ms'")
            session.query(f"VACUUM (ANALYZE, TRUNCATE false) {table}", 3600)
            report.counts["vacuumed tables"] = report.counts.get("vacuumed tables", 0) + 1
        except RefusedError as error:
            report.notes.append(f"vacuum of {table}: {error}")


def sizes(session: Session) -> dict[str, dict[str, float]]:
    """Rows, dead rows and bytes of the tables, as PostgreSQL's statistics have them."""
    named = upkeep_policy.texts(TABLES)
    rows = session.query(
        "SELECT relname, n_live_tup, n_dead_tup, pg_total_relation_size(relid) FROM pg_stat_user_tables"
        f" WHERE schemaname = current_schema() AND relname = ANY({named}) ORDER BY 4 DESC"
    )
    return {row[0]: {"rows": float(row[1]), "dead": float(row[2]), "bytes": float(row[3])} for row in rows}
