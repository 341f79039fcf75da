#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""A data disk that outlives its machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: data_disk
short_description: A data disk that outlives its machine
description:
  - Formats a blank disk with ext4, mounts it, shows folders of it at other places (bind mounts), and lets the file
    system grow with the disk, online. All of it in one remote task, with Python's standard library, C(util-linux) and
    C(e2fsprogs).
  - Nothing is ever erased or hidden. A disk that holds something else, and a folder that holds data which the disk
    would cover, are refused before anything is changed, all mistakes at once.
  - C(/etc/fstab) gets one block. Services that are named in O(required_by) start only when the disk is there, so that
    they never begin again with an empty folder. The machine itself boots without the disk.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: dataops.dagster_gce.attributes
attributes:
  check_mode:
    details: Predicts every step, also on a machine that does not have the disk yet.
options:
  device:
    description:
      - The disk's device name on Compute Engine (C(/dev/disk/by-id/google-NAME)), or the absolute path of a disk.
    type: str
    required: true
  path:
    description: Where the disk is mounted.
    type: path
    required: true
  folders:
    description: Folders of the disk, and where each is shown.
    type: dict
    default: {}
  label:
    description: The file system's label. A file system with another one is somebody else's, and is refused.
    type: str
    default: dagster-data
  required_by:
    description: systemd units that must not start without the folders.
    type: list
    elements: str
    default: []
  wait:
    description: Seconds to wait for a disk that has just been attached.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: Keep the engine's data on the data disk
  dataops.dagster_gce.data_disk:
    device: dagster-data
    path: /mnt/disks/dagster
    folders:
      docker: /var/lib/docker
    required_by: [docker.service]
"""

RETURN = r"""
device:
  description: The disk's path, empty if it is not there (in check mode only).
  returned: success
  type: str
  sample: /dev/disk/by-id/google-dagster-data
