"""The endpoint answers in time whatever is broken, and says what is; its text is what Prometheus reads."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli, files
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    config,
    database,
    jobs,
    metrics,
    metrics_counters,
    metrics_engine,
    metrics_machine,
    metrics_text,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.jobs import Metric
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.metrics_collect import Collector, Part
from tests.unit.operations.conftest import Configure


def test_text_format() -> None:
    found = metrics_text.render(
        [
            Metric("a_bytes", 312_000_000.0, "Size\nof \\ it."),
            Metric("b_total", 1.5, "Count.", "counter", {"what": 'a "b" \\ c\nd', "also": "x"}),
            Metric("a_bytes", 2, "", labels={"path": "/"}),
            Metric("not_a_number", float("nan")),
            Metric("endless", float("inf")),
        ]
    )
    assert found == (
        "# HELP a_bytes Size\\nof \\\\ it.\n"
        "# TYPE a_bytes gauge\n"
        "a_bytes 312000000\n"
        'a_bytes{path="/"} 2\n'
        "# HELP b_total Count.\n"
        "# TYPE b_total counter\n"
        'b_total{also="x",what="a \\"b\\" \\\\ c\\nd"} 1.5\n'
        "# TYPE not_a_number gauge\n"
        "not_a_number NaN\n"
        "# TYPE endless gauge\n"
        "endless +Inf\n"
    )


def test_one_bad_sample_does_not_take_the_others_away() -> None:
    listed: list[Any] = [
        {"name": "good", "value": 1, "labels": {"a": 1}},
        {"name": "good", "value": 2, "labels": {"a": 1}},
        {"name": "bad name", "value": 1},
        {"name": "no_number", "value": "many"},
        {"name": "bad_label", "value": 1, "labels": {"a-b": "c"}},
        {"name": "no_labels", "value": 1, "labels": [1]},
        "nothing",
        {"name": "odd_type", "value": True, "type": "histogram"},
    ]
    assert metrics_text.render(metrics_text.of_state(listed)) == (
        '# TYPE good gauge\ngood{a="1"} 1\n# TYPE odd_type untyped\nodd_type 1\n'
    )
    assert metrics_text.of_state({"a": 1}) == []


def asked(log: list[str], name: str, *, fails: bool = False, hangs: threading.Event | None = None) -> Part:
    def ask() -> Sequence[Metric]:
        log.append(name)
        if hangs:
            hangs.wait(30)
        if fails:
            raise docker_cli.DockerError("the engine does not answer")
        return [Metric(f"of_{name}", len(log))]

    return Part(name, ask, rest=60)


def test_a_part_that_fails_and_one_that_hangs_take_nothing_from_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    log: list[str] = []
    hangs = threading.Event()
    parts = [asked(log, "good"), asked(log, "failing", fails=True), asked(log, "hanging", hangs=hangs)]
    collector = Collector(parts, deadline=0.5)
    started = time.monotonic()
    first = collector.collect()
    assert time.monotonic() - started < 2
    assert 'dagster_gce_up{part="good"} 1\n' in first
    assert 'dagster_gce_up{part="failing"} 0\n' in first
    assert 'dagster_gce_up{part="hanging"} 0\n' in first
    assert "of_good" in first
    assert "of_hanging" not in first
    assert "the engine does not answer" in capsys.readouterr().err
    # Nobody is asked again who has just answered, or still thinks.
    collector.collect()
    assert sorted(log) == ["failing", "good", "hanging"]
    hangs.set()
    for _ in range(100):
        second = collector.collect()
        if 'dagster_gce_up{part="hanging"} 1\n' in second:
            break
        time.sleep(0.02)
    assert "of_hanging" in second
    assert sorted(log) == ["failing", "good", "hanging"]


def test_an_answer_is_asked_for_again_when_it_is_old() -> None:
    log: list[str] = []
    part = asked(log, "good")
    collector = Collector([Part("good", part.ask, rest=0)], deadline=5)
    assert "of_good 1\n" in collector.collect()
    assert "of_good 2\n" in collector.collect()


def test_what_a_part_said_before_it_failed_is_not_shown_as_new() -> None:
    answers: list[Sequence[Metric] | Exception] = [[Metric("x", 1)], OSError("gone"), [Metric("x", 2)]]

    def ask() -> Sequence[Metric]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    collector = Collector([Part("p", ask, rest=0)], deadline=5)
    assert "\nx 1\n" in collector.collect()
    assert "\nx " not in collector.collect()
    assert "\nx 2\n" in collector.collect()


def test_what_a_part_said_before_it_hung_is_not_shown_as_new() -> None:
    hangs = threading.Event()
    asked_before: list[str] = []

    def ask() -> Sequence[Metric]:
        if asked_before:
            hangs.wait(30)
        asked_before.append("")
        return [Metric("x", 1)]

    collector = Collector([Part("p", ask, rest=0)], deadline=0.3)
    assert "\nx 1\n" in collector.collect()
    hung = collector.collect()
    assert 'dagster_gce_up{part="p"} 0\n' in hung
    assert "\nx " not in hung
    hangs.set()


@pytest.fixture
def server() -> Iterator[metrics.Server]:
    with metrics.Server(("127.0.0.1", 0), Collector([asked([], "good")])) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def get(server: metrics.Server, path: str, method: str = "GET") -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, answer.headers["Content-Type"], answer.read().decode()


def test_the_endpoint(server: metrics.Server) -> None:
    status, kind, text = get(server, "/metrics")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "of_good 1\n" in text
    assert get(server, "/metrics?format=x")[0] == 200
    assert get(server, "/")[2].startswith("dagster-gce")
    assert get(server, "/../etc/passwd")[0] == 404
    assert get(server, "/metrics", method="POST")[0] == 501


def connect(server: metrics.Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_address[1]))


def wait_for_free(server: metrics.Server, slots: int) -> None:
    deadline = time.monotonic() + 30
    while server.slots._value != slots:
        assert time.monotonic() < deadline, f"found {server.slots._value} free, expected {slots}"
        time.sleep(0.01)


def test_who_says_nothing_keeps_nobody_from_asking(server: metrics.Server) -> None:
    silent = [connect(server) for _ in range(metrics.AT_ONCE - 1)]
    wait_for_free(server, 1)
    assert get(server, "/metrics")[0] == 200
    wait_for_free(server, 1)
    silent.append(connect(server))
    wait_for_free(server, 0)
    # One more than there is room for is closed at once.
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        get(server, "/metrics")
    for each in silent:
        each.close()
    wait_for_free(server, metrics.AT_ONCE)
    assert get(server, "/metrics")[0] == 200


def test_the_service_ends_when_its_command_is_replaced(server: metrics.Server, here: Path) -> None:
    program = here / "dagster-gce"
    program.write_text("old")
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        files.replace(str(program), b"new", files.Owner(os.getuid(), os.getgid(), 0o755))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", sleep)
        metrics._end_when_replaced(server, str(program))
    assert len(pauses) == 1


def test_an_address_that_is_taken_is_one_clear_error(
    server: metrics.Server, configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("monitoring", address="127.0.0.1", port=server.server_address[1])
    from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import command

    assert command.main(["metrics", "--serve"]) == 1
    assert "Address already in use" in capsys.readouterr().err


class Runs:
    """What the database answers to the counters, and what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[list[str]] = []
        self.asked: list[str] = []
        monkeypatch.setattr(database, "query", self.query)

    def query(self, sql: str, **_: Any) -> list[list[str]]:
        self.asked.append(sql)
        return self.rows


