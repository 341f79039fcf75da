"""The lane for a real project (tests/gcp) does what it says: here against the lab's Google, in place of Google."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lab.google import Google
from tests.e2e.harness import ROOT, long_form

PROJECT = "example-lane"


@pytest.fixture
def google() -> Iterator[Google]:
    found = Google().start()
    found.seed_project(PROJECT, services=["cloudresourcemanager.googleapis.com", "serviceusage.googleapis.com"])
    yield found
    found.stop()


def lane(google: Google, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **google.environment(), "GCP_TEST_PROJECT": PROJECT, **variables}
    environment["GCP_TEST_SSH_VIA"] = "internal"
    command = [sys.executable, "-m", "tests.gcp", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )  # fmt: skip


def things(google: Google) -> list[str]:
    return [key for key in google.state.copy()[0] if "/operations/" not in key]


@long_form
def test_the_lane_from_an_empty_project_to_an_empty_project(google: Google) -> None:
    # Some of them: all but site.yml's have passed here, and take four minutes. There is no machine behind this Google.
    done = lane(google, "-k", "from_nothing or destroyed_leaves or is_left")
    assert done.returncode == 0, done.stdout[-6000:]
    assert "3 passed" in done.stdout
    assert "compute.snapshots.insert" in google.calls
    assert "compute.instances.delete" in google.calls
    assert things(google) == []


def test_a_test_that_fails_leaves_nothing_behind(google: Google) -> None:
    google.fail("compute.instances.insert", kind="operation", reason="QUOTA_EXCEEDED", message="Quota exceeded")
    done = lane(google, "-k", "from_nothing or stopped")
    assert done.returncode == 1, done.stdout[-6000:]
    assert "compute.networks.insert" in google.calls
    assert "1 failed" in done.stdout
    assert "stopped_machine_is_started PASSED" not in done.stdout, "the first failure ends the run"
    assert things(google) == []


def test_what_stands_there_already_is_not_touched(google: Google) -> None:
    google.seed_project(PROJECT)
    google.call("compute.networks.insert", {"project": PROJECT}, {"name": "dagster-network-e2e"})
    refused = lane(google, "-k", "nothing_is_left")
    assert refused.returncode == 2, refused.stdout[-6000:]
    assert f"projects/{PROJECT}/global/networks/dagster-network-e2e" in refused.stdout
    assert len(things(google)) == 1
    assert not [call for call in google.calls if call.endswith((".delete", ".insert"))]

    done = lane(google, "-k", "nothing_is_left", GCP_TEST_CLEAN="yes")
    assert done.returncode == 0, done.stdout[-6000:]
    assert things(google) == []
