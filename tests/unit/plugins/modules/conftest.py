"""What tests of modules need of the host."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.unit.plugins.modules.google_machines import machine, surroundings  # noqa: F401 - fixtures


@pytest.fixture(autouse=True)
def own_umask() -> Iterator[None]:
    """What a module, run in this process, makes of the umask ends with its test."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def docker() -> None:
    """Skip where no engine answers."""
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no Docker engine answers")


@pytest.fixture
def volume(docker: None) -> Iterator[str]:
    """An empty Docker volume."""
    done = subprocess.run(["docker", "volume", "create"], capture_output=True, text=True, check=True)
    name = done.stdout.strip()
    yield name
    subprocess.run(["docker", "volume", "rm", name], capture_output=True, check=True)
