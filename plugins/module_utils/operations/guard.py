# SPDX-License-Identifier: Apache-2.0
"""``dagster-gce guard``: the disk guard, each minute.

PostgreSQL without room ends every connection, so the machine is to do less before it comes to that; and everything
goes on by itself when there is room again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    config,
    guard_disks,
    jobs,
    queue_pause,
    upkeep,
)

JOB = guard_disks.JOB
BY = "disk guard"
DOCKER = "/var/lib/docker"
RESERVE = "reserve"

_WHAT = {
    "warn": "",
    "refuse": "; deploys are refused",
    "pause": "; deploys are refused and no run starts (those that are launched wait)",
    "full": "; deploys are refused, no run starts, and the reserve is used up",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--wait", action="store_true", help="wait for a guard that runs already")


def main(arguments: argparse.Namespace) -> int:
    """Do the work; returns the exit code."""
    return jobs.run(JOB, work, wait=arguments.wait, quiet=True)


def work() -> jobs.Result:
    """Look, judge, act."""
    wanted = guard_disks.settings(config.load("upkeep").get("guard") or {})
    before: dict[str, Any] = jobs.state(JOB).get("details") or {}
    disks = guard_disks.look(wanted.paths or watched())
    levels = {each["paths"][0]: str(each["level"]) for each in before.get("disks") or () if each.get("paths")}
    for disk in disks:
        disk.level = guard_disks.judge(disk, levels.get(disk.paths[0], "ok"), wanted)
    level = guard_disks.worst(each.level for each in disks)
    problems = [_problem(each) for each in disks if each.level != "ok"]
    acted: list[str] = []
    _reserve(level, wanted, acted, problems)
    _pause(guard_disks.reaches(level, "pause"), bool(before.get("paused")), acted, problems)
    emergency = float(before.get("emergency_upkeep") or 0)
    if guard_disks.reaches(level, "refuse") and not 0 <= time.time() - emergency < wanted.emergency_minutes * 60:
        # The queue is paused by now: this may take minutes.
        done, said = _emergency()
        emergency = time.time() if done else emergency
        acted.append(said)
    elif level == "ok":
        emergency = 0.0
    for each in acted:
        print(each)
    return jobs.Result(
        "; ".join(each.text() for each in disks),
        details={
            "level": level,
            "paused": _paused(),
            "emergency_upkeep": emergency,
            "acted": acted,
            "disks": [
                {
                    "paths": each.paths,
                    "level": each.level,
                    "total": each.total,
                    "free": each.free,
                    "inodes_percent_free": round(each.inodes_percent_free, 1),
                }
                for each in disks
            ],
        },
        problems=problems,
        metrics=_metrics(disks, level),
    )


def watched() -> list[str]:
    """Where the files of Dagster, of PostgreSQL, of Docker and of the system are."""
    return [path for path in (config.stack().root, docker_folder(), data_folder(), "/") if path]


def docker_folder() -> str:
    """Where Docker keeps everything."""
    with contextlib.suppress(docker_cli.DockerError):
        return docker_cli.run(["info", "--format", "{{.DockerRootDir}}"], timeout=15).stdout.strip() or DOCKER
    return DOCKER


def data_folder() -> str:
    """PostgreSQL's data on this machine; empty where there is none yet, or Docker does not answer."""
    with contextlib.suppress(docker_cli.DockerError, KeyError, TypeError):
        found = docker_cli.inspect("container", config.stack().postgres_container, timeout=15) or {}
        for mount in found.get("Mounts") or ():
            if str(mount["Destination"]).startswith("/var/lib/postgresql"):
                return str(mount["Source"])
    return ""


def _problem(disk: guard_disks.Disk) -> jobs.Problem:
    severity = jobs.WARNING if disk.level == "warn" else jobs.CRITICAL
    name = "disk_" + (disk.paths[0].strip("/").replace("/", "_") or "system")
    return jobs.Problem(name, severity, f"{disk.text()}{_WHAT[disk.level]}; {guard_disks.TO_DO}")


def _paused() -> bool:
    with contextlib.suppress(queue_pause.PauseError):
        return queue_pause.state().by == BY
    return False


def _pause(wanted: bool, paused: bool, acted: list[str], problems: list[jobs.Problem]) -> None:
    try:
        if wanted:
            if queue_pause.pause(BY):
                acted.append("the queue is paused")
        elif (paused or queue_pause.state().by == BY) and queue_pause.resume():
            acted.append("the queue goes on")
    except queue_pause.PauseError as error:
        # Before there is a stack there is nothing to pause.
        if wanted or os.path.exists(queue_pause.path()):
            problems.append(jobs.Problem("queue_pause", jobs.CRITICAL, str(error)))


def reserve_path(data: str) -> str:
    """Where the reserve lies: on the file system that PostgreSQL writes to; empty where it has one to itself."""
    state = config.stack().state
    try:
        device = os.stat(data or DOCKER).st_dev
        if not os.path.isdir(config.stack().root) or os.stat(config.stack().root).st_dev == device:
            return os.path.join(state, RESERVE)
        top = data or DOCKER
        while os.stat(os.path.dirname(top)).st_dev == device and top != "/":
            top = os.path.dirname(top)
    except OSError:
        return ""
    return "" if top == data else os.path.join(top, f"dagster-gce-{RESERVE}")


def _reserve(level: str, wanted: guard_disks.Settings, acted: list[str], problems: list[jobs.Problem]) -> None:
    """Keep some room that is given away last, and take it back when there is plenty."""
    path, size = reserve_path(data_folder()), int(wanted.reserve_megabytes * 1e6)
    if not path:
        return
    try:
        there = os.path.getsize(path) if os.path.exists(path) else 0
        if there and (level == "full" or not size):
            os.unlink(path)
            acted.append(f"the reserve of {there / 1e6:.0f} MB was given away")
        elif size and there != size and level in ("ok", "warn"):
            _allocate(path, size)
            acted.append(f"a reserve of {size / 1e6:.0f} MB was set aside")
    except OSError as error:
        problems.append(
            jobs.Problem("disk_reserve", jobs.WARNING, f"{path}: {error.strerror}; run `dagster-gce guard`")
        )


def _allocate(path: str, size: int) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def _emergency() -> tuple[bool, str]:
    """Remove what gives room at once, under the upkeep's own lock; not done where an upkeep goes on just now."""
    try:
        with jobs.lock(upkeep.JOB):
            return True, "emergency upkeep: " + upkeep.keep_up(upkeep.load_policy(), emergency=True).summary()
    except (jobs.BusyError, jobs.JobError) as error:
        return False, f"emergency upkeep: {error}"


def _metrics(disks: list[guard_disks.Disk], level: str) -> list[jobs.Metric]:
    found = [
        jobs.Metric(
            "dagster_gce_disk_level", guard_disks.LEVELS.index(level), f"0 to 4: {', '.join(guard_disks.LEVELS)}"
        ),
        jobs.Metric("dagster_gce_queue_paused", float(_paused()), "Whether the disk guard lets no run start"),
    ]
    for disk in disks:
        samples = (
            ("dagster_gce_disk_free_bytes", disk.free, "Free on the file system"),
            ("dagster_gce_disk_size_bytes", disk.total, "Size of the file system"),
            ("dagster_gce_disk_inodes_free_ratio", disk.inodes_percent_free / 100, "Share of free inodes"),
        )
        found += [jobs.Metric(name, value, text, labels={"path": disk.paths[0]}) for name, value, text in samples]
    return found
