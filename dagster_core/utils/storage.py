"""Where files live."""

import os
from pathlib import Path

DEFAULT_STORAGE_DIR = "/opt/dagster/storage"


def storage_dir() -> Path:
    """The folder that every Dagster container shares; DAGSTER_STORAGE_DIR overrides it (tests, a laptop)."""
    return Path(os.environ.get("DAGSTER_STORAGE_DIR") or DEFAULT_STORAGE_DIR)


def landing_dir() -> Path:
    """Where corrected months arrive, one `YYYY-MM.csv` each."""
    return storage_dir() / "landing"
