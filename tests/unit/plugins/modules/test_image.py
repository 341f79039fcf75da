"""image on a real engine: pulls from a registry that behaves and misbehaves, builds, and their errors."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import image_pull
from ansible_collections.dataops.dagster_gce.plugins.module_utils.build_context import scan
from ansible_collections.dataops.dagster_gce.plugins.modules import image

from .small_registry import Registry, serving

RunModule = Callable[..., dict[str, Any]]
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
OTHER_ARCHITECTURE = "s390x"
HASH = "0123456789abcdef" * 4

pytestmark = pytest.mark.usefixtures("docker")


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A registry; the images that were pulled from it are removed."""
    with serving() as made:
        yield made
        listed = ["docker", "image", "ls", "--filter", f"reference={made.address}/*", "--format", "{{.ID}}"]
        for each in set(subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()):
            subprocess.run(["docker", "image", "rm", "--force", each], capture_output=True, check=True)


def test_a_tag_is_resolved_to_its_digest(run_module: RunModule, registry: Registry) -> None:
    digest = registry.add("team/app:1", "first", ARCHITECTURE)
    reference, pinned = f"{registry.address}/team/app:1", f"{registry.address}/team/app@{digest}"

    predicted = run_module(image.main, check=True, reference=reference)
    assert (predicted["changed"], predicted["reference"], predicted["id"]) == (True, reference, "")
    pulled = run_module(image.main, reference=reference)
    assert (pulled["changed"], pulled["reference"], pulled["requested"]) == (True, pinned, reference)
    assert (pulled["digest"], pulled["id"][:7]) == (pinned, "sha256:")
    again = run_module(image.main, reference=reference)
    assert (again["changed"], again["reference"], again["id"]) == (False, pinned, pulled["id"])

    moved = registry.add("team/app:1", "second", ARCHITECTURE)
    kept = run_module(image.main, reference=reference, pull="missing")
    assert (kept["changed"], kept["reference"]) == (False, pinned)
    registry.refuse = 403
    assert "`pull: missing` would take it" in run_module(image.main, reference=reference)["msg"]
    registry.refuse = 0
    after = run_module(image.main, reference=reference)
    assert (after["changed"], after["digest"]) == (True, f"{registry.address}/team/app@{moved}")
    assert after["id"] != pulled["id"]


def test_a_digest_needs_no_registry_once_it_is_there(run_module: RunModule, registry: Registry) -> None:
    digest = registry.add("app:1", "text", ARCHITECTURE)
    reference = f"{registry.address}/app@{digest}"
    assert run_module(image.main, reference=reference)["changed"] is True
    registry.refuse = 403
    again = run_module(image.main, reference=reference)
    assert (again["changed"], again["reference"], again["digest"]) == (False, reference, reference)


def test_what_comes_next_is_pulled_meanwhile(run_module: RunModule, registry: Registry) -> None:
    first, second = f"{registry.address}/first:1", f"{registry.address}/second:1"
    digest = registry.add("first:1", "first", ARCHITECTURE)
    missing = f"{registry.address}/nowhere:1"

    def there() -> bool:
        return subprocess.run(["docker", "image", "inspect", second], capture_output=True, check=False).returncode == 0

    assert run_module(image.main, reference=first, prefetch=[second, missing])["changed"] is True
    registry.add("second:1", "second", ARCHITECTURE)
    # Where the image itself is there, nothing is begun.
    assert run_module(image.main, reference=f"{registry.address}/first@{digest}", prefetch=[second])["changed"] is False
    time.sleep(1)
    assert not there()
    registry.add("third:1", "third", ARCHITECTURE)
    assert run_module(image.main, reference=f"{registry.address}/third:1", prefetch=[second])["changed"] is True
    deadline = time.monotonic() + 30
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("refuse", "words"),
    [
        (0, "not found"),
        (401, "unauthorised: the machine has no login to 127.0.0.1"),
        (403, "not found, or not readable without login"),
        (429, "limits the rate"),
    ],
)
def test_a_pull_that_fails_names_registry_image_and_cause(
    run_module: RunModule, registry: Registry, refuse: int, words: str
) -> None:
    registry.refuse = refuse
    result = run_module(image.main, reference=f"{registry.address}/team/app:1")
    assert result["failed"] is True
    first = result["msg"].splitlines()[0]
    assert first.startswith(f"cannot pull {registry.address}/team/app:1 from {registry.address}: ")
    assert words in first, result["msg"]


