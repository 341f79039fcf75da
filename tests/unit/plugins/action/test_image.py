"""The action image in a real ansible-playbook on a real engine."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Play = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def play(tmp_path: Path, ansible_environment: dict[str, str]) -> Play:
    """Run the action on this machine; returns status, the task's result and all that was printed."""

    def run(options: dict[str, Any], *arguments: str) -> tuple[int, dict[str, Any], str]:
        tasks = [
            {"dataops.dagster_gce.image": options, "register": "built"},
            {
                "ansible.builtin.copy": {"content": "{{ built | to_json }}", "dest": str(tmp_path / "result")},
                "check_mode": False,
            },
        ]
        head = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
        (tmp_path / "play.yml").write_text(json.dumps([head]), encoding="utf-8")
        (tmp_path / "result").unlink(missing_ok=True)
        done = subprocess.run(
            [str(shutil.which("ansible-playbook")), "-i", "localhost,", *arguments, str(tmp_path / "play.yml")],
            env=ansible_environment,
            capture_output=True,
            text=True,
            check=False,
        )
        result = json.loads((tmp_path / "result").read_text(encoding="utf-8")) if done.returncode == 0 else {}
        return done.returncode, result, done.stdout + done.stderr

    return run


@pytest.fixture
def options(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """An image of one file, without a base."""
    source = tmp_path / "source"
    (source / "app").mkdir(parents=True)
    (source / "app/file").write_text(str(tmp_path), encoding="utf-8")
    (source / "Dockerfile").write_text("FROM scratch\nARG V\nCOPY app /app\n", encoding="utf-8")
    yield {"name": "dagster-gce-test", "source": str(source), "include": ["app"], "log": str(tmp_path / "build.log")}
    listed = ["docker", "image", "ls", "--quiet", "--no-trunc", "dagster-gce-test"]
    for each in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split():
        subprocess.run(["docker", "image", "rm", "--force", each], capture_output=True, check=True)


def test_build_once(play: Play, options: dict[str, Any], tmp_path: Path) -> None:
    if shutil.which("docker") is None:
        pytest.skip("no docker command")
    status, predicted, _ = play(options, "--check", "--diff")
    assert (status, predicted["changed"], predicted["id"]) == (0, True, "")
    status, built, output = play({**options, "build_args": {"V": True}})
    assert (status, built["changed"]) == (0, True), output
    assert f"building {built['reference']} on localhost from 2 files" in output
    status, again, output = play({**options, "build_args": {"V": "true"}}, "-vvv")
    assert (status, again["changed"], again["id"]) == (0, False, built["id"])
    assert ".tar.gz" not in output, "an image that is there needs no files"
    assert play({**options, "build_args": {"V": "true"}, "unhashed_build_args": {"M": "x"}})[1]["changed"] is False
    (tmp_path / "source/app/file").write_text("changed", encoding="utf-8")
    changed = play({**options, "build_args": {"V": "true"}}, "--check")[1]
    assert (changed["changed"], changed["reference"] == built["reference"]) == (True, False)


def test_bad_input_reaches_no_machine(
    options: dict[str, Any], tmp_path: Path, ansible_environment: dict[str, str]
) -> None:
    """All in one play, on a host that does not exist."""
    secret = tmp_path / "source/secret/.env"
    secret.parent.mkdir()
    secret.write_text("PASSWORD=c4n4ry", encoding="utf-8")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"include": ["nothing/*"]}, "include: 'nothing/*' matches no file"),
        ({"include": []}, "include: found an empty list"),
        ({"include": {"a": 1}}, "include: found {'a': 1}; expected a list"),
        ({"include": ["**"]}, "secret/.env: looks like a secret"),
        ({"name": "Upper"}, "name: found 'Upper'"),
        ({"name": "a:1"}, "name: found 'a:1'"),
        ({"source": "/nowhere"}, "source: /nowhere is no folder"),
        ({"source": ""}, "expected either reference (pull) or source (build), found neither"),
        ({"build_args": {"A": ["x"]}}, "build_args.A: found"),
        ({"build_args": "A=1"}, "build_args: found"),
        ({"reference": "app:1"}, "expected either reference (pull) or source (build), found both"),
        ({"source": "", "reference": "app:latest"}, "reference: found 'app:latest' with the tag latest"),
        ({"context": "/x"}, "context is set by the action itself"),
    ]
    tasks = [{"dataops.dagster_gce.image": {**options, **change}, "ignore_errors": True} for change, _ in cases]
    head = {"hosts": "nowhere", "gather_facts": False, "tasks": tasks}
    (tmp_path / "play.yml").write_text(json.dumps([head]), encoding="utf-8")
    command = [str(shutil.which("ansible-playbook")), "-i", "nowhere,", "-vvv", "--diff", str(tmp_path / "play.yml")]
    done = subprocess.run(command, env=ansible_environment, capture_output=True, text=True, check=False)
    output = " ".join((done.stdout + done.stderr).split())
    assert f"ignored={len(cases)}" in output
    assert "unreachable=0" in output
    for _, words in cases:
        assert words in output
    assert "c4n4ry" not in output
