"""The collection's modules in a real ansible-playbook: started on the controller, kept on a machine, or packed.

The machine is this computer behind an `ssh` that runs what it is told; tests/e2e has real ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.dataops.dagster_gce.plugins.plugin_utils import kept_modules
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

    def run(
        tasks: list[dict[str, Any]], *arguments: str, python: str = sys.executable, **keywords: Any
    ) -> tuple[Results, str]:
        kept = [{**task, "register": f"result_{number}", "ignore_errors": True} for number, task in enumerate(tasks)]
        names = ", ".join(f"result_{number}" for number in range(len(tasks)))
        keep = {"content": f"{{{{ [{names}] | to_json }}}}", "dest": str(tmp_path / "results"), "mode": "0600"}
        play = {
            "hosts": "localhost", "connection": "local", "gather_facts": False,
            "vars": {"ansible_python_interpreter": python},
            "environment": google.environment(),
            "tasks": [*kept, {"ansible.builtin.copy": keep, "check_mode": False}],
            **keywords,
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


def test_every_module_is_started_by_an_action_of_ours() -> None:
    routed = yaml.safe_load((ROOT / "meta/runtime.yml").read_text(encoding="utf-8"))["plugin_routing"]["modules"]
    assert {found["action_plugin"] for found in routed.values()} == {"dataops.dagster_gce.own_module"}
    own = {path.stem for path in (ROOT / "plugins/action").glob("*.py")} - {"own_module"}
    assert sorted([*routed, *own]) == sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))


def test_each_module_has_its_own_defaults_and_its_names(play: Play, google: Google) -> None:
    defaults = {
        "group/dataops.dagster_gce.google": {"project": "example-project"},
        "dataops.dagster_gce.gce_network": {"name": "ours", "mtu": 1500},
        # Of a module that is started in the same way; no network has it.
        "dataops.dagster_gce.gce_router": {"region": "europe-west3"},
    }
    tasks: list[dict[str, Any]] = [
        {"dataops.dagster_gce.gce_network": {}},
        {"gce_network": {}},
        {"action": "{{ name }}", "vars": {"name": "gce_network"}},
        {"gce_router": {"name": "way", "network": "ours"}},
    ]
    results, said = play(tasks, collections=["dataops.dagster_gce"], module_defaults=defaults)
    assert [each["changed"] for each in results] == [True, False, False, True], said
    assert said.count(DIRECT) == 4
    made = google.thing("projects/example-project/global/networks/ours")
    assert made is not None
    assert made["mtu"] == 1500
    assert google.thing("projects/example-project/regions/europe-west3/routers/way") is not None


# --- on a machine ----------------------------------------------------------------------------------------------------

KEPT, REFUSED = "as the machine keeps it", "is sent as Ansible does"
SSH = """#!/bin/sh
case "$*" in *python3*) echo "Welcome to this machine";; esac
for command; do :; done
case "$command" in *{folder}*) echo "$command" | grep -c "zipfile" >> {log};; esac
exec sh -c "$(printf %s "$command" | sed "s#{folder}#{kept}#g")"
"""


class Computer:
    """This computer as a machine that keeps modules in a folder of the test's."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.kept, self.log = folder / "kept", folder / "calls"
        self.kept.mkdir()
        ssh = folder / "ssh"
        ssh.write_text(SSH.format(folder=kept_modules.FOLDER, kept=self.kept, log=self.log), encoding="utf-8")
        ssh.chmod(0o700)

    def secret(self, **options: Any) -> dict[str, Any]:
        """A task with a module of ours that any user can run."""
        own = {
            "path": str(self.folder / "secret"),
            "content": "canary-91c2",
            "owner": os.getuid(),
            "group": os.getgid(),
        }
        return {"dataops.dagster_gce.secret_file": {**own, **options}}

    def play(self, *tasks: dict[str, Any], pipelining: bool = True) -> tuple[Results, str]:
        kept = [{**task, "register": f"result_{number}", "ignore_errors": True} for number, task in enumerate(tasks)]
        names = ", ".join(f"result_{number}" for number in range(len(tasks)))
        results = {"content": f"{{{{ [{names}] | to_json }}}}", "dest": str(self.folder / "results"), "mode": "0600"}
        here = {"ansible.builtin.copy": results, "delegate_to": "localhost", "check_mode": False}
        variables = {
            "ansible_ssh_executable": str(self.folder / "ssh"), "ansible_ssh_transfer_method": "piped",
            "ansible_pipelining": pipelining, "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_remote_tmp": str(self.folder / "tmp"),
        }  # fmt: skip
        play = {"hosts": "machine", "gather_facts": False, "vars": variables, "tasks": [*kept, here]}
        (self.folder / "play.yml").write_text(json.dumps([play]), encoding="utf-8")
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "machine,", "-vvv", "--diff",
             str(self.folder / "play.yml")],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        found: Results = json.loads((self.folder / "results").read_text(encoding="utf-8"))
        return found, done.stdout + done.stderr

    def calls(self) -> list[bool]:
        """Every call that named the kept modules so far: whether it brought them along."""
        return [line != "0" for line in self.log.read_text(encoding="utf-8").split()]


