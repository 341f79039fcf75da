"""What the tests of faults hold against a machine: states of runs that are not what happened."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.faults.load import Outcome


def run(status: str, job: str = "marked", parent: str | None = None, reason: str = "") -> dict[str, Any]:
    tags = [{"key": "dagster/failure_reason", "value": reason}] if reason else []
    return {"status": status, "jobName": job, "parentRunId": parent, "tags": tags}


@pytest.mark.parametrize(
    ("found", "marks", "living", "words"),
    [
        (run("STARTED"), set(), set(), "is STARTED for ever; its container lives: False"),
        (run("SUCCESS"), {"a"}, {"a"}, "its container lives"),
        (run("SUCCESS"), set(), set(), "its work was not done"),
    ],
)
def test_states_that_are_not_true(found: dict[str, Any], marks: set[str], living: set[str], words: str) -> None:
    (said,) = Outcome({"a": found}, marks, living).untrue()
    assert words in said


def test_states_that_are_true() -> None:
    runs = {"a": run("SUCCESS"), "b": run("SUCCESS", "quick"), "c": run("FAILURE"), "d": run("CANCELED")}
    assert Outcome(runs, {"a"}, set()).untrue() == []


def test_a_run_that_was_started_again_is_done_when_the_second_try_is() -> None:
    runs = {"a": run("FAILURE"), "b": run("SUCCESS", parent="a"), "c": run("FAILURE", reason="STEP_FAILURE")}
    outcome = Outcome(runs, {"b"}, set())
    assert outcome.undone() == ["c"]
    assert outcome.reason("c") == "STEP_FAILURE"
    assert outcome.lost() == "2 of 3 runs failed, 1 of them started again by themselves"
    assert Outcome(runs | {"b": run("FAILURE", parent="a")}, set(), set()).undone() == ["b", "c"]


def test_nothing_is_lost_where_nothing_failed() -> None:
    assert Outcome({"a": run("SUCCESS")}, {"a"}, set()).lost() == "nothing"


def test_a_run_that_will_be_started_again_is_not_at_its_end() -> None:
    failed = run("FAILURE") | {"tags": [{"key": "dagster/will_retry", "value": "true"}]}
    assert Outcome({"a": failed}, set(), set()).going() == ["a"]
    assert Outcome({"a": failed, "b": run("SUCCESS", parent="a")}, set(), set()).going() == []
    assert Outcome({"a": run("FAILURE"), "b": run("QUEUED")}, set(), set()).going() == ["b"]
