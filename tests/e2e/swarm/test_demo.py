"""``make demo WORKERS=2``: machines, a registry with a login and a shared folder, all from the lab's Google."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from lab import demo
from lab import machine as lab_machine
from tests.e2e.harness import ROOT, long_form, wait
from tests.webserver import Webserver

pytestmark = long_form
PREFIX = "dagster-gce-lab-google-"
WORKERS = [f"{demo.NAME}-worker-{number}" for number in (1, 2)]


class Demo(Webserver):
    """The demo's UI and command line."""

    def __init__(self) -> None:
        self.port = lab_machine.free_port()

    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def make(self, *arguments: str) -> str:
        """A target of the Makefile."""
        done = subprocess.run(
            ["make", *arguments, f"DEMO_PORT={self.port}"], cwd=ROOT, capture_output=True, text=True, check=False,
            env={**os.environ, "NO_COLOR": "1"},
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"[-8000:]
        return done.stdout

    def run(self, **tags: str) -> tuple[str, str]:
        """Run a job; the run's status in the end, and what its events say."""
        run = self.launch("platform_check", tags=tags)
        query = """query ($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
            ... on MessageEvent { message } } } } }"""
        wait(lambda: self.run_status(run) in ("SUCCESS", "FAILURE"), 300, "the run's end", lambda: self.run_status(run))
        events: list[dict[str, Any]] = self.graphql(query, id=run)["logsForRun"]["events"]
        return self.run_status(run), "\n".join(str(event.get("message")) for event in events)


@pytest.fixture(scope="module")
def shown() -> Iterator[Demo]:
    """The demo with two workers; nothing of it is left at the end."""
    if machines():
        pytest.skip("a demo is on this computer: `make demo-down` first")
    found = Demo()
    try:
        found.make("demo", "WORKERS=2")
        yield found
    finally:
        found.make("demo-down")
        assert machines() == []
        assert not demo.WORKERS.exists()


def machines() -> list[str]:
    """The demo's machines, as the lab's engine has them."""
    found = docker.from_env().containers.list(all=True, filters={"name": f"^{PREFIX}{demo.NAME}"})
    return sorted(str(each.name).removeprefix(PREFIX) for each in found)


def test_it_has_three_machines_that_take_runs(shown: Demo) -> None:
    assert machines() == [demo.NAME, *WORKERS]
    for name in (demo.NAME, *WORKERS):
        # The image is in Artifact Registry, which lets nobody in without the machine's token.
        status, said = shown.run(**{"dagster_gce/node": name})
        assert status == "SUCCESS", said
        assert "docker.pkg.dev" in said, said
    client = docker.from_env()
    for name in WORKERS:
        _, listed = client.containers.get(PREFIX + name).exec_run(["docker", "images", "--digests"])
        assert b"docker_dagster_core" in listed, listed


def test_a_second_time_changes_nothing(shown: Demo) -> None:
    output = shown.make("demo")
    recaps = [line for line in output.splitlines() if "changed=" in line and "failed=" in line]
    assert recaps
    assert all("changed=0" in line and "failed=0" in line for line in recaps), recaps
