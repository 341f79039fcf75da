# SPDX-License-Identifier: Apache-2.0
"""The manifest: what a backup holds. It is written last; a backup without one is none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import backup_retention
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_files import DamagedError, Stored

NAME = "manifest.json"
FORMAT = 1
# The file with the whole cluster, in a backup from which continuous backup leads on.
BASE = "base.tar.gz"


class Manifest:
    """What is known of one backup, as plain data in ``content``."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    @property
    def stamp(self) -> str:
        return str(self.content["stamp"])

    @property
    def moment(self) -> float:
        """When it was taken, in seconds since the epoch."""
        return backup_retention.moment_of(self.stamp) or 0.0

    @property
    def reason(self) -> str:
        return str(self.content.get("reason", ""))

    @property
    def encrypted(self) -> bool:
        return bool(self.content.get("recipients"))

    @property
    def files(self) -> dict[str, Stored]:
        """The files in the backup's own folder."""
        return {name: _stored(found) for name, found in self.content["files"].items()}

    @property
    def logs(self) -> dict[str, Stored]:
        """The archives in the folder ``logs`` that belong to it, oldest first."""
        return {str(found["name"]): _stored(found) for found in self.content.get("logs", ())}

    @property
    def base(self) -> dict[str, Any]:
        """Of the base: the cluster and where its WAL begins; empty where the backup has none."""
        return dict(self.content.get("base") or {})

    @property
    def size(self) -> int:
        """Bytes of its own files."""
        return sum(each.size for each in self.files.values())

    @property
    def database(self) -> dict[str, Any]:
        return dict(self.content["database"])

    @property
    def tables(self) -> dict[str, int]:
        """Rows by table, counted in the snapshot that the dump was made of."""
        return {str(name): int(rows) for name, rows in self.content["database"]["tables"].items()}

    @property
    def postgres_major(self) -> int:
        return int(self.content["versions"]["postgres"]) // 10000

    def file(self, name: str) -> str:
        """The full name of a file, encrypted or not: ``database.dump`` may be ``database.dump.age``."""
        return next(found for found in self.files if found.removesuffix(".age") == name)

    def render(self) -> bytes:
        """The file's content, with a checksum of its own."""
        body = {name: value for name, value in self.content.items() if name != "checksum"}
        return (json.dumps({**body, "checksum": _checksum(body)}, indent=1) + "\n").encode()


def parse(text: bytes, where: str) -> Manifest:
    """Read a manifest.

    Raises:
        DamagedError: it was changed, or is none.
    """
    try:
        content = json.loads(text)
        given = content.pop("checksum")
        good = given == _checksum(content) and content["format"] == FORMAT
        manifest = Manifest(content)
        good = good and bool(manifest.files and manifest.tables is not None and manifest.logs is not None)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{where} is damaged: it is not what a backup wrote") from error
    if not good:
        raise DamagedError(f"{where} is damaged: its content does not have the checksum that it states")
    return manifest


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _stored(found: Mapping[str, Any]) -> Stored:
    return Stored(int(found["size"]), str(found["sha256"]), str(found["md5"]))
