"""What the module makes of its parameters. What it then does is tested with its module_utils and on a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import dagster_core_release
from tests.unit.plugins.conftest import RunModule


def test_settings_become_text() -> None:
    assert dagster_core_release.plain({"A": 1, "B": "x", "C": True}) == {"A": "1", "B": "x", "C": "True"}


@pytest.mark.parametrize(("value", "found"), [(None, "nothing"), ([1], "[1]"), ({"a": 1}, "{'a': 1}")])
def test_a_setting_that_is_no_text_is_refused(run_module: RunModule, tmp_path: Path, value: object, found: str) -> None:
    (tmp_path / ".env").write_text("")
    result = run_module(dagster_core_release.main, image="core:1", root=str(tmp_path), environment={"LEVEL": value})
    assert result["failed"]
    assert result["msg"].startswith(f"dagster_core_environment: LEVEL: found {found}; expected a text or a number")
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


def test_a_missing_environment_file_is_named(run_module: RunModule, tmp_path: Path) -> None:
    result = run_module(dagster_core_release.main, image="core:1", root=str(tmp_path))
    assert result["msg"].startswith(f"{tmp_path}/.env: No such file or directory; expected the environment file")


def test_check_mode_on_a_bare_machine_predicts_a_release(
    run_module: RunModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run_module(dagster_core_release.main, check=True, image="core:1", root=str(tmp_path))
    assert (result["failed"], result["changed"], result["result"]) == (False, True, "predicted")
    assert list(tmp_path.iterdir()) == []
