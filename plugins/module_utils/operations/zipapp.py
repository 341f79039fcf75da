# SPDX-License-Identifier: Apache-2.0
"""The command ``dagster-gce`` as one file: the modules of plugins/module_utils in an archive that Python runs.

The same sources give the same bytes on every controller (nothing compressed, no times), so a checksum tells whether
the machine has this version.
"""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile

_PACKAGES = ("ansible_collections", "dataops", "dagster_gce", "plugins", "module_utils")
_MAIN = """\
import sys
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import command
sys.exit(command.main())
"""
# -I: neither the caller's environment nor its folder decides what a root process imports.
_INTERPRETER = b"#!/usr/bin/python3 -I\n"
# What needs Ansible or Google's libraries runs on the controller only.
_ELSEWHERE = re.compile(r"^(google_.*|registry)\.py$")
_NEEDS_ANSIBLE = re.compile(r"^\s*(from|import) ansible\.", re.MULTILINE)


def build(folder: str) -> bytes:
    """The archive made of ``folder`` (plugins/module_utils of the collection)."""
    sources = {}
    for current, folders, names in os.walk(folder):
        folders.sort()
        inside = os.path.relpath(current, folder)
        for name in sorted(names):
            if not name.endswith(".py") or (inside == "." and _ELSEWHERE.match(name)):
                continue
            with open(os.path.join(current, name), encoding="utf-8") as stream:
                text = stream.read()
            if not _NEEDS_ANSIBLE.search(text):
                sources["/".join((*_PACKAGES, os.path.normpath(os.path.join(inside, name))))] = text
    sources["__main__.py"] = _MAIN
    for depth in range(1, len(_PACKAGES) + 1):
        sources["/".join((*_PACKAGES[:depth], "__init__.py"))] = ""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(sources):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # or a controller on another system makes other bytes
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, sources[name])
    return _INTERPRETER + packed.getvalue()
