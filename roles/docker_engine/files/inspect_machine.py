"""Look at a machine before Docker is installed on it, and say what stands in the way.

Piped to ``python3 - '<wanted, as JSON>'`` on the machine by tasks/inspect.yml; prints one JSON object. Reads only.
One script instead of many tasks: a run that has nothing to do should cost one round trip.

Wanted:
    source: ``docker`` or ``distro``.
    packages: ``{distribution-release: [names]}`` of this source; an empty list says that the release cannot serve it.
    host_packages: what the collection needs besides Docker.
    pinned: names or ``name=version`` that replace ``packages``; empty to take those.
    conflicts: packages that must not be there with this source.
    daemon: what daemon.json should hold.
    repository: URL of the third-party repository, empty with ``distro``.
    sources_file: the one file that may name this repository.
    config_file, previous_config_file, data_root, minimum_free_mb, minimum_compose.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from typing import Any

PROGRAMS = ("docker", "dockerd")
# A login shell's PATH and what systemd units use; sudo's secure_path may hide some of them.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin"


def output(*command: str) -> str:
    """Return what a command prints, or an empty string where it cannot run; its exit code tells nothing more."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def operating_system() -> dict[str, str]:
    """Return ID, VERSION_ID, VERSION_CODENAME and PRETTY_NAME of os-release(5)."""
    with open("/etc/os-release", encoding="utf-8") as lines:
        pairs = dict(line.strip().split("=", 1) for line in lines if re.match(r"[A-Z_]+=", line))
    return {
        name.lower(): pairs.get(name, "").strip("\"'")
        for name in ("ID", "VERSION_ID", "VERSION_CODENAME", "PRETTY_NAME")
    }


def installed_packages(names: set[str]) -> dict[str, str]:
    """Return the version of each of these packages that is installed."""
    if not names:
        return {}
    lines = output("dpkg-query", "-W", "-f", "${db:Status-Status}|${Package}|${Version}\n", *sorted(names)).splitlines()
    return {name: version for status, name, version in (line.split("|") for line in lines) if status == "installed"}


def unpackaged_programs() -> list[str]:
    """Return the docker programs that no Debian package brought: static binaries, snaps, links to something else."""
    folders = SEARCH_PATH.split(":")
    paths = [os.path.join(folder, name) for folder in folders for name in PROGRAMS]
    strangers = []
    for path in filter(os.path.lexists, paths):
        # /bin may be a link to /usr/bin: dpkg knows the file by one of both names only.
        real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        if not output("dpkg-query", "-S", path) and not output("dpkg-query", "-S", real):
            strangers.append(real)
    return sorted({*strangers, *glob.glob("/snap/bin/docker")})


