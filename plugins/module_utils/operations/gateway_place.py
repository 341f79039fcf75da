# SPDX-License-Identifier: Apache-2.0
"""Where the gateway's files stand on the machine, and what is known of it there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from datetime import UTC, datetime
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.jobs import CRITICAL, WARNING, Problem

FOLDER = os.path.join(config.FOLDER, "gateway")
STATE = os.path.join(FOLDER, "state")
# certbot renews a month before the end: what is left by then has not worked.
WARNING_DAYS, CRITICAL_DAYS = 21, 7


def state() -> dict[str, Any]:
    """Its name, its ports, its certificate's file; empty where there is no gateway."""
    try:
        with open(STATE, encoding="utf-8") as stream:
            found = json.load(stream)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def certificate_ends(path: str) -> float | None:
    """When the certificate in a file ends, in seconds since 1970; None where that cannot be told."""
    try:
        done = subprocess.run(
            ["openssl", "x509", "-noout", "-enddate", "-in", path], stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"notAfter=(.+) GMT", done.stdout)
    if not found:
        return None
    return datetime.strptime(found[1], "%b %d %H:%M:%S %Y").replace(tzinfo=UTC).timestamp()


def of_certificate() -> list[Problem]:
    """A certificate that ends soon: nobody gets to the UI through the gateway then."""
    known = state()
    if not known:
        return []
    path = str(known.get("certificate", ""))
    ends = certificate_ends(path)
    if ends is None:
        text = f"the gateway's certificate {path} cannot be read; run site.yml"
        return [Problem("certificate", WARNING, text)]
    days = (ends - time.time()) / 86400
    if days > WARNING_DAYS:
        return []
    when = f"ends in {days:.0f} days" if days > 0 else f"has ended {-days:.0f} days ago"
    todo = (
        "`certbot renew` tells why it was not renewed"
        if known.get("acme")
        else "put a new one into dagster_gateway_certificate and run site.yml"
    )
    severity = WARNING if days > CRITICAL_DAYS else CRITICAL
    return [Problem("certificate", severity, f"the certificate of {known.get('name')} {when}; {todo}")]
