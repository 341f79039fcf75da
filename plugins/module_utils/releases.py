# SPDX-License-Identifier: Apache-2.0
"""What the machine knows about releases of the user code: their records, the lock, the audit log.

Everything lies below one root (``/opt/dagster``)::

    releases/<release>/release.json   one record a release
    releases/current -> <release>     the release that serves
    releases/strays.json              images that never became a release, and since when they are there
    deploys.jsonl                     one line a deploy or rollback, newest last
    deploy.lock                       held with flock(2) while something is being released

Files are replaced by rename, so a reader never sees half of one and a kill leaves the old or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from dataclasses import fields as fields_of
from typing import IO, Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files

# Images that are built here, and the names that releases give their images, are called so.
OWN_REPOSITORY = "docker_dagster_core"
CONTAINER_PREFIX = "docker_dagster_core_"
RELEASE_NAME = re.compile(r"^[0-9]{8}T[0-9]{6}-[0-9a-f]{12}$")

# A release is a candidate until it served for the first time.
CANDIDATE = "candidate"
LIVE = "live"
ROLLED_BACK = "rolled_back"

# How people and log files write a moment: UTC, ISO 8601.
STAMP = "%Y-%m-%dT%H:%M:%SZ"


def now() -> float:
    """Seconds since the epoch, to the millisecond."""
    return round(time.time(), 3)


def stamp(moment: float | None = None) -> str:
    """A moment as ``STAMP`` has it; now, if none is given."""
    return time.strftime(STAMP, time.gmtime(time.time() if moment is None else moment))


def release_name(identity: str, moment: float | None = None) -> str:
    """``<UTC yyyymmddThhmmss>-<first 12 of the image's id>``: sorts by time, names what it is.

    Raises:
        ValueError: ``identity`` holds no sha256 digest.
    """
    match = re.fullmatch(r"sha256:([0-9a-f]{64})", identity)
    if not match:
        raise ValueError(f"image identity: found {identity!r}; expected sha256:<64 hex digits>")
    when = time.strftime("%Y%m%dT%H%M%S", time.gmtime(time.time() if moment is None else moment))
    return f"{when}-{match.group(1)[:12]}"


def container_name(release: str) -> str:
    """The container (and host) of a release."""
    return CONTAINER_PREFIX + release


def release_of(container: str | None) -> str | None:
    """The release that a container name (or a host of workspace.yaml) belongs to; None if it is no release of ours."""
    if container and container.startswith(CONTAINER_PREFIX):
        name = container[len(CONTAINER_PREFIX) :]
        return name if RELEASE_NAME.match(name) else None
    return None


@dataclass
class Release:
    """The record of one release.

    Attributes:
        identity: the image's id, which the container, DAGSTER_CURRENT_IMAGE, the run containers and the audit log say.
        reference: the reference that was asked for (may be a tag that has moved since).
        digest: the registry's name for the image (``NAME@sha256:…``), where it has one.
        served: moments at which traffic was switched to it.
    """

    release: str
    identity: str
    reference: str = ""
    digest: str = ""
    state: str = CANDIDATE
    created: float = 0.0
    who: str = ""
    git_sha: str = ""
    served: list[float] = field(default_factory=list)

    @property
    def container(self) -> str:
        return container_name(self.release)

    @property
    def last_served(self) -> float:
        return self.served[-1] if self.served else 0.0


class Store:
    """The records below ``root``. Reads never fail on a missing or broken file: what is unreadable is left out."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.folder = os.path.join(root, "releases")
        self.current_link = os.path.join(self.folder, "current")
        self.audit_path = os.path.join(root, "deploys.jsonl")
        self.lock_path = os.path.join(root, "deploy.lock")

    def path(self, release: str) -> str:
        return os.path.join(self.folder, release, "release.json")

    def save(self, release: Release) -> None:
        path = self.path(release.release)
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        content = json.dumps(asdict(release), indent=2, sort_keys=True) + "\n"
        files.replace(path, content.encode(), files.Owner(os.geteuid(), os.getegid(), 0o644))

    def load(self, release: str) -> Release | None:
        try:
            with open(self.path(release), encoding="utf-8") as stream:
                found = json.load(stream)
            known = {each.name for each in fields_of(Release)}
            return Release(**{key: value for key, value in found.items() if key in known})
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    def note(self, release: str, text: str) -> None:
        """Keep a text beside the record: what a release said before it was taken back."""
        path = os.path.join(self.folder, release, "failure.txt")
        files.replace(path, text.encode(), files.Owner(os.geteuid(), os.getegid(), 0o640))

    def strays(self) -> dict[str, float]:
        """Images that are no release, and when each was first seen."""
        try:
            with open(os.path.join(self.folder, "strays.json"), encoding="utf-8") as stream:
                return {str(key): float(value) for key, value in json.load(stream).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def save_strays(self, strays: Mapping[str, float]) -> None:
        if strays == self.strays():
            return
        content = json.dumps(dict(strays), indent=2, sort_keys=True) + "\n"
        path = os.path.join(self.folder, "strays.json")
        files.replace(path, content.encode(), files.Owner(os.geteuid(), os.getegid(), 0o644))

    def all(self) -> list[Release]:
        """Every record, oldest first."""
        try:
            names = sorted(name for name in os.listdir(self.folder) if RELEASE_NAME.match(name))
        except OSError:
            return []
        return [found for found in (self.load(name) for name in names) if found]

    def delete(self, release: str) -> None:
        folder = os.path.join(self.folder, release)
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):
                os.unlink(os.path.join(folder, name))
            os.rmdir(folder)

    def current(self) -> str | None:
        """The release that ``current`` points to."""
        try:
            return os.path.basename(os.readlink(self.current_link)) or None
        except OSError:
            return None

    def point_current(self, release: str | None) -> bool:
        """Make ``current`` point to the release in one step; True if that was a change."""
        if self.current() == release:
            return False
        if release is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.current_link)
            return True
        os.makedirs(self.folder, mode=0o755, exist_ok=True)
        temporary = f"{self.current_link}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(release, temporary)
        os.rename(temporary, self.current_link)
        return True

    def audit(self, entry: Mapping[str, Any]) -> None:
        """Add a line to the audit log. One write(2) in append mode: lines never mix."""
        line = json.dumps(entry, sort_keys=True, ensure_ascii=False) + "\n"
        handle = os.open(self.audit_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    def last_deploys(self, count: int) -> list[dict[str, Any]]:
        """The newest ``count`` lines of the audit log, newest first; broken lines are left out."""
        try:
            with open(self.audit_path, "rb") as stream:
                stream.seek(0, os.SEEK_END)
                # A line is well below 4 KiB.
                stream.seek(max(0, stream.tell() - 4096 * (count + 1)))
                lines = stream.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return []
        found: list[dict[str, Any]] = []
        for line in reversed(lines):
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict):
                    found.append(entry)
            if len(found) == count:
                break
        return found


