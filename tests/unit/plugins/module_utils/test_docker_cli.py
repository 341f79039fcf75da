"""The docker command's ways to fail, each with a real command."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli

needs_command = pytest.mark.skipif(shutil.which("docker") is None, reason="no docker command")
needs_engine = pytest.mark.skipif(
    shutil.which("docker") is None
    or subprocess.run(["docker", "version"], capture_output=True, check=False).returncode != 0,
    reason="no Docker engine answers",
)

# Any of them has a shell; nothing is pulled for a unit test.
IMAGES = ("python:3.13-slim", "debian:trixie-slim", "postgres:17")


def test_no_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for call in (lambda: docker_cli.run(["version"]), lambda: docker_cli.inspect("image", "x")):
        with pytest.raises(docker_cli.DockerMissingError, match="role docker_engine"):
            call()
    with pytest.raises(docker_cli.DockerMissingError):
        docker_cli.stream(["version"], log=str(tmp_path / "log"))


@needs_command
def test_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    for check in (True, False):
        with pytest.raises(docker_cli.DockerUnreachableError, match="systemctl status docker"):
            docker_cli.run(["ps"], check=check)
    # An object is missing only if the engine says so.
    with pytest.raises(docker_cli.DockerUnreachableError):
        docker_cli.inspect("container", "x")


@needs_engine
@pytest.mark.parametrize("kind", ["image", "container", "volume", "network"])
def test_an_object_that_is_not_there(kind: str) -> None:
    assert docker_cli.inspect(kind, "dagster-gce-no-such-object") is None


@needs_engine
def test_an_object_that_is_there() -> None:
    found = docker_cli.inspect("network", "bridge")
    assert found is not None
    assert found["Driver"] == "bridge"


@needs_engine
def test_a_command_that_fails() -> None:
    with pytest.raises(
        docker_cli.DockerError, match=r"`docker container inspect` failed \(1\): .*No such container"
    ) as failed:
        docker_cli.run(["container", "inspect", "dagster-gce-no-such-object"])
    assert docker_cli.not_found(failed.value.result)
    result = docker_cli.run(["container", "inspect", "dagster-gce-no-such-object"], check=False)
    assert (result.ok, result.returncode, result.stdout.strip()) == (False, 1, "[]")


@needs_engine
def test_a_command_that_takes_too_long(tmp_path: Path) -> None:
    with pytest.raises(docker_cli.DockerTimeoutError, match=r"`docker events` did not end within 0\.5 s"):
        docker_cli.run(["events"], timeout=0.5)
    with pytest.raises(docker_cli.DockerTimeoutError, match=r"see .*log on the machine"):
        docker_cli.stream(["events"], log=str(tmp_path / "log"), timeout=0.5)


@needs_engine
def test_input_environment_and_log(tmp_path: Path) -> None:
    compose = '{"name": "${NAME}", "services": {"a": {"image": "x"}}}'
    arguments = ["compose", "--file", "-", "config", "--format", "json"]
    assert '"name": "from-env"' in docker_cli.run(arguments, input=compose, env={"NAME": "from-env"}).stdout
    with (tmp_path / "compose").open("w+b") as stdin:
        stdin.write(compose.encode())
        stdin.seek(0)
        result = docker_cli.stream(arguments, log=str(tmp_path / "sub/log"), stdin=stdin, env={"NAME": "from-env"})
    assert result.stdout == (tmp_path / "sub/log").read_text(encoding="utf-8")
    assert '"name": "from-env"' in result.stdout


@needs_engine
def test_a_look_into_an_image_is_no_more_than_that() -> None:
    image = next((each for each in IMAGES if docker_cli.inspect("image", each)), None)
    if image is None:
        pytest.skip("none of the images is here")
    look = "ls /sys/class/net; grep CapEff: /proc/self/status; touch /tmp/x && echo written; touch /x || echo refused"
    found = docker_cli.run(["run", *docker_cli.CONFINED, "--entrypoint", "sh", image, "-c", look]).stdout.split()
    assert "eth0" not in found
    assert found[-4:] == ["CapEff:", "0000000000000000", "written", "refused"]


@pytest.mark.parametrize(
    ("machine", "own"), [("x86_64", "amd64"), ("aarch64", "arm64"), ("armv7l", "arm"), ("s390x", "s390x")]
)
def test_an_image_for_another_kind_of_machine(monkeypatch: pytest.MonkeyPatch, machine: str, own: str) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert docker_cli.own_platform() == f"linux/{own}"
    assert docker_cli.platform_problem({"Os": "linux", "Architecture": own}) == ""
    for system, architecture in (("linux", "riscv64"), ("windows", own)):
        found = docker_cli.platform_problem({"Os": system, "Architecture": architecture})
        assert found.startswith(f"found an image for {system}/{architecture}; expected one for linux/{own}")


@pytest.mark.parametrize(
    ("reference", "digest"),
    [
        ("reg.example:5000/team/core:1", "reg.example:5000/team/core@sha256:1"),
        ("reg.example:5000/team/core", "reg.example:5000/team/core@sha256:1"),
        ("docker.io/acme/core:1", "acme/core@sha256:2"),
        ("docker.io/library/postgres:17", "postgres@sha256:3"),
        ("postgres:17", "postgres@sha256:3"),
        # What was asked for is what it is called, also where the repository knows it by another one.
        ("reg.example:5000/team/core:1@sha256:9", "reg.example:5000/team/core@sha256:9"),
        ("docker.io/acme/core@sha256:2", "docker.io/acme/core@sha256:2"),
        ("reg.example/team/core:1", ""),
        ("core:1", ""),
        ("sha256:0d2b", ""),
    ],
)
def test_the_digest_is_that_of_the_repository(reference: str, digest: str) -> None:
    known = ["reg.example:5000/team/core@sha256:1", "acme/core@sha256:2", "postgres@sha256:3"]
    assert docker_cli.repository_digest({"RepoDigests": known}, reference) == digest
    assert "@" in reference or docker_cli.repository_digest({"RepoDigests": None}, reference) == ""


def test_last_lines() -> None:
    assert docker_cli.last_lines("a\n\nb  \nc\n\n", 2) == "b\nc"
