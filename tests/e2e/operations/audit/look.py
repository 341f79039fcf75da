"""Runs on the machine: everything that the audit asks about, in one answer (JSON on standard output)."""

from __future__ import annotations

import glob
import json
import os
import pwd
import stat
import subprocess
import sys
from typing import Any

PATHS = [
    "/etc/docker", "/etc/docker/daemon.json", "/var/run/docker.sock", "/run/containerd/containerd.sock",
    "/var/lib/docker",
    "/usr/lib/systemd/system/docker.service", "/usr/lib/systemd/system/docker.socket",
    "/usr/bin/containerd", "/etc/shadow", "/etc/passwd", "/etc/ssh/sshd_config", "/etc/sudoers", "/etc/crontab",
    "/etc/cron.d", "/opt/dagster", "/opt/dagster/.env", "/opt/dagster/docker-compose-GCE.yml",
    "/opt/dagster/dagster_home/database", "/opt/dagster/dagster_home/database/pgpass",
    "/opt/dagster/dagster_home/secrets", "/opt/dagster/state", "/opt/dagster/releases", "/usr/local/bin/dagster-gce",
]  # fmt: skip
# The system's own folders; data of containers and of the kernel are none of them.
SYSTEM = ["/etc", "/usr", "/opt", "/home", "/root", "/var/log", "/var/spool", "/srv", "/boot"]


def run(*command: str) -> str:
    """What a program prints; empty where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def path(name: str) -> dict[str, Any] | None:
    """Owner, group and mode, of what a link leads to."""
    try:
        found = os.stat(name)
    except FileNotFoundError:
        return None
    return {"uid": found.st_uid, "gid": found.st_gid, "mode": stat.S_IMODE(found.st_mode)}


def strange_files() -> dict[str, list[str]]:
    """Files that everybody may write, that nobody owns, or that give root's rights to whoever runs them."""
    users = {entry.pw_uid for entry in pwd.getpwall()}
    found: dict[str, list[str]] = {"writable": [], "unowned": [], "setuid": []}
    for top in SYSTEM:
        for folder, folders, files in os.walk(top):
            for name in [*folders, *files]:
                full = os.path.join(folder, name)
                try:
                    state = os.lstat(full)
                except OSError:
                    continue
                if stat.S_ISLNK(state.st_mode):
                    continue
                sticky_folder = stat.S_ISDIR(state.st_mode) and state.st_mode & stat.S_ISVTX
                if state.st_mode & stat.S_IWOTH and not sticky_folder and not stat.S_ISSOCK(state.st_mode):
                    found["writable"].append(full)
                if state.st_uid not in users:
                    found["unowned"].append(full)
                if stat.S_ISREG(state.st_mode) and state.st_mode & stat.S_ISUID:
                    found["setuid"].append(full)
    return found


def processes(containers: list[dict[str, Any]]) -> dict[str, list[dict[str, str]]]:
    """/proc/<pid>/status of every process of every container."""
    found: dict[str, list[dict[str, str]]] = {}
    for container in containers:
        name = container["Name"].lstrip("/")
        found[name] = []
        for pid in run("docker", "top", container["Id"], "-eo", "pid").split()[1:]:
            try:
                with open(f"/proc/{pid}/status", encoding="utf-8") as stream:
                    lines = (line.rstrip("\n").partition(":\t") for line in stream)
                    found[name].append({key: value for key, _, value in lines})
                with open(f"/proc/{pid}/attr/current", encoding="utf-8") as stream:
                    found[name][-1]["AppArmor"] = stream.read().strip("\0\n")
            except OSError:
                continue
    return found


def sysctl() -> dict[str, str]:
    """The kernel's settings of the networks."""
    names = run("sysctl", "-a", "--pattern", r"^(net\.ipv[46]\.(conf\.(all|default)|icmp|tcp)|kernel|fs)")
    return {line.split(" = ")[0].strip(): line.partition(" = ")[2].strip() for line in names.splitlines()}


def main() -> int:
    """Print it."""
    ids = run("docker", "ps", "-q").split()
    containers = json.loads(run("docker", "inspect", *ids) or "[]")
    images = sorted({each["Image"] for each in containers})
    try:
        with open("/etc/docker/daemon.json", encoding="utf-8") as stream:
            daemon = json.load(stream)
    except OSError:
        daemon = {}
    print(
        json.dumps(
            {
                "info": json.loads(run("docker", "info", "--format", "{{json .}}") or "{}"),
                "networks": json.loads(
                    run("docker", "network", "inspect", *run("docker", "network", "ls", "-q").split())
                ),
                "daemon": daemon,
                "containers": containers,
                "processes": processes(containers),
                "images": json.loads(run("docker", "image", "inspect", *images) or "[]"),
                "paths": {name: path(name) for name in PATHS},
                "docker_group": run("getent", "group", "docker").strip().rpartition(":")[2],
                "accounts": [line.split(":")[:4] for line in run("getent", "passwd").splitlines()],
                "passwords": [line.split(":")[:2] for line in run("getent", "shadow").splitlines()],
                "dockerd": run("ps", "-C", "dockerd", "-o", "args="),
                "sshd": dict(line.split(" ", 1) for line in run("/usr/sbin/sshd", "-T").splitlines() if " " in line),
                "sysctl": sysctl(),
                "listening": [line.split()[4] for line in run("ss", "-Hltun").splitlines()],
                "timers": run("systemctl", "is-enabled", "apt-daily.timer", "apt-daily-upgrade.timer").split(),
                "container": subprocess.run(["systemd-detect-virt", "-cq"], check=False).returncode == 0,
                "apparmor": os.path.isdir("/sys/kernel/security/apparmor"),
                "journal": os.path.isdir("/var/log/journal"),
                "rules": run("nft", "list", "table", "inet", "dagster_gce"),
                "files": strange_files(),
                "units": {
                    os.path.basename(each): open(each, encoding="utf-8").read()  # noqa: SIM115
                    for each in glob.glob("/etc/systemd/system/dagster-gce-*.service")
                },
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
