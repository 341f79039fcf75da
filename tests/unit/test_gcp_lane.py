"""The lane for a real project, as far as it goes without one: nothing is begun that was not asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e import test_provision as lab
from tests.gcp import test_provision as lane
from tests.gcp.project import LaneError, Settings

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it where neither credentials nor a network are."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GCP_", "GOOGLE_"))}
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:1", "CLOUDSDK_CONFIG": "/nonexistent", "NO_GCE_CHECK": "true"}
    return subprocess.run(
        [sys.executable, "-m", "tests.gcp", *arguments], cwd=ROOT, env=environment | nowhere | variables,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("variables", [{}, {"GOOGLE_CLOUD_PROJECT": "example-other", "GCP_PROJECT": "example-other"}])
def test_no_project_is_taken_but_the_one_that_is_named(variables: dict[str, str]) -> None:
    done = run(**variables)
    assert done.returncode == 2
    assert done.stderr.startswith("GCP_TEST_PROJECT: not set; expected the id of a project that is there for tests.")


def test_all_mistakes_are_told_at_once() -> None:
    wrong = {"GCP_TEST_PROJECT": "Ours", "GCP_TEST_ZONE": "europe", "GCP_TEST_SSH_VIA": "ssh", "GCP_TEST_CLEAN": "1"}
    with pytest.raises(LaneError) as refused:
        Settings.read(wrong)
    assert [line.split(": found ")[0] for line in str(refused.value).splitlines()] == list(wrong)
    assert Settings.read({"GCP_TEST_PROJECT": "example-lane"}) == Settings("example-lane")


def test_a_dry_run_says_what_would_be_done_and_asks_nobody() -> None:
    done = run("--dry-run", GCP_TEST_PROJECT="example-lane")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "project:  example-lane" in done.stdout
    assert "less than" in done.stdout
    assert done.stdout.count("tests/gcp/test_provision.py::") >= 20
    assert "test_nothing_is_left" in done.stdout.splitlines()[-3]


def test_without_credentials_nothing_is_begun() -> None:
    done = run(GCP_TEST_PROJECT="example-lane")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "gcloud auth application-default login" in done.stdout
    assert "passed" not in done.stdout


def test_most_of_them_are_the_tests_of_the_lab() -> None:
    same = [name for name in dir(lane) if name.startswith("test_") and getattr(lane, name) is getattr(lab, name, None)]
    assert len(same) >= 12
