"""dagster_yaml with a real image: what Dagster refuses never reaches the file."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files, workspace
from ansible_collections.dataops.dagster_gce.plugins.modules import dagster_yaml

RunModule = Callable[..., dict[str, Any]]
OTHER = {"grpc_server": {"host": "other", "port": 4001, "location_name": "other"}}


@pytest.fixture(autouse=True)
def owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let somebody who is not root run these tests."""
    monkeypatch.setattr(workspace, "OWNER", files.Owner(os.getuid(), os.getgid(), 0o644))


@pytest.fixture(scope="session")
def image(docker: None) -> str:
    """Any image of the webserver that the engine has."""
    command = ["docker", "image", "ls", "--filter", "reference=dagster_daemon_webserver", "--format", "{{.ID}}"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    if not found:
        pytest.skip("no image dagster_daemon_webserver in the engine")
    return found[0]


def test_dagster_yaml(run_module: RunModule, tmp_path: Path, image: str) -> None:
    path = tmp_path / "home/dagster.yaml"
    arguments: dict[str, Any] = {"path": str(path), "kind": "instance", "image": image}
    good = {"telemetry": {"enabled": False}, "nux": None}

    predicted = run_module(dagster_yaml.main, check=True, content=good, **arguments)
    assert (predicted["changed"], predicted["validated"], path.exists()) == (True, True, False)
    written = run_module(dagster_yaml.main, content=good, **arguments)
    assert (written["changed"], written["validated"]) == (True, True)
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == {"telemetry": {"enabled": False}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644

    before = path.stat()
    again = run_module(dagster_yaml.main, content=good, **{**arguments, "image": "no/such:image"})
    assert (again["changed"], again["validated"]) == (False, False), "a run without a change asks nobody"
    for check in (True, False):
        refused = run_module(dagster_yaml.main, check=check, content={"telemetry": {"enabld": False}}, **arguments)
        assert refused["failed"] is True
        assert (
            'refuses dagster.yaml; the file was not touched:\n- dagster.yaml: Received unexpected config entry "enabld"'
            in refused["msg"]
        )
    assert path.stat() == before

    path.chmod(0o600)
    assert run_module(dagster_yaml.main, content=good, **arguments)["changed"] is True
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_workspace_yaml_keeps_what_a_release_wrote(run_module: RunModule, tmp_path: Path, image: str) -> None:
    path = tmp_path / "workspace.yaml"
    release = tmp_path / "releases/current"
    arguments: dict[str, Any] = {
        "path": str(path),
        "kind": "workspace",
        "image": image,
        "current_release": str(release),
    }

    run_module(dagster_yaml.main, content={"load_from": []}, **arguments)
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == {"load_from": []}
    path.write_text(
        workspace.with_core_location(path.read_text(encoding="utf-8"), "docker_dagster_core_r2"), encoding="utf-8"
    )
    assert run_module(dagster_yaml.main, content={"load_from": []}, **arguments)["changed"] is False
    run_module(dagster_yaml.main, content={"load_from": [OTHER]}, **arguments)
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))["load_from"]
    assert entries == [workspace.grpc_location("docker_dagster_core_r2"), OTHER]

    named = workspace.with_core_location(None, "docker_dagster_core_r2", name="analytics")
    path.write_text(named, encoding="utf-8")
    kept = run_module(dagster_yaml.main, content={"load_from": []}, core_location="analytics", **arguments)
    assert (kept["changed"], path.read_text(encoding="utf-8")) == (False, named)

    path.unlink()
    release.parent.mkdir()
    release.symlink_to("r3")
    run_module(dagster_yaml.main, content={"load_from": []}, **arguments)
    assert workspace.core_host(path.read_text(encoding="utf-8")) == "docker_dagster_core_r3"


def test_the_user_code_s_entry_is_nobody_else_s(run_module: RunModule, tmp_path: Path) -> None:
    content = {"load_from": [workspace.grpc_location("mine")]}
    arguments = {"path": str(tmp_path / "workspace.yaml"), "kind": "workspace", "image": "x:1", "content": content}
    result = run_module(dagster_yaml.main, check=True, **arguments)
    assert result["msg"].startswith("load_from: found an entry with the location_name dagster_core")


@pytest.mark.usefixtures("docker")
def test_an_image_that_is_missing(run_module: RunModule, tmp_path: Path) -> None:
    arguments = {"path": str(tmp_path / "dagster.yaml"), "kind": "instance", "content": {}, "image": "no/such:image"}
    predicted = run_module(dagster_yaml.main, check=True, **arguments)
    assert (predicted["changed"], predicted["validated"]) == (True, False)
    assert "predicted without asking Dagster" in predicted["text"]
    failed = run_module(dagster_yaml.main, **arguments)
    assert failed["msg"].startswith("cannot ask Dagster whether it accepts dagster.yaml: ")
    assert not (tmp_path / "dagster.yaml").exists()


def test_a_machine_without_docker(run_module: RunModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = {"path": str(tmp_path / "dagster.yaml"), "kind": "instance", "content": {"a": 1}, "image": "x:1"}
    predicted = run_module(dagster_yaml.main, check=True, **arguments)
    assert (predicted["changed"], predicted["diff"]["after"].endswith("a: 1\n")) == (True, True)
    assert "the docker command is not installed" in run_module(dagster_yaml.main, **arguments)["msg"]


def test_a_machine_without_pyyaml(run_module: RunModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "yaml", None)
    arguments = {"path": str(tmp_path / "dagster.yaml"), "kind": "instance", "content": {}, "image": "x:1"}
    assert run_module(dagster_yaml.main, check=True, **arguments)["changed"] is True
    assert "python3-yaml" in run_module(dagster_yaml.main, **arguments)["msg"]
