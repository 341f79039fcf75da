"""The command: its words, and the one file that it is."""

from __future__ import annotations

import importlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import command, zipapp

ROOT = Path(__file__).resolve().parents[3]
SOURCES = str(ROOT / "plugins/module_utils")


@pytest.mark.parametrize("name", sorted(command.COMMANDS))
def test_every_word_has_a_module_that_can_do_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    part = command.load(name)
    assert part is not None
    assert callable(part.main)
    with pytest.raises(SystemExit) as ended:
        command.main([name, "--help"])
    assert ended.value.code == 0
    assert name in capsys.readouterr().out


def test_a_word_that_nobody_knows(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["bakcup"])
    assert ended.value.code == 2
    assert "invalid choice: 'bakcup'" in capsys.readouterr().err


def test_a_module_that_imports_what_is_not_there_is_no_missing_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def importing(_name: str) -> None:
        raise ModuleNotFoundError("No module named 'yaml'", name="yaml")

    monkeypatch.setattr(importlib, "import_module", importing)
    with pytest.raises(ModuleNotFoundError):
        command.load("status")


@pytest.fixture(scope="module")
def archive() -> bytes:
    return zipapp.build(SOURCES)


def test_the_same_sources_give_the_same_file(archive: bytes) -> None:
    assert zipapp.build(SOURCES) == archive
    entries = zipfile.ZipFile(io.BytesIO(archive)).infolist()
    assert {each.date_time for each in entries} == {(1980, 1, 1, 0, 0, 0)}
    names = [each.filename for each in entries]
    assert any(name.endswith("/operations/jobs.py") for name in names)
    # What runs on the controller only, or needs more than Python.
    assert not [name for name in names if "google" in name or name.endswith(("file_task.py", ".pyc"))]


def test_another_source_gives_another_file(archive: bytes, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("A = 1\n")
    first = zipapp.build(str(tmp_path))
    (tmp_path / "one.py").write_text("A = 2\n")
    assert zipapp.build(str(tmp_path)) != first


@pytest.mark.parametrize("name", sorted(command.COMMANDS))
def test_the_file_runs_without_the_collection_and_without_packages(archive: bytes, tmp_path: Path, name: str) -> None:
    """-S: no site-packages, as on a machine where nothing is installed with pip."""
    program = tmp_path / "dagster-gce"
    program.write_bytes(archive)
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(program), name, "--help"],
        cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert f"dagster-gce {name}" in done.stdout


def test_it_is_started_by_the_machines_own_python_in_isolation(archive: bytes) -> None:
    assert archive.startswith(b"#!/usr/bin/python3 -I\n")
