"""The runner of `make test`: what it does with a step that it has no time for."""

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
