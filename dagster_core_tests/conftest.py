"""Every test has its own storage folder and no cloud."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The storage folder of this test."""
    monkeypatch.setenv("DAGSTER_STORAGE_DIR", str(tmp_path))
    monkeypatch.delenv("GCP_PROJECT", raising=False)
    return tmp_path
