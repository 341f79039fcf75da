# SPDX-License-Identifier: Apache-2.0
"""Files that grow: compute logs, journals, the packages' cache.

What I/O managers wrote lies on the same volume as the compute logs and is never touched: it is the users' data.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Collection, Iterator

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli

COMPUTE_LOGS = "compute_logs"
APT_CACHE = "/var/cache/apt/archives"

# Dagster's compute log manager makes a folder a run; ticks of schedules and sensors have folders of other names.
_RUN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# A run that is being removed in the UI right now, or one whose row is about to come.
_GONE_DAYS = 1.0


@contextlib.contextmanager
def opened(folder: str, *names: str) -> Iterator[int]:
    """A folder, opened; the names below it belong to the users' code, so a symbolic link there is not followed.

    Raises:
        OSError: there is none.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in names:
            inside = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inside
        yield descriptor
    finally:
        os.close(descriptor)


def remove_compute_logs(
    folder: str,
    existing: Collection[str],
    protected: Collection[str],
    days: float,
    tick_days: float,
    dry: bool = False,
) -> tuple[int, int]:
    """Remove old compute logs.

    Args:
        folder: the volume's folder.
        existing: ids of all runs that Dagster knows.
        protected: ids of runs whose logs stay: in flight, waiting, or an exception says so.
        days: after so many days without a write the logs of a run go, 0 for never; those of a run that Dagster does
            not know any more go after a day.
        tick_days: after so many days the logs of ticks go.
        dry: count only.

    Returns:
        How many folders of runs, or files of ticks, and how many bytes.
    """
    count = size = 0
    now = time.time()
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), opened(folder, COMPUTE_LOGS) as descriptor:
        for entry in sorted(os.listdir(descriptor)):
            try:
                about = os.stat(entry, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(about.st_mode):
                continue
            if not _RUN.fullmatch(entry):
                files, taken = _remove_old_files(descriptor, entry, now - tick_days * 86400 if tick_days else 0, dry)
                count, size = count + files, size + taken
                continue
            limit = _GONE_DAYS if entry not in existing else days
            if entry in protected or not limit:
                continue
            newest, taken = _newest_and_size(descriptor, entry)
            if max(newest, about.st_mtime) < now - limit * 86400:
                if not dry:
                    shutil.rmtree(entry, dir_fd=descriptor, ignore_errors=True)
                count, size = count + 1, size + taken
    return count, size


def _newest_and_size(parent: int, name: str) -> tuple[float, int]:
    newest, size = 0.0, 0
    for _, _, names, folder in os.fwalk(name, dir_fd=parent, follow_symlinks=False):
        for each in names:
            with contextlib.suppress(OSError):
                about = os.stat(each, dir_fd=folder, follow_symlinks=False)
                newest, size = max(newest, about.st_mtime), size + about.st_blocks * 512
    return newest, size


def _remove_old_files(parent: int, name: str, before: float, dry: bool) -> tuple[int, int]:
    count = size = 0
    for _, _, names, folder in os.fwalk(name, dir_fd=parent, follow_symlinks=False):
        for each in names:
            with contextlib.suppress(OSError):
                about = os.stat(each, dir_fd=folder, follow_symlinks=False)
                if about.st_mtime < before:
                    if not dry:
                        os.unlink(each, dir_fd=folder)
                    count, size = count + 1, size + about.st_blocks * 512
    return count, size


def shrink_journal(megabytes: float, days: float) -> str:
    """Bound the journal by size and age; returns why that failed, if so."""
    wanted = [f"--vacuum-size={round(megabytes)}M"] if megabytes else []
    wanted += [f"--vacuum-time={round(days)}d"] if days else []
    if not wanted or not shutil.which("journalctl"):
        return ""
    return _run(["journalctl", "--quiet", *wanted])


def empty_apt_cache(megabytes: float) -> tuple[int, str]:
    """Remove downloaded packages where they take more than so much; returns the bytes, and why that failed, if so."""
    taken = 0
    with contextlib.suppress(OSError), os.scandir(APT_CACHE) as entries:
        taken = sum(each.stat().st_size for each in entries if each.name.endswith(".deb"))
    if not taken or taken <= megabytes * 1e6:
        return 0, ""
    said = _run(["apt-get", "clean"])
    return (0 if said else taken), said


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]}: {error}"
    return "" if done.returncode == 0 else f"{command[0]}: {docker_cli.last_lines(done.stderr, 2)}"
