"""What the unit tests share."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest

from tests.unit.google import google, google_server  # noqa: F401 - fixtures

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def _asks_google(path: Path) -> bool:
    return "google" in path.read_text()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the files that have to do with Google's API; what looks back on all tests comes last."""
    for item in items:
        if _asks_google(item.path):
            item.add_marker(pytest.mark.google)
    items.sort(key=lambda item: item.path.name == "test_coverage.py")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def ansible_environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which ansible-playbook finds the checkout and leaves nothing behind."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return {
        **kept,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
        "ANSIBLE_LOCAL_TEMP": str(tmp_path / "ansible"),
        "ANSIBLE_HOME": str(tmp_path / "ansible-home"),
        "NO_COLOR": "1",
    }
