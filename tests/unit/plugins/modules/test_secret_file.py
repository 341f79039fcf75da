"""secret_file: the key of a service account comes, changes, goes, and is never shown."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.modules import secret_file

RunModule = Callable[..., dict[str, Any]]
OWNER = {"owner": os.getuid(), "group": os.getgid()}


def modes(path: Path) -> tuple[int, int]:
    return stat.S_IMODE(path.parent.stat().st_mode), stat.S_IMODE(path.stat().st_mode)


def test_from_nothing_to_a_key_and_back(run_module: RunModule, tmp_path: Path) -> None:
    path = tmp_path / "home/secrets/key.json"
    arguments = {"path": str(path), **OWNER}

    predicted = run_module(secret_file.main, check=True, content="c4n4ry", **arguments)
    assert (predicted["changed"], path.parent.exists()) == (True, False)
    placed = run_module(secret_file.main, content="c4n4ry", **arguments)
    assert (placed["changed"], path.read_text(encoding="utf-8"), modes(path)) == (True, "c4n4ry", (0o700, 0o400))
    assert run_module(secret_file.main, content="c4n4ry", **arguments)["changed"] is False
    changed = run_module(secret_file.main, content="c4n4ry2", **arguments)
    assert (changed["changed"], path.read_text(encoding="utf-8")) == (True, "c4n4ry2")
    assert changed["diff"]["before"] != changed["diff"]["after"]
    path.chmod(0o644)
    path.parent.chmod(0o755)
    assert run_module(secret_file.main, check=True, content="c4n4ry2", **arguments)["changed"] is True
    assert modes(path) == (0o755, 0o644)
    run_module(secret_file.main, content="c4n4ry2", **arguments)
    assert modes(path) == (0o700, 0o400)
    removed = run_module(secret_file.main, state="absent", **arguments)
    assert (removed["changed"], path.exists(), path.parent.exists()) == (True, False, True)
    assert run_module(secret_file.main, state="absent", **arguments)["changed"] is False
    for result in (predicted, placed, changed, removed):
        assert "c4n4ry" not in result["text"]


def test_bad_input(run_module: RunModule, tmp_path: Path) -> None:
    path = str(tmp_path / "key")
    assert "content" in run_module(secret_file.main, path=path, **OWNER)["msg"]
    assert run_module(secret_file.main, path=path, content="x", mode="u=r", **OWNER)["msg"].startswith(
        "mode: found 'u=r'"
    )
