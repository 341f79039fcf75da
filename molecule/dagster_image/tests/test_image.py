"""Builds and pulls on a machine over SSH, through the lab's registry."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.scenario import Role

from .conftest import SCENARIO

BASE = "python:3.13-slim"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the scenario's files that a test may change."""
    shutil.copytree(SCENARIO / "files", tmp_path / "source", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "source"


def facts(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The facts that the play shows at its end."""
    assert done.returncode == 0, done.stdout + done.stderr
    match = re.search(r"FACTS=(\{.*?\})", " ".join(done.stdout.split()))
    assert match is not None, done.stdout
    found: dict[str, str] = json.loads(match[1].replace('\\"', '"'))
    return found


def images(host: Host) -> str:
    return str(host.check_output("docker image ls --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}' | sort"))


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode != 0
    return " ".join((done.stdout + done.stderr).split())


def test_the_tag_is_the_content_s_hash(host: Host, role: Role, source: Path) -> None:
    before = images(host)
    found = facts(role(dagster_image_source=str(source)))
    assert re.fullmatch(r"molecule_image:[0-9a-f]{12}", found["reference"])
    assert f"{found['reference']} {found['id']}" in before, "another folder with the same files is the same image"
    assert found["digest"] == ""
    assert images(host) == before
    assert host.check_output(f"docker run --rm --network none {found['reference']}") == "hello"


def test_a_second_run_is_one_remote_task_and_no_transfer(role: Role) -> None:
    done = role("-vvv")
    assert "changed=0" in done.stdout
    assert "context.tar.gz" not in done.stdout + done.stderr
    # Verbose lines are on the other stream.
    assert (done.stdout + done.stderr).count("SSH: EXEC ssh") == 1


def test_a_change_is_a_new_image_beside_the_old_one(host: Host, role: Role, source: Path) -> None:
    old = facts(role(dagster_image_source=str(source)))
    (source / "app/hello.py").write_text("print('changed')\n", encoding="utf-8")
    predicted = role("--check", "--diff", dagster_image_source=str(source))
    assert "changed=1" in predicted.stdout
    assert facts(predicted)["id"] == ""
    new = facts(role(dagster_image_source=str(source)))
    assert new["reference"] == facts(predicted)["reference"] != old["reference"]
    assert host.check_output(f"docker run --rm --network none {new['reference']}") == "changed"
    assert host.check_output(f"docker run --rm --network none {old['reference']}") == "hello"
    log = host.file("/var/log/dataops-molecule_image-build.log")
    assert (log.user, log.mode) == ("root", 0o600)
    assert log.contains("RUN python3 /app/hello.py")
    host.check_output(f"docker image rm {new['reference']}")


def test_a_step_that_fails_is_shown_and_leaves_no_image(host: Host, role: Role, source: Path) -> None:
    before = images(host)
    (source / "app/hello.py").write_text("raise SystemExit('this went wrong')\n", encoding="utf-8")
    words = said(role(dagster_image_source=str(source)))
    assert "cannot build molecule_image:" in words
    assert "this went wrong" in words
    assert ">>> RUN python3 /app/hello.py" in words
    assert images(host) == before


def test_a_secret_never_leaves_the_controller(host: Host, role: Role, source: Path) -> None:
    (source / "app/service-account.json").write_text('{"private_key": "c4n4ry"}', encoding="utf-8")
    done = role("-vvv", dagster_image_source=str(source))
    assert "app/service-account.json: looks like a secret" in said(done)
    assert "c4n4ry" not in done.stdout + done.stderr
    assert "context.tar.gz" not in done.stdout + done.stderr


def test_a_pull_by_tag_and_by_digest(host: Host, role: Role) -> None:
    found = facts(role(dagster_image_pull=BASE))
    assert re.fullmatch(r"python@sha256:[0-9a-f]{64}", found["digest"])
    assert found["reference"] == found["digest"]
    assert host.check_output(f"docker image inspect --format '{{{{.Id}}}}' {found['reference']}") == found["id"]
    again = role(dagster_image_pull=found["digest"])
    assert "changed=0" in again.stdout
    assert facts(again) == found


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("registry.lab:5000/no/such:1", "cannot pull registry.lab:5000/no/such:1 from registry.lab:5000: not found"),
        ("registry.lab:5001/no/such:1", "no connection to the registry registry.lab:5001"),
        ("python", "dagster_image_pull: found 'python'"),
        ("python:latest", "dagster_image_pull: found 'python:latest'"),
    ],
)
def test_a_pull_that_cannot_be(host: Host, role: Role, reference: str, words: str) -> None:
    before = images(host)
    assert words in said(role(dagster_image_pull=reference))
    assert images(host) == before


def test_no_space_left(host: Host, role: Role, source: Path) -> None:
    """A full disk while the image is being built: the cause is named, and what was there stays."""
    before = images(host)
    fill = "--mount=type=tmpfs,target=/full,size=1m dd if=/dev/zero of=/full/x bs=1M count=8"
    (source / "Dockerfile").write_text(f"FROM {BASE}\nCOPY app /app\nRUN {fill}\n", encoding="utf-8")
    words = said(role(dagster_image_source=str(source)))
    assert "no space left on the machine" in words
    assert images(host) == before
