# SPDX-License-Identifier: Apache-2.0
"""workspace.yaml: who owns which entry.

The role dagster_home owns the extra locations, a release of the user code owns the entry of its location. Both
rewrite the one file, so both go through this module: an entry is found by its ``location_name``, the others are
kept as they are, and a lock keeps a redeploy and a site run apart.

Format: https://docs.dagster.io/deployment/code-locations/workspace-yaml
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

try:
    import yaml
except ImportError:  # a bare machine in check mode; `available` tells
    yaml = None  # type: ignore[assignment,unused-ignore]

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files

CORE = "dagster_core"
CORE_PORT = 4000
OWNER = files.Owner(0, 0, 0o644)
HEADER = "# Managed by Ansible (dataops.dagster_gce): local edits are lost.\n"


def available() -> bool:
    """Whether PyYAML is there; the role docker_engine installs it, and check mode may come before."""
    return yaml is not None


class WorkspaceError(ValueError):
    """The text is no workspace file."""


def parse(source: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """The document as a dict with a list under ``load_from``; an empty or missing file is an empty workspace.

    Raises:
        WorkspaceError: not YAML, not a mapping, or ``load_from`` is no list.
    """
    if source is None:
        document: Any = {}
    elif isinstance(source, str):
        try:
            document = yaml.safe_load(source) or {}
        except yaml.YAMLError as error:
            raise WorkspaceError(f"workspace.yaml is not YAML: {error}") from error
    else:
        document = source
    if not isinstance(document, Mapping):
        raise WorkspaceError(f"workspace.yaml: expected a mapping, found {type(document).__name__}")
    entries = document.get("load_from") or []
    if not isinstance(entries, list):
        raise WorkspaceError(f"workspace.yaml: load_from: expected a list, found {type(entries).__name__}")
    return {**document, "load_from": list(entries)}


def render(document: Mapping[str, Any]) -> str:
    """The file's text; equal documents give equal bytes."""
    return HEADER + yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=120)


def grpc_location(host: str, port: int = CORE_PORT, name: str = CORE) -> dict[str, Any]:
    """An entry of ``load_from`` for a gRPC server."""
    return {"grpc_server": {"host": host, "port": int(port), "location_name": name}}


def location_name(entry: Any) -> str | None:
    """The entry's name, whatever kind of entry it is (grpc_server, python_module, …); None where it has none."""
    if isinstance(entry, Mapping):
        for value in entry.values():
            if isinstance(value, Mapping) and isinstance(value.get("location_name"), str):
                return str(value["location_name"])
    return None


def with_core_location(
    source: str | Mapping[str, Any] | None, host: str, port: int = CORE_PORT, name: str = CORE
) -> str:
    """The text with the user code's location at ``host:port``; every other entry and its place is kept."""
    document = parse(source)
    entry = grpc_location(host, port, name)
    names = [location_name(each) for each in document["load_from"]]
    if name in names:
        document["load_from"][names.index(name)] = entry
    else:
        document["load_from"].insert(0, entry)
    return render(document)


def without_location(source: str | Mapping[str, Any] | None, name: str) -> str:
    """The text without the location of this name."""
    document = parse(source)
    document["load_from"] = [each for each in document["load_from"] if location_name(each) != name]
    return render(document)


def core_host(source: str | Mapping[str, Any] | None, name: str = CORE) -> str | None:
    """The host that the user code's location points to; None before the first release."""
    server = _core_server(source, name)
    return str(server["host"]) if server and server.get("host") else None


def _core_server(source: str | Mapping[str, Any] | None, name: str) -> Mapping[str, Any] | None:
    for entry in parse(source)["load_from"]:
        if location_name(entry) == name and isinstance(entry.get("grpc_server"), Mapping):
            server: Mapping[str, Any] = entry["grpc_server"]
            return server
    return None


def with_extra_locations(
    source: str | Mapping[str, Any] | None, extra: Sequence[Mapping[str, Any]], name: str = CORE
) -> str:
    """The text with exactly ``extra`` beside the user code's entry, which is kept as it is (also when it is absent)."""
    kept = [entry for entry in parse(source)["load_from"] if location_name(entry) == name]
    return render({"load_from": [*kept, *extra]})


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the lock of the file ``path`` (a sibling, since the file itself is replaced by rename)."""
    folder, base = os.path.split(os.path.abspath(path))
    with open(os.path.join(folder, f".{base}.lock"), "w", encoding="utf-8") as handle:
        os.fchmod(handle.fileno(), 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def update(path: str, change: Callable[[str | None], str], owner: files.Owner = OWNER) -> tuple[str | None, str]:
    """Read, change and replace the file under its lock; returns (before, after). Equal text is not written again."""
    with locked(path):
        found = files.read(path)
        before = None if found is None else found.decode()
        after = change(before)
        if after != before:
            files.replace(path, after.encode(), owner)
    return before, after
