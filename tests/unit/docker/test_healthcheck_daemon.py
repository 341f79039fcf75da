"""files/docker/healthcheck_daemon.py knows what Dagster requires, and reads every storage block that Dagster reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pytest
import yaml

from tests.unit.programs import load

QUEUED = {"module": "dagster.core.run_coordinator", "class": "QueuedRunCoordinator"}
DEFAULT = {"module": "dagster.core.run_coordinator", "class": "DefaultRunCoordinator"}
DATABASE = {"hostname": "db", "username": {"env": "U"}, "password": {"env": "P"}, "db_name": "d"}
ENVIRONMENT = {"U": "user", "P": "pa ss'w", "URL": "postgresql://u:p@h:1/d"}


@pytest.fixture(scope="module")
def health(root: Path) -> ModuleType:
    """The helper, which is no part of a package."""
    found: ModuleType = load(root / "files/docker/healthcheck_daemon.py")
    return found


def variants() -> list[dict[str, Any]]:
    """dagster.yaml files: each section absent, on and off."""
    choices: dict[str, list[Any]] = {
        "run_coordinator": [None, QUEUED, DEFAULT],
        "run_monitoring": [None, {"enabled": True}, {"enabled": False}],
        "run_retries": [None, {"enabled": True, "max_retries": 1}, {"max_retries": 1}],
        "auto_materialize": [
            None,
            {"enabled": False},
            {"enabled": False, "use_sensors": False},
            {"use_sensors": False},
        ],
        "freshness": [None, {"enabled": False}, {"enabled": True}],
    }
    alone = [{name: value} for name, values in choices.items() for value in values if value is not None]
    all_on = {name: values[1] for name, values in choices.items()}
    all_off = {name: values[2] for name, values in choices.items()}
    return [{}, *alone, all_on, all_off, {"concurrency": {"runs": {"max_concurrent_runs": 5}}}]


@pytest.mark.parametrize(
    "config", variants(), ids=lambda config: yaml.safe_dump(config, default_flow_style=True).strip()
)
def test_the_same_daemons_as_dagster(health: ModuleType, config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({**config, "telemetry": {"enabled": False}}))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert sorted(health.required_daemons(config)) == sorted(instance.get_required_daemon_types())


@pytest.mark.parametrize(
    "config",
    [
        {"run_storage": {"module": "m", "class": "c", "config": {"postgres_db": DATABASE}}},
        {"storage": {"postgres": {"postgres_db": {**DATABASE, "port": 5432}}}},
    ],
    ids=["the article's blocks", "storage"],
)
def test_the_connection(health: ModuleType, config: dict[str, Any]) -> None:
    assert health.connection_arguments(config, ENVIRONMENT) == {
        "host": "db",
        "port": 5432,
        "user": "user",
        "password": "pa ss'w",
        "dbname": "d",
    }


def test_the_connection_by_url(health: ModuleType) -> None:
    config = {"storage": {"postgres": {"postgres_url": {"env": "URL"}}}}
    assert health.connection_arguments(config, ENVIRONMENT) == {"dsn": ENVIRONMENT["URL"]}


@pytest.mark.parametrize(
    ("config", "environment", "message"),
    [
        ({}, {}, "expected run_storage.config or storage.postgres, found neither"),
        ({"storage": {"sqlite": {"base_dir": "/x"}}}, {}, "found neither"),
        ({"storage": {"postgres": {"postgres_db": DATABASE}}}, {"U": "u"}, "names the variable P, which is not set"),
        (
            {"storage": {"postgres": {"postgres_db": {"hostname": "h"}}}},
            {},
            "expected postgres_db.username, found none",
        ),
    ],
)
def test_a_configuration_that_cannot_be_checked(
    health: ModuleType, config: dict[str, Any], environment: dict[str, str], message: str
) -> None:
    with pytest.raises(health.ConfigurationError, match=message):
        health.connection_arguments(config, environment)


def test_old_and_missing_heartbeats(health: ModuleType) -> None:
    lines = health.problems(["SENSOR", "BACKFILL", "ASSET"], {"SENSOR": 119.0, "BACKFILL": 121.0, "OTHER": 1e9}, 120)
    assert lines == [
        "BACKFILL: expected a heartbeat within 120 s, found one of 121 s ago",
        "ASSET: expected a heartbeat, found none",
    ]


@pytest.mark.parametrize(
    "content", [None, "", "- a\n", "a: [\n", "run_storage:\n", "storage: 5\n", "storage: {postgres: 1}"]
)
def test_no_traceback_whatever_the_file_holds(root: Path, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "dagster.yaml"
    if content is not None:
        path.write_text(content)
    result = subprocess.run(
        [sys.executable, str(root / "files/docker/healthcheck_daemon.py"), "--dagster-yaml", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stdout.startswith("unhealthy: ")
    assert result.stderr == ""


def test_the_probe_is_cheap(root: Path) -> None:
    """It runs every few seconds for years: no Dagster, nothing that takes a second to import."""
    script = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='probe'); print(','.join(sorted(sys.modules)))"
    path = str(root / "files/docker/healthcheck_daemon.py")
    result = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    modules = result.stdout.split(",")
    assert [name for name in modules if name.split(".")[0] in {"dagster", "sqlalchemy", "pydantic"}] == []
