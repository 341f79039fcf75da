# SPDX-License-Identifier: Apache-2.0
"""What is mounted now (/proc/self/mountinfo), and what is to be mounted at boot (/etc/fstab)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

BEGIN = "# BEGIN data disk (dataops.dagster_gce)"
END = "# END data disk (dataops.dagster_gce)"


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo."""

    path: str
    device: tuple[int, int]
    root: str
    """The folder of the file system that is seen at ``path``; ``/`` unless it is a bind mount."""
    source: str


def mounted(text: str) -> dict[str, Mount]:
    """The mounts by their path; where several lie over each other, the one that is seen."""
    found = {}
    for line in text.splitlines():
        fields = line.split(" ")
        major, minor = fields[2].split(":")
        # Optional fields end with a lone dash; type and source follow.
        source = fields[fields.index("-", 6) + 2]
        mount = Mount(_plain(fields[4]), (int(major), int(minor)), _plain(fields[3]), _plain(source))
        found[mount.path] = mount
    return found


def escaped(text: str) -> str:
    """A path as a field of fstab."""
    return re.sub(r"[\s\\#]", lambda match: f"\\{ord(match[0]):03o}", text)


def with_block(fstab: str, lines: list[str]) -> str:
    """The text of fstab with our block holding ``lines``, at its place or at the end."""
    block = "\n".join([BEGIN, *lines, END]) + "\n"
    pattern = re.compile(rf"^{re.escape(BEGIN)}\n.*?^{re.escape(END)}\n?", re.MULTILINE | re.DOTALL)
    if pattern.search(fstab):
        return pattern.sub(lambda _match: block, fstab, count=1)
    return (fstab if not fstab or fstab.endswith("\n") else fstab + "\n") + block


def foreign_entries(fstab: str, paths: list[str]) -> list[str]:
    """The lines outside our block that mount something at one of ``paths``."""
    ours = False
    found = []
    for line in fstab.splitlines():
        ours = (ours or line == BEGIN) and line != END
        fields = line.split()
        if not ours and len(fields) > 1 and not fields[0].startswith("#") and _normal(_plain(fields[1])) in paths:
            found.append(line.strip())
    return found


def _plain(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _normal(path: str) -> str:
    return os.path.normpath(path)