steps:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: ["make an ext4 file system (dagster-data) of 50.0 GiB"]
"""

import os
import re
import subprocess
import time
from typing import NoReturn

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import block_device, files, mount_table

FSTAB = "/etc/fstab"
MOUNTINFO = "/proc/self/mountinfo"
ROOT_OWNED = files.Owner(0, 0, 0o755)
# A grown disk has a gibibyte more; what lies below this is the rest that does not fill a block group.
GROWN = 128 * block_device.MEBIBYTE
NOT_EMPTY = """{path}: found data ({names}) where the disk's folder would hide it; expected an empty folder.
  To move it: stop what uses it, mount the disk, copy (cp -a), rename the old folder, run this again."""


class DataDisk:
    """The module's work: look, refuse, plan, apply."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        params = module.params
        self.path = os.path.normpath(params["path"])
        self.folders = {name: os.path.normpath(str(path)) for name, path in params["folders"].items()}
        self.label: str = params["label"]
        self.steps: list[str] = []
        self.problems: list[str] = []

    def run(self) -> None:
        """Do it all, and end the module."""
        self.check_options()
        disk = self.wait_for_disk()
        if disk is None:
            self.without_disk()
        self.fstab = (files.read(FSTAB) or b"").decode()
        with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as stream:
            self.mounts = mount_table.mounted(stream.read())
        format_it = self.needs_format(disk)
        self.check_places(block_device.number(disk))
        if self.problems:
            self.fail("The data disk cannot be used as it is. Nothing was changed.\n- " + "\n- ".join(self.problems))

        before = self.state(disk)
        new_fstab = mount_table.with_block(self.fstab, self.fstab_lines(disk))
        if format_it:
            self.step(f"make an ext4 file system ({self.label}) of {gibibytes(block_device.size(disk))}")
            self.command("mkfs.ext4", "-q", "-L", self.label, "-m", "0", disk)
        elif self.has_grown(disk):
            self.grow(disk)
        if self.path not in self.mounts:
            self.step(f"mount {disk} at {self.path}")
            self.make_folder(self.path)
            self.command("mount", "-t", "ext4", disk, self.path)
        for name, path in self.folders.items():
            if path not in self.mounts:
                self.step(f"show {self.path}/{name} at {path}")
                self.make_folder(f"{self.path}/{name}")
                self.make_folder(path)
                self.command("mount", "--bind", f"{self.path}/{name}", path)
        self.write_fstab(new_fstab)
        self.module.exit_json(
            changed=bool(self.steps), device=disk, steps=self.steps,
            diff={"before": before, "after": self.after(before, new_fstab)},
        )  # fmt: skip

    def check_options(self) -> None:
        """Refuse folders that cannot be shown where they should be."""
        mistakes = [
            f"folders: found the name {name!r}; expected a name without slashes"
            for name in self.folders
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name)
        ]
        places = [self.path, *self.folders.values()]
        mistakes += [
            f"path, folders: found {path!r}; expected absolute paths other than /, each of them once"
            for path in dict.fromkeys(places)
            if not path.startswith("/") or path == "/" or places.count(path) > 1
        ]
        if mistakes:
            self.fail("\n".join(mistakes))

    def wait_for_disk(self) -> str | None:
        """The disk's path; None if it does not come."""
        deadline = time.monotonic() + (0 if self.module.check_mode else self.module.params["wait"])
        while True:
            try:
                found = block_device.find(self.module.params["device"])
            except block_device.Refusal as refusal:
                self.fail(str(refusal))
            if found or time.monotonic() >= deadline:
                return found
            time.sleep(0.5)

    def without_disk(self) -> NoReturn:
        """End the module where the disk is not there: in check mode it may be one that is still to be attached."""
        wanted = " or ".join(block_device.candidates(self.module.params["device"]))
        if self.module.check_mode:
            step = f"use the disk {wanted}, once it is there"
            self.module.exit_json(changed=True, device="", steps=[step], diff={"before": "", "after": step + "\n"})
        found = ", ".join(block_device.present()) or "no such disk at all"
        self.fail(
            f"found no {wanted} (there is: {found}); expected the data disk. Is it attached under that device name?"
        )

    def needs_format(self, disk: str) -> bool:
        """Whether the disk is blank; says why, if it is neither blank nor ours."""
        try:
            found = block_device.signatures(disk)
            if "PTTYPE" in found and "TYPE" not in found:
                self.problems.append(
                    f"{disk}: found a partition table ({found['PTTYPE']}); expected a blank disk, or ours"
                )
            elif not found and block_device.is_blank(disk):
                return True
            elif not found:
                self.problems.append(
                    f"{disk}: found data of a kind that blkid does not know; expected a blank disk, or ours. If nobody "
                    f"needs it: blkdiscard --zeroout {disk}"
                )
            elif found.get("TYPE") != "ext4":
                self.problems.append(
                    f"{disk}: found {found.get('TYPE', 'something else')}; expected ext4, or a blank disk"
                )
            elif block_device.ext4(disk).label != self.label:
                self.problems.append(
                    f"{disk}: found an ext4 with the label {block_device.ext4(disk).label!r}; expected {self.label!r}. "
                    f"If it is to be used all the same: e2label {disk} {self.label}"
                )
        except block_device.Refusal as refusal:
            self.problems.append(str(refusal))
        except OSError as error:
            self.problems.append(f"{disk}: cannot be read: {error.strerror}")
        return False

    def check_places(self, number: tuple[int, int]) -> None:
        """Refuse what is mounted otherwise, and data that a mount would hide."""
        wanted = {self.path: "/"} | {path: f"/{name}" for name, path in self.folders.items()}
        for path, root in wanted.items():
            mount = self.mounts.get(path)
            if mount is None:
                self.check_folder(path)
            elif (mount.device, mount.root) != (number, root):
                self.problems.append(
                    f"{path}: found {mount.source} ({mount.root}) mounted there; expected {root} of the data disk"
                )
        known = {self.path, *self.folders.values()}
        self.problems += [
            f"{mount.path}: found the data disk mounted there; expected it at {self.path} only"
            for mount in self.mounts.values()
            if mount.device == number and mount.root == "/" and mount.path not in known
        ]
        self.problems += [
            f"{FSTAB}: found the line {line!r}; expected none for a place of the data disk"
            for line in mount_table.foreign_entries(self.fstab, sorted(wanted))
        ]

    def check_folder(self, path: str) -> None:
        """Refuse a place that is no empty folder."""
        if not os.path.lexists(path):
            return
        if os.path.islink(path) or not os.path.isdir(path):
            self.problems.append(
                f"{path}: found {'a link' if os.path.islink(path) else 'a file'}; expected a folder, or nothing"
            )
            return
        names = sorted(os.listdir(path))
        if names:
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            self.problems.append(NOT_EMPTY.format(path=path, names=shown))

    def has_grown(self, disk: str) -> bool:
        """Whether the disk is larger than its file system."""
        return block_device.size(disk) - block_device.ext4(disk).size > GROWN

    def grow(self, disk: str) -> None:
        """Let the file system fill the disk: while it is in use, or before it is mounted."""
        sizes = gibibytes(block_device.ext4(disk).size), gibibytes(block_device.size(disk))
        self.step(f"grow the file system from {sizes[0]} to {sizes[1]}")
        if self.path not in self.mounts:
            # resize2fs insists on a check where no kernel keeps watch. Status 1: something was repaired.
            self.command("e2fsck", "-f", "-p", disk, good=(0, 1))
        self.command("resize2fs", disk)

    def fstab_lines(self, disk: str) -> list[str]:
        """The block in fstab. nofail: the machine boots without the disk, the units of required_by do not start."""
        options = ["bind", "nofail", f"x-systemd.requires-mounts-for={mount_table.escaped(self.path)}"]
        for unit in self.module.params["required_by"]:
            options += [f"x-systemd.required-by={unit}", f"x-systemd.before={unit}"]
        lines = [f"{disk} {mount_table.escaped(self.path)} ext4 defaults,nofail 0 2"]
        return lines + [
            f"{mount_table.escaped(f'{self.path}/{name}')} {mount_table.escaped(path)} none {','.join(options)} 0 0"
            for name, path in self.folders.items()
        ]

    def write_fstab(self, text: str) -> None:
        """Replace fstab, and tell systemd."""
        if text == self.fstab:
            return
        self.step(f"write the block in {FSTAB}")
        if self.module.check_mode:
            return
        owner = ROOT_OWNED
        if os.path.exists(FSTAB):
            state = os.stat(FSTAB)
            owner = files.Owner(state.st_uid, state.st_gid, state.st_mode & 0o7777)
        else:
            owner = files.Owner(0, 0, 0o644)
        files.replace(FSTAB, text.encode(), owner)
        if os.path.isdir("/run/systemd/system"):
            self.command("systemctl", "daemon-reload")

    def make_folder(self, path: str) -> None:
        """Make a folder that is missing; one that is there keeps its owner and mode."""
        if not self.module.check_mode and not os.path.isdir(path):
            files.make_folder(path, files.Owner(os.geteuid(), os.getegid(), 0o755))

    def state(self, disk: str) -> str:
        """What is there, for the diff."""
        signatures = block_device.signatures(disk)
        size = f" of {gibibytes(block_device.ext4(disk).size)}" if signatures.get("TYPE") == "ext4" else ""
        places = [path for path in (self.path, *self.folders.values()) if path in self.mounts]
        lines = [f"file system: {signatures.get('TYPE', 'none')}{size}", *(f"mounted: {path}" for path in places)]
        block = self.fstab.partition(mount_table.BEGIN)[2].partition(mount_table.END)[0]
        return "\n".join(lines) + "\n" + block.lstrip("\n")

    def after(self, before: str, new_fstab: str) -> str:
        """What will be there, for the diff."""
        if not self.steps:
            return before
        size = block_device.size(self.disk_path())
        keeps = not any(step.startswith(("make an", "grow")) for step in self.steps)
        first = before.splitlines()[0] if keeps else f"file system: ext4 of {gibibytes(size)}"
        lines = [first, *(f"mounted: {path}" for path in (self.path, *self.folders.values()))]
        block = new_fstab.partition(mount_table.BEGIN)[2].partition(mount_table.END)[0]
        return "\n".join(lines) + "\n" + block.lstrip("\n")

    def disk_path(self) -> str:
        """The disk's path, once more."""
        return block_device.find(self.module.params["device"]) or ""

    def step(self, text: str) -> None:
        """Note what is done, or would be."""
        self.steps.append(text)

    def command(self, *words: str, good: tuple[int, ...] = (0,)) -> None:
        """Run a program, unless in check mode; a failure ends the module."""
        if self.module.check_mode:
            return
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"})
        except FileNotFoundError:
            package = "e2fsprogs" if words[0] in ("mkfs.ext4", "resize2fs", "e2fsck") else "mount"
            self.fail(f"found no {words[0]} on this machine; expected it: apt-get install {package}")
        if done.returncode not in good:
            said = (done.stderr or done.stdout).strip() or f"status {done.returncode}"
            if words[0] == "resize2fs" and "Permission denied" in said:
                said += (
                    " (root without CAP_SYS_RESOURCE, as in a container: it grows when it is not mounted. Stop what "
                    f"uses it, unmount {self.path} and the folders, run this again)"
                )
            self.fail(f"cannot {self.steps[-1]}: {said}. Done before: {'; '.join(self.steps[:-1]) or 'nothing'}.")

    def fail(self, message: str) -> NoReturn:
        """End the module with an error."""
        self.module.fail_json(msg=message, steps=self.steps)


def gibibytes(size: int) -> str:
    """A size for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / block_device.MEBIBYTE:.0f} MiB"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "device": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "folders": {"type": "dict", "default": {}},
            "label": {"type": "str", "default": "dagster-data"},
            "required_by": {"type": "list", "elements": "str", "default": []},
            "wait": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    DataDisk(module).run()


if __name__ == "__main__":
    main()
