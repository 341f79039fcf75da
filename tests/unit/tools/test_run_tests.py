"""The runner of `make test`: what it does with a step that it has no time for, and with one that failed."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "tools" / "run_tests"


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program as a module, with a folder of its own for logs."""
    loader = SourceFileLoader("run_tests", str(PROGRAM))
    spec = importlib.util.spec_from_loader("run_tests", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "run_tests", module)
    loader.exec_module(module)
    monkeypatch.setattr(module, "OUT", tmp_path)
    monkeypatch.setattr(module, "MINUTES", 5.0)  # whatever the run has that this test is a part of
    return module


def test_a_step_that_comes_too_late_is_skipped_and_says_so(
    runner: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    late = runner.Step("late-one", ["false"])
    late.run_until(time.monotonic() - 1, threading.Lock())
    assert (late.status, late.passed, late.failed) == (0, 0, 0)
    assert late.skipped == ["the whole step: it had not begun after TEST_MINUTES=5"]
    assert "late-one" in capsys.readouterr().out


@pytest.mark.parametrize(("command", "passed", "failed"), [("true", 1, 0), ("false", 0, 1)])
def test_a_step_in_time_runs(runner: ModuleType, command: str, passed: int, failed: int) -> None:
    step = runner.Step("in-time", [command])
    step.run_until(time.monotonic() + 60, threading.Lock())
    assert (step.passed, step.failed, step.skipped) == (passed, failed, [])


TESTS = """
import pathlib
import pytest

@pytest.mark.parametrize("number", [1, 2])
def test_it(number):
    beside = pathlib.Path(__file__).with_name("beside")
    again = beside.exists()
    beside.touch()
    assert again or number == 2, "something ran beside it"
"""


@pytest.fixture
def folder(runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose one test fails the first time it is run."""
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_first.py").write_text(TESTS)
    (tmp_path / "tests" / "test_second.py").write_text("def test_it(): pass\n")
    return tmp_path


def test_what_fails_once_is_unsteady(runner: ModuleType, folder: Path) -> None:
    step, lock = runner.pytest_step("steps", "tests"), threading.Lock()
    step.run(lock)
    assert (step.status, step.passed, step.failed, step.files_failed) == (1, 2, 1, {"tests/test_first.py"})
    (message,) = step.failures
    assert message.startswith("tests.test_first::test_it[1]: AssertionError: something ran beside it"), message
    step.run_again(lock)
    assert (step.status, step.passed, step.failed, step.failures) == (0, 3, 0, [])
    assert step.unsteady == [message]
    assert "something ran beside it" in (folder / "steps.log").read_text()


def test_what_fails_twice_is_a_failure(runner: ModuleType, folder: Path) -> None:
    (folder / "tests" / "test_first.py").write_text("def test_it(): assert False\n")
    step, lock = runner.pytest_step("steps", "tests"), threading.Lock()
    step.run(lock)
    step.run_again(lock)
    assert (step.status, step.passed, step.failed, step.unsteady) == (1, 1, 1, [])
    assert step.failures


def test_a_step_that_is_no_pytest_is_tried_as_a_whole(runner: ModuleType, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    step, lock = runner.Step("whole", ["sh", "-c", f"test -e {seen} || {{ touch {seen}; exit 1; }}"]), threading.Lock()
    step.run(lock)
    assert (step.status, step.failed) == (1, 1)
    step.run_again(lock)
    assert (step.status, step.passed, step.failed, step.unsteady) == (0, 1, 0, ["whole"])
