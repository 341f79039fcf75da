"""Each container of the product, a release's and a run's too (CIS benchmark of Docker, part 5).

`docker inspect` says what was asked for, /proc what the kernel does.
"""

from __future__ import annotations

import json
from typing import Any

Containers = dict[str, dict[str, Any]]

# Mounts of the machine's folders: container → folder → whether it may write.
FOLDERS = {
    "dagster-postgres": {"/opt/dagster/dagster_home/database": False},
    "dagster-webserver": {"/opt/dagster/dagster_home": False},
    "dagster-daemon": {"/opt/dagster/dagster_home": False},
    "dagster-engine-proxy": {"/var/run/docker.sock": False},
}
USER_CODE = {"/opt/dagster/dagster_home/database": False}
# Of a release that began in mode `key`, and is kept for a rollback.
KEY = {"/opt/dagster/dagster_home/secrets/service-account.json": False}


def each(ours: Containers) -> list[tuple[str, str, dict[str, Any]]]:
    """Part, name and settings."""
    return [(*key.split(" ", 1), shown) for key, shown in ours.items()]  # type: ignore[misc] # two words


def test_c1_no_process_has_a_right_that_it_does_not_need(found: dict[str, Any], ours: Containers) -> None:
    for _, name, _ in each(ours):
        assert found["processes"][name], f"{name}: no process was seen"
        for process in found["processes"][name]:
            assert "0" not in process["Uid"].split(), name
            assert (process["CapEff"], process["CapBnd"]) == ("0" * 16, "0" * 16), name
            assert process["NoNewPrivs"] == "1", name
            assert process["Seccomp"] == "2", name
            if found["apparmor"]:
                assert process["AppArmor"].startswith("docker-default"), name


def test_c2_nothing_of_the_machines_is_shared(ours: Containers) -> None:
    for _, name, shown in each(ours):
        host = shown["HostConfig"]
        assert host["Privileged"] is False, name
        assert not host["CapAdd"], name
        assert not host["Devices"], name
        assert (host["PidMode"], host["UTSMode"], host["UsernsMode"], host["CgroupParent"]) == ("", "", "", ""), name
        assert host["IpcMode"] in ("private", "none"), name
        assert host["NetworkMode"] != "host", name


def test_c3_the_root_file_system_is_read_only(ours: Containers) -> None:
    for _, name, shown in each(ours):
        assert shown["HostConfig"]["ReadonlyRootfs"] is True, name


def test_c4_folders_of_the_machine_are_few_and_read_only(ours: Containers) -> None:
    for part, name, shown in each(ours):
        folders = {mount["Source"]: mount["RW"] for mount in shown["Mounts"] if mount["Type"] == "bind"}
        allowed = [FOLDERS[name]] if part == "stack" else [USER_CODE, {**USER_CODE, **KEY}]
        assert folders in allowed, name
        assert not any(mount.get("Propagation") in ("shared", "rshared") for mount in shown["Mounts"]), name


def test_c5_only_the_proxy_has_the_engines_socket(ours: Containers) -> None:
    having = [
        name for _, name, shown in each(ours) if "docker.sock" in json.dumps([shown["Mounts"], shown["HostConfig"]])
    ]
    assert having == ["dagster-engine-proxy"]


def test_c6_memory_and_processes_have_limits(ours: Containers) -> None:
    for _, name, shown in each(ours):
        assert shown["HostConfig"]["Memory"] > 0, name
        assert 0 < shown["HostConfig"]["PidsLimit"] <= 1024, name


def test_c7_ports_are_published_on_this_machine_only(ours: Containers) -> None:
    published = {
        (name, bound["HostIp"], bound["HostPort"])
        for _, name, shown in each(ours)
        for bindings in (shown["NetworkSettings"]["Ports"] or {}).values()
        for bound in bindings or []
    }
    assert published == {("dagster-webserver", "127.0.0.1", "3000")}


def test_c8_nobody_is_on_dockers_default_network(found: dict[str, Any], ours: Containers) -> None:
    for part, name, shown in each(ours):
        networks = set(shown["NetworkSettings"]["Networks"])
        assert networks <= {"dagster-network", "dagster-engine"}, name
        if part != "stack":
            assert networks == {"dagster-network"}, name
    inside = {network["Name"]: network["Internal"] for network in found["networks"]}
    assert inside["dagster-engine"] is True


def test_c9_logs_are_bounded(ours: Containers) -> None:
    for _, name, shown in each(ours):
        config = shown["HostConfig"]["LogConfig"]
        assert config["Type"] in ("json-file", "local"), name
        assert {"max-size", "max-file"} <= set(config["Config"]), name


def test_c10_services_come_back_and_are_watched(ours: Containers) -> None:
    for part, name, shown in each(ours):
        policy = shown["HostConfig"]["RestartPolicy"]["Name"]
        assert policy == {"stack": "always", "release": "unless-stopped", "run": "no"}[part], name
        if part == "stack":
            assert shown["State"]["Health"]["Status"] == "healthy", name


def test_c11_images_cannot_move(ours: Containers) -> None:
    for part, name, shown in each(ours):
        image = shown["Config"]["Image"]
        if part == "stack":
            assert ":" in image.rsplit("/", 1)[-1], name
            assert not image.endswith(":latest"), name
        else:
            assert image.startswith("sha256:"), name


def test_c12_no_environment_holds_the_password(ours: Containers) -> None:
    for _, name, shown in each(ours):
        variables = dict(entry.split("=", 1) for entry in shown["Config"]["Env"])
        assert variables.get("POSTGRES_PASSWORD", "") == "", name


def test_c13_no_ssh_server_inside(found: dict[str, Any], ours: Containers) -> None:
    for _, name, _ in each(ours):
        assert not [process for process in found["processes"][name] if process["Name"] == "sshd"], name
