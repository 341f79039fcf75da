"""The proof at the end of a play: what it says when something does not work."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.harness import Machine, Played, long_form
from tests.e2e.redeploy.user_code import UserCode

PLAYBOOK = """
- hosts: dagster
  gather_facts: false
  become: true
  tasks:
    - ansible.builtin.import_role:
        name: dataops.dagster_gce.dagster_proof
"""


@pytest.fixture
def prove(machine: Machine, tmp_path: Any) -> Any:
    """Run the role alone, with variables."""
    playbook = tmp_path / "prove.yml"
    playbook.write_text(PLAYBOOK)

    def run(**variables: Any) -> Played:
        return machine.play(str(playbook), **variables)

    return run


def test_a_run_that_succeeds_is_the_proof(machine: Machine, prove: Any) -> None:
    before = len(_runs(machine))
    prove(dagster_proof_launch=True).ok()
    assert len(_runs(machine)) == before + 1
    prove().ok()
    assert len(_runs(machine)) == before + 1


def test_a_run_that_fails_shows_its_stack(prove: Any) -> None:
    prove(dagster_proof_launch=True, dagster_proof_job="raises").refused(
        "of job raises is FAILURE", "expected SUCCESS", "ExecutionStepFailureEvent in step explode",
        "ValueError: raised on purpose by the load fixture", "dagster_core/__init__.py",
    )  # fmt: skip


def test_a_run_that_takes_too_long_says_where_it_stands(prove: Any) -> None:
    prove(dagster_proof_launch=True, dagster_proof_job="sleepy", dagster_proof_timeout=20).refused(
        "of job sleepy is STARTED", "Its last log lines"
    )


def test_a_missing_job_is_an_error_only_where_it_was_asked_for(user_code: UserCode, prove: Any) -> None:
    prove(dagster_proof_launch=True, dagster_proof_job="no_such_job").refused("dagster_proof_job: found 'no_such_job'")
    source = "import dagster as dg\n@dg.asset\ndef a() -> None: ...\ndefs = dg.Definitions(assets=[a])\n"
    user_code.deploy(user_code.broken("no-proof-job", source)).ok()
    played = prove(dagster_proof_launch=True).ok()
    assert "has no job platform_check" in played.output
    user_code.rollback().ok()


@long_form
def test_a_stopped_webserver_is_named(machine: Machine, prove: Any) -> None:
    machine.ssh("docker stop -t 5 dagster-webserver")
    try:
        prove().refused("does not answer", "Container dagster-webserver is exited", "Its last log lines")
    finally:
        machine.ssh("docker start dagster-webserver")
        prove().ok()


@long_form
def test_a_stopped_release_is_named(machine: Machine, user_code: UserCode, prove: Any) -> None:
    host = user_code.served().host
    machine.ssh(f"docker kill {host} && docker update --restart no {host}; docker stop -t 1 {host}", check=False)
    try:
        prove(dagster_proof_timeout=40).refused(f"{host} does not run", f"Container {host} is exited")
    finally:
        machine.ssh(f"docker update --restart unless-stopped {host} && docker start {host}")
        prove().ok()


def _runs(machine: Machine) -> list[Any]:
    found: list[Any] = machine.graphql(
        'query { runsOrError(filter: {tags: [{key: "dataops.dagster_gce/proof", value: "true"}]})'
        " { ... on Runs { results { runId } } } }"
    )["runsOrError"]["results"]
    return found