def test_no_registry_at_all(run_module: RunModule) -> None:
    for reference in ("127.0.0.1:9/app:1", "registry.invalid/app:1"):
        assert "no connection to the registry" in run_module(image.main, reference=reference)["msg"]


@pytest.mark.parametrize("index", [True, False])
def test_an_image_for_another_architecture(run_module: RunModule, registry: Registry, index: bool) -> None:
    registry.add("app:1", "text", OTHER_ARCHITECTURE, index=index)
    assert "wrong architecture" in run_module(image.main, reference=f"{registry.address}/app:1")["msg"]


def test_other_words_of_engines_and_registries() -> None:
    """What cannot be made here; the texts are from Docker 26, Docker Hub and Artifact Registry."""
    for said, words in {
        "write /var/lib/docker/tmp/GetImageBlob1: no space left on device": "no space left",
        "failed to register layer: ApplyLayer exit status 1: write /x: no space left on device": "no space left",
        "pull access denied for nope, repository does not exist": "not readable without login",
        "pull access denied for eu-docker.pkg.dev/p/r/i, repository does not exist: denied: Permission "
        '"artifactregistry.repositories.downloadArtifacts" denied on resource': "roles/artifactregistry.reader",
        "docker-credential-gce-metadata: this machine has no service account\n"
        "Error response from daemon: unauthorized": "its credential helper says why",
        "manifest for postgres:99 not found: manifest unknown": "not found",
        "dial tcp: lookup eu-docker.pkg.dev: i/o timeout": "no connection",
        # A packet filter that drops: what a network says that is gone.
        'Get "http://registry.lab:5000/v2/": net/http: request canceled while waiting for connection '
        "(Client.Timeout exceeded while awaiting headers)": "no connection",
        "x509: certificate signed by unknown authority": "no connection",
        "something new": "",
    }.items():
        assert words in image_pull.cause_of(said, "the.registry", "linux/amd64")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"reference": "app"}, "reference: found 'app' with no tag"),
        ({"reference": "app:latest"}, "with the tag latest"),
        ({}, "found neither"),
        ({"reference": "app:1", "content_hash": HASH, "name": "a"}, "found both"),
    ],
)
def test_bad_input(run_module: RunModule, arguments: dict[str, Any], words: str) -> None:
    assert words in run_module(image.main, **arguments)["msg"]