def before(serving: str | None, known: Sequence[Release]) -> Release | None:
    """The release that served last before ``serving`` did. One that was rolled back is no place to go back to."""
    others = [each for each in known if each.served and each.release != serving and each.state != ROLLED_BACK]
    return max(others, key=lambda each: (each.last_served, each.release), default=None)


def warm(serving: str | None, known: Sequence[Release]) -> str | None:
    """The release that keeps running beside the one that serves: whichever served last before it."""
    others = [each for each in known if each.served and each.release != serving]
    last = max(others, key=lambda each: each.last_served, default=None)
    return last.release if last else None


class LockedError(Exception):
    """Somebody else is releasing."""

    def __init__(self, holder: Mapping[str, Any], path: str) -> None:
        self.holder = dict(holder)
        since = holder.get("since")
        what = holder.get("release") or holder.get("image") or "an unknown release"
        super().__init__(
            f"{path} is held by {holder.get('who') or 'somebody'} since {stamp(since) if since else 'an unknown time'}"
            f" ({holder.get('operation') or 'unknown operation'} of {what},"
            f" phase {holder.get('phase') or 'unknown'}, process {holder.get('pid') or 'unknown'} on this machine)."
            " Wait until it is done; if it hangs: -e dagster_core_force_unlock=true ends it and takes the lock."
        )


