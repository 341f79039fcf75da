"""The pipeline's program: what it makes of what the playbooks say. With real playbooks: tests/e2e/test_pipeline.py."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / ".github" / "scripts"))
import pipeline

OLD, NEW = "20261123T003659-63c229d82a17", "20261123T003739-dac00b315092"
Says = Callable[..., Path]
# Answers with the next file of the playbook that is played (the last one again and again), and that file's status.
PROGRAM = """#!{python}
import json, pathlib, sys
folder = pathlib.Path({folder!r})
name = sys.argv[3].rpartition(".")[2]
with (folder / "calls").open("a") as stream:
    stream.write(json.dumps(sys.argv[1:]) + "\\n")
queue = sorted(folder.glob(name + "-*"))
answer = json.loads(queue[0].read_text())
if len(queue) > 1:
    queue[0].unlink()
print(answer["said"])
sys.exit(answer["code"])
"""


def status_output(**serves: str) -> str:
    """What `status.yml` prints with the default callback and results as JSON."""
    hosts = {host.replace("_", "-"): {"serves": name, "deploys": [], "problems": []} for host, name in serves.items()}
    lines = ["PLAY [Show the state of Dagster] ****", "", "TASK [dataops.dagster_gce.dagster_core : Status | look] ***"]
    lines += [f"ok: [{host}]" for host in hosts]
    lines += [f"ok: [{host}] => " + json.dumps({"msg": state}, indent=4) for host, state in hosts.items()]
    return "\n".join([*lines, "", "PLAY RECAP ****"])


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Says:
    """Have an ansible-playbook that says, playbook by playbook, what is given; returns the folder with its calls."""
    program = tmp_path / "bin" / "ansible-playbook"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(python=sys.executable, folder=str(tmp_path)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setattr(pipeline, "LOOK_EVERY", 0.05)
    monkeypatch.chdir(tmp_path)

    def have(**answers: list[tuple[int, str]]) -> Path:
        for name, given in answers.items():
            for index, (code, said) in enumerate(given):
                (tmp_path / f"{name}-{index}").write_text(json.dumps({"code": code, "said": said}))
        return tmp_path

    return have


def run(*arguments: str) -> int:
    options = pipeline.parse([*arguments[:1], "--inventory", "inventory/prod", *arguments[1:]])
    return int(options.work(options))


def calls(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def test_a_release(says: Says) -> None:
    folder = says(deploy_core=[(0, "ok")], status=[(0, status_output(m1=NEW))])
    assert run("release", "--image", "r/core@sha256:1", "--watch", "0.1") == 0
    first = calls(folder)[0]
    assert first[:3] == ["--inventory", "inventory/prod", "dataops.dagster_gce.deploy_core"]
    assert json.loads(first[-1]) == {"dagster_core_image": "r/core@sha256:1"}
    assert (folder / "output").read_text() == f"release={NEW}\n"
    assert re.match(r"### Release in \d+ s\n", (folder / "summary").read_text())


def test_what_a_variable_holds_is_a_value(says: Says) -> None:
    folder = says(rollback_core=[(0, "ok")], status=[(0, status_output(m1=OLD))])
    given = '"}; rm -rf / #{{ lookup("pipe", "id") }}'
    assert run("rollback", "--release", given, "--watch", "0") == 0
    assert json.loads(calls(folder)[0][-1]) == {"dagster_core_release": given}


def test_two_machines_of_which_one_takes_it_back(says: Says, capsys: pytest.CaptureFixture[str]) -> None:
    looks = [(0, status_output(m1=NEW, m2=NEW)), (0, status_output(m1=NEW, m2=NEW)), (0, status_output(m1=NEW, m2=OLD))]
    folder = says(deploy_core=[(0, "ok")], status=looks)
    assert run("release", "--image", "x", "--watch", "60") == 1
    assert f"m2: {NEW} does not serve any more: found {OLD}" in capsys.readouterr().err
    assert "### Release taken back by the machine" in (folder / "summary").read_text()


@pytest.mark.parametrize(
    "looks",
    [
        [(4, "fatal: [m1]: UNREACHABLE!")],
        [(0, status_output(m1=NEW, m2=NEW)), (4, status_output(m1=NEW))],
    ],
    ids=["none", "one of two"],
)
def test_a_machine_that_does_not_answer_is_no_success(says: Says, looks: list[tuple[int, str]]) -> None:
    says(deploy_core=[(0, "ok")], status=looks)
    assert run("release", "--image", "x", "--watch", "0.01") == 1


def test_a_play_that_fails_is_told_with_its_last_lines(says: Says) -> None:
    folder = says(deploy_core=[(2, "first\n" * 100 + "the cause")], status=[(0, status_output(m1=OLD))])
    assert run("release", "--image", "x", "--watch", "60") == 2
    text = (folder / "summary").read_text()
    assert "### Release failed; what served before goes on" in text
    assert "the cause" in text
    assert text.count("first") < 100


def test_a_plan_changes_nothing(says: Says) -> None:
    folder = says(site=[(0, "m1 : ok=1    changed=2    unreachable=0    failed=0")])
    assert run("site", "--check") == 0
    assert calls(folder)[0][3:5] == ["--check", "--diff"]
    assert (folder / "summary").read_text().startswith("### inventory/prod: 2 would change")


def test_the_project_is_built_and_its_layers_kept(says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = says(build_core=[(0, "pushed: -e dagster_core_image=r/core@sha256:" + "1" * 64)])

    def variables(*arguments: str) -> dict[str, Any]:
        assert run("build", *arguments) == 0
        found: dict[str, Any] = json.loads(calls(folder)[-1][-1])
        return found

    # The engine's own builder would refuse.
    assert not [name for name in variables("--cache", "layers") if "cache" in name]
    monkeypatch.setenv("BUILDX_BUILDER", "pipeline")
    found = variables("--cache", "layers")
    assert found["dagster_project_dir"] == str(folder)
    assert found["dagster_image_cache_to"] == [f"type=local,dest={folder}/layers,mode=max"]
    assert found["build_core_test"][-2:] == ["--project", str(folder)]
    (folder / "layers").mkdir()
    found = variables("--cache", "layers")
    assert found["dagster_image_cache_from"] == [f"type=local,src={folder}/layers"]
    assert "dagster_image_cache_to" not in found
