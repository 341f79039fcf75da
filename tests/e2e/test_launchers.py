"""Both run launchers, in a real engine: a run that succeeds, one that is cancelled, one that raises."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.harness import Machine, wait

# The code location of the tests: jobs that sleep, raise and return at once.
LOAD: dict[str, Any] = {"dagster_core_dir": "tests/fixtures/dagster_core_load"}


@pytest.fixture(scope="module", params=["docker", "default"])
def launcher(machine: Machine, request: pytest.FixtureRequest) -> str:
    """site.yml with one launcher after the other, on the same machine: one variable moves between them."""
    machine.play("site.yml", dagster_run_launcher=request.param, **LOAD).ok()
    return str(request.param)


def containers_of(machine: Machine, run: str, *, every: bool = False) -> list[str]:
    return machine.ssh(f"docker ps {'-a' if every else ''} -q --filter label=dagster/run_id={run}").split()


def test_a_run_succeeds(machine: Machine, launcher: str) -> None:
    run = machine.launch("quick")
    assert machine.wait_for_run(run, "SUCCESS", "FAILURE") == "SUCCESS"
    assert len(containers_of(machine, run, every=True)) == (1 if launcher == "docker" else 0)


def test_a_run_that_is_cancelled_ends_as_cancelled(machine: Machine, launcher: str) -> None:
    run = machine.launch("sleepy", {"ops": {"sleep": {"config": {"seconds": 300}}}})
    machine.wait_for_run(run, "STARTED")
    machine.terminate(run)
    assert machine.wait_for_run(run, "CANCELED", "FAILURE", "SUCCESS") == "CANCELED"
    wait(lambda: not containers_of(machine, run), 30, "the end of the run's container")


def test_a_run_that_raises_shows_where(machine: Machine, launcher: str) -> None:
    run = machine.launch("raises")
    assert machine.wait_for_run(run, "SUCCESS", "FAILURE") == "FAILURE"
    errors = [event["error"] for event in machine.events(run) if event["__typename"] == "ExecutionStepFailureEvent"]
    stacks = "".join("".join((error["cause"] or error)["stack"]) for error in errors)
    assert "dagster_core/__init__.py" in stacks or "dagster_core/" in stacks, errors


def test_the_second_run_of_site_changes_nothing(machine: Machine, launcher: str) -> None:
    assert machine.play("site.yml", dagster_run_launcher=launcher, **LOAD).ok().changed == 0