@pytest.fixture
def computer(tmp_path: Path, ansible_environment: dict[str, str]) -> Computer:
    # They are compiled also where everything else is not.
    return Computer(tmp_path, ansible_environment | {"PYTHONDONTWRITEBYTECODE": "1"})


def test_a_machine_is_sent_the_modules_once(computer: Computer) -> None:
    (made, again, other), said = computer.play(computer.secret(), computer.secret(), computer.secret(content="other"))
    assert [made["changed"], again["changed"], other["changed"]] == [True, False, True], said
    assert said.count(KEPT) == 3
    # Not there; brought; and the two others.
    assert computer.calls() == [False, True, False, False]
    (folder,) = computer.kept.iterdir()
    assert folder.name == kept_modules.name()
    assert list(folder.rglob("secret_file.*.pyc")) or list(folder.rglob("basic.*.pyc"))
    assert "canary-91c2" not in said


def test_a_result_is_the_same_as_of_a_module_that_is_sent(computer: Computer) -> None:
    tasks = [
        {**computer.secret(), "check_mode": True},
        computer.secret(mode="nonsense"),
        computer.secret(nonsense=1),
        {**computer.secret(path=f"{computer.folder}/{{{{ item }}}}"), "loop": ["one", "two"], "check_mode": True},
    ]
    kept, said = computer.play(*tasks)
    sent, said_sent = computer.play(*tasks, pipelining=False)
    assert kept == sent
    assert (said.count(KEPT), said_sent.count(KEPT)) == (5, 0)
    assert [result.get("failed", False) for result in kept] == [False, True, True, False]
    assert "canary-91c2" not in said


def test_an_exception_that_a_module_did_not_expect(computer: Computer) -> None:
    task = computer.secret(path=f"{computer.folder}/play.yml/secret")
    (kept,), said = computer.play(task)
    (sent,), _ = computer.play(task, pipelining=False)
    assert kept["failed"] is sent["failed"] is True
    what = f"[Errno 20] Not a directory: '{computer.folder}/play.yml/secret'"
    assert (kept["msg"], sent["msg"]) == (
        f"Module failed: NotADirectoryError: {what}",
        f"Task failed: Module failed: {what}",
    )
    assert "secret_file.py" in said.split("Traceback", 1)[1]


def test_the_environment_of_the_task_reaches_the_module(computer: Computer) -> None:
    broken = {**computer.secret(), "environment": {"PYTHONHOME": "/nonexistent"}}
    (result,), _ = computer.play(broken)
    assert result["failed"] is True
    assert "expected a result as JSON, found 'Welcome to this machine'" in result["msg"]


def test_others_files_are_not_run(computer: Computer) -> None:
    computer.play(computer.secret())
    computer.kept.chmod(0o777)
    (result,), said = computer.play(computer.secret())
    assert (result["changed"], said.count(REFUSED)) == (False, 1), said


def test_a_folder_of_others_in_place_of_ours_is_not_run(computer: Computer) -> None:
    folder = computer.kept / kept_modules.name()
    folder.mkdir()
    (folder / "ansible_collections").write_text("", encoding="utf-8")
    folder.chmod(0o777)
    (result,), said = computer.play(computer.secret())
    assert (result["changed"], said.count(REFUSED)) == (True, 1), said


def test_a_folder_that_nobody_has_used_for_long_goes(computer: Computer) -> None:
    for name, days in (("old", kept_modules.KEPT_DAYS + 1), ("young", kept_modules.KEPT_DAYS - 1)):
        (computer.kept / name).mkdir()
        os.utime(computer.kept / name, (0, time.time() - days * 86400))
    computer.play(computer.secret())
    assert sorted(path.name for path in computer.kept.iterdir()) == sorted(["young", kept_modules.name()])


def test_use_keeps_a_folder(computer: Computer) -> None:
    computer.play(computer.secret())
    os.utime(computer.kept / kept_modules.name(), (0, 0))
    computer.play(computer.secret())
    assert (computer.kept / kept_modules.name()).stat().st_mtime > time.time() - 600


@pytest.mark.parametrize("elsewhere", [{"async": 30, "poll": 1}, {"vars": {"ansible_python_interpreter": "auto"}}])
def test_what_ansible_has_to_do_itself_is_sent(elsewhere: dict[str, Any], computer: Computer) -> None:
    (result,), said = computer.play({**computer.secret(), **elsewhere})
    assert (result["changed"], KEPT in said) == (True, False), said
