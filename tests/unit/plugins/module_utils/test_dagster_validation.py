"""What the real Dagster says to configurations."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from typing import Any

import dagster
import pytest
import yaml

from ansible_collections.dataops.dagster_gce.plugins.module_utils import dagster_validation

POSTGRES: dict[str, Any] = {
    "postgres_db": {
        "hostname": "dagster-postgres",
        "username": {"env": "POSTGRES_USER"},
        "password": {"env": "POSTGRES_PASSWORD"},
        "db_name": {"env": "POSTGRES_DB"},
        "port": 5432,
    }
}
ARTICLE: dict[str, Any] = {
    "scheduler": {"module": "dagster.core.scheduler", "class": "DagsterDaemonScheduler"},
    "run_coordinator": {
        "module": "dagster.core.run_coordinator",
        "class": "QueuedRunCoordinator",
        "config": {"max_concurrent_runs": 5},
    },
    "run_storage": {"module": "dagster_postgres.run_storage", "class": "PostgresRunStorage", "config": POSTGRES},
    "event_log_storage": {
        "module": "dagster_postgres.event_log",
        "class": "PostgresEventLogStorage",
        "config": POSTGRES,
    },
    "schedule_storage": {
        "module": "dagster_postgres.schedule_storage",
        "class": "PostgresScheduleStorage",
        "config": POSTGRES,
    },
    "telemetry": {"enabled": False},
}
RUNS = {"runs": {"max_concurrent_runs": 5}}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `check` sets in its container must not stay here."""
    monkeypatch.setattr(os, "environ", {**os.environ})


def ask(kind: str, document: Any) -> list[str]:
    return dagster_validation.check(kind, yaml.safe_dump(document))


def launcher(**config: Any) -> dict[str, Any]:
    return {"run_launcher": {"module": "dagster_docker", "class": "DockerRunLauncher", "config": config}}


def grpc(**server: Any) -> dict[str, Any]:
    return {"grpc_server": server}


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        ("instance", ARTICLE),
        ("instance", {}),
        ("instance", {"storage": {"postgres": POSTGRES}, "concurrency": RUNS}),
        (
            "instance",
            launcher(network="n", container_kwargs={"mem_limit": "1g", "stop_timeout": 3, "labels": {"a": "b"}}),
        ),
        ("workspace", {"load_from": []}),
        ("workspace", {"load_from": [grpc(host="a", port=4000, location_name="a"), grpc(host="a", port=4001)]}),
    ],
)
def test_accepted(kind: str, document: Any) -> None:
    assert ask(kind, document) == []


@pytest.mark.parametrize(
    ("kind", "document", "words"),
    [
        (
            "instance",
            {**ARTICLE, "storage": {"postgres": POSTGRES}},
            "`storage` which is incompatible with `run_storage`",
        ),
        ("instance", {**ARTICLE, "concurrency": RUNS}, "incompatible with the `concurrency > runs` config"),
        (
            "instance",
            {"concurrency": RUNS, "run_queue": {"max_concurrent_runs": 3}},
            "in `run_queue` which is incompatible",
        ),
        ("instance", {"foo": 1}, 'unexpected config entry "foo" at the root'),
        ("instance", {"run_monitoring": {"enabeld": True}}, 'entry "enabeld" at path root:run_monitoring'),
        ("instance", {"run_monitoring": {"enabled": "maybe"}}, 'root:run_monitoring:enabled. Value "maybe"'),
        ("instance", {"storage": {"postgres": {"postgres_db": {"host": "x"}}}}, 'entry "host" at path root:storage'),
        (
            "instance",
            {**ARTICLE, "run_storage": {**ARTICLE["run_storage"], "config": {"postgres_db": {"host": "x"}}}},
            'run_storage: Received unexpected config entry "host"',
        ),
        (
            "instance",
            {"compute_logs": {"module": "dagster_nope", "class": "Logs"}},
            "compute_logs: module dagster_nope: cannot be imported in this image",
        ),
        ("instance", {"compute_logs": {"module": "dagster", "class": "Logs"}}, "module dagster has no class Logs"),
        ("instance", launcher(netwrk="n"), 'run_launcher: Received unexpected config entry "netwrk"'),
        ("instance", launcher(network="n", networks=["m"]), "cannot set both `network` and `networks`"),
        ("instance", launcher(container_kwargs={"mem_limt": "1g"}), "unexpected keyword argument 'mem_limt'"),
        ("instance", launcher(container_kwargs={"image": "x"}), "'image' cannot be used in 'container_kwargs'"),
        (
            "instance",
            {"run_monitoring": {"enabled": True, "max_resume_run_attempts": 1}},
            "run launcher does not support resuming runs",
        ),
        ("workspace", {"load_from": [grpc(host="a", prt=1)]}, 'entry "prt" at path root:load_from[0]:grpc_server'),
        ("workspace", {"load_from": [grpc(host="a", location_name="a")]}, "must supply either a socket or a port"),
        (
            "workspace",
            {"load_from": [grpc(host="a", port=1, location_name="a")] * 2},
            "multiple locations with the same name",
        ),
    ],
)
def test_refused_in_dagster_s_words(kind: str, document: Any, words: str) -> None:
    problems = ask(kind, document)
    assert len(problems) >= 1
    assert any(words in problem for problem in problems), problems
    assert all(len(problem) < 500 and "\n" not in problem for problem in problems)


def test_as_a_program_it_needs_nothing_of_the_collection() -> None:
    request = json.dumps({"kind": "instance", "text": "foo: 1\n"})
    command = [sys.executable, "-I", "-c", inspect.getsource(dagster_validation)]
    done = subprocess.run(command, input=request, capture_output=True, text=True, check=True)
    problems = ['dagster.yaml: Received unexpected config entry "foo" at the root']
    assert json.loads(done.stdout) == {"problems": problems, "dagster": dagster.__version__}
