"""The look for what a test run left behind."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools import leftovers

BEFORE = ["container dagster-gce-lab-registry", "network bridge", "volume " + "0" * 64]
OURS = [
    "container dagster-gce-lab-molecule-site",
    "container dagster-gce-lab-e2e-redeploy",
    "container stack-info-test-1a2b3c4d",
    "container boring_turing7",
    "network engine-proxy-test-1a2b3c4d",
    "volume " + "1" * 64,
]
SOMEBODY_ELSES = ["container dagster-gce-lab-dagster-lab", "container web", "volume shop-database", "network shop"]


@pytest.mark.parametrize("name", OURS)
def test_what_is_ours_is_found(name: str) -> None:
    assert leftovers.left(BEFORE, [*BEFORE, *SOMEBODY_ELSES, name]) == [name]


def test_what_was_there_before_or_is_gone_does_not_count() -> None:
    assert leftovers.left([*BEFORE, *OURS], OURS) == []


@pytest.fixture
def volume() -> Iterator[str]:
    """A volume in a real engine."""
    name = f"leftovers-test-{secrets.token_hex(4)}"
    try:
        subprocess.run(["docker", "volume", "create", name], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no Docker engine answers on this machine")
    yield name
    subprocess.run(["docker", "volume", "rm", name], capture_output=True, check=True)


def test_a_real_engine_is_asked(volume: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "before"
    assert leftovers.main("record", str(file)) == 0
    assert f"volume {volume}" in file.read_text().splitlines()
    file.write_text("".join(each for each in file.read_text().splitlines(keepends=True) if volume not in each))
    assert leftovers.main("compare", str(file)) == 1
    assert f"left behind: volume {volume}" in capsys.readouterr().out
