"""The virtual environment: installed when its lock says something new, and only then."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LOCKS = ("controller", "lab", "test")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose interpreter only writes down what it is asked for."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    (tmp_path / "lab").mkdir()
    shutil.copy2(ROOT / "lab" / "env.sh", tmp_path / "lab")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    python.chmod(0o755)
    return tmp_path


def installed(checkout: Path, lock: str) -> list[str]:
    """The locks that pip is called with for ``lock``."""
    subprocess.run([checkout / "lab" / "env.sh", lock], check=True, capture_output=True)
    asked = checkout / "asked"
    found = re.findall(r"pip install .*--requirement requirements/(\w+)\.txt", asked.read_text())
    asked.unlink()
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_is_installed_once(checkout: Path, lock: str) -> None:
    assert installed(checkout, lock) == [lock]
    assert installed(checkout, lock) == []


def test_the_environment_of_the_tests_does_for_everything(checkout: Path) -> None:
    assert installed(checkout, "test") == ["test"]
    assert [installed(checkout, lock) for lock in LOCKS] == [[], [], []]


def test_the_environment_of_the_demo_does_not_do_for_the_tests(checkout: Path) -> None:
    assert installed(checkout, "lab") == ["lab"]
    assert installed(checkout, "controller") == []
    assert installed(checkout, "test") == ["test"]


def test_a_new_lock_is_installed(checkout: Path) -> None:
    assert installed(checkout, "test") == ["test"]
    with (checkout / "requirements" / "test.txt").open("a") as lock:
        lock.write("# another one\n")
    assert installed(checkout, "controller") == ["controller"]
    assert installed(checkout, "test") == ["test"]


def test_each_lock_holds_the_ones_before_it() -> None:
    pins = []
    for lock in LOCKS:
        text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
        pins.append(set(re.findall(r"^[\w.\[\]-]+==[^ ;]+", text, re.MULTILINE)))
    assert pins[0] <= pins[1] <= pins[2]
