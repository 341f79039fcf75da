"""What a look makes of what the engine, PostgreSQL and the webserver say, and of what they do not say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli, graphql
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    database,
    watch_act,
    watch_look,
    watch_memory,
    watch_runs,
    watch_settings,
)
from tests.unit.operations.watching import run, server

SETTINGS = watch_settings.Settings()
GONE, WORKER, DAEMON = "0" * 64, "1" * 64, "2" * 64
RUN = "a33eacdb-5aa4-4110-86da-d9c21491467f"


def inspected(identity: str, name: str, labels: dict[str, str], **state: Any) -> dict[str, Any]:
    """A container as ``docker container inspect`` of 26.1.5 shows it, as far as it is read."""
    return {
        "Id": identity,
        "Name": f"/{name}",
        "State": {"Status": "running", "Pid": 42, "ExitCode": 0, "OOMKilled": False,
                  "StartedAt": "2026-11-23T03:54:32.22134792Z", "FinishedAt": "0001-01-01T00:00:00Z", **state},
        "Config": {"Labels": labels},
        "HostConfig": {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}},
        "NetworkSettings": {"Networks": {"dagster-network": {"IPAddress": "172.18.0.4", "GlobalIPv6Address": ""}}},
    }  # fmt: skip


class Engine:
    """Says what Docker 26.1.5 said on a machine with a daemon, a run, and a container that is gone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.there = [
            inspected(DAEMON, "dagster-daemon", {"dataops.dagster_gce": "stack"}, Health={"Status": "healthy"}),
            inspected(WORKER, "crazy_kilby", {"dataops.dagster_gce": "run", "dagster/run_id": RUN}),
        ]
        self.more_errors = ""
        monkeypatch.setattr(docker_cli, "run", self.run)

    def run(self, arguments: list[str], **_: Any) -> docker_cli.Result:
        if arguments[0] == "ps":
            lines = [
                json.dumps(
                    {
                        "id": each["Id"],
                        "state": each["State"]["Status"],
                        "run": each["Config"]["Labels"].get("dagster/run_id", ""),
                        "networks": ",".join(each["NetworkSettings"]["Networks"]),
                        "service": each["Config"]["Labels"].get("com.docker.swarm.service.id", ""),
                    }
                )
                for each in self.there
            ]
            return docker_cli.Result(0, "\n".join(lines) + "\n", "")
        asked = arguments[2:]
        found = [each for each in self.there if each["Id"] in asked]
        errors = [
            f"Error response from daemon: No such container: {name}"
            for name in asked
            if name == GONE and name not in [each["Id"] for each in found]
        ]
        said = "\n".join([*errors, self.more_errors])
        return docker_cli.Result(int(bool(said.strip())), json.dumps(found), said)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return Engine(monkeypatch)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What PostgreSQL answers; the query that it got is the first row of nothing."""
    found: list[list[str]] = []
    monkeypatch.setattr(database, "query", lambda *_, **__: found)
    monkeypatch.setattr(graphql.Webserver, "locations", lambda _: {})
    monkeypatch.setattr(graphql.Webserver, "query", lambda *_: {})
    return found


def test_a_look(engine: Engine, rows: list[list[str]]) -> None:
    rows += [
        ["run", RUN, "STARTED", "1795406220.5", WORKER, "", "t", "1795406221.5", ""],
        [
            "run",
            "other",
            "STARTING",
            "1795406220.5",
            GONE,
            '{"host": "code.example.com", "port": 4000}',
            "f",
            "1795406222.5",
            "",
        ],
        ["known", RUN, "STARTED", "0", "", "", "f", "0", ""],
        ["heartbeat", "SENSOR", "", "1795406220.014414", "", "", "f", "0", ""],
        ["sensor", "9ebf", "RUNNING", "0", "", "", "f", "0", ""],
    ]
    look = watch_look.take(SETTINGS)
    assert list(look.containers) == ["dagster-daemon"]
    assert (look.containers["dagster-daemon"].health, look.containers["dagster-daemon"].policy) == ("healthy", "always")
    assert look.containers["dagster-daemon"].addresses == ("172.18.0.4",)
    assert look.workers[WORKER].run_id == RUN
    assert look.missing == {GONE}
    assert look.runs == [
        watch_look.Run(RUN, "STARTED", 1795406220.5, WORKER, "", has_started=True, updated=1795406221.5),
        watch_look.Run(
            "other", "STARTING", 1795406220.5, GONE, "code.example.com", has_started=False, updated=1795406222.5
        ),
    ]
    assert look.known == {RUN: "STARTED"}
    assert look.heartbeats == {"SENSOR": 1795406220.014414}
    assert look.sensors_ahead


def test_what_the_engine_fails_to_look_up_is_not_gone(engine: Engine, rows: list[list[str]]) -> None:
    rows.append(["run", RUN, "STARTED", "1.0", "3" * 64, "", "t", "1.0", ""])
    engine.more_errors = f"Error response from daemon: layer of {'3' * 64} is locked"
    assert watch_look.take(SETTINGS).missing == frozenset()


def test_a_database_that_does_not_answer_leaves_runs_unknown(
    engine: Engine, rows: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> list[list[str]]:
        raise database.DatabaseError("PostgreSQL in dagster-postgres: the database system is starting up")

    monkeypatch.setattr(database, "query", refuse)
    look = watch_look.take(SETTINGS)
    assert (look.runs, look.heartbeats) == (None, None)
    assert "starting up" in look.database_error


def test_a_label_gets_into_no_query(engine: Engine, rows: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def query(sql: str, **_: object) -> list[list[str]]:
        asked.append(sql)
        return []

    monkeypatch.setattr(database, "query", query)
    engine.there[1]["Config"]["Labels"]["dagster/run_id"] = "x'); DROP TABLE runs; --"
    watch_look.take(SETTINGS)
    assert "DROP" not in asked[0]


def test_an_engine_that_does_not_answer_ends_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object, **__: object) -> docker_cli.Result:
        raise docker_cli.DockerUnreachableError("the Docker engine does not answer")

    monkeypatch.setattr(docker_cli, "run", silent)
    with pytest.raises(docker_cli.DockerError):
        watch_look.take(SETTINGS)


@pytest.mark.parametrize(
    ("printed", "status", "runs"),
    [('["one", "two"]\n', 0, {"one", "two"}), ("[]\n", 0, set()), ("null\n", 0, None), ("", 1, None), ("?", 0, None)],
)
def test_what_a_code_server_says_of_its_runs(
    monkeypatch: pytest.MonkeyPatch, printed: str, status: int, runs: set[str] | None
) -> None:
    monkeypatch.setattr(docker_cli, "run", lambda *_, **__: docker_cli.Result(status, printed, ""))
    assert watch_runs.current_runs(server(), 4000) == runs


def test_runs_are_reported_where_dagster_can_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[Any] = []

    def answer(arguments: list[str], **given: Any) -> docker_cli.Result:
        if arguments[2] == "dagster-daemon":
            raise docker_cli.DockerError("container dagster-daemon is not running")
        orders.append(json.loads(given["input"]))
        return docker_cli.Result(0, 'a warning\n["", "SUCCESS"]\n', "")

    monkeypatch.setattr(docker_cli, "run", answer)
    dead = [watch_runs.Dead(run("r1"), watch_runs.FAIL, "why"), watch_runs.Dead(run("r2"), watch_runs.FAIL, "why")]
    assert watch_runs.report(dead, ["dagster-daemon", "dagster-webserver"]) == ["", "SUCCESS"]
    assert [(each["run_id"], each["status"], each["action"]) for each in orders[0]] == [
        ("r1", "STARTED", "fail_run"),
        ("r2", "STARTED", "fail_run"),
    ]
    with pytest.raises(docker_cli.DockerError, match="not running"):
        watch_runs.report(dead, ["dagster-daemon"])


def test_a_run_that_ended_meanwhile_is_no_action(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_runs, "report", lambda *_: ["SUCCESS"])
    hands = watch_act.Hands(watch_memory.Memory(1.0, 1.0), SETTINGS)
    hands.end_runs([watch_runs.Dead(run(), watch_runs.FAIL, "why")])
    assert hands.done == []
