# SPDX-License-Identifier: Apache-2.0
"""What the network modules share: references by name, and address ranges."""

from __future__ import annotations

from collections.abc import Container, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_fields import link


def network_path(value: str, options: Mapping[str, Any]) -> str:
    """A network's full path from its name, a path below the project, or a URL."""
    return full_path(value, f"projects/{options['project']}/global/networks")


def subnetwork_path(value: str, options: Mapping[str, Any]) -> str:
    """A subnetwork's full path; a name alone is one of the option ``region``."""
    return full_path(value, f"projects/{options['project']}/regions/{options['region']}/subnetworks")


def address_path(value: str, options: Mapping[str, Any]) -> str:
    """A regional address's full path; a name alone is one of the option ``region``."""
    return full_path(value, f"projects/{options['project']}/regions/{options['region']}/addresses")


def full_path(value: str, collection: str) -> str:
    """What a reference means: a name in ``collection``, a path below its project, or a full path or URL."""
    path = link(value) or ""
    if "/" not in path:
        return f"{collection}/{path}"
    if path.startswith("projects/"):
        return path
    return f"{'/'.join(collection.split('/')[:2])}/{path}"


def parse_range(value: str) -> IPv4Network | IPv6Network | None:
    """A range, or an address as a range of one; None for anything else. Bits behind the prefix are an error."""
    try:
        return ip_network(value)
    except ValueError:
        return None


def bad_range(option: str, value: str | None, *, prefixes: Container[int] | None = None, version: int = 4) -> list[str]:
    """What is wrong with a range, as a list of one message or none.

    Args:
        option: the option's name, for the message.
        value: what it holds; None is fine.
        prefixes: prefix lengths that are allowed.
        version: 4, or 0 for IPv4 and IPv6.
    """
    if value is None:
        return []
    found = parse_range(value)
    example = "10.10.0.0/24"
    if found is None:
        try:
            return [
                f"{option}: found {value!r}; expected {ip_network(value, strict=False)} (no bits behind the prefix)"
            ]
        except ValueError:
            return [f"{option}: found {value!r}; expected a range such as {example}"]
    if version and found.version != version:
        return [f"{option}: found {value!r}; expected an IPv4 range such as {example}"]
    if prefixes is not None and found.prefixlen not in prefixes:
        return [
            f"{option}: found {value!r}, a prefix of {found.prefixlen}; expected a range such as {example} (/4 to /29)"
        ]
    return []


def canonical_range(value: Any) -> str:
    """A range in one spelling (``10.0.0.1`` is ``10.0.0.1/32``); anything else as it is."""
    found = parse_range(str(value))
    return str(value) if found is None else str(found)
