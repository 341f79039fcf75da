"""workspace.yaml: each part finds its own entry and leaves the others alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files, workspace

OTHER = {"grpc_server": {"host": "other", "port": 4001, "location_name": "other"}}
OWNER = files.Owner(os.getuid(), os.getgid(), 0o644)


def test_the_article_s_file_is_read() -> None:
    text = """
load_from:
  - grpc_server:
      host: docker_dagster_core
      port: 4000
      location_name: "dagster_core"
"""
    assert workspace.core_host(text) == "docker_dagster_core"
    assert workspace.core_host(workspace.with_core_location(text, "next")) == "next"


@pytest.mark.parametrize("empty", [None, "", "# nothing\n", "load_from: []\n", "load_from:\n", {}])
def test_there_is_no_host_before_the_first_release(empty: str | dict[str, object] | None) -> None:
    assert workspace.core_host(empty) is None
    assert yaml.safe_load(workspace.with_core_location(empty, "a")) == {"load_from": [workspace.grpc_location("a")]}


def test_the_other_locations_and_their_order_are_kept() -> None:
    text = workspace.with_core_location(
        {"load_from": [OTHER, workspace.grpc_location("old"), {"python_file": "x.py"}]}, "new"
    )
    assert yaml.safe_load(text)["load_from"] == [OTHER, workspace.grpc_location("new"), {"python_file": "x.py"}]


def test_the_extra_locations_are_exactly_those_given() -> None:
    text = workspace.with_core_location({"load_from": [OTHER]}, "a")
    assert yaml.safe_load(workspace.with_extra_locations(text, []))["load_from"] == [workspace.grpc_location("a")]
    assert yaml.safe_load(workspace.with_extra_locations(None, [OTHER]))["load_from"] == [OTHER]


@pytest.mark.parametrize("text", ["- a\n", "load_from: x\n", "a: [\n"])
def test_what_is_no_workspace_is_an_error(text: str) -> None:
    with pytest.raises(workspace.WorkspaceError):
        workspace.with_core_location(text, "a")


def test_the_file_is_replaced_and_not_written_into(tmp_path: Path) -> None:
    path = tmp_path / "workspace.yaml"
    path.write_text("load_from: []\n", encoding="utf-8")
    with path.open(encoding="utf-8") as opened_before:
        workspace.update(str(path), lambda text: workspace.with_core_location(text, "a"), OWNER)
        assert opened_before.read() == "load_from: []\n"
    assert workspace.core_host(path.read_text(encoding="utf-8")) == "a"
    inode = path.stat().st_ino
    workspace.update(str(path), lambda text: workspace.with_core_location(text, "a"), OWNER)
    assert path.stat().st_ino == inode, "an equal text is not written again"
    assert sorted(each.name for each in tmp_path.iterdir()) == [".workspace.yaml.lock", "workspace.yaml"]


def test_nobody_s_change_is_lost(tmp_path: Path) -> None:
    """Without the lock, of many processes that each add an entry some would overwrite the others'."""
    path = tmp_path / "workspace.yaml"
    program = f"""
import sys
from ansible_collections.dataops.dagster_gce.plugins.module_utils import files, workspace
owner = files.Owner({OWNER.uid}, {OWNER.gid}, 0o644)
for number in range(20):
    name = f"{{sys.argv[2]}}-{{number}}"
    workspace.update(sys.argv[1], lambda text: workspace.with_core_location(text, "host", name=name), owner)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(path), str(each)], env=environment) for each in range(4)
    ]
    assert [each.wait() for each in running] == [0, 0, 0, 0]
    assert len(yaml.safe_load(path.read_text(encoding="utf-8"))["load_from"]) == 80