def nearest_existing(path: str) -> str:
    """Return the path, or the closest parent of it that exists: that is the file system it will be created on."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def shadowing_plugin(name: str) -> dict[str, str]:
    """Return version and path of a CLI plugin that stands where docker looks first, before the package's folder.

    Plugins tell their version to ``docker-cli-plugin-metadata``, with and without a docker command next to them.
    """
    for folder in (
        "/root/.docker/cli-plugins",
        "/usr/local/lib/docker/cli-plugins",
        "/usr/local/libexec/docker/cli-plugins",
    ):
        path = os.path.join(folder, f"docker-{name}")
        if os.access(path, os.X_OK):
            try:
                version = json.loads(output(path, "docker-cli-plugin-metadata")).get("Version", "")
            except ValueError:
                version = "of an unknown version"
            return {"Version": version, "Path": path}
    return {}


def engine() -> dict[str, Any]:
    """Return what the docker command knows of the daemon and of its plugins."""
    try:
        info = json.loads(output("docker", "info", "--format", "{{json .}}"))
    except ValueError:
        info = {}
    plugins = {plugin["Name"]: plugin for plugin in (info.get("ClientInfo") or {}).get("Plugins") or []}
    compose = plugins.get("compose") or shadowing_plugin("compose")
    return {
        "answers": bool(info.get("ServerVersion")),
        "version": info.get("ServerVersion") or "",
        "live_restore": bool(info.get("LiveRestoreEnabled")),
        "swarm": (info.get("Swarm") or {}).get("LocalNodeState") not in (None, "", "inactive"),
        "compose": compose.get("Version") or "",
        "compose_path": compose.get("Path") or "",
    }


def fingerprint(path: str) -> str:
    """Return owner, group, mode and SHA-256 of a file, in the words that tasks/main.yml compares with."""
    try:
        state = os.lstat(path)
        with open(path, "rb") as content:
            digest = hashlib.sha256(content.read()).hexdigest()
    except OSError:
        return ""
    return f"{state.st_uid}:{state.st_gid} {state.st_mode & 0o7777:04o} {digest}"


def without_live_restore(path: str) -> bool:
    """Return whether a daemon.json says so, in words."""
    try:
        with open(path, encoding="utf-8") as content:
            return json.load(content).get("live-restore") is False
    except (OSError, ValueError, AttributeError):
        return False


def older_than(path: str) -> bool:
    """Return whether the daemon runs since before this file was written, as after a play that was cut short.

    A reload counts where the file has live-restore off: that it takes, and a restart would end every container.
    """
    since = "StateChangeTimestampMonotonic" if without_live_restore(path) else "ExecMainStartTimestampMonotonic"
    started = output("systemctl", "show", "--property", since, "--value", "docker.service")
    if started in ("", "0") or not os.path.exists(path):
        return False
    return os.stat(path).st_mtime > time.time() - time.monotonic() + int(started) / 1e6


def numbers(version: str) -> tuple[int, ...]:
    """Return a version as numbers that compare: ``v2.26.1-4`` is (2, 26, 1)."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


def other_sources(repository: str, sources_file: str) -> list[str]:
    """Return apt's files that name this repository besides ours; apt refuses two entries with different keys."""
    where = re.sub(r"^https?://", "", repository).rstrip("/")
    found = []
    for path in ["/etc/apt/sources.list", *sorted(glob.glob("/etc/apt/sources.list.d/*"))]:
        if path == sources_file or not path.endswith((".list", ".sources")) or not os.path.isfile(path):
            continue
        with open(path, encoding="utf-8", errors="replace") as lines:
            if any(where in line for line in lines if not line.lstrip().startswith("#")):
                found.append(path)
    return found


def package_problems(wanted: dict[str, Any], system: dict[str, str], installed: dict[str, str]) -> list[str]:
    """Return why the packages of this source cannot be installed next to what is there."""
    release, source, problems = f"{system['id']}-{system['version_id']}", wanted["source"], []
    name = system["pretty_name"] or release
    if release not in wanted["packages"]:
        problems.append(f"The machine: found {name}; expected one of {', '.join(sorted(wanted['packages']))}.")
    elif not wanted["packages"][release] and not wanted["pinned"]:
        problems.append(
            f"docker_engine_source: found {source} on {name}, which has no Compose v2; expected docker there."
        )
    clashes = [package for package in wanted["conflicts"] if package in installed]
    if clashes:
        other = "docker" if source == "distro" else "distro"
        switch = "" if "podman-docker" in clashes else f"set docker_engine_source: {other}, or "
        problems.append(
            f"docker_engine_source: found {source}, but these packages from elsewhere are installed: "
            f"{', '.join(clashes)}; {switch}remove them (apt-get remove {' '.join(clashes)}; images and volumes stay)."
        )
    strangers = unpackaged_programs()
    if strangers:
        problems.append(
            f"Docker is there, but no Debian package owns it: found {', '.join(strangers)}; remove it first "
            "(a snap: snap remove docker; static binaries: stop their daemon, delete the files)."
        )
    others = other_sources(wanted["repository"], wanted["sources_file"]) if wanted["repository"] else []
    if others:
        problems.append(
            f"docker_engine_repository: found {wanted['repository']} in {', '.join(others)} already; remove it there, "
            f"since the role writes {wanted['sources_file']} and apt takes one key for a repository."
        )
    return problems


