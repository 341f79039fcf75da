"""A Docker Engine on this computer: the one that answers, or one that is installed and started here."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
from pathlib import Path

import docker

from . import apt
from .shell import LabError, apt_install, run, say, succeeds, wait_until

RUN = Path("/run/dagster-gce-lab")
PIDFILE = RUN / "dockerd.pid"
LOG = Path("/var/log/dagster-gce-lab-dockerd.log")
# Debian 12 has no Compose v2; trixie's packages need no newer libc than Debian 12 has.
FROM_TRIXIE = ("docker.io", "docker-cli", "docker-compose", "docker-buildx", "containerd")


def answers() -> bool:
    """Whether a Docker Engine answers, wherever DOCKER_HOST or the current context points."""
    return succeeds("docker", "version", "--format", "{{.Server.Version}}", timeout=20)


def ensure() -> None:
    """Have an engine that answers; install and start one where there is none.

    Raises LabError where that cannot be done, with what to do instead.
    """
    if answers():
        return
    if shutil.which("dockerd") is None or not succeeds("docker", "compose", "version"):
        _install()
    _start()
    say(f"Docker Engine {run('docker', 'version', '--format', '{{.Server.Version}}').strip()} answers")


def stop() -> None:
    """Stop the engine, if it is one that ensure() started and nothing runs in it any more."""
    pid = _pid(PIDFILE)
    if pid is None:
        return
    if docker.from_env().containers.list():
        say("the engine goes on: containers that are not the lab's run in it")
        return
    say("stopping the Docker Engine that the lab started")
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: _pid(PIDFILE) is None, 60, "the end of dockerd")
    PIDFILE.unlink(missing_ok=True)


def _pid(pidfile: Path) -> int | None:
    """The process of a pid file, if it is alive and really a dockerd."""
    try:
        pid = int(pidfile.read_text())
        return pid if "dockerd" in Path(f"/proc/{pid}/comm").read_text() else None
    except (OSError, ValueError):
        return None


def _install() -> None:
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    name = f"{release.get('ID', platform.system())} {release.get('VERSION_ID', '')}".strip()
    if release.get("ID") not in ("debian", "ubuntu"):
        raise LabError(
            f"no Docker Engine answers, and the lab installs one on Debian and Ubuntu only (this is {name}): "
            "install Docker Engine with Compose v2, start it, and run the same command again"
        )
    if os.geteuid():
        raise LabError(
            "no Docker Engine answers, and installing one needs root: run the same command as root once, "
            "or install docker.io, docker-compose (v2) and docker-buildx yourself"
        )
    say(f"installing Docker Engine, Compose and buildx from the packages of {name}")
    packages = ["docker.io", "runc", "iptables", "ca-certificates"]
    if release["ID"] == "debian":
        packages += ["docker-cli", "docker-compose", "docker-buildx", "containerd"]
        if int(release.get("VERSION_ID", "13")) < 13:
            _add_trixie()
    else:
        packages += ["docker-compose-v2", "docker-buildx"]
    # An index that is out of date is no reason to stop: what is missing shows below.
    succeeds("apt-get", "update", "--quiet", timeout=300)
    apt_install(packages)


def _add_trixie() -> None:
    """Offer Debian 13's packages to apt, but let it take the engine's only."""
    Path("/etc/apt/sources.list.d/dagster-gce-lab.sources").write_text(
        f"# Written by lab/engine.py: the Docker Engine of Debian 13.\nTypes: deb\nURIs: {apt.debian_mirror()}\n"
        f"Suites: trixie\nComponents: main\nSigned-By: {apt.KEYRING}\n"
    )
    Path("/etc/apt/preferences.d/dagster-gce-lab").write_text(
        "# Written by lab/engine.py: nothing but the engine comes from Debian 13.\n"
        "Package: *\nPin: release n=trixie\nPin-Priority: -10\n\n"
        f"Package: {' '.join(FROM_TRIXIE)}\nPin: release n=trixie\nPin-Priority: 990\n"
    )


def _start() -> None:
    if os.geteuid():
        raise LabError("the Docker Engine is installed but does not answer, and starting it needs root")
    if Path("/run/systemd/system").is_dir():
        run("systemctl", "start", "docker")
    else:
        _start_by_hand()
    wait_until(answers, 60, f"an answer of dockerd (see {LOG})")


def _start_by_hand() -> None:
    """Start dockerd where no systemd runs, whatever an engine that was killed has left behind."""
    # A pid file of a killed dockerd, whose number another process has now, would keep a new one from starting.
    for leftover in (Path("/run/docker.pid"), Path("/var/run/docker.pid")):
        if _pid(leftover) is None:
            leftover.unlink(missing_ok=True)
    RUN.mkdir(parents=True, exist_ok=True)
    say(f"starting dockerd (log: {LOG})")
    with LOG.open("ab") as log:
        process = subprocess.Popen(
            ["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    PIDFILE.write_text(str(process.pid))