def test_counters_of_runs_only_grow(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.setattr(jobs, "STATE_FILE", files.Owner(os.getuid(), os.getgid(), 0o640))
    (here / "root/state").mkdir()
    runs = Runs(monkeypatch)
    runs.rows = [["SUCCESS", "100"], ["FAILURE", "3"]]
    assert metrics_counters.runs(now=1000.0) == {"SUCCESS": 100, "FAILURE": 3, "CANCELED": 0}
    assert "end_time > " not in runs.asked[-1]
    # Upkeep has removed 90 of them by now: what is asked for is what ended since.
    runs.rows = [["SUCCESS", "2"]]
    assert metrics_counters.runs(now=1020.0)["SUCCESS"] == 102
    assert "end_time > 990.0 AND end_time <= 1010.0" in runs.asked[-1]
    # The clock was set back.
    asked_before = len(runs.asked)
    assert metrics_counters.runs(now=900.0)["SUCCESS"] == 102
    assert len(runs.asked) == asked_before


def test_deploys_and_jobs(here: Path, configure: Configure) -> None:
    configure("backup", {"backup": {"every_at_most": 7200}})
    lines = [
        {"operation": "deploy", "result": "ok", "time": "2026-11-23T01:00:00Z"},
        {"operation": "deploy", "result": "ok", "time": "2026-11-23T02:00:00Z"},
        {"operation": "rollback", "result": "failed", "time": "2026-11-23T03:00:00Z"},
    ]
    (here / "root/deploys.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\nhalf a li")
    jobs.run("backup", lambda: jobs.Result("fine", metrics=[Metric("dagster_gce_backup_size_bytes", 312)]), quiet=True)
    text = metrics_text.render(metrics_machine.machine())
    assert 'dagster_gce_deploys_total{operation="deploy",result="ok"} 2\n' in text
    assert 'dagster_gce_deploys_total{operation="rollback",result="failed"} 1\n' in text
    assert "dagster_gce_deploy_last_timestamp_seconds 1795402800\n" in text
    assert 'dagster_gce_job_ok{task="backup"} 1\n' in text
    assert 'dagster_gce_job_every_at_most_seconds{task="backup"} 7200\n' in text
    assert "dagster_gce_backup_size_bytes 312\n" in text
    assert f'dagster_gce_disk_size_bytes{{path="{config.stack().root}"}}' in text


@pytest.mark.parametrize(
    ("cgroup", "folder", "content"),
    [
        ("0::/system.slice/docker-1.scope\n", "system.slice/docker-1.scope", ("memory.current", "inactive_file")),
        (
            "11:pids:/docker/1\n4:cpu,cpuacct:/docker/1\n3:memory:/docker/1\n1:name=systemd:/docker/1\n0::/x\n",
            "memory/docker/1", ("memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
)  # fmt: skip
def test_memory_of_a_container(here: Path, cgroup: str, folder: str, content: tuple[str, str]) -> None:
    (here / "proc/7").mkdir(parents=True)
    (here / "proc/7/cgroup").write_text(cgroup)
    group = here / "sys/fs/cgroup" / folder
    group.mkdir(parents=True)
    (group / content[0]).write_text("1000\n")
    (group / "memory.stat").write_text(f"anon 5\n{content[1]} 400\n")
    assert metrics_engine.memory_of(7, root=str(here)) == 600
    assert metrics_engine.memory_of(8, root=str(here)) is None