def engine_problems(wanted: dict[str, Any], docker: dict[str, Any]) -> list[str]:
    """Return why the engine would not do, or would not start with the daemon.json that is wanted."""
    problems = []
    if docker["compose"] and numbers(docker["compose"]) < numbers(wanted["minimum_compose"]):
        problems.append(
            f"docker_engine_minimum_compose: found Compose {docker['compose']} in {docker['compose_path']}; expected "
            f"{wanted['minimum_compose']} or newer; upgrade it, or remove that file where it hides the package's."
        )
    if "hosts" in wanted["daemon"]:
        problems.append(
            "docker_engine_daemon_overrides: found the key hosts; expected none, since docker.service starts dockerd "
            "with -H and dockerd refuses both; use a systemd drop-in."
        )
    if docker["swarm"] and wanted["daemon"].get("live-restore"):
        problems.append(
            "docker_engine_daemon_overrides: found live-restore: true on a node of a swarm, which dockerd refuses; "
            "expected live-restore: false there."
        )
    return problems


def space_problems(wanted: dict[str, Any]) -> list[str]:
    """Return why there is no room for images and containers."""
    existing = nearest_existing(wanted["data_root"])
    free_mb = shutil.disk_usage(existing).free // 2**20
    if free_mb >= wanted["minimum_free_mb"]:
        return []
    return [
        f"docker_engine_minimum_free_mb: found {free_mb} MB free for {wanted['data_root']} (that is {existing}); "
        f"expected {wanted['minimum_free_mb']} MB or more; free some, or give the machine a larger disk."
    ]


def default_mtu(routes: str = "/proc/net/route", interfaces: str = "/sys/class/net") -> int:
    """Return the largest packet of the interface that the default route leaves by; 0 where there is no such route."""
    try:
        with open(routes, encoding="ascii") as lines:
            header, *rows = [line.split() for line in lines if line.strip()]
        found = [dict(zip(header, row, strict=False)) for row in rows]
        default = [route for route in found if route["Destination"] == "00000000" and route["Mask"] == "00000000"]
        best = min(default, key=lambda route: int(route["Metric"]))
        with open(os.path.join(interfaces, best["Iface"], "mtu"), encoding="ascii") as number:
            return int(number.read())
    except (OSError, ValueError, KeyError):
        return 0


def inspect(wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the state of the machine, the packages that are missing and the problems that forbid to go on."""
    system = operating_system()
    engine_packages = wanted["pinned"] or wanted["packages"].get(f"{system['id']}-{system['version_id']}", [])
    requested = dict(entry.partition("=")[::2] for entry in [*wanted["host_packages"], *engine_packages])
    installed = installed_packages({*requested, *wanted["conflicts"]})
    missing = [
        f"{name}={version}" if version else name
        for name, version in requested.items()
        if name not in installed or version not in ("", installed[name])
    ]
    docker = engine()
    problems = [] if os.geteuid() == 0 else ["become: found a user who is not root; expected `become: true`."]
    problems += package_problems(wanted, system, installed) + engine_problems(wanted, docker) + space_problems(wanted)
    return {
        "system": system,
        "architecture": output("dpkg", "--print-architecture"),
        "missing": missing,
        "missing_host": [name for name in missing if name in wanted["host_packages"]],
        "engine": docker,
        "engine_installed": any(map(os.path.exists, ("/usr/sbin/dockerd", "/usr/bin/dockerd"))),
        "service_active": output("systemctl", "is-active", "docker.service") == "active",
        "service_enabled": output("systemctl", "is-enabled", "docker.service") == "enabled",
        "config": fingerprint(wanted["config_file"]),
        "config_previous": os.path.exists(wanted["previous_config_file"]),
        "config_waits": older_than(wanted["config_file"]),
        "config_folder": os.path.isdir(os.path.dirname(wanted["config_file"])),
        "mtu": default_mtu(),
        "repository_known": os.path.exists(wanted["sources_file"]),
        "problems": problems,
    }


if __name__ == "__main__":
    json.dump(inspect(json.loads(sys.argv[1])), sys.stdout)
