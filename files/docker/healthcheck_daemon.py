"""Health check of dagster-daemon: every daemon that the instance requires has a young heartbeat in PostgreSQL.

Usage: python healthcheck_daemon.py [--max-age 120] [--dagster-yaml $DAGSTER_HOME/dagster.yaml]
Exit status: 0 healthy, 1 not; the reason is on stdout, where `docker inspect` shows it.

`dagster-daemon liveness-check` says the same, but imports Dagster, which costs a second of CPU a call, and tolerates
a heartbeat of half an hour. This reads dagster.yaml and the table daemon_heartbeats itself (Dagster 1.13:
dagster/_core/instance/methods/daemon_methods.py, get_required_daemon_types; tests hold it to that).
A daemon posts its heartbeat every 30 s.
"""

import argparse
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg2  # type: ignore[import-untyped]  # it brings no types
import yaml

Config = Mapping[str, Any]


class ConfigurationError(Exception):
    """dagster.yaml does not say what the check needs."""


def required_daemons(config: Config) -> list[str]:
    """The daemon types that an instance with this dagster.yaml requires, in Dagster's own names."""
    daemons = ["SENSOR", "BACKFILL"]
    if _class_name(config, "scheduler", "DagsterDaemonScheduler") == "DagsterDaemonScheduler":
        daemons.append("SCHEDULER")
    if _class_name(config, "run_coordinator", "QueuedRunCoordinator") == "QueuedRunCoordinator":
        daemons.append("QUEUED_RUN_COORDINATOR")
    if _setting(config, "run_monitoring", "enabled", False):
        daemons.append("MONITORING")
    if _setting(config, "run_retries", "enabled", False):
        daemons.append("EVENT_LOG_CONSUMER")
    if _setting(config, "auto_materialize", "enabled", True) or _setting(
        config, "auto_materialize", "use_sensors", True
    ):
        daemons.append("ASSET")
    if _setting(config, "freshness", "enabled", True):
        daemons.append("FRESHNESS_DAEMON")
    return daemons


def connection_arguments(config: Config, environment: Mapping[str, str]) -> dict[str, Any]:
    """What psycopg2.connect() needs to reach the run storage of this dagster.yaml.

    Raises:
        ConfigurationError: the storage is not PostgreSQL, or a variable that it names is not set.
    """
    storage = _section(_section(config, "run_storage"), "config") or _section(_section(config, "storage"), "postgres")
    if not storage:
        raise ConfigurationError("dagster.yaml: expected run_storage.config or storage.postgres, found neither")

    def value(entry: Any) -> Any:
        if isinstance(entry, Mapping) and set(entry) == {"env"}:
            try:
                return environment[entry["env"]]
            except KeyError:
                raise ConfigurationError(f"dagster.yaml names the variable {entry['env']}, which is not set") from None
        return entry

    if "postgres_url" in storage:
        return {"dsn": value(storage["postgres_url"])}
    database = _section(storage, "postgres_db")
    try:
        arguments = {
            "host": value(database["hostname"]),
            "user": value(database["username"]),
            "password": value(database["password"]),
            "dbname": value(database["db_name"]),
        }
    except KeyError as error:
        raise ConfigurationError(f"dagster.yaml: expected postgres_db.{error.args[0]}, found none") from None
    arguments["port"] = int(value(database.get("port", 5432)))
    arguments.update({name: value(entry) for name, entry in _section(database, "params").items()})
    return arguments


def read_heartbeats(arguments: Mapping[str, Any], timeout: int) -> dict[str, float]:
    """Age in seconds of each daemon's last heartbeat.

    Raises:
        psycopg2.Error: the database does not answer within the timeout, or has no such table.
    """
    connection = psycopg2.connect(
        **{"connect_timeout": timeout, "options": f"-c statement_timeout={timeout * 1000}", **arguments}
    )
    try:
        with connection.cursor() as cursor:
            # Dagster writes UTC without a zone.
            cursor.execute("SELECT daemon_type, extract(epoch FROM timestamp) FROM daemon_heartbeats")
            now = time.time()
            return {daemon: now - float(written) for daemon, written in cursor.fetchall()}
    finally:
        connection.close()


def problems(required: list[str], ages: Mapping[str, float], max_age: float) -> list[str]:
    """One line for each required daemon that has no heartbeat or an old one."""
    lines = []
    for daemon in required:
        if daemon not in ages:
            lines.append(f"{daemon}: expected a heartbeat, found none")
        elif ages[daemon] > max_age:
            lines.append(f"{daemon}: expected a heartbeat within {max_age:g} s, found one of {ages[daemon]:.0f} s ago")
    return lines


def check(dagster_yaml: Path, environment: Mapping[str, str], max_age: float, timeout: int) -> list[str]:
    """Return what is wrong, one line each; an empty list is health."""
    try:
        config = yaml.safe_load(dagster_yaml.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        return [f"cannot read {dagster_yaml}: {error}"]
    config = config if isinstance(config, Mapping) else {}
    try:
        ages = read_heartbeats(connection_arguments(config, environment), timeout)
    except ConfigurationError as error:
        return [str(error)]
    except psycopg2.Error as error:
        return [f"PostgreSQL: {str(error).strip() or type(error).__name__}"]
    return problems(required_daemons(config), ages, max_age)


def _section(config: Config, name: str) -> Config:
    entry = config.get(name)
    return entry if isinstance(entry, Mapping) else {}


def _class_name(config: Config, section: str, default: str) -> str:
    return str(_section(config, section).get("class", default))


def _setting(config: Config, section: str, name: str, default: bool) -> bool:
    return bool(_section(config, section).get(name, default))


def main() -> int:
    """Run the check and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-age", type=float, default=120.0, help="seconds that a heartbeat may be old")
    parser.add_argument("--timeout", type=int, default=5, help="seconds for PostgreSQL to answer")
    parser.add_argument(
        "--dagster-yaml",
        type=Path,
        default=Path(os.environ.get("DAGSTER_HOME", "/opt/dagster/dagster_home")) / "dagster.yaml",
    )
    arguments = parser.parse_args()
    lines = check(arguments.dagster_yaml, os.environ, arguments.max_age, arguments.timeout)
    print("\n".join(f"unhealthy: {line}" for line in lines) or "healthy: every required daemon has a young heartbeat")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
