"""The run launchers, in a real engine: a run that succeeds, one that is cancelled, one that raises, and the change."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest

from tests.e2e.harness import Machine, long_form, wait

# The code location of the tests: jobs that sleep, raise and return at once.
LOAD: dict[str, Any] = {"dagster_core_dir": "tests/fixtures/dagster_core_load"}
# On a machine that is busy with other things a run takes its time to begin, and to end.
BEGINS = 90


@pytest.fixture(scope="module", params=["docker", "default", pytest.param("swarm", marks=long_form)])
def launcher(machine: Machine, request: pytest.FixtureRequest) -> str:
    """site.yml with one launcher after the other, on the same machine: one variable moves between them."""
    move_to(machine, request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def swarm(machine: Machine) -> None:
    """The last of them, once more."""
    move_to(machine, "swarm")


def move_to(machine: Machine, launcher: str) -> None:
    machine.play("site.yml", dagster_run_launcher=launcher, **LOAD).ok()


def containers_of(machine: Machine, run: str, *, every: bool = False) -> list[str]:
    return machine.ssh(f"docker ps {'-a' if every else ''} -q --filter label=dagster/run_id={run}").split()


def sleeper(machine: Machine, seconds: float = 900, tags: Mapping[str, str] | None = None) -> str:
    """A run that has begun, and goes on for long."""
    run = machine.launch("sleepy", {"ops": {"sleep": {"config": {"seconds": seconds}}}}, tags)
    machine.wait_for_run(run, "STARTED", seconds=BEGINS)
    return run


def test_a_run_succeeds(machine: Machine, launcher: str) -> None:
    run = machine.launch("quick")
    assert machine.wait_for_run(run, "SUCCESS", "FAILURE", seconds=BEGINS) == "SUCCESS"
    assert len(containers_of(machine, run, every=True)) == (0 if launcher == "default" else 1)


def test_a_run_that_is_cancelled_ends_as_cancelled(machine: Machine, launcher: str) -> None:
    run = machine.launch("sleepy", {"ops": {"sleep": {"config": {"seconds": 300}}}})
    machine.wait_for_run(run, "STARTED", seconds=BEGINS)
    machine.terminate(run)
    assert machine.wait_for_run(run, "CANCELED", "FAILURE", "SUCCESS", seconds=BEGINS) == "CANCELED"
    wait(lambda: not containers_of(machine, run), BEGINS, "the end of the run's container")


def test_a_run_that_raises_shows_where(machine: Machine, launcher: str) -> None:
    run = machine.launch("raises")
    assert machine.wait_for_run(run, "SUCCESS", "FAILURE", seconds=BEGINS) == "FAILURE"
    errors = [event["error"] for event in machine.events(run) if event["__typename"] == "ExecutionStepFailureEvent"]
    stacks = "".join("".join((error["cause"] or error)["stack"]) for error in errors)
    assert "dagster_core/__init__.py" in stacks or "dagster_core/" in stacks, errors


def test_the_second_run_of_site_changes_nothing(machine: Machine, launcher: str) -> None:
    assert machine.play("site.yml", dagster_run_launcher=launcher, **LOAD).ok().changed == 0


# --- Docker Swarm ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("swarm")
def test_a_service_is_as_confined_as_a_container_of_the_docker_launcher(machine: Machine) -> None:
    run = sleeper(machine, tags={"dagster_gce/memory": "200m", "dagster_gce/cpu": "0.5"})
    found = json.loads(machine.ssh(f"docker inspect {containers_of(machine, run)[0]}"))[0]
    host = found["HostConfig"]
    assert found["Config"]["User"] == "10001:10001"
    assert found["Config"]["Labels"]["dataops.dagster_gce"] == "run"
    assert found["Config"]["Labels"]["dagster/run_id"] == run
    assert (host["CapDrop"], host["SecurityOpt"], host["Privileged"]) == (["ALL"], ["no-new-privileges=true"], False)
    assert (host["ReadonlyRootfs"], host["Init"], host["PidsLimit"]) == (True, True, 512)
    assert (host["Memory"], host["NanoCpus"]) == (200 << 20, 500_000_000)
    assert set(found["NetworkSettings"]["Networks"]) == {"dagster-swarm"}
    mounts = {each["Destination"]: (each["Type"], each["RW"]) for each in found["Mounts"]}
    assert mounts["/opt/dagster/storage"] == ("volume", True)
    assert mounts["/opt/dagster/dagster_home/database"] == ("bind", False)
    assert "/var/run/docker.sock" not in mounts
    service = json.loads(machine.ssh(f"docker service inspect dagster-run-{run}"))[0]["Spec"]["TaskTemplate"]
    assert service["Resources"]["Reservations"] == {"NanoCPUs": 500_000_000, "MemoryBytes": 200 << 20}
    assert service["RestartPolicy"]["Condition"] == "none"
    # Built on this machine, it is nowhere else; the run's image is its release's.
    assert len(service["Placement"]["Constraints"]) == 2
    assert service["ContainerSpec"]["Image"] == machine.tags(run)["dagster/image"]
    assert "on the main machine only" in machine.said(run)
    machine.terminate(run)
    assert machine.wait_for_run(run, "CANCELED", "FAILURE", "SUCCESS", seconds=BEGINS) == "CANCELED"


@pytest.mark.usefixtures("swarm")
@pytest.mark.parametrize(
    ("tag", "found", "expected"),
    [
        ("memory", "2 apples", "a size of 16m or more"),
        ("cpu", "1000", "what the largest machine has"),
        ("node", "nowhere", "what one of the machines is"),
    ],
)
def test_a_tag_that_asks_for_what_there_is_not(machine: Machine, tag: str, found: str, expected: str) -> None:
    run = machine.launch("quick", tags={f"dagster_gce/{tag}": found})
    assert machine.wait_for_run(run, "SUCCESS", "FAILURE", seconds=BEGINS) == "FAILURE"
    assert f"dagster_gce/{tag}: found '{found}'; expected" in machine.said(run)
    assert expected in machine.said(run)
    # Once more would be no better.
    time.sleep(5)
    assert "dagster/auto_retry_run_id" not in machine.tags(run)


@long_form
@pytest.mark.usefixtures("swarm")
def test_a_task_that_is_killed_fails_its_run_which_is_retried(machine: Machine) -> None:
    run = sleeper(machine, seconds=60)
    machine.ssh(f"docker kill {containers_of(machine, run)[0]}")
    assert machine.wait_for_run(run, "FAILURE", "SUCCESS", seconds=BEGINS) == "FAILURE"
    assert "the run's container on machine" in machine.said(run)
    assert "exit code 137" in machine.said(run)
    assert machine.wait_for_run(machine.retry_of(run, BEGINS), "SUCCESS", "FAILURE", seconds=BEGINS) == "SUCCESS"


@pytest.mark.usefixtures("swarm")
def test_the_proxy_lets_no_other_service_be_made(machine: Machine) -> None:
    """What an attacker would ask for in the daemon, with the client that is there."""
    attack = """
