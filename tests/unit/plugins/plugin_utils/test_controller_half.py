"""Modules that run on the controller, in a real ansible-playbook: started directly, or packed as Ansible does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.google import Google

ROOT = Path(__file__).resolve().parents[4]
DIRECT, PACKED = "with the controller's Python", "Using module file"
# The very same program by a name of its own: Ansible cannot know, and packs the module.
OTHER_NAME = "{{ playbook_dir }}/python"

Results = list[dict[str, Any]]
Play = Callable[..., tuple[Results, str]]


@pytest.fixture
def play(tmp_path: Path, google: Google, ansible_environment: dict[str, str]) -> Play:
    """Run tasks on the controller and go on after failures; returns their results and all that was printed."""
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', encoding="utf-8")
    (tmp_path / "python").chmod(0o700)

    def run(tasks: list[dict[str, Any]], *arguments: str, python: str = sys.executable) -> tuple[Results, str]:
        kept = [{**task, "register": f"result_{number}", "ignore_errors": True} for number, task in enumerate(tasks)]
        names = ", ".join(f"result_{number}" for number in range(len(tasks)))
        keep = {"content": f"{{{{ [{names}] | to_json }}}}", "dest": str(tmp_path / "results"), "mode": "0600"}
        play = {
            "hosts": "localhost", "connection": "local", "gather_facts": False,
            "vars": {"ansible_python_interpreter": python},
            "environment": google.environment(),
            "tasks": [*kept, {"ansible.builtin.copy": keep, "check_mode": False}],
        }  # fmt: skip
        (tmp_path / "play.yml").write_text(json.dumps([play]), encoding="utf-8")
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "-vvv", *arguments,
             str(tmp_path / "play.yml")],
            cwd=tmp_path, env=ansible_environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        results: Results = json.loads((tmp_path / "results").read_text(encoding="utf-8"))
        return results, done.stdout + done.stderr

    return run


def network(**options: Any) -> dict[str, Any]:
    return {"dataops.dagster_gce.gce_network": {"name": "ours", "project": "example-project", **options}}


def test_a_result_is_the_same_as_of_a_packed_module(play: Play, google: Google) -> None:
    google.seed_project("example-empty", services=[])
    tasks = [
        network(mtu=1500),
        network(mtu=70000),
        network(nonsense=1),
        network(project="example-absent"),
        # Warns that its API is not enabled.
        network(project="example-empty"),
        {**network(name="{{ item }}"), "loop": ["one", "two"]},
        network(auth_kind="accesstoken", access_token="canary-7f3a"),
    ]
    direct, said = play(tasks, "--check", "--diff")
    packed, said_packed = play(tasks, "--check", "--diff", python=OTHER_NAME)
    assert direct == packed
    assert (said.count(DIRECT), said_packed.count(DIRECT)) == (8, 0)
    assert "gce_network.py" in said_packed.split(PACKED, 1)[1]
    assert [result.get("failed", False) for result in direct] == [False, True, True, True, False, False, True]
    assert direct[0]["diff"]["after"]["mtu"] == 1500
    assert "Unsupported parameters" in direct[2]["msg"]
    assert any("not enabled" in warning for warning in direct[4]["warnings"])
    assert "canary-7f3a" not in said


def test_the_change_itself_and_the_environment_of_the_task(play: Play, google: Google) -> None:
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    (made, again, lost), said = play([network(), network(), {**network(timeout=1), "environment": nowhere}])
    assert (made["changed"], again["changed"]) == (True, False)
    assert "no answer" in lost["msg"]
    assert said.count(DIRECT) == 3
    assert google.thing("projects/example-project/global/networks/ours") is not None


@pytest.mark.parametrize("elsewhere", [{"async": 30, "poll": 1}, {"delegate_to": "localhost"}])
def test_what_does_not_plainly_run_here_is_packed(elsewhere: dict[str, Any], play: Play) -> None:
    (result,), said = play([{**network(), **elsewhere}])
    assert result["changed"] is True, result
    assert DIRECT not in said


def test_a_file_in_the_current_folder_is_not_taken_for_a_library(play: Play, tmp_path: Path) -> None:
    (tmp_path / "requests.py").write_text("raise SystemExit('the wrong one')\n", encoding="utf-8")
    (result,), said = play([network()])
    assert result["changed"] is True, said


def test_a_module_that_breaks_off_says_how(play: Play) -> None:
    (result,), _ = play([{**network(), "environment": {"PYTHONHOME": "/nonexistent"}}])
    assert result["failed"] is True
    assert "expected a result as JSON, found ''" in result["msg"]


def test_every_module_that_asks_google_has_its_action() -> None:
    group = yaml.safe_load((ROOT / "meta/runtime.yml").read_text(encoding="utf-8"))["action_groups"]["google"]
    assert [name for name in group if not (ROOT / f"plugins/action/{name}.py").is_file()] == []
