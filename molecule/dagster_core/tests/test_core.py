"""What the releases left on the machine: a first one, a second one, a refused one, and the way back to the first."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.scenario import inspect

RELEASES = "/opt/dagster/releases"


@pytest.fixture
def records(host: Any) -> list[dict[str, Any]]:
    """Every release.json, oldest first."""
    names = sorted(host.check_output(f"ls -d {RELEASES}/2*").split())
    return [json.loads(host.file(f"{name}/release.json").content_string) for name in names]


@pytest.fixture
def serving(host: Any) -> dict[str, Any]:
    """The container of the release that serves."""
    name = host.file(f"{RELEASES}/current").linked_to.rsplit("/", 1)[1]
    return inspect(host, f"docker_dagster_core_{name}")


def test_two_releases_are_recorded_and_the_refused_one_left_nothing(host: Any, records: list[dict[str, Any]]) -> None:
    assert [each["state"] for each in records] == ["live", "rolled_back"]
    assert [len(each["served"]) for each in records] == [2, 1]
    shown = host.check_output("docker ps -a --filter label=dataops.dagster_gce=release --format '{{.State}}'")
    assert shown.split() == ["running", "running"]
    for each in records:
        state = host.file(f"{RELEASES}/{each['release']}/release.json")
        assert (state.user, state.group, state.mode) == ("root", "root", 0o644)


def test_everything_names_the_first_release(host: Any, records: list[dict[str, Any]], serving: dict[str, Any]) -> None:
    assert serving["Name"] == f"/docker_dagster_core_{records[0]['release']}"
    assert (
        f"host: docker_dagster_core_{records[0]['release']}"
        in host.file("/opt/dagster/dagster_home/workspace.yaml").content_string
    )
    assert f"DAGSTER_CURRENT_IMAGE={records[0]['identity']}" in serving["Config"]["Env"]
    assert serving["Image"] == records[0]["identity"]


def test_the_release_is_locked_down(serving: dict[str, Any]) -> None:
    host = serving["HostConfig"]
    assert serving["Config"]["User"] == "10001:10001"
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["ReadonlyRootfs"] is True
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert host["PortBindings"] in (None, {})
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["LogConfig"]["Config"]["max-size"]


def test_the_machine_can_tell_whether_a_run_is_in_a_release(host: Any, serving: dict[str, Any]) -> None:
    """`docker top` takes the machine's own ps, from procps; without it no older release would ever be retired."""
    assert host.package("procps").is_installed
    shown = host.check_output("docker top %s -eo pid,args", serving["Name"].lstrip("/"))
    assert "dagster" in shown


def test_the_audit_log_tells_what_happened(host: Any) -> None:
    log = host.file("/opt/dagster/deploys.jsonl")
    assert log.mode == 0o640
    lines = [json.loads(line) for line in log.content_string.splitlines()]
    assert [(each["operation"], each["result"]) for each in lines] == [
        ("deploy", "ok"), ("deploy", "ok"), ("deploy", "failed"), ("rollback", "ok"),
    ]  # fmt: skip
    assert all(each["image"].startswith("sha256:") and each["who"] and each["phases"] for each in lines)
    assert lines[1]["from"] == lines[0]["release"]


def test_nothing_but_the_release_knows_the_password(host: Any) -> None:
    assert "canary-4711" not in host.check_output(f"cat /opt/dagster/deploys.jsonl {RELEASES}/*/release.json")
    assert host.run("ps -ef | grep -v grep | grep -c canary-4711").stdout.strip() == "0"
    workers = host.check_output("docker ps -aq --filter label=dataops.dagster_gce=release").split()
    assert all("canary-4711" not in host.run("docker logs %s", each).stdout for each in workers)


def test_the_lock_is_free(host: Any) -> None:
    assert host.file("/opt/dagster/deploy.lock").content_string == ""
