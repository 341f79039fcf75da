#!/usr/bin/python3 -I
# SPDX-License-Identifier: Apache-2.0
"""What root's Docker on this machine would log in to a registry with, for runs that are services of a swarm.

A machine of a swarm pulls a service's image with what the service was made with, and with no login of its own. The one
who makes the services, dagster-engine-proxy, sits behind this machine's firewall without a way to any registry, so it
asks here: systemd listens on a Unix socket, and starts this for each question. Nothing is stored.

    registry_auth.py CONFIG     (Docker's config.json)

Standard input has the registry's host, one line; standard output gets what Docker's API takes for X-Registry-Auth as
JSON, or {} where there is no login for that host. Why a helper fails stands in the journal.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from typing import Any

# What Docker's configuration calls its own registry.
HUB = "https://index.docker.io/v1/"
HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?")
HELPER = re.compile(r"[A-Za-z0-9._-]+")
HELPER_SECONDS = 20


def read(path: str) -> dict[str, Any]:
    """Docker's configuration; nothing where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        return {}
    return found if isinstance(found, dict) else {}


def from_helper(helper: str, server: str) -> dict[str, str]:
    """What a credential helper says; nothing where it has none.

    Raises:
        OSError: it is not installed, or does not answer in time.
    """
    if not HELPER.fullmatch(helper):
        return {}
    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"],
            input=server, capture_output=True, text=True, timeout=HELPER_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"docker-credential-{helper} did not answer within {HELPER_SECONDS} s") from None
    if done.returncode:
        # Docker's helpers say on standard output that there is nothing, and everything else on standard error.
        print(f"docker-credential-{helper}: {(done.stderr or done.stdout).strip()}", file=sys.stderr)
        return {}
    found = json.loads(done.stdout)
    if found["Username"] == "<token>":
        return {"identitytoken": found["Secret"]}
    return {"username": found["Username"], "password": found["Secret"]}


def login(config: dict[str, Any], host: str) -> dict[str, str]:
    """The login for a registry, in the order that Docker looks: its own helper, the helper of all, the file itself."""
    server = HUB if host == "docker.io" else host
    helper = (config.get("credHelpers") or {}).get(server) or config.get("credsStore")
    if helper:
        found = from_helper(helper, server)
    else:
        entry = (config.get("auths") or {}).get(server) or {}
        user, _, password = base64.b64decode(entry.get("auth") or "").decode().partition(":")
        found = {"username": user, "password": password.strip("\0")} if user else {}
        if entry.get("identitytoken"):
            found = {"identitytoken": entry["identitytoken"]}
    return {**found, "serveraddress": server} if found else {}


def main(path: str) -> int:
    """Answer one question."""
    host = sys.stdin.readline(300).strip()
    if not HOST.fullmatch(host):
        print(f"found {host!r}; expected a registry's host", file=sys.stderr)
        return 1
    try:
        print(json.dumps(login(read(path), host)), flush=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"no login for {host}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
