# Copyright (c) 2026, the dataops.dagster_gce authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a machine says of itself: its SSH host keys in guest attributes, and its serial console."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_client import Client
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError

Json = dict[str, Any]

SWITCH = "enable-guest-attributes"


def host_keys(client: Client, path: str) -> list[dict[str, str]]:
    """The SSH host keys that the machine has published, by type; empty while there are none."""
    answer = client.get("compute", f"{path}/getGuestAttributes", query={"queryPath": "hostkeys/"})
    items = (answer or {}).get("queryValue", {}).get("items", [])
    keys = {item["key"]: item["value"].strip() for item in items if item.get("namespace", "hostkeys") == "hostkeys"}
    return [{"type": kind, "key": keys[kind]} for kind in sorted(keys) if re.fullmatch(r"[A-Za-z0-9+/]+=*", keys[kind])]


def publishes(client: Client, instance: Json) -> bool:
    """Whether the machine may publish guest attributes: its own metadata say so, or the project's."""
    own = switch(instance.get("metadata"))
    if own is not None:
        return own
    try:
        project = client.get("compute", f"projects/{client.project}") or {}
    except GoogleError:
        return True  # not for this caller to know: wait and see
    return switch(project.get("commonInstanceMetadata")) or False


def switch(metadata: Json | None) -> bool | None:
    """The value of the switch, None where it is not set."""
    for item in (metadata or {}).get("items", []):
        if item["key"] == SWITCH:
            return str(item.get("value", "")).strip().lower() in ("true", "y", "yes", "1")
    return None


def console(client: Client, path: str, lines: int) -> str:
    """The last lines of the serial console, or why there are none."""
    try:
        answer = client.get("compute", f"{path}/serialPort", query={"port": 1}, what="read the serial console")
    except GoogleError as error:
        return f"Its serial console cannot be read: {error}"
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[^\[]|[\x00-\x08\x0b-\x1f\x7f]", "", (answer or {}).get("contents", ""))
    tail = [line for line in text.splitlines() if line.strip()][-lines:]
    if not tail:
        return "Its serial console is empty."
    return "\n".join(["The last lines of its serial console:", *tail])
