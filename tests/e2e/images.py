"""Both images from the checkout, built on this computer and put into the lab's registry."""

from __future__ import annotations

import os
import subprocess

import docker

from lab import machine as lab_machine
from tests.e2e.harness import ROOT

FIXTURE = "tests/fixtures/dagster_core_load"
DOCKERFILES = {
    "dagster_daemon_webserver": "dockerfile_daemon_webserver",
    "docker_dagster_core": "dockerfile_dagster_core",
}


def publish(name: str, repository: str, version: str = "1") -> tuple[str, int]:
    """Build and push an image.

    Args:
        name: one of DOCKERFILES; the user code is the load fixture.
        repository: where in the registry.
        version: its tag; another one is another image of the same code.

    Returns:
        its reference with the digest, as machines pull it, and its size in bytes.
    """
    client = docker.from_env()
    place = f"{lab_machine.registry_address(client)}/{repository}"
    target = f"{place}:{version}"
    flags = ["--build-arg", f"DAGSTER_CORE_DIR={FIXTURE}"] if name == "docker_dagster_core" else []
    flags += [] if version == "1" else ["--label", f"version={version}"]
    subprocess.run(
        ["docker", "build", "--quiet", "-f", f"files/docker/{DOCKERFILES[name]}", "-t", target, *flags, "."],
        cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "DOCKER_BUILDKIT": "1"},
    )  # fmt: skip
    subprocess.run(["docker", "push", "--quiet", target], check=True, stdout=subprocess.DEVNULL)
    found = client.images.get(target).attrs
    digest = next(each.rsplit("@", 1)[1] for each in found["RepoDigests"] if each.startswith(f"{place}@"))
    return f"registry.lab:5000/{repository}@{digest}", int(found["Size"])
