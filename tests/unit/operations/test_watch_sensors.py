"""Sensors whose last tick is in the future are woken, and what cannot be helped is not tried for ever."""

from __future__ import annotations

import os
import subprocess
import sys
import time as clock
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
)

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    watch_memory,
    watch_sensors,
    watch_settings,
)
from tests.unit.operations import watching

SETTINGS = watch_settings.Settings()


def test_they_are_woken_at_once_and_no_loop_comes_of_it(tmp_path: Path) -> None:
    time = watching.Time(tmp_path)
    look = watching.look(sensors_ahead=True)

    def judge(memory: watch_memory.Memory) -> bool:
        return watch_sensors.are_asleep(look, memory, SETTINGS)

    assert sum(time.looks(60, judge)) == SETTINGS.restarts_per_hour
    look.sensors_ahead = False
    assert not any(time.looks(130, judge))


def test_the_daemons_container_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(args: list[str], **_: Any) -> docker_cli.Result:
        asked.append(args)
        return docker_cli.Result(0, 'a line of a library\n["s1", "s2"]\n', "")

    monkeypatch.setattr(docker_cli, "run", run)
    assert watch_sensors.wake("dagster-daemon") == ["s1", "s2"]
    assert asked[0][:2] == ["exec", "dagster-daemon"]


def test_an_answer_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_cli, "run", lambda *_, **__: docker_cli.Result(0, "", ""))
    with pytest.raises(docker_cli.DockerError, match="the program in dagster-daemon said"):
        watch_sensors.wake("dagster-daemon")


def _state(name: str, last: float) -> InstigatorState:
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "all"), name)
    data = SensorInstigatorData(last_tick_timestamp=last, last_tick_start_timestamp=last, cursor="7", min_interval=30)
    return InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, data)


def test_dagster_takes_their_last_tick_for_one_of_now(tmp_path: Path) -> None:
    now = clock.time()
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        for each in (_state("awake", now - 20), _state("asleep", now + 3600)):
            instance.add_instigator_state(each)
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path)}
    said = subprocess.check_output([sys.executable, "-c", watch_sensors._WAKE], env=environment, text=True)
    assert said.splitlines()[-1] == '["asleep"]'
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        found = {each.instigator_name: each.instigator_data for each in instance.all_instigator_state()}
    awake, asleep = found["awake"], found["asleep"]
    assert isinstance(awake, SensorInstigatorData)
    assert isinstance(asleep, SensorInstigatorData)
    assert awake.last_tick_timestamp == now - 20
    assert asleep.last_tick_timestamp == asleep.last_tick_start_timestamp
    assert now <= (asleep.last_tick_timestamp or 0) <= clock.time()
    assert (asleep.cursor, asleep.min_interval, asleep.last_tick_success_timestamp) == ("7", 30, None)
