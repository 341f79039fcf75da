# Copyright (c) 2026, the dataops.dagster_gce authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The instances of a project, all of them or an error: a list that lacks some is worse than none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_instance_network
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_client import Client
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_links import last

Json = dict[str, Any]


def label_filter(labels: Mapping[str, Any], more: str = "") -> str:
    """Google's filter for instances that have all these labels (an empty value: any), and what else is asked."""
    terms = [f'(labels.{key} = "{value}")' if value else f"(labels.{key}:*)" for key, value in sorted(labels.items())]
    return " ".join([*terms, *([f"({more})"] if more else [])])


def instances(
    client: Client, *, wanted: str = "", zones: Sequence[str] = (), regions: Sequence[str] = ()
) -> list[Json]:
    """The project's instances by name.

    Args:
        client: for Compute Engine.
        wanted: Google's filter; empty for all.
        zones: only these zones.
        regions: only these regions; with `zones` either will do.

    Raises:
        GoogleError: Google refuses, or a zone that is asked for does not answer.
    """

    def asked(zone: str) -> bool:
        return not (zones or regions) or zone in zones or zone.rsplit("-", 1)[0] in regions

    what = f"list the instances of project {client.project}"
    # With partial success Google says which zones are missing; without, only that something is.
    query: Json = {"filter": wanted or None, "returnPartialSuccess": True}
    found: list[Json] = []
    silent: set[str] = set()
    while True:
        answer = client.call(
            "compute", "GET", f"projects/{client.project}/aggregated/instances", query=query, what=what
        )
        silent.update(last(link) for link in answer.get("unreachables", []))
        for scope, content in answer.get("items", {}).items():
            if content.get("warning", {}).get("code") == "UNREACHABLE":
                silent.add(last(scope))
            found.extend(content.get("instances", []))
        if not answer.get("nextPageToken"):
            break
        query["pageToken"] = answer["nextPageToken"]
    if missing := sorted(zone for zone in silent if asked(zone)):
        raise GoogleError(
            what,
            reason="UNREACHABLE",
            message=f"no answer from {', '.join(missing)}, so the list is not complete.",
            advice="Try again, or leave these zones out (zones).",
        )
    return sorted((item for item in found if asked(last(item["zone"]))), key=lambda item: (item["name"], item["zone"]))


def summary(instance: Json) -> Json:
    """What playbooks ask about an instance, without URLs."""
    internal, external = google_instance_network.addresses(instance)
    interface: Json = next(iter(instance.get("networkInterfaces", [])), {})
    zone = last(instance.get("zone", ""))
    return {
        "name": instance["name"],
        "id": instance.get("id", ""),
        "zone": zone,
        "region": zone.rsplit("-", 1)[0],
        "status": instance.get("status", ""),
        "machine_type": last(instance.get("machineType", "")),
        "internal_address": internal or "",
        "external_address": external or "",
        "network": last(interface.get("network", "")),
        "subnetwork": last(interface.get("subnetwork", "")),
        "labels": instance.get("labels", {}),
        "tags": instance.get("tags", {}).get("items", []),
        "service_account": next((account["email"] for account in instance.get("serviceAccounts", [])), ""),
        "disks": [
            {
                "name": last(disk.get("source", "")),
                "device_name": disk.get("deviceName", ""),
                "boot": disk.get("boot", False),
            }
            for disk in instance.get("disks", [])
        ],
    }
