"""The status of a machine on which nothing is, with PyYAML and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import workspace
from ansible_collections.dataops.dagster_gce.plugins.modules import dagster_status
from tests.unit.plugins.conftest import RunModule


def look(run_module: RunModule, root: Path, check: bool = False) -> dict[str, Any]:
    return run_module(dagster_status.main, check, root=str(root), webserver_url="http://127.0.0.1:9")


def test_without_pyyaml_the_package_is_named(
    run_module: RunModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "yaml", None)
    found = look(run_module, tmp_path)
    assert found["failed"]
    assert "python3-yaml" in found["msg"]
    # Check mode comes before the role that installs it.
    found = look(run_module, tmp_path, check=True)
    assert not found["failed"]
    assert "python3-yaml" in found["status"]["problems"][0]["text"]


@pytest.mark.parametrize("check", [False, True])
def test_a_bare_machine_is_a_problem_and_no_failure(run_module: RunModule, tmp_path: Path, check: bool) -> None:
    found = look(run_module, tmp_path, check)
    assert not found["failed"]
    assert not found["changed"]
    assert any("http://127.0.0.1:9 does not answer" in each["text"] for each in found["status"]["problems"])
