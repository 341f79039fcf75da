"""Disks of the lab: sparse files, shown to this computer's kernel as loop devices."""

from __future__ import annotations

import os
from pathlib import Path

from ... import images
from ...shell import run

GIGABYTE = 2**30


class Disks:
    """The files of one Google's disks and snapshots, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    def file(self, path: str) -> Path:
        """The file of a disk or snapshot, by the resource's path."""
        return self.folder / (path.replace("/", ".") + ".raw")

    def create(self, path: str, size_gb: int, source: str = "") -> None:
        """Make a disk, blank or with what ``source`` holds."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if source:
            self._copy(source, path)
        self.grow(path, size_gb)

    def copy(self, source: str, path: str) -> int:
        """Keep what is on a disk now; returns how many bytes that takes."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._copy(source, path)
        return self.file(path).stat().st_blocks * 512

    def _copy(self, source: str, path: str) -> None:
        run("cp", "--sparse=always", "--reflink=auto", str(self.file(source)), str(self.file(path)))

    def grow(self, path: str, size_gb: int) -> None:
        """Let a disk have ``size_gb``; whoever has it attached sees it at once."""
        with self.file(path).open("ab") as file:
            file.truncate(size_gb * GIGABYTE)
        device = self.device(path)
        if device:
            self._as_root("losetup", "--set-capacity", f"/dev/{device}")

    def delete(self, path: str) -> None:
        """Remove a disk or snapshot."""
        self.detach(path)
        self.file(path).unlink(missing_ok=True)

    def attach(self, path: str, read_only: bool = False) -> str:
        """The device (``loop3``) that shows a disk; attached if it is not yet."""
        device = self.device(path)
        if not device:
            mode = ["--read-only"] if read_only else []
            found = self._as_root("losetup", "--find", "--show", *mode, str(self.file(path)))
            device = found.strip().removeprefix("/dev/")
        return device

    def detach(self, path: str) -> bool:
        """Take a disk's device away; False while something still has it mounted."""
        device = self.device(path)
        if device:
            self._as_root("losetup", "--detach", f"/dev/{device}")
        return not self.device(path)

    def device(self, path: str) -> str:
        """The device that shows a disk, or "". The kernel says so to everybody."""
        return self._devices().get(str(self.file(path)), "")

    def detach_all(self, keep: set[str]) -> None:
        """Take away the devices of all disks but these, as a killed process leaves them."""
        kept = {str(self.file(path)) for path in keep}
        for file, device in self._devices().items():
            if file.startswith(f"{self.folder}/") and file not in kept:
                self._as_root("losetup", "--detach", f"/dev/{device}")

    def _devices(self) -> dict[str, str]:
        found = {}
        for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
            try:
                found[backing.read_text().strip().removesuffix(" (deleted)")] = backing.parts[3]
            except OSError:
                continue  # detached in between
        return found

    def _as_root(self, *command: str) -> str:
        """Run a command that needs root: here, or where this user may not, in a container."""
        if os.geteuid() == 0:
            return run(*command)
        # In this process's own mounts: the kernel names a device's file as its maker saw it.
        here = ["nsenter", "--target", str(os.getpid()), "--mount", "--"]
        return run("docker", "run", "--rm", "--privileged", "--pid=host", images.MACHINE, *here, *command)
