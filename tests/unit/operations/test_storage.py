"""Where the files of I/O managers and compute logs are: a volume's folder, or one that machines share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_storage,
    config,
    jobs,
    storage,
)


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of settings; Docker knows one volume."""

    def inspect(kind: str, name: str) -> dict[str, Any] | None:
        assert kind == "volume"
        return {"Mountpoint": "/volumes/x"} if name == "dagster-storage" else None

    monkeypatch.setattr(config, "FOLDER", str(tmp_path))
    monkeypatch.setattr(docker_cli, "inspect", inspect)
    return tmp_path


def write(folder: Path, storage_name: str) -> None:
    (folder / "command.json").write_text(json.dumps({"storage": storage_name}))


def test_it_is_the_volume_where_nothing_is_said() -> None:
    assert storage.folder() == "/volumes/x"


def test_it_is_the_folder_that_machines_share(settings: Path) -> None:
    (settings / "shared").mkdir()
    write(settings, str(settings / "shared"))
    assert storage.folder() == backup_storage.mountpoint() == str(settings / "shared")


@pytest.mark.parametrize("name", ["other-volume", "/nowhere/at/all"])
def test_what_is_not_there_is_named(settings: Path, name: str) -> None:
    write(settings, name)
    assert storage.folder() == ""
    with pytest.raises(jobs.JobError, match=f"found no {name}; expected"):
        backup_storage.mountpoint()
