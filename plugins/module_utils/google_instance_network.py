# Copyright (c) 2026, the dataops.dagster_gce authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The instance's network interface. Its external address can be changed in place, its network cannot."""

from __future__ import annotations

from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_links import Place, path
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_plan import Call, Json, Plan

ACCESS_CONFIG = "External NAT"
"""Google's own name for an interface's external address."""

NONE, EPHEMERAL = "none", "ephemeral"

MOVE = (
    "an instance keeps its network; set the option back, or remove the instance (state: absent; data disks stay) "
    "and create it again"
)


def body(place: Place, interface: Json) -> Json:
    """The interface in the request that makes the instance."""
    made: Json = {}
    if interface.get("network"):
        made["network"] = place.everywhere("networks", interface["network"])
    if interface.get("subnetwork"):
        made["subnetwork"] = place.regional("subnetworks", interface["subnetwork"])
    if interface.get("internal_address"):
        made["networkIP"] = interface["internal_address"]
    if (interface.get("external_address") or NONE) != NONE:
        made["accessConfigs"] = [access_config(interface)]
    return made


def access_config(interface: Json) -> Json:
    """The access config that gives the interface an external address."""
    made = {"type": "ONE_TO_ONE_NAT", "name": ACCESS_CONFIG}
    if interface["external_address"] != EPHEMERAL:
        made["natIP"] = interface["external_address"]
    if interface.get("network_tier"):
        made["networkTier"] = interface["network_tier"]
    return made


def addresses(instance: Json) -> tuple[str | None, str | None]:
    """The internal and the external address of the first interface."""
    for interface in instance.get("networkInterfaces", []):
        configs = interface.get("accessConfigs") or [{}]
        return interface.get("networkIP"), configs[0].get("natIP")
    return None, None


def compare(plan: Plan, place: Place, instance_path: str, asked: Json | None, found: Json) -> None:
    """Plan what the first interface needs; other interfaces are left alone."""
    if asked is None:
        return
    interface: Json = next(iter(found.get("networkInterfaces", [])), {})
    for name, api, wanted in (
        ("network", "network", asked.get("network") and place.everywhere("networks", asked["network"])),
        ("subnetwork", "subnetwork", asked.get("subnetwork") and place.regional("subnetworks", asked["subnetwork"])),
        ("internal_address", "networkIP", asked.get("internal_address")),
    ):
        have = path(interface.get(api, ""))
        if wanted and have != wanted:
            plan.refuse(f"network_interface.{name}", have, wanted, MOVE)
    if asked.get("external_address") is not None:
        _external(plan, instance_path, asked, interface)


def _external(plan: Plan, instance_path: str, asked: Json, interface: Json) -> None:
    configs = interface.get("accessConfigs") or []
    wanted = asked["external_address"]
    before: Json = {"external_address": (configs[0].get("natIP") or EPHEMERAL) if configs else NONE}
    # Google chose an ephemeral address: any will do.
    after: Json = {"external_address": before["external_address"] if wanted == EPHEMERAL and configs else wanted}
    if configs and wanted != NONE and asked.get("network_tier"):
        before["network_tier"], after["network_tier"] = configs[0].get("networkTier", "PREMIUM"), asked["network_tier"]

    def calls() -> list[Call]:
        nic = {"networkInterface": interface.get("name", "nic0")}
        remove = [
            Call("POST", f"{instance_path}/deleteAccessConfig", query={**nic, "accessConfig": config["name"]})
            for config in configs[:1]
        ]
        if wanted == NONE:
            return remove
        return [*remove, Call("POST", f"{instance_path}/addAccessConfig", query=nic, body=access_config(asked))]

    plan.compare("network_interface", before, after, calls)
