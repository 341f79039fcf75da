"""The watch as a whole: pause, clock, memory, what is written down, what happens while somebody releases."""

from __future__ import annotations

import argparse
import json
import os
import time as clock
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_api, docker_cli, files, releases
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    config,
    jobs,
    watch,
    watch_act,
    watch_actions,
    watch_clock,
    watch_look,
    watch_memory,
    watch_pause,
    watch_resume,
    watch_settings,
)
from tests.unit.operations.conftest import Configure
from tests.unit.operations.watching import Time, container, look

SETTINGS = watch_settings.Settings()


class Machine:
    """Stands in for the engine: what a look finds, and what was done."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = Time(folder)
        self.found = look()
        self.done: list[str] = []
        self.error = ""
        monkeypatch.setattr(watch_look, "take", lambda _: self.found)
        monkeypatch.setattr(watch_memory, "load", self._memory)
        monkeypatch.setattr(docker_cli, "run", self._run)
        monkeypatch.setattr(docker_api, "ask", self._ask)
        monkeypatch.setattr(watch_memory, "path", lambda: self.time.place)
        Path(config.stack().root, "dagster_home").mkdir()

    def _memory(self) -> watch_memory.Memory:
        # The real `load` is replaced on its module: rebuilt here from the file.
        found = watch_memory.Memory(self.time.now, self.time.wall)
        place = Path(self.time.place)
        if place.exists():
            given = json.loads(place.read_text())
            found.looked, found.looked_wall, found.values = given["looked"], given["looked_wall"], given["values"]
            found._before = {key: watch_memory._Seen(*each) for key, each in given["seen"].items()}
        return found

    def _run(self, arguments: list[str], **_: Any) -> docker_cli.Result:
        self.done.append(" ".join(arguments))
        if self.error:
            raise docker_cli.DockerError(self.error)
        return docker_cli.Result(0, "", "")

    def _ask(self, method: str, path: str, **_: Any) -> None:
        self.done.append(f"{method} {path}")

    def look(self, after: float = 30.0, stepped: float = 0.0) -> jobs.Result:
        self.time.now += after
        self.time.wall += after + stepped
        return watch.work()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def stopped(name: str = "dagster-daemon") -> watch_look.Look:
    return look(container(name, status="exited"))


def test_what_was_done_is_written_down(machine: Machine) -> None:
    machine.found = stopped()
    assert machine.look().summary.startswith("all is well")
    second = machine.look()
    assert machine.done == ["start dagster-daemon", "update --restart always dagster-daemon"]
    assert second.summary.startswith("start dagster-daemon: the container is exited")
    (action,) = watch_actions.last(5)
    assert (action.action, action.target, action.ok) == ("start", "dagster-daemon", True)
    assert second.details["actions"][0]["target"] == "dagster-daemon"
    assert [(each.labels, each.value) for each in second.metrics] == [({"action": "start"}, 1.0)]


def test_what_failed_is_written_down_and_tried_again(machine: Machine) -> None:
    machine.found, machine.error = stopped(), "no space left on device"
    for _ in range(5):
        result = machine.look()
    assert [each.error for each in watch_actions.last(5)] == ["no space left on device"] * 2
    assert not result.problems


def test_it_stops_before_it_becomes_a_loop(machine: Machine) -> None:
    machine.found = stopped()
    for _ in range(30):
        result = machine.look()
    assert machine.done.count("start dagster-daemon") == SETTINGS.restarts_per_hour
    assert [(each.name, each.severity) for each in result.problems] == [("watch_start_dagster-daemon", "critical")]
    assert "docker logs" in result.problems[0].text
    # An hour later it tries again.
    machine.look(after=3600)
    machine.look()
    assert machine.done.count("start dagster-daemon") == SETTINGS.restarts_per_hour + 1


def test_while_it_is_paused_it_touches_nothing_and_says_so(machine: Machine) -> None:
    machine.found = stopped()
    watch_pause.pause("moving the disk", who="ann")
    for _ in range(5):
        result = machine.look()
    assert machine.done == []
    assert [each.name for each in result.problems] == ["watch_paused"]
    assert "moving the disk" in result.summary
    assert "ann" in result.summary
    watch_pause.resume()
    assert machine.look().problems == []
    machine.look()
    assert "start dagster-daemon" in machine.done


def test_a_daemon_that_hangs_in_a_pause_is_found_after_it(machine: Machine) -> None:
    for beat in range(6):
        machine.found.heartbeats = {"SENSOR": float(beat)}
        machine.look()
    watch_pause.pause("a moment")
    machine.look()
    machine.look()
    watch_pause.resume()
    for _ in range(8):
        machine.look()
    assert [(each.action, each.target) for each in watch_actions.last(5)] == [("restart", "dagster-daemon")]


def test_a_pause_ends_by_itself(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    watch_pause.pause("upgrade", seconds=60)
    assert watch_pause.read() is not None
    later = clock.time() + 61
    monkeypatch.setattr(clock, "time", lambda: later)
    assert watch_pause.read() is None
    assert watch_pause.problem() is None


def test_a_pause_that_somebody_wrote_by_hand_counts() -> None:
    Path(config.stack().state).mkdir()
    Path(watch_pause.path()).write_text("do not touch\n")
    found = watch_pause.read()
    assert found
    assert found.reason == "do not touch"


def test_a_play_that_holds_the_watch_leaves_an_operator_s_pause(machine: Machine) -> None:
    with watch_pause.held("restore", 60):
        assert watch_pause.read()
    assert watch_pause.read() is None
    watch_pause.pause("mine")
    with watch_pause.held("restore", 60):
        pass
    found = watch_pause.read()
    assert found
    assert found.reason == "mine"


def test_the_commands_pause_and_resume(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    watch_pause.add_arguments(parser)
    assert watch_pause.main(parser.parse_args(["moving", "--minutes", "5"])) == 0
    assert watch_resume.main(argparse.Namespace()) == 0
    assert watch_resume.main(argparse.Namespace()) == 0
    said = capsys.readouterr().out.splitlines()
    assert "moving" in said[0]
    assert "until" in said[0]
    assert said[1:] == ["the watch goes on", "the watch was not paused"]


def test_while_somebody_releases_nothing_of_a_release_is_touched(machine: Machine) -> None:
    name = "docker_dagster_core_20260101T000000-abababababab"
    workspace = Path(config.stack().root, "dagster_home", "workspace.yaml")
    workspace.write_text(f"load_from: [{{grpc_server: {{host: {name}, port: 4000, location_name: dagster_core}}}}]\n")
    machine.found = look(container(name, part="release", status="exited", policy="no"))
    lock = str(Path(config.stack().root, "deploy.lock"))
    with releases.lock(lock, {"who": "ci"}):
        for _ in range(5):
            machine.look()
        assert machine.done == []
    machine.look()
    machine.look()
    assert machine.done == [f"start {name}", f"POST /containers/{name}/update"]


def test_a_clock_that_was_set_back_restarts_the_daemon(machine: Machine) -> None:
    machine.look()
    result = machine.look(stepped=-3600)
    assert machine.done == ["restart dagster-daemon"]
    assert "back by 3600 s" in result.problems[0].text
    # The problem stands for an hour, the restart is done once.
    for _ in range(60):
        result = machine.look()
    assert [each.name for each in result.problems] == ["clock_step"]
    for _ in range(65):
        result = machine.look()
    assert result.problems == []
    assert machine.done == ["restart dagster-daemon"]


def test_a_clock_that_was_set_forward_is_said_only(machine: Machine) -> None:
    machine.look()
    result = machine.look(stepped=3600)
    assert machine.done == []
    assert "forward by 3600 s" in result.problems[0].text


@pytest.mark.parametrize("stepped", [0.0, 2.0, -2.0, 29.0])
def test_what_a_clock_does_every_day_is_no_step(tmp_path: Path, stepped: float) -> None:
    time = Time(tmp_path)
    time.look(lambda memory: watch_clock.step(memory, SETTINGS))
    assert time.look(lambda memory: watch_clock.step(memory, SETTINGS), wall=30 + stepped) == 0


def test_a_boot_forgets_everything(tmp_path: Path) -> None:
    time = Time(tmp_path)
    time.look(lambda memory: memory.seen("key", "fact", 0))
    time.now = 5.0
    assert time.memory().looked is None


def test_a_memory_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    place = tmp_path / "memory.json"
    for text in ("", "[]", '{"looked": "x"}', '{"looked": 1, "looked_wall": 1}'):
        place.write_text(text)
        assert watch_memory.load(str(place)).values == {}


def test_the_file_of_actions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_actions, "LIMIT", 2000)
    for number in range(100):
        watch_actions.write(watch_actions.Action("restart", "dagster-daemon", f"reason {number}"))
    assert os.path.getsize(watch_actions.path()) < 2300
    assert [each.why for each in watch_actions.last(2)] == ["reason 99", "reason 98"]


def test_the_evidence_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_actions, "EVIDENCE_FILES", 3)
    places = [watch_actions.evidence(f"service{number}", "text") for number in range(5)]
    assert [Path(each).exists() for each in places] == [False, False, True, True, True]


def test_a_full_disk_does_not_end_the_watch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "replace", full)
    monkeypatch.setattr(os, "open", full)
    watch_actions.write(watch_actions.Action("restart", "dagster-daemon", "why"))
    assert watch_actions.evidence("name", "text") == ""
    watch_memory.Memory(1.0, 1.0).save()
    assert "No space left" in capsys.readouterr().err


def test_settings_that_make_no_sense_name_the_value(configure: Configure) -> None:
    configure("watch", failures=5, services=["one"], nobody_knows=1)
    assert watch_settings.load() == watch_settings.Settings(failures=5, services=("one",))
    configure("watch", failures="many")
    with pytest.raises(jobs.JobError, match=r"watch.json: failures: found 'many', expected int"):
        watch_settings.load()


def test_an_engine_that_does_not_answer_is_said(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_: object) -> watch_look.Look:
        raise docker_cli.DockerUnreachableError("the Docker engine does not answer")

    monkeypatch.setattr(watch_look, "take", silent)
    with pytest.raises(jobs.JobError, match="the Docker engine does not answer"):
        watch.work()


def test_the_threads_of_a_process_are_listed() -> None:
    lines = watch_act.processes(os.getpid())
    assert any(line.startswith(f"{os.getpid()} {os.getpid()} ") for line in lines)
