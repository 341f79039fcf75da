"""build_core.yml finds the environment's repository, and leaves alone what was pushed before."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.google import Google
from tests.unit.plugins.modules import small_registry

REPOSITORY = "europe-west3-docker.pkg.dev/example-project/dagster-core-prod/docker_dagster_core"
PLAY = ["playbooks/build_core.yml", "-i", "inventory/prod", "-e", "gcp_project=example-project"]
Play = Callable[..., tuple[int, str]]
# An engine that has no image: what the one of this computer has, and whether it runs at all, is another matter.
DOCKER = """#!/bin/sh
[ "$1" != info ] || { echo '{}'; exit; }
echo "Error response from daemon: No such image" >&2
exit 1
"""


@pytest.fixture
def play(root: Path, google: Google, ansible_environment: dict[str, str], tmp_path: Path) -> Play:
    """Play it as CI does, with an environment's inventory; returns the exit code and what was said, on one line."""

    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER)
    docker.chmod(0o755)

    def run(*options: str, **environment: str) -> tuple[int, str]:
        # HOME: no login of the person who runs the tests, and the build's log goes nowhere else.
        home = {"HOME": str(tmp_path), "GITHUB_OUTPUT": "", **environment}
        path = {"PATH": f"{docker.parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["ansible-playbook", *PLAY, *options],
            cwd=root,
            env={**ansible_environment, **google.environment(), **home, **path},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    return run


@pytest.fixture
def registry(google: Google) -> Iterator[small_registry.Registry]:
    """What is behind Artifact Registry."""
    with small_registry.serving() as registry:
        google.registry = registry.address
        google.call(
            "artifactregistry.projects.locations.repositories.create",
            {"parent": "projects/example-project/locations/europe-west3", "repositoryId": "dagster-core-prod"},
            {"format": "DOCKER"},
        )
        yield registry


def test_pushed_before(play: Play, registry: small_registry.Registry, tmp_path: Path) -> None:
    code, said = play("--check")
    assert code == 0, said
    found = re.search(rf"would be pushed as: .*? -e dagster_core_image={REPOSITORY}:([0-9a-f]{{12}})\b", said)
    assert found, said

    digest = registry.add(f"europe-west3/example-project/dagster-core-prod/docker_dagster_core:{found[1]}", "there")
    output = tmp_path / "output"
    output.touch()
    code, said = play(GITHUB_OUTPUT=str(output))
    assert code == 0, said
    assert f"was pushed before: ansible-playbook deploy_core.yml -e dagster_core_image={REPOSITORY}@{digest}" in said
    assert output.read_text() == f"image={REPOSITORY}@{digest}\ndigest={digest}\n"


def test_no_right_to_look(play: Play, registry: small_registry.Registry, google: Google) -> None:
    google.revoke("artifactregistry.repositories.downloadArtifacts")
    code, said = play()
    assert code == 2
    assert "needs roles/artifactregistry.writer on the repository" in said
    assert registry.manifests == {}


def test_bad_input(play: Play, google: Google) -> None:
    code, said = play(
        "-e", "dagster_core_repository=https://registry.example.com/Core:1", "-e", "dagster_core_image=core:1"
    )
    assert code == 2
    assert "dagster_core_image: found 'core:1'; expected nothing, since the checkout is what is built here" in said
    assert "build_core_repository (from dagster_core_repository" in said
    assert "expected a registry's host and a name, without a tag" in said
    assert google.calls == []
