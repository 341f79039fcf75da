"""Room and waiting, as the engine tells them. The answers are those of a swarm of three machines, with two runs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import code_server, swarm_members
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import capacity

RECORDED = json.loads((Path(__file__).parent / "recorded_swarm.json").read_text(encoding="utf-8"))


@pytest.fixture
def answers() -> dict[str, Any]:
    found: dict[str, Any] = copy.deepcopy(RECORDED)
    return found


def understood(answers: dict[str, Any], later: float = 17) -> capacity.Capacity:
    nodes = sorted((swarm_members.node(each) for each in answers["nodes"]), key=lambda each: each.name)
    began = max(code_server.instant(each["CreatedAt"]) for each in answers["tasks"])
    return capacity.of(nodes, answers["services"], answers["tasks"], now=began + later)


def test_machines_with_their_room_and_their_runs(answers: dict[str, Any]) -> None:
    found = {each.name: each for each in understood(answers).machines}
    assert list(found) == ["main", "worker-1", "worker-2"]
    assert (found["main"].manages, found["worker-1"].manages) == (True, False)
    assert (found["worker-1"].runs, found["worker-2"].runs) == (["a"], [])
    assert (found["worker-1"].cpus_reserved, found["worker-1"].memory_reserved) == (0.5, 256 << 20)
    assert found["worker-1"].cpus == 2
    assert all(each.takes_runs for each in found.values())
    assert found["main"].address.startswith("10.128.")


def test_why_a_run_waits(answers: dict[str, Any]) -> None:
    waiting = {each.run_id: each for each in understood(answers).waiting}
    assert waiting["b"].why == "no suitable node (scheduling constraints not satisfied on 3 nodes)"
    assert 17 <= waiting["b"].seconds < 20
    assert (waiting["a"].state, waiting["b"].state) == ("preparing", "pending")
    shown = "\n".join(capacity.lines(understood(answers)))
    assert "b  pending: no suitable node" in shown
    assert "0.5 of 2 CPUs" in shown


def test_what_has_ended_takes_no_room(answers: dict[str, Any]) -> None:
    for task in answers["tasks"]:
        task["Status"]["State"] = "complete"
    found = understood(answers)
    assert found.waiting == []
    assert not any(each.runs or each.cpus_reserved for each in found.machines)


def test_nothing_is_wrong_with_a_swarm_at_work(answers: dict[str, Any]) -> None:
    assert capacity.problems(understood(answers)) == []


def test_a_machine_that_is_down_and_a_run_that_waits_for_long(answers: dict[str, Any]) -> None:
    (worker,) = [each for each in answers["nodes"] if each["Description"]["Hostname"] == "worker-2"]
    worker["Status"] = {"State": "down", "Message": "heartbeat failure", "Addr": "10.128.1.3"}
    found = {each.name: each for each in capacity.problems(understood(answers, later=301))}
    assert "machine worker-2 is down (heartbeat failure)" in found["machine_worker-2"].text
    said = found["runs_wait"].text
    assert "2 runs have waited for a machine for over 5 minutes: preparing; no suitable node" in said


def test_no_machine_that_takes_runs(answers: dict[str, Any]) -> None:
    for each in answers["nodes"]:
        each["Spec"]["Labels"].pop("dagster.worker")
    (found,) = capacity.problems(understood(answers))
    assert (found.name, found.severity) == ("machines", "critical")
