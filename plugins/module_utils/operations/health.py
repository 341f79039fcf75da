# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the machine's own part: containers, jobs, disk, clock. What Dagster says of itself: status.py."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli, releases
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config, jobs, watch_pause
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.jobs import CRITICAL, WARNING, Problem

COMPOSE_FILE = "docker-compose-GCE.yml"
_CONTAINER_NAME = re.compile(r"^\s+container_name:\s*['\"]?([\w.-]+)", re.MULTILINE)

# A machine that was off catches up first.
GRACE_AFTER_BOOT = 900

# Full, in percent. The guard has its own, finer marks, and this one is silent where it runs.
FULL = 90

# systemd writes down here that it runs in a container, whose clock is the host's affair.
_CONTAINER_MARK = "/run/systemd/container"
_STA_UNSYNC = 0x40
# struct timex is 208 bytes on 64 bit; `status` stands behind modes and four longs.
_TIMEX_SIZE, _TIMEX_STATUS = 512, 40


@dataclass(frozen=True)
class Service:
    """One container of the stack, as ``docker inspect`` shows it; ``status`` is empty where there is none."""

    name: str
    status: str = ""
    health: str = ""
    restart: str = ""
    restarts: int = 0
    pid: int = 0
    memory_limit: int = 0
    oom_killed: bool = False
    started: str = ""
    image: str = ""

    @property
    def running(self) -> bool:
        return self.status == "running"


def services(root: str) -> list[Service]:
    """The containers of the stack: those that the compose file names, whether they are there or not.

    Raises:
        docker_cli.DockerError: the engine does not answer.
    """
    return inspect(service_names(root))


def service_names(root: str) -> list[str]:
    """The containers that the compose file names; none where the stack is not set up yet."""
    try:
        with open(os.path.join(root, COMPOSE_FILE), encoding="utf-8") as stream:
            return _CONTAINER_NAME.findall(stream.read())
    except OSError:
        return []


def inspect(names: Iterable[str]) -> list[Service]:
    """These containers, in this order.

    Raises:
        docker_cli.DockerError: the engine does not answer.
    """
    names = list(names)
    there = {each.name: each for each in inspect_ids(names)}
    return [there.get(name, Service(name)) for name in names]


def inspect_ids(ids: Iterable[str]) -> list[Service]:
    """Those of these containers (names or ids) that are there.

    Raises:
        docker_cli.DockerError: the engine does not answer.
    """
    ids = list(ids)
    if not ids:
        return []
    shown = docker_cli.run(["container", "inspect", *ids], check=False)
    return [_service(each) for each in json.loads(shown.stdout or "[]")]


def _service(found: Mapping[str, Any]) -> Service:
    state, host = found["State"], found["HostConfig"]
    return Service(
        name=found["Name"].lstrip("/"),
        status=state["Status"],
        health=(state.get("Health") or {}).get("Status", ""),
        restart=(host.get("RestartPolicy") or {}).get("Name", ""),
        restarts=int(found.get("RestartCount") or 0),
        pid=int(state.get("Pid") or 0),
        memory_limit=int(host.get("Memory") or 0),
        oom_killed=bool(state.get("OOMKilled")),
        started=state.get("StartedAt", ""),
        image=found.get("Image", ""),
    )


def of_services(found: Iterable[Service]) -> list[Problem]:
    """Containers of the stack that do not run, are not healthy, or would not come back after a reboot."""
    problems = []
    for each in found:
        about = f"container {each.name}"
        if not each.running:
            state = f"is {each.status}" if each.status else "is gone"
            text = f"{about} {state}; `docker logs {each.name}` tells why, site.yml starts it again"
            problems.append(Problem(_identifier("container", each.name), CRITICAL, text))
        elif each.health == "unhealthy":
            text = f"{about} runs and fails its health check; `docker inspect {each.name}` shows what the check printed"
            problems.append(Problem(_identifier("container", each.name), CRITICAL, text))
        if each.status and each.restart not in ("always", "unless-stopped"):
            text = (
                f"{about} has the restart policy {each.restart or 'no'!r}, expected 'always': it stays away after a"
                f" crash or a reboot; `docker update --restart always {each.name}`"
            )
            problems.append(Problem(_identifier("restart_policy", each.name), WARNING, text))
    return problems


