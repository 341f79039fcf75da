#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Which key was replaced, and which containers may still have it, as JSON on standard output.

Usage: old_key.py KEY REPLACED
    KEY        the key that is there now
    REPLACED   JSON with `email` and `key_id` of the one before; need not be there

A container holds the file that was there when it was created, and a process what it read when it began.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import sys
from typing import Any


def began(shown: dict[str, Any]) -> float:
    """When a container was created, in seconds since 1970."""
    text = re.sub(r"\.\d+", "", shown["Created"]).replace("Z", "+00:00")
    return datetime.datetime.fromisoformat(text).timestamp()


def users(key: str, replaced_at: float) -> list[str]:
    """Names of running containers that have the key mounted and are older than the replacement."""
    ids = subprocess.run(["docker", "ps", "-q"], capture_output=True, text=True, check=True).stdout.split()
    if not ids:
        return []
    shown = subprocess.run(["docker", "inspect", *ids], capture_output=True, text=True, check=False).stdout
    return sorted(
        each["Name"].lstrip("/")
        for each in json.loads(shown or "[]")
        if any(mount.get("Source") == key for mount in each["Mounts"]) and began(each) <= replaced_at
    )


def main(arguments: list[str]) -> int:
    """Print the finding."""
    key, replaced = arguments
    found: dict[str, Any] = {"email": "", "key_id": "", "users": []}
    if os.path.exists(replaced) and os.path.exists(key):
        with open(replaced, encoding="utf-8") as stream:
            found.update(json.load(stream))
        found["users"] = users(key, os.stat(key).st_mtime)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
