"""The run launcher is not exchanged under runs that would be failed for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import code_server, launcher_change

DEFAULT: dict[str, Any] = {"run_launcher": {"module": "dagster", "class": "DefaultRunLauncher"}}
DOCKER: dict[str, Any] = {"run_launcher": {"module": "dagster_docker", "class": "DockerRunLauncher"}}
SWARM: dict[str, Any] = {"run_launcher": {"module": "dagster_gce_launcher", "class": "SwarmRunLauncher"}}


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, int | None]:
    """Run processes by release container; the stopped one has none to count."""
    found: dict[str, int | None] = {"one": 2, "two": 1}
    containers = [SimpleNamespace(name=name, running=True) for name in found]
    containers.append(SimpleNamespace(name="stopped", running=False))
    monkeypatch.setattr(code_server, "containers", lambda: containers)
    monkeypatch.setattr(code_server, "workers", lambda name: found[name])
    return found


def test_runs_in_the_code_containers_are_counted(runs: dict[str, int | None]) -> None:
    assert "found 3 runs inside" in launcher_change.refusal(DEFAULT, DOCKER)
    runs["two"] = 0
    runs["one"] = 1
    assert "found 1 run inside" in launcher_change.refusal(DEFAULT, DOCKER)
    assert "found 1 run inside" in launcher_change.refusal(DEFAULT, SWARM)


def test_a_file_that_names_none_has_dagsters_own(runs: dict[str, int | None]) -> None:
    assert launcher_change.refusal({"load_from": []}, DOCKER)


@pytest.mark.parametrize(
    ("before", "after"),
    [(DOCKER, DEFAULT), (DEFAULT, DEFAULT), (DOCKER, DOCKER), (DEFAULT, {}), (DOCKER, SWARM), (SWARM, DOCKER)],
)
def test_other_changes_fail_no_run(runs: dict[str, int | None], before: dict[str, Any], after: dict[str, Any]) -> None:
    assert launcher_change.refusal(before, after) == ""


def test_nothing_in_flight(runs: dict[str, int | None]) -> None:
    runs.update(one=0, two=None)
    assert launcher_change.refusal(DEFAULT, DOCKER) == ""


def test_with_a_swarm_the_docker_launcher_is_the_one_that_knows_services() -> None:
    config = {"network": "dagster-network"}
    before = {"telemetry": {}, "run_launcher": {**DOCKER["run_launcher"], "config": config}}
    assert launcher_change.with_swarm(before) == {
        "telemetry": {},
        "run_launcher": {"module": "dagster_gce_launcher", "class": "DockerRunLauncher", "config": config},
    }
    for other in (DEFAULT, SWARM, {}, {"run_launcher": {"module": "own", "class": "DockerRunLauncher"}}):
        assert launcher_change.with_swarm(other) == other
