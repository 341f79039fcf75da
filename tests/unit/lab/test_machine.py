"""What the lab refuses before it touches the engine, and what it begins a machine with."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

import docker
import docker.errors
import pytest
import yaml

from lab import demo, images, machine
from lab.shell import LabError, run, succeeds, wait_until


@pytest.mark.parametrize("name", ["", "-a", "A", "a_b", "a" * 64, "registry", "ä"])
def test_names_that_compute_engine_refuses(name: str) -> None:
    with pytest.raises(LabError, match="machine name: found"):
        machine.check_name(name)


@pytest.mark.parametrize("name", ["a", "dagster-lab", "e2e-1", "a" * 63])
def test_names_that_compute_engine_takes(name: str) -> None:
    assert machine.check_name(name) == name


@pytest.mark.parametrize("given", ["", "0", "65536", "http", "-1", "3000 "])
def test_demo_port_is_checked(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("DEMO_PORT", given)
    with pytest.raises(LabError, match="DEMO_PORT: found"):
        demo.port()


def test_a_port_in_use_is_seen() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert not machine.port_is_free(taken.getsockname()[1])
    assert machine.port_is_free(machine.free_port())


def test_a_failing_command_says_what_it_printed() -> None:
    with pytest.raises(LabError, match=r"sh -c .* failed \(3\)[\s\S]*the reason"):
        run("sh", "-c", "echo the reason >&2; exit 3")
    with pytest.raises(LabError, match="is not installed"):
        run("no-such-command-here")
    with pytest.raises(LabError, match="/no/such/folder is not there, where true was to run"):
        run("true", cwd=Path("/no/such/folder"))
    assert not succeeds("no-such-command-here")


def test_waiting_ends_with_what_was_waited_for() -> None:
    with pytest.raises(LabError, match="the moon did not happen within 0 s"):
        wait_until(lambda: False, 0.05, "the moon", pause=0.01)


@pytest.fixture
def client() -> docker.DockerClient:
    """An engine that has the machines' image."""
    try:
        found = docker.from_env()
        found.images.get(images.MACHINE)
    except docker.errors.DockerException:
        pytest.skip(f"no Docker engine with the image {images.MACHINE} on this machine")
    return found


def test_a_kept_machine_goes_while_a_copy_of_it_is_there(
    client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "write_ssh_config", lambda _: None)
    name = f"lab-test-{secrets.token_hex(4)}"
    kept = f"dagster-gce-lab/kept-{name}:1"
    # An image of its own: one with another name as well would only lose this one.
    original = client.containers.create(images.MACHINE)
    original.commit(*kept.rsplit(":", 1))
    original.remove()
    copy = client.containers.create(kept)
    try:
        machine.down(client, name)
        assert client.images.list(kept) == []
        copy.reload()
        assert copy.status == "created"
    finally:
        copy.remove()


def test_a_new_machine_begins_without_what_a_killed_one_has_left(client: docker.DockerClient) -> None:
    name = f"lab-test-{secrets.token_hex(4)}"
    machine.network(client)
    left = client.volumes.create(f"{name}-srv")

    def ask(command: str) -> bytes:
        return client.containers.run(
            images.MACHINE, [command], entrypoint=["sh", "-c"], remove=True,
            volumes={left.name: {"bind": "/srv", "mode": "rw"}},
        )  # fmt: skip

    ask("echo old > /srv/file")
    made = machine.create(client, name, name, {}, ["/srv"])
    try:
        assert ask("ls -A /srv") == b""
    finally:
        made.remove(force=True)
        client.volumes.get(left.name).remove()


@pytest.mark.parametrize("given", ["two", "-1", "9", "1.5"])
def test_a_number_of_workers_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str) -> None:
    monkeypatch.setattr(demo, "WORKERS", tmp_path / "workers.yml")
    monkeypatch.setenv("WORKERS", given)
    with pytest.raises(LabError, match="WORKERS: found"):
        demo.workers()


def test_a_demo_keeps_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    path = demo.ROOT / "inventory" / "lab" / "workers-of-a-test.yml"
    monkeypatch.setattr(demo, "WORKERS", path)
    monkeypatch.delenv("WORKERS", raising=False)
    assert demo.workers() == 0
    try:
        demo.write_workers(2)
        assert demo.workers() == 2
        listed = yaml.safe_load(path.read_text())
        assert set(listed["dagster_workers"]["hosts"]) == {"dagster-lab-worker-1", "dagster-lab-worker-2"}
        assert listed["all"]["vars"]["dagster_run_launcher"] == "swarm"
        monkeypatch.setenv("WORKERS", "1")
        with pytest.raises(LabError, match=r"WORKERS: found 1; expected at least 2.*remove_worker\.yml"):
            demo.workers()
    finally:
        path.unlink(missing_ok=True)