def of_jobs(uptime: Callable[[], float] | None = None) -> list[Problem]:
    """What the jobs' state files say, jobs that failed last, and jobs that are overdue."""
    problems = [Problem("settings", WARNING, text) for text in config.broken()]
    known, found, now = config.jobs(), jobs.current_states(), time.time()
    for name, state in found.items():
        for each in state.get("problems") or []:
            problems.append(Problem(str(each["name"]), str(each["severity"]), str(each["text"])))
        if not state.get("ok", True):
            when, why = releases.stamp(state.get("ended") or 0), state.get("summary") or "no reason given"
            text = f"{name} failed at {when}: {why}; `journalctl -u dagster-gce-{name}` tells more"
            problems.append(Problem(_identifier("job_failed", name), CRITICAL, text))
    caught_up = (uptime or _uptime)() > GRACE_AFTER_BOOT
    for name, job in known.items():
        if job.every_at_most is None or not caught_up:
            continue
        last = found.get(name, {}).get("last_success")
        age = now - max(float(last or 0), job.since if last is None else 0)
        if age > job.every_at_most:
            when = f"last succeeded {duration(age)} ago" if last else f"never succeeded in {duration(age)}"
            text = (
                f"{name} {when}, expected every {duration(job.every_at_most)}; look at"
                f" `systemctl status dagster-gce-{name}.timer dagster-gce-{name}`"
            )
            problems.append(Problem(_identifier("job_overdue", name), CRITICAL, text))
    paused = watch_pause.problem()
    return [*problems, paused] if paused else problems


def of_units() -> list[Problem]:
    """Timers and services of ours that somebody has stopped, or that systemd cannot keep running."""
    wanted = {f"dagster-gce-{name}.{'service' if job.stays else 'timer'}": name for name, job in config.jobs().items()}
    if not wanted:
        return []
    try:
        done = subprocess.run(
            ["systemctl", "--no-pager", "show", "--property=Id,ActiveState", *wanted],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Problem("systemd", WARNING, f"systemctl: {error}; nobody knows whether the timers run")]
    states = {}
    for block in done.stdout.split("\n\n"):
        shown = dict(line.partition("=")[::2] for line in block.splitlines())
        states[shown.get("Id", "")] = shown.get("ActiveState", "")
    return [
        Problem(
            _identifier("unit", name), WARNING,
            f"{unit} is {states.get(unit) or 'not there'}, expected active; `systemctl start {unit}`, or run site.yml",
        )
        for unit, name in wanted.items() if states.get(unit) not in ("active", "activating", "reloading")
    ]  # fmt: skip


def of_disk(root: str) -> list[Problem]:
    """The disk below ``root``, in bytes and in inodes; nothing where the guard looks, which says more."""
    if "guard" in config.jobs():
        return []
    try:
        found = os.statvfs(root)
    except OSError as error:
        return [Problem("disk", CRITICAL, f"{root}: {error.strerror}; run site.yml")]
    problems = []
    for name, what, total, free in (
        ("disk", "disk", found.f_blocks, found.f_bavail),
        ("disk_inodes", "inodes", found.f_files, found.f_favail),
    ):
        full = 100 - 100 * free // total if total else 0
        if full >= FULL:
            text = f"{what} of {root}: {full} % full, expected less than {FULL} %; remove what is old or grow the disk"
            problems.append(Problem(name, CRITICAL, text))
    return problems


def of_clock(synchronised: Callable[[], bool | None] | None = None) -> list[Problem]:
    """Whether somebody keeps the clock: schedules tick by it."""
    if (synchronised or clock_is_synchronised)() is not False:
        return []
    text = (
        "the clock is not synchronised, so schedules may tick at other times than they say; look at"
        " `timedatectl timesync-status` or `chronyc tracking`"
    )
    return [Problem("clock", WARNING, text)]


def clock_is_synchronised() -> bool | None:
    """What the kernel knows (adjtimex(2)), None where this is not to be asked of this machine."""
    if os.path.exists(_CONTAINER_MARK):
        return None
    try:
        timex = ctypes.create_string_buffer(_TIMEX_SIZE)
        ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    except (OSError, AttributeError):
        return None
    return not int.from_bytes(timex.raw[_TIMEX_STATUS : _TIMEX_STATUS + 4], "little") & _STA_UNSYNC


def unique(problems: Iterable[Problem]) -> list[Problem]:
    """One problem a name, the first and worst: two parts may see the same thing. Critical ones come first."""
    ordered = sorted(problems, key=lambda each: each.severity != CRITICAL)
    found: dict[str, Problem] = {}
    for each in ordered:
        found.setdefault(each.name, each)
    return list(found.values())


def duration(seconds: float) -> str:
    """A time span as people say it, in its largest unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _identifier(kind: str, name: str) -> str:
    return f"{kind}_{re.sub(r'[^a-z0-9]+', '_', name.lower())}"


def _uptime() -> float:
    with open("/proc/uptime", encoding="ascii") as stream:
        return float(stream.read().split()[0])
