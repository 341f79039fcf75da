"""What a container's processes say, and what is said where they cannot be listed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    code_server,
    docker_api,
    docker_cli,
    releases,
)

IDENTITY = "sha256:" + "ab" * 32
TOP = {
    "Titles": ["PID", "COMMAND"],
    "Processes": [
        ["10", "dagster code-server start -h 0.0.0.0 -p 4000"],
        ["11", "/usr/local/bin/python3.12 -c from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=5)"],
        ["12", "/usr/local/bin/python3.12 -m dagster api grpc"],
    ],
}


def docker(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A docker command that does what the script says, found before the real one."""
    command = folder / "docker"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def engine(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[tuple[Any, ...]]:
    """An engine that answers this, or raises it; returns what it was asked."""
    asked: list[tuple[Any, ...]] = []

    def ask(method: str, path: str, **options: Any) -> Any:
        asked.append((method, path, options))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(docker_api, "ask", ask)
    return asked


def test_run_processes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    engine(monkeypatch, TOP)
    assert code_server.workers("any") == 1


GONE = docker_cli.DockerError("", docker_cli.Result(1, "", "No such container: any"))
SILENT = docker_cli.DockerUnreachableError("the Docker engine does not answer")


@pytest.mark.parametrize("said", [GONE, SILENT])
def test_no_list_is_not_an_empty_one(monkeypatch: pytest.MonkeyPatch, said: Exception) -> None:
    engine(monkeypatch, said)
    assert code_server.workers("any") is None


def test_a_removal_goes_on_where_there_is_nothing_and_not_without_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = engine(monkeypatch, GONE)
    code_server.remove("any")
    assert asked == [("DELETE", "/containers/any", {"query": {"force": True, "v": True}, "timeout": 120})]
    engine(monkeypatch, SILENT)
    with pytest.raises(docker_cli.DockerUnreachableError):
        code_server.remove("any")


def test_the_processes_of_clients_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    states = {"webserver": {"Running": True, "Pid": os.getpid()}, "daemon": {"Running": False, "Pid": 0}}
    found = {name: {"State": state} for name, state in states.items()}
    monkeypatch.setattr(docker_api, "container", found.get)
    assert code_server.client_pids(["webserver", "daemon", "absent"]) == {"webserver": os.getpid()}


def test_a_container_has_an_address_a_network_and_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = {
        "one": {"IPAddress": "", "GlobalIPv6Address": "2001:db8::2"},
        "other": {"IPAddress": "172.23.0.9", "GlobalIPv6Address": ""},
        "none": {"IPAddress": None},
    }
    state = {"Running": True, "Status": "running", "Pid": 7}
    engine(monkeypatch, {"Name": "/a", "State": state, "Config": {}, "NetworkSettings": {"Networks": networks}})
    found = code_server.container("a")
    assert found
    assert found.addresses == ("2001:db8::2", "172.23.0.9")


@pytest.mark.parametrize("architecture", ["amd64", "arm64", "s390x"])
def test_an_image_for_another_machine_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    shown = [{"Id": "sha256:1", "Os": "linux", "Architecture": architecture, "RepoDigests": ["acme/core@sha256:2"]}]
    docker(tmp_path, monkeypatch, f"cat <<'EOT'\n{json.dumps(shown)}\nEOT")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    if architecture == "arm64":
        assert code_server.image("docker.io/acme/core:1") == code_server.Image(
            "docker.io/acme/core:1", "sha256:1", "acme/core@sha256:2"
        )
    else:
        with pytest.raises(
            code_server.CandidateError, match=f"found an image for linux/{architecture}; expected one for linux/arm64"
        ):
            code_server.image("docker.io/acme/core:1")


def test_the_time_of_docker_inspect_has_a_zone() -> None:
    assert code_server.instant("2026-11-22T20:01:02Z") == code_server.instant("2026-11-22T21:01:02+01:00") == 1795377662
    for fraction in ("123456789", "12345678", "5"):
        found = code_server.instant(f"2026-11-22T21:01:02.{fraction}+01:00")
        assert found == pytest.approx(1795377662 + float(f"0.{fraction}"), abs=1e-6)


def test_no_value_of_the_environment_is_an_argument() -> None:
    settings = code_server.Settings(
        environment={"POSTGRES_PASSWORD": "canary"}, extra={"LEVEL": "canary too"}, key_file="/key.json"
    )
    release = releases.Release("20260101T000000-abababababab", IDENTITY)
    arguments = code_server.run_arguments(release, settings)
    assert not [each for each in arguments if "canary" in each]
    names = [arguments[i + 1] for i, each in enumerate(arguments) if each == "--env"]
    environment = code_server.environment(release, settings)
    assert names == sorted(environment)
    assert environment["POSTGRES_PASSWORD"] == "canary"
    assert environment["DAGSTER_CURRENT_IMAGE"] == IDENTITY
    # Dagster stores the container context with each run: no secret goes there.
    assert "canary" in environment["DAGSTER_CONTAINER_CONTEXT"].replace("canary too", "canary")
    assert "POSTGRES_PASSWORD" not in environment["DAGSTER_CONTAINER_CONTEXT"]
    assert f"/key.json:{code_server.KEY_PATH}:ro" in arguments
    assert f"/opt/dagster/dagster_home/database:{code_server.DATABASE}:ro" in arguments


def test_the_config_hash_changes_with_what_a_container_would_differ_in(tmp_path: Path) -> None:
    plain = code_server.Settings(environment={"A": "1", "B": "2"})
    assert plain.config_hash() == code_server.Settings(environment={"B": "2", "A": "1"}).config_hash()
    key = tmp_path / "key.json"
    key.write_text("one")
    with_key = code_server.Settings(environment={"A": "1", "B": "2"}, key_file=str(key))
    first = with_key.config_hash()
    key.write_text("another")
    hashes = {
        plain.config_hash(), first, with_key.config_hash(),
        code_server.Settings(environment={"A": "2", "B": "2"}).config_hash(),
        code_server.Settings(environment={"A": "1", "B": "2"}, extra={"C": "3"}).config_hash(),
        code_server.Settings(environment={"A": "1", "B": "2"}, memory="1g").config_hash(),
    }  # fmt: skip
    assert len(hashes) == 6
