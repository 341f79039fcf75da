# SPDX-License-Identifier: Apache-2.0
"""A disk and the ext4 on it: found by the name that Compute Engine gave it, looked at, never changed here."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
from dataclasses import dataclass

BY_ID = "/dev/disk/by-id"
# Google's images make the first link, the kernel's own SCSI identity the second.
PREFIXES = ("google-", "scsi-0Google_PersistentDisk_")
MEBIBYTE = 2**20


class Refusal(Exception):
    """Why a disk cannot be used; its text says what was found and what to do."""


@dataclass(frozen=True)
class Ext4:
    """What the superblock says."""

    label: str
    size: int
    """In bytes."""


def candidates(device: str) -> list[str]:
    """Where the disk ``device`` (a device name of Compute Engine, or a path) may be."""
    return [device] if device.startswith("/") else [f"{BY_ID}/{prefix}{device}" for prefix in PREFIXES]


def find(device: str) -> str | None:
    """The path under which the disk is there, or None.

    :raises Refusal: if what is there is no disk.
    """
    for path in candidates(device):
        if os.path.exists(path):
            if not stat.S_ISBLK(os.stat(path).st_mode):
                raise Refusal(f"{path}: found no block device; expected the data disk")
            return path
    return None


def present() -> list[str]:
    """The names of the disks that there are, for an error."""
    names = sorted(os.listdir(BY_ID)) if os.path.isdir(BY_ID) else []
    return [name for name in names if name.startswith(PREFIXES)]


def number(path: str) -> tuple[int, int]:
    """Major and minor number, by which mountinfo names a device."""
    device = os.stat(path).st_rdev
    return os.major(device), os.minor(device)


def size(path: str) -> int:
    """Bytes of a disk."""
    with open(path, "rb") as stream:
        return stream.seek(0, os.SEEK_END)


def signatures(path: str) -> dict[str, str]:
    """What blkid finds: TYPE, LABEL, UUID of a file system, PTTYPE of a partition table; empty for nothing.

    :raises Refusal: if it finds several things, or cannot look.
    """
    done = subprocess.run(["blkid", "--probe", "--output", "export", path], capture_output=True, text=True, check=False)
    if done.returncode == 2:
        return {}
    if done.returncode == 8:
        raise Refusal(f"{path}: found traces of several file systems; expected one, or a blank disk")
    if done.returncode:
        raise Refusal(f"{path}: blkid cannot look at it: {done.stderr.strip() or f'status {done.returncode}'}")
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def is_blank(path: str) -> bool:
    """Whether begin and end of a disk hold nothing but zeros. What blkid does not know (a raw dump, a cipher) does."""
    with open(path, "rb") as stream:
        begin = stream.read(4 * MEBIBYTE)
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - MEBIBYTE))
        end = stream.read(MEBIBYTE)
    return not any(begin) and not any(end)


def ext4(path: str) -> Ext4:
    """The file system's own size and label. The layout is that of the kernel's Documentation/filesystems/ext4.

    :raises Refusal: if there is none.
    """
    with open(path, "rb") as stream:
        stream.seek(1024)
        block = stream.read(1024)
    (low, log_size) = struct.unpack_from("<I", block, 0x4) + struct.unpack_from("<I", block, 0x18)
    (magic,) = struct.unpack_from("<H", block, 0x38)
    (features,) = struct.unpack_from("<I", block, 0x60)
    (high,) = struct.unpack_from("<I", block, 0x150)
    if magic != 0xEF53:
        raise Refusal(f"{path}: found no ext4 superblock")
    blocks = low | (high << 32 if features & 0x80 else 0)
    label = block[0x78:0x88].split(b"\0", 1)[0].decode(errors="replace")
    return Ext4(label, blocks * (1024 << log_size))
