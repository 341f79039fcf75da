"""image_push: a real engine pushes to a small registry that wants a login."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.modules import image_push
from lab.google import Google
from tests.unit.plugins.modules import small_registry

RunModule = Callable[..., dict[str, Any]]
LOGIN = {"username": "robot", "password": "c4n4ry"}


@pytest.fixture
def registry() -> Iterator[small_registry.Registry]:
    with small_registry.serving() as registry:
        registry.user = "robot:c4n4ry"
        yield registry


@pytest.fixture
def image(docker: None, registry: small_registry.Registry) -> Iterator[str]:
    """An image of one file on the local engine."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        content = registry.address.encode()
        info = tarfile.TarInfo("file")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    name = "image-push-test:5f0c8a1b2c3d"
    subprocess.run(["docker", "import", "-", name], input=packed.getvalue(), capture_output=True, check=True)
    yield name
    target = f"{registry.address}/team/core:5f0c8a1b2c3d"
    subprocess.run(["docker", "image", "rm", name, target], capture_output=True, check=False)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the login stands during the push."""
    temporary = tempfile.TemporaryDirectory
    monkeypatch.setattr(tempfile, "TemporaryDirectory", lambda prefix, dir: temporary(prefix=prefix, dir=tmp_path))
    return tmp_path


def test_push_once(run_module: RunModule, registry: small_registry.Registry, image: str, memory: Path) -> None:
    arguments = {"image": image, "repository": f"{registry.address}/team/core", **LOGIN}
    predicted = run_module(image_push.main, check=True, **arguments)
    assert (predicted["changed"], predicted["digest"], registry.manifests) == (True, "", {})
    done = run_module(image_push.main, **arguments)
    assert done["changed"] is True, done
    assert re.fullmatch(re.escape(registry.address) + r"/team/core@sha256:[0-9a-f]{64}", done["reference"])
    assert f"team/core:{done['digest']}" in registry.manifests
    again = run_module(image_push.main, **arguments)
    assert (again["changed"], again["reference"]) == (False, done["reference"])
    # An image that was pushed before need not be here.
    elsewhere = run_module(image_push.main, **{**arguments, "image": "not-here:5f0c8a1b2c3d"})
    assert (elsewhere["changed"], elsewhere["reference"]) == (False, done["reference"])
    assert run_module(image_push.main, force=True, **arguments)["changed"] is False
    for result in (predicted, done, again):
        assert "c4n4ry" not in result["text"]
    assert list(memory.iterdir()) == []


def test_nothing_of_the_login_stays(
    run_module: RunModule,
    registry: small_registry.Registry,
    image: str,
    memory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = memory / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    seen: list[list[str]] = []
    run = docker_cli.run

    def recorded(args: list[str], **options: Any) -> docker_cli.Result:
        seen.append(args)
        return run(args, **options)

    monkeypatch.setattr(docker_cli, "run", recorded)
    done = run_module(image_push.main, image=image, repository=f"{registry.address}/team/core", **LOGIN)
    assert done["changed"] is True, done
    assert not any("c4n4ry" in word for args in seen for word in args)
    assert list(memory.iterdir()) == [home]
    assert list(home.iterdir()) == []


def test_with_a_token_of_googles(
    run_module: RunModule,
    registry: small_registry.Registry,
    image: str,
    memory: Path,
    google: Google,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_push, "GOOGLE", re.compile(r"127\.0\.0\.1:\d+"))
    token = google.token()
    registry.user = f"oauth2accesstoken:{token}"
    arguments = {"image": image, "repository": f"{registry.address}/team/core"}
    done = run_module(image_push.main, auth_kind="accesstoken", access_token=token, **arguments)
    assert done["changed"] is True, done
    assert token not in done["text"]


@pytest.fixture
def artifact_registry(google: Google, registry: small_registry.Registry) -> Google:
    """Google's registry with a repository, and the small one behind it."""
    registry.user = ""
    google.registry = registry.address
    google.call(
        "artifactregistry.projects.locations.repositories.create",
        {"parent": "projects/example-project/locations/europe-west3", "repositoryId": "images"},
        {"format": "DOCKER"},
    )
    return google


PUSHED = {"image": "core:5f0c8a1b2c3d", "repository": "europe-west3-docker.pkg.dev/example-project/images/core"}


def test_artifact_registry_is_asked_with_the_own_credentials(
    run_module: RunModule, registry: small_registry.Registry, artifact_registry: Google
) -> None:
    assert run_module(image_push.main, check=True, **PUSHED)["changed"] is True
    digest = registry.add("europe-west3/example-project/images/core:5f0c8a1b2c3d", "there")
    found = run_module(image_push.main, **PUSHED)
    assert (found["changed"], found["reference"]) == (False, f"{PUSHED['repository']}@{digest}")


def test_artifact_registry_refuses(run_module: RunModule, artifact_registry: Google) -> None:
    artifact_registry.revoke("artifactregistry.repositories.downloadArtifacts")
    failed = run_module(image_push.main, **PUSHED)
    assert 'Permission "artifactregistry.repositories.downloadArtifacts" denied' in failed["msg"]
    assert "needs roles/artifactregistry.writer on the repository" in failed["msg"]
    artifact_registry.expire_tokens()
    failed = run_module(image_push.main, auth_kind="accesstoken", access_token="old", **PUSHED)
    assert "no token as oauth2accesstoken (HTTP 401): The access token is invalid or has expired" in failed["msg"]


def test_refusals(run_module: RunModule, registry: small_registry.Registry, image: str) -> None:
    arguments = {"image": image, "repository": f"{registry.address}/team/core"}
    wrong = run_module(image_push.main, username="robot", password="c4n4ry-2", **arguments)
    assert "does not let us read team/core as robot (HTTP 401)" in wrong["msg"]
    missing = run_module(image_push.main, **{**arguments, **LOGIN, "image": "not-here:1"})
    assert "no such image" in missing["msg"].lower()
    assert registry.manifests == {}


def test_no_registry_there(run_module: RunModule) -> None:
    failed = run_module(image_push.main, image="core:1", repository="127.0.0.1:1/team/core", **LOGIN)
    assert failed["msg"].startswith("no answer from 127.0.0.1:1: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"repository": "team/core"}, "repository: found 'team/core'; expected one that begins with a registry's host"),
        ({"repository": "registry.example.com/Team"}, "repository: found 'registry.example.com/Team:1'"),
        ({"repository": "registry.example.com/team", "tag": "latest"}, "with the tag latest; expected"),
        ({"image": "core", "repository": "registry.example.com/team"}, "tag: found nothing, and image 'core' has none"),
    ],
)
def test_bad_input(run_module: RunModule, arguments: dict[str, Any], message: str) -> None:
    failed = run_module(image_push.main, **{"image": "core:1", **arguments})
    assert failed["failed"] is True
    assert message in failed["msg"]


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (
            'denied: Permission "artifactregistry.repositories.uploadArtifacts" denied on resource',
            "artifactregistry.writer",
        ),
        ('name unknown: Repository "dagster-core-prod" not found', "provision.yml"),
        ("manifest invalid: cannot update tag 5f0c. The repository has enabled tag immutability", "may not be moved"),
        ("dial tcp: lookup europe-west1-docker.pkg.dev: no such host", "no connection"),
        ("net/http: request canceled (Client.Timeout exceeded while awaiting headers)", "no connection"),
        ("something new", "see what Docker said"),
    ],
)
def test_causes(said: str, cause: str) -> None:
    assert cause in image_push.cause_of(said)
