"""files/docker/dagster_gce_launcher.py without an engine, and what we rely on of dagster-docker-swarm."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import dagster_docker_swarm
import pytest
from dagster._core.launcher.base import WorkerStatus
from dagster._core.storage.dagster_run import DagsterRun
from dagster_docker_swarm import run_launcher as upstream

from tests.unit.programs import load

SOURCE = Path(__file__).parents[3] / "files/docker/dagster_gce_launcher.py"


launcher = load(SOURCE)


def node(name: str, cpus: float = 2, memory: float = 8, state: str = "ready", **labels: str) -> dict[str, Any]:
    """A machine, as the proxy shows it."""
    return {
        "ID": f"id-{name}",
        "Spec": {"Role": "worker", "Availability": "active", "Labels": labels},
        "Description": {
            "Hostname": name,
            "Resources": {"NanoCPUs": int(cpus * 1e9), "MemoryBytes": int(memory * 2**30)},
        },
        "Status": {"State": state},
    }


TAKES: dict[str, Any] = {"dagster.worker": "true"}
NODES = [
    node("main", **TAKES),
    node("worker-1", cpus=4, memory=16, gpu="true", **TAKES),
    node("new", cpus=64, gpu="new"),
]


# --- what we rely on of dagster-docker-swarm ---


def test_the_version_that_is_pinned_is_the_one_that_was_read() -> None:
    """Another version: read its source again, then change this line."""
    assert dagster_docker_swarm.__version__ == "0.2.2"


def test_its_settings_are_those_that_dagster_yaml_has() -> None:
    assert {"network", "networks", "env_vars", "mounts", "service_kwargs", "cleanup_interval"} <= set(
        upstream.SWARM_CONFIG_SCHEMA
    )


def test_its_launch_ends_in_the_method_that_is_ours() -> None:
    signature = inspect.signature(dagster_docker_swarm.SwarmRunLauncher._launch_service_with_command)
    assert list(signature.parameters) == ["self", "run", "docker_image", "command", "container_context"]
    for name in ("launch_run", "resume_run"):
        assert "self._launch_service_with_command(run, docker_image, command, container_context)" in inspect.getsource(
            getattr(dagster_docker_swarm.SwarmRunLauncher, name)
        )


def test_its_cancel_asks_for_the_service_by_the_method_that_is_ours() -> None:
    said = inspect.getsource(dagster_docker_swarm.SwarmRunLauncher.terminate)
    assert "self._get_service(run)" in said
    assert "service.remove()" in said


def test_its_context_of_a_run_has_what_we_read() -> None:
    context = dagster_docker_swarm.SwarmContainerContext()
    assert (context.env_vars, context.networks, context.mounts, context.service_kwargs) == ([], [], [], {})


def test_it_removes_nothing_behind_our_back() -> None:
    assert launcher.SwarmRunLauncher(cleanup_interval=5)._cleanup_interval == 0


# --- tags ---


def test_a_run_without_tags_asks_for_nothing() -> None:
    assert launcher.Wish.of({}) == launcher.Wish()


def test_what_tags_ask_for() -> None:
    tags = {"dagster_gce/cpu": "1.5", "dagster_gce/memory": " 512M ", "dagster_gce/node": "gpu=true, zone!=b"}
    wish = launcher.Wish.of(tags)
    assert (wish.cpus, wish.memory) == (1_500_000_000, 512 << 20)
    assert list(map(str, wish.conditions)) == ["node.labels.gpu==true", "node.labels.zone!=b"]
    wish.check(NODES, tags, None)


@pytest.mark.parametrize(
    ("text", "size"), [("16m", 16 << 20), ("2g", 2 << 30), ("1.5Gi", 3 << 29), ("67108864", 64 << 20)]
)
def test_sizes(text: str, size: int) -> None:
    assert launcher.memory_bytes("t", text) == size


@pytest.mark.parametrize(
    ("tag", "found", "expected"),
    [
        ("node", "gpu=new", "what one of the machines is: main, worker-1"),
        ("cpu", "many", "a number of CPUs"),
        ("cpu", "0", "a number of CPUs"),
        ("cpu", "-1", "a number of CPUs"),
        ("cpu", "500m", "a number of CPUs"),
        ("cpu", "", "a number of CPUs"),
        ("cpu", "8", "at most 4, what the largest machine has"),
        ("memory", "2 apples", "a size of 16m or more"),
        ("memory", "512", "a size of 16m or more"),
        ("memory", "1e9", "a size of 16m or more"),
        ("memory", "64g", "at most 16g, what the largest machine has"),
        ("node", "", "a machine's name"),
        ("node", "worker 1", "a machine's name"),
        ("node", "gpu==", "a machine's name"),
        ("node", "gpu=true; rm", "a machine's name"),
        ("node", "worker-9", "what one of the machines is: main, worker-1"),
        ("node", "gpu=false", "what one of the machines is: main, worker-1"),
    ],
)
def test_a_tag_that_asks_for_what_there_is_not(tag: str, found: str, expected: str) -> None:
    tags = {f"dagster_gce/{tag}": found}
    with pytest.raises(launcher.TagError) as told:
        launcher.Wish.of(tags).check(NODES, tags, None)
    assert str(told.value).startswith(f"dagster_gce/{tag}: found {found!r}; expected {expected}")


def test_an_image_that_one_machine_has_runs_there_only() -> None:
    home = launcher.Condition("id", True, "id-main")
    for text, fits in (("main", True), ("gpu!=true", True), ("worker-1", False), ("gpu=true", False)):
        tags = {"dagster_gce/node": text}
        if fits:
            launcher.Wish.of(tags).check(NODES, tags, home)
        else:
            with pytest.raises(launcher.TagError, match="no registry has it"):
                launcher.Wish.of(tags).check(NODES, tags, home)
    # Of the largest machines those count that have the image.
    tags = {"dagster_gce/cpu": "3"}
    with pytest.raises(launcher.TagError, match="at most 2"):
        launcher.Wish.of(tags).check(NODES, tags, home)


def test_an_image_of_a_machine_that_takes_no_runs() -> None:
    drained = {**NODES[0], "Spec": {"Availability": "drain", "Labels": TAKES}}
    for main in (drained, node("main")):
        with pytest.raises(launcher.UnlaunchableError, match="found on the main machine only, which takes no runs"):
            launcher.Wish().check([main, NODES[1]], {}, launcher.Condition("id", True, "id-main"))


# --- what became of a run ---


def task(state: str, desired: str = "running", node_id: str = "id-worker-1", **status: Any) -> dict[str, Any]:
    return {"Status": {"State": state, **status}, "DesiredState": desired, "NodeID": node_id, "CreatedAt": "2026"}


HERE = node("worker-1")
DOWN = node("worker-1", state="down")


@pytest.mark.parametrize(
    ("found", "where", "status", "says"),
    [
        (task("running"), HERE, "RUNNING", "runs on machine worker-1"),
        (task("pending", node_id="", Err="no suitable node"), None, "RUNNING", "pending: no suitable node"),
        (task("preparing"), HERE, "RUNNING", "preparing on machine worker-1"),
        (task("complete", "shutdown"), HERE, "SUCCESS", "exit code 0"),
        (task("failed", "shutdown", Err="task: non-zero exit (137)", ContainerStatus={"ExitCode": 137}), HERE, "FAILED",
         "is failed, exit code 137: task: non-zero exit (137)"),
        (task("rejected", "shutdown", Err="No such image"), HERE, "FAILED", "is rejected: No such image"),
        (task("orphaned"), HERE, "FAILED", "is orphaned"),
        # The trap: the machine is down, and the task's last word stays `running` for ever.
        (task("running", "shutdown"), DOWN, "FAILED", "machine worker-1, on which this run was, is down"),
        (task("running"), DOWN, "FAILED", "machine worker-1, on which this run was, is down"),
        (task("running", "shutdown"), HERE, "FAILED", "is to be shut down"),
        (task("running"), None, "FAILED", "is no part of the swarm any more"),
        # These pass: a manager that has just begun, an engine that is started again.
        (task("running"), node("worker-1", state="unknown"), "RUNNING", "runs on"),
        (task("running"), node("worker-1", state="disconnected"), "RUNNING", "runs on"),
    ],
)  # fmt: skip
def test_what_a_task_says_of_its_run(found: Any, where: Any, status: str, says: str) -> None:
    result, text = launcher.verdict(found, where)
    assert result == WorkerStatus[status]
    assert says in text


def test_a_retry_has_the_tag_of_its_predecessor_and_is_none_of_its_services() -> None:
    first = DagsterRun(job_name="j", run_id="a", tags={"dagster_gce/service": "dagster-run-a"})
    retry = DagsterRun(job_name="j", run_id="b", tags={"dagster_gce/service": "dagster-run-a"})
    assert (launcher.is_service(first), launcher.is_service(retry)) == (True, False)


# --- settings ---


def test_settings_that_docker_py_would_refuse_at_the_first_launch() -> None:
    launcher.SwarmRunLauncher(service_kwargs={"init": True, "read_only": True}).check()
    with pytest.raises(TypeError, match="reed_only"):
        launcher.SwarmRunLauncher(service_kwargs={"reed_only": True}).check()
    with pytest.raises(ValueError, match="readonly"):
        launcher.SwarmRunLauncher(mounts=[{"source": "a", "target": "/b", "readonly": True}]).check()
    with pytest.raises(ValueError, match="memory: found 'much'"):
        launcher.SwarmRunLauncher(limits={"memory": "much"})


def test_limits_and_what_tags_ask_for_instead() -> None:
    made = launcher.SwarmRunLauncher(limits={"memory": "2g", "cpus": "1.5", "pids": 99}, reservations={"memory": "64m"})
    assert made._resources(launcher.Wish()) == {
        "Limits": {"MemoryBytes": 2 << 30, "NanoCPUs": 1_500_000_000, "Pids": 99},
        "Reservations": {"MemoryBytes": 64 << 20},
    }
    assert made._resources(launcher.Wish(memory=1 << 30)) == {
        "Limits": {"MemoryBytes": 1 << 30, "NanoCPUs": 1_500_000_000, "Pids": 99},
        "Reservations": {"MemoryBytes": 1 << 30},
    }
