"""The engine: how it is set and who may reach it (CIS benchmark of Docker, parts 2, 3, 4 and 7)."""

from __future__ import annotations

from typing import Any

import pytest


def test_d1_it_listens_on_its_socket_only(found: dict[str, Any]) -> None:
    assert "hosts" not in found["daemon"]
    assert "tcp://" not in found["dockerd"]
    ports = {each.rpartition(":")[2] for each in found["listening"]}
    assert ports.isdisjoint({"2375", "2376", "2377"})


@pytest.mark.parametrize(
    ("path", "gid", "most"),
    [
        ("/etc/docker", 0, 0o755), ("/etc/docker/daemon.json", 0, 0o644),
        ("/usr/lib/systemd/system/docker.service", 0, 0o644), ("/usr/lib/systemd/system/docker.socket", 0, 0o644),
        ("/run/containerd/containerd.sock", 0, 0o660), ("/var/lib/docker", 0, 0o710), ("/usr/bin/containerd", 0, 0o755),
    ],
)  # fmt: skip
def test_d2_its_files_are_roots(found: dict[str, Any], path: str, gid: int, most: int) -> None:
    state = found["paths"][path]
    assert state, f"{path} is not there"
    assert (state["uid"], state["gid"]) == (0, gid)
    assert state["mode"] & ~most == 0, f"{path}: {state['mode']:o}, at most {most:o}"


def test_d3_its_socket_is_roots_and_the_groups(found: dict[str, Any]) -> None:
    state = found["paths"]["/var/run/docker.sock"]
    assert (state["uid"], state["mode"]) == (0, 0o660)
    assert state["gid"] != 0


def test_d4_containers_survive_it_and_gain_no_rights(found: dict[str, Any]) -> None:
    assert found["info"]["LiveRestoreEnabled"] is True
    assert found["daemon"]["no-new-privileges"] is True


def test_d5_logs_are_bounded(found: dict[str, Any]) -> None:
    assert found["info"]["LoggingDriver"] == "json-file"
    assert set(found["daemon"]["log-opts"]) >= {"max-size", "max-file"}


def test_d6_it_may_change_iptables_and_filters_system_calls(found: dict[str, Any]) -> None:
    assert found["daemon"].get("iptables", True) is True
    options = found["info"]["SecurityOptions"]
    assert "name=seccomp,profile=builtin" in options
    assert not found["apparmor"] or "name=apparmor" in options


def test_d7_nothing_experimental_or_outdated(found: dict[str, Any]) -> None:
    assert found["info"]["ExperimentalBuild"] is False
    assert found["info"]["Driver"] not in ("aufs", "devicemapper", "vfs")
    assert found["info"]["Swarm"]["LocalNodeState"] == "inactive"


def test_d8_registries_are_asked_over_tls(found: dict[str, Any]) -> None:
    """But for those on this machine, and the lab's own."""
    insecure = found["info"]["RegistryConfig"]["IndexConfigs"]
    assert {name for name, each in insecure.items() if not each["Secure"]} <= {"registry.lab:5000"}


def test_d9_images_run_as_nobody_in_particular_and_hold_no_secret(found: dict[str, Any]) -> None:
    for image in found["images"]:
        tags = image["RepoTags"]
        if any(tag.startswith(("docker_dagster_core", "dagster_daemon_webserver")) for tag in tags):
            assert image["Config"]["User"] == "10001:10001", tags
        variables = {each.split("=", 1)[0] for each in image["Config"]["Env"] or []}
        assert not {name for name in variables if "PASSWORD" in name or "SECRET" in name or "TOKEN" in name}, tags
