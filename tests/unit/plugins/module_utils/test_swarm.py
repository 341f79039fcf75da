"""What is made of Docker 26.1.5's words about services of runs (recorded/swarm.json), and of their absence."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli, swarm

RECORDED = json.loads((Path(__file__).parent / "recorded/swarm.json").read_text())
SERVICE, TASK, NODE = (str(RECORDED[kind]["ID"]) for kind in ("service", "task", "node"))
RUN = "61a45cc3-96ee-4c99-a568-1bf3ae74373e"


class Engine:
    """Answers as the engine of a main machine did, with one run; a test changes what it knows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: dict[str, Any] = copy.deepcopy(RECORDED)
        self.listed = f"{SERVICE[:12]} dagster-run-{RUN} 0/1\n"
        self.error = ""
        self.swarm = {"LocalNodeState": "active", "ControlAvailable": True}
        self.network: list[dict[str, Any]] = [{"Id": "n", "Driver": "overlay", "Attachable": True}]
        self.asked: list[list[str]] = []
        monkeypatch.setattr(docker_cli, "run", self.run)

    def run(self, arguments: list[str], **_: Any) -> docker_cli.Result:
        self.asked.append(arguments)
        answers = {
            ("service", "ls"): self.listed,
            ("service", "ps"): f"{TASK}\n",
            ("service", "rm"): "",
            ("node", "ls"): f"{NODE}\n",
            ("info", "--format"): json.dumps(self.swarm),
            ("network", "inspect"): json.dumps(self.network),
        }
        if arguments[0] == "inspect":
            return docker_cli.Result(0, json.dumps([self.said[arguments[2]]] if self.said[arguments[2]] else []), "")
        if arguments[0] == "network" and not self.network:
            return docker_cli.Result(1, "[]", "Error response from daemon: network dagster-swarm not found")
        if self.error:
            return docker_cli.Result(1, "", self.error)
        return docker_cli.Result(0, answers[arguments[0], arguments[1]], "")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return Engine(monkeypatch)


def test_the_task_of_a_run(engine: Engine) -> None:
    (found,) = swarm.tasks()
    assert (found.service, found.name, found.run_id) == (SERVICE, f"dagster-run-{RUN}", RUN)
    assert (found.state, found.desired, found.exit_code) == ("complete", "shutdown", 0)
    assert (found.node, found.hostname, found.node_state) == (NODE, "lau-a", "ready")
    assert found.image.startswith("sha256:")
    assert len(found.container) == 64
    assert 0 < found.created < found.updated
    assert (found.goes, found.waits, found.lost) == (False, False, "")
    assert found.ended == "the run's container on machine lau-a is complete (exit code 0)"


def test_the_trap_of_a_machine_that_went(engine: Engine) -> None:
    engine.said["task"]["Status"]["State"] = "running"
    engine.said["node"]["Status"]["State"] = "down"
    (found,) = swarm.tasks()
    assert (found.goes, found.ended) == (False, "machine lau-a, on which this run was, is down")
    engine.said["node"] = None
    (found,) = swarm.tasks()
    assert "is no part of the swarm any more" in found.ended


def test_a_service_that_has_no_task_yet_waits(engine: Engine) -> None:
    engine.said["task"] = None
    (found,) = swarm.tasks()
    assert (found.state, found.waits, found.ended) == ("new", True, "")


def test_services_of_others_are_none_of_ours(engine: Engine) -> None:
    engine.listed += "abcdefabcdef web 1/1\n" + "abcdefabcde0 dagster-run-x 1/1 (max 1 per node)\n"
    assert [(each.run_id, each.goes) for each in swarm.services()] == [(RUN, False), ("x", True)]


@pytest.mark.parametrize(
    "error",
    [
        'Error response from daemon: This node is not a swarm manager. Use "docker swarm init" or "docker swarm join"',
        "Error response from daemon: This node is not a swarm manager. Worker nodes can't be used to view or modify",
    ],
)
def test_an_engine_that_is_no_manager_has_none(engine: Engine, error: str) -> None:
    engine.error = error
    assert swarm.tasks() == []
    assert swarm.nodes() == []


def test_a_swarm_that_has_lost_its_managers_has_not_lost_its_runs(engine: Engine) -> None:
    engine.error = "Error response from daemon: rpc error: code = DeadlineExceeded desc = context deadline exceeded"
    with pytest.raises(docker_cli.DockerError, match="service ls"):
        swarm.tasks()


@pytest.mark.parametrize(
    ("state", "network", "says"),
    [
        ({"LocalNodeState": "active", "ControlAvailable": True}, {"Driver": "overlay", "Attachable": True}, ""),
        ({"LocalNodeState": "inactive"}, {}, "not in a swarm (its state is 'inactive')"),
        ({"LocalNodeState": "locked"}, {}, "not in a swarm (its state is 'locked')"),
        ({"LocalNodeState": "active", "ControlAvailable": False}, {}, "is a worker of a swarm"),
        ({"LocalNodeState": "active", "ControlAvailable": True}, None, "(no such network)"),
        ({"LocalNodeState": "active", "ControlAvailable": True}, {"Driver": "bridge"}, "(driver bridge, "),
    ],
)  # fmt: skip
def test_what_is_missing_for_runs_as_services(engine: Engine, state: Any, network: Any, says: str) -> None:
    engine.swarm, engine.network = state, [network] if network is not None else []
    found = swarm.problem()
    assert (says in found) if says else (found == "")
    assert found == "" or found.startswith("dagster_run_launcher: found swarm, but ")


def test_removing_one_that_went_meanwhile_is_no_failure(engine: Engine) -> None:
    swarm.remove([])
    assert engine.asked == []
    engine.error = "Error: No such service: x\nError response from daemon: service x not found\n"
    with pytest.raises(docker_cli.DockerError, match="No such service"):
        swarm.remove(["x"])
    engine.error = "Error response from daemon: service x not found\n"
    swarm.remove(["x"])
