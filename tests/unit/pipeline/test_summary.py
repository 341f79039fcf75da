"""What the pipeline tells people, from what playbooks really print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / ".github" / "scripts"))
import summary

BEFORE, NOW = "2026-11-23T00:30:00Z", "2026-11-23T00:37:42Z"
IMAGE = "europe-west3-docker.pkg.dev/example/dagster-core-prod/docker_dagster_core@sha256:" + "a" * 64


def state(**more: Any) -> dict[str, Any]:
    """A machine as `status.yml` shows it, after a release that went well."""
    deploy = {"time": NOW, "operation": "deploy", "result": "released", "seconds": 1.6, "failure": ""}
    return {
        "serves": "20261123T003739-dac00b315092",
        "location": {"image": "sha256:dac00b315092" + "0" * 52},
        "deploys": [{**deploy, "phases": {"start": 0.3, "gate": 0.9}}],
        "problems": [],
        **more,
    }


def change(code: int = 0, taken_back: dict[str, str] | None = None, **more: Any) -> str:
    return summary.change(
        "deploy_core",
        code,
        "Cause: KeyError: 'X'\n" * 2 + "a line\n" * 60 + "last line\n",
        4.2,
        {"m1": state(**more)},
        taken_back or {},
        BEFORE,
    )


def test_a_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
    monkeypatch.setenv("GITHUB_REPOSITORY", "example/pipelines")
    monkeypatch.setenv("GITHUB_SHA", "0123456789abcdef")
    monkeypatch.setenv("GITHUB_RUN_ID", "7")
    text = change()
    assert text.startswith("### Release in 4 s\n")
    assert "| m1 | 20261123T003739-dac00b315092 | sha256:dac00b315092 | released | 1.6 | start 0.3, gate 0.9 |" in text
    assert "[commit 0123456789ab](https://github.com/example/pipelines/commit/0123456789abcdef)" in text
    assert "[this run](https://github.com/example/pipelines/actions/runs/7)" in text
    assert "last line" not in text


def test_a_release_that_failed_says_why() -> None:
    failure = "exited with code 1 before it served. <b>|"
    failed = {"time": NOW, "result": "failed", "failure": failure, "seconds": 2}
    text = change(2, deploys=[failed, {"time": BEFORE, "failure": "an old one"}])
    assert text.startswith("### Release failed; what served before goes on\n")
    assert "**m1:** exited with code 1 before it served. &lt;b>\\|" in text
    assert text.count("Cause: KeyError: 'X'\n") == 1
    assert "last line" in text
    assert text.count("a line") < 60
    assert "an old one" not in text


def test_a_failure_before_the_machine_is_not_an_older_one() -> None:
    text = change(2, deploys=[{"time": "2026-11-22T00:00:00Z", "result": "failed", "failure": "an old one"}])
    assert "an old one" not in text


def test_a_release_that_was_taken_back() -> None:
    text = change(
        taken_back={"m1": "20261123T003739-dac00b315092"},
        problems=[{"name": "x", "severity": "warning", "text": "the release died twice"}],
    )
    assert text.startswith("### Release taken back by the machine: the release before serves again\n")
    assert "- m1: the release died twice" in text


def test_no_answer_is_no_success() -> None:
    assert "failed" in summary.change("rollback_core", 0, "", 1.0, {}, {}, BEFORE).splitlines()[0]


@pytest.mark.parametrize(("said", "how"), [("pushed", "built, tested and pushed"), ("was pushed before", "was pushed")])
def test_an_image(said: str, how: str) -> None:
    # Ansible breaks long lines where it likes.
    text = summary.build(0, f"msg: '{said}: ansible-playbook deploy_core.yml\n    -e dagster_core_image={IMAGE}'", 31.2)
    assert f"### Image: {how}" in text
    assert f"`{IMAGE}`" in text


def test_no_image() -> None:
    text = summary.build(2, "fatal: no", 3)
    assert "not built or not pushed" in text
    assert "fatal: no" in text


def test_a_plan() -> None:
    recap = "m1  : ok=40   changed=3    unreachable=0    failed=0    skipped=1\n"
    text = summary.site("inventory/prod", 0, "+ ```\n--- before\n" + recap, 20, check=True)
    assert text.startswith("### inventory/prod: 3 would change, in 20 s\n")
    # What a diff holds does not end the block that shows it.
    assert text.count("````") == 2
    assert "nothing changed" in summary.site("inventory/prod", 0, recap.replace("3", "0"), 20, check=False)
    assert "failed" in summary.site("inventory/prod", 2, recap, 20, check=False).splitlines()[0]


def test_a_long_plan_fits() -> None:
    assert len(summary.site("inventory/prod", 0, "x" * 2_000_000, 20, check=True).encode()) < 1 << 20