class Lock:
    """The lock of one machine's releases.

    The kernel drops flock(2) when its holder dies, however it dies, so the lock itself is never stale; what the
    file says then tells who died in which phase (``stale``).
    """

    def __init__(self, handle: IO[str], about: dict[str, Any], stale: dict[str, Any]) -> None:
        self._handle = handle
        self.about = about
        self.stale = stale

    def phase(self, name: str) -> None:
        """Say what is being done, for whoever finds the lock taken."""
        self.about["phase"] = name
        self._write(json.dumps(self.about, sort_keys=True) + "\n")

    def _write(self, text: str) -> None:
        # It is there for people to read: a full disk must not stop a deploy, or its way back, in the middle.
        with contextlib.suppress(OSError):
            os.ftruncate(self._handle.fileno(), 0)
            os.pwrite(self._handle.fileno(), text.encode(), 0)

    def release(self) -> None:
        self._write("")
        self._handle.close()


def read_lock(path: str) -> dict[str, Any]:
    """What the lock's file says ({} where it says nothing); ``held`` tells whether a process holds it."""
    try:
        with open(path, encoding="utf-8") as stream:
            try:
                about = json.loads(stream.read() or "{}")
            except ValueError:
                about = {}
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
                held = False
            except OSError:
                held = True
    except OSError:
        return {}
    if not isinstance(about, dict):
        about = {}
    if about or held:
        about["held"] = held
    return about


@contextlib.contextmanager
def lock(path: str, about: Mapping[str, Any], *, wait: float = 0, force: bool = False) -> Iterator[Lock]:
    """Hold the lock for the body.

    Args:
        about: who, operation, image; the time and the process are added.
        wait: seconds to wait for a living holder.
        force: end the living holder (SIGTERM, then SIGKILL) instead of waiting. Safe: every phase can be resumed.

    Raises:
        LockedError: a living process holds it.
    """
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    handle = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8")
    try:
        # Whoever can open the file can hold its lock, and stop every deploy; it may be from a time when all could.
        os.fchmod(handle.fileno(), 0o600)
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                holder = read_lock(path)
                if force:
                    _end(holder, path)
                elif time.monotonic() >= deadline:
                    raise LockedError(holder, path) from None
                time.sleep(0.1)
        try:
            stale = json.loads(handle.read() or "{}")
        except ValueError:
            stale = {}
        held = Lock(handle, {**about, "since": now(), "pid": os.getpid()}, stale if isinstance(stale, dict) else {})
        held.phase("start")
        try:
            yield held
        finally:
            held.release()
    finally:
        handle.close()


def holders(path: str) -> list[int]:
    """Processes that the kernel lists as holders of the file's flock."""
    inode = os.stat(path).st_ino
    found = []
    with open("/proc/locks", encoding="ascii") as stream:
        for line in stream:
            # 1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF; waiting ones carry "->".
            parts = line.split()
            if len(parts) > 5 and parts[1] == "FLOCK" and parts[3] == "WRITE" and parts[5].endswith(f":{inode}"):
                found.append(int(parts[4]))
    return found


def _end(holder: Mapping[str, Any], path: str) -> None:
    """End the process that holds the lock: the one that its file names, if the kernel agrees."""
    living = holders(path)
    if not living:
        return
    pid = int(holder.get("pid") or 0)
    if pid not in living or pid == os.getpid():
        raise LockedError(holder, path)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        for _attempt in range(20):
            if pid not in holders(path):
                return
            time.sleep(0.1)