import docker, json
api = docker.from_env().api
plain = {"Image": "postgres:17"}
mine = {**plain, "Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}]}
asked = [
    ("POST", "/services/create", {"Name": "x", "TaskTemplate": {"ContainerSpec": mine}}),
    ("POST", "/v1.24/services/create", {"Name": "dagster-run-00000000", "TaskTemplate": {"ContainerSpec": plain}}),
    ("GET", "/secrets", None), ("GET", "/swarm", None), ("POST", "/swarm/leave", None), ("GET", "/configs", None),
]
print(json.dumps([api.request(method, api.base_url + path, json=body).status_code for method, path, body in asked]))
print(json.dumps(api._result(api.get(api.base_url + "/services"), True)))
"""
    before = machine.ssh("docker service ls -q").split()
    codes, services = machine.ssh(f"docker exec -i dagster-daemon python - <<'E'\n{attack}\nE").splitlines()
    assert set(json.loads(codes)) == {403}
    assert "Env" not in services
    assert machine.ssh("docker service ls -q").split() == before


@long_form
def test_the_launcher_moves_under_runs_in_flight(machine: Machine) -> None:
    """docker, swarm, docker: every run goes on, is watched by the other launcher, and can be cancelled there."""
    move_to(machine, "docker")
    killed, cancelled = sleeper(machine), sleeper(machine)
    move_to(machine, "swarm")
    service_killed, service_cancelled = sleeper(machine), sleeper(machine)
    time.sleep(35)  # run monitoring has looked twice
    for run in (killed, cancelled, service_killed, service_cancelled):
        assert machine.run_status(run) == "STARTED"
    machine.ssh(f"docker kill {containers_of(machine, killed)[0]}")
    machine.terminate(cancelled)
    assert machine.wait_for_run(cancelled, "CANCELED", "FAILURE", "SUCCESS", seconds=BEGINS) == "CANCELED"
    assert machine.wait_for_run(killed, "FAILURE", "SUCCESS", seconds=BEGINS) == "FAILURE"
    again = machine.retry_of(killed, BEGINS)
    machine.wait_for_run(again, "STARTED", seconds=BEGINS)
    move_to(machine, "docker")
    time.sleep(35)
    for run in (service_killed, service_cancelled, again):
        assert machine.run_status(run) == "STARTED"
    machine.ssh(f"docker kill {containers_of(machine, service_killed)[0]}")
    for run in (service_cancelled, again):
        machine.terminate(run)
        assert machine.wait_for_run(run, "CANCELED", "FAILURE", "SUCCESS", seconds=BEGINS) == "CANCELED"
    assert machine.wait_for_run(service_killed, "FAILURE", "SUCCESS", seconds=BEGINS) == "FAILURE"
    # A run that is being launched cannot be cancelled.
    again = machine.retry_of(service_killed, BEGINS)
    machine.wait_for_run(again, "STARTED", seconds=BEGINS)
    machine.terminate(again)