class TestABuild:
    """The module's half of a build: the packed files are there."""

    @pytest.fixture
    def arguments(self, tmp_path: Path) -> Iterator[dict[str, Any]]:
        """Options for an image without a base, so that nothing has to be there."""
        source = tmp_path / "source"
        source.mkdir()
        (source / "Dockerfile").write_text("FROM scratch\nARG V\nCOPY file /file\n", encoding="utf-8")
        (source / "file").write_text(str(tmp_path), encoding="utf-8")
        context = scan(source, ["file"], "Dockerfile")
        with (tmp_path / "context.tar.gz").open("wb") as packed:
            context.write_tar(packed)
        log = str(tmp_path / "log/build.log")
        yield {"name": "dagster-gce-test", "content_hash": context.content_hash, "log": log}
        tag = f"dagster-gce-test:{context.content_hash[:12]}"
        subprocess.run(["docker", "image", "rm", "--force", tag], capture_output=True, check=False)

    def test_from_nothing_to_an_image(self, run_module: RunModule, arguments: dict[str, Any], tmp_path: Path) -> None:
        packed = {**arguments, "context": str(tmp_path / "context.tar.gz")}
        reference = f"dagster-gce-test:{arguments['content_hash'][:12]}"
        predicted = run_module(image.main, check=True, **arguments)
        assert (predicted["changed"], predicted["reference"], predicted["id"]) == (True, reference, "")
        asked = run_module(image.main, **arguments)
        assert (asked["changed"], asked["needs_context"]) == (False, True)
        built = run_module(image.main, **packed)
        assert (built["changed"], built["reference"], built["digest"]) == (True, reference, "")
        again = run_module(image.main, **arguments)
        assert (again["changed"], again["id"]) == (False, built["id"])
        assert "COPY file /file" in (tmp_path / "log/build.log").read_text(encoding="utf-8")
        form = f'{{{{index .Config.Labels "{image.CONTENT_LABEL}"}}}}'
        command = ["docker", "image", "inspect", "--format", form, reference]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        assert found == arguments["content_hash"]

    def test_a_step_that_fails_is_shown(self, run_module: RunModule, arguments: dict[str, Any], tmp_path: Path) -> None:
        source = tmp_path / "source"
        (source / "Dockerfile").write_text("FROM scratch\nCOPY file /file\nCOPY absent /absent\n", encoding="utf-8")
        with (tmp_path / "context.tar.gz").open("wb") as packed:
            scan(source, ["file"], "Dockerfile").write_tar(packed)
        result = run_module(image.main, **arguments, context=str(tmp_path / "context.tar.gz"))
        assert result["msg"].startswith(f"cannot build dagster-gce-test:{arguments['content_hash'][:12]}")
        assert "COPY absent /absent" in result["msg"]
        assert '"/absent": not found' in result["msg"]
        assert str(tmp_path / "log/build.log") in result["msg"]

    def test_a_base_image_that_cannot_be_had(
        self, run_module: RunModule, arguments: dict[str, Any], tmp_path: Path, registry: Registry
    ) -> None:
        source = tmp_path / "source"
        (source / "Dockerfile").write_text(f"FROM {registry.address}/base:1\n", encoding="utf-8")
        with (tmp_path / "context.tar.gz").open("wb") as packed:
            scan(source, ["file"], "Dockerfile").write_tar(packed)
        result = run_module(image.main, **arguments, context=str(tmp_path / "context.tar.gz"))
        # BuildKit asks for TLS, which this registry does not speak.
        assert f"no connection to the registry of the base image {registry.address}/base:1" in result["msg"]


def test_a_machine_without_docker(run_module: RunModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for arguments in ({"reference": "app:1"}, {"name": "app", "content_hash": HASH}):
        assert run_module(image.main, check=True, **arguments)["changed"] is True
        assert "the docker command is not installed" in run_module(image.main, **arguments)["msg"]


@pytest.fixture
def fake_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker command that only writes down how it was called, since no builder of BuildKit's own is at hand."""
    log = tmp_path / "calls"
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    refuse = '[ "$1" != image ] || { echo "no such image" >&2; exit 1; }'
    program.write_text(f'#!/bin/sh\necho "$@" >>{log}\n{refuse}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return log


@pytest.mark.parametrize("builder", ["", "pipeline"])
def test_a_build_leaves_its_layers_and_finds_them(
    run_module: RunModule, fake_docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builder: str
) -> None:
    monkeypatch.setenv("BUILDX_BUILDER", builder)
    (tmp_path / "context.tar.gz").touch()
    run_module(
        image.main, name="app", content_hash=HASH, context=str(tmp_path / "context.tar.gz"), log=str(tmp_path / "log"),
        cache_from=["type=local,src=/layers"], cache_to=["type=local,dest=/layers,mode=max"],
    )  # fmt: skip
    (built,) = [line for line in fake_docker.read_text().splitlines() if line.startswith("build ")]
    assert "--cache-from type=local,src=/layers --cache-to type=local,dest=/layers,mode=max" in built
    # Without it, the image would stay in the builder.
    assert ("--load" in built.split()) == bool(builder)
