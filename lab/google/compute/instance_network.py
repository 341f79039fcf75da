"""Instances: interfaces and addresses."""

from __future__ import annotations

import ipaddress

from .. import drivers
from ..errors import Refusal, invalid
from ..handlers import Call
from ..state import Thing, fingerprint
from .common import last, link, path_of, region_of_zone, self_link

# External addresses come from a range that leads nowhere (RFC 5737).
EXTERNAL = ipaddress.ip_network("203.0.113.0/24")


def interfaces(call: Call, path: str, zone: str, wanted: list[Thing]) -> list[Thing]:
    """The interfaces of a new instance, as they are answered."""
    return [_interface(call, path, zone, number, given) for number, given in enumerate(wanted)]


def _interface(call: Call, path: str, zone: str, number: int, given: Thing) -> Thing:
    field = f"resource.networkInterfaces[{number}]"
    subnetwork = _subnetwork(call, zone, given, field)
    interface: Thing = {
        "kind": "compute#networkInterface",
        "name": f"nic{number}",
        "stackType": "IPV4_ONLY",
        **given,
        "network": subnetwork["network"],
        "subnetwork": subnetwork["selfLink"],
    }
    interface["networkIP"] = _internal(call, path, given.get("networkIP", ""), subnetwork, f"{field}.networkIP")
    configs = [access_config(call, path, zone, config, field) for config in given.get("accessConfigs") or []]
    interface.pop("accessConfigs", None)
    if configs:
        interface["accessConfigs"] = configs
    interface["fingerprint"] = fingerprint(interface)
    return interface


def _subnetwork(call: Call, zone: str, given: Thing, field: str) -> Thing:
    region = region_of_zone(zone)
    if given.get("subnetwork"):
        value = given["subnetwork"]
        found = call.find(link(call, value, "subnetworks", f"{field}.subnetwork"))
        if found is None:
            raise invalid(f"{field}.subnetwork", value, "The referenced subnetwork resource cannot be found.")
        if last(found["region"]) != region:
            raise invalid(f"{field}.subnetwork", value, f"The subnetwork is not in the instance's region '{region}'.")
        if given.get("network") and link(call, given["network"], "networks", field) != path_of(found["network"]):
            raise invalid(f"{field}.network", given["network"], "The subnetwork does not belong to this network.")
        return found
    value = given.get("network") or "global/networks/default"
    network = call.find(link(call, value, "networks", f"{field}.network"))
    if network is None:
        raise invalid(f"{field}.network", value, "The referenced network resource cannot be found.")
    if not network.get("autoCreateSubnetworks"):
        why = "Network interface must specify a subnet if the network resource is in custom subnet mode."
        raise invalid(f"{field}.network", value, why)
    for subnetwork in call.children(f"projects/{call.project}/regions/{region}/subnetworks"):
        if subnetwork["network"] == network["selfLink"]:
            return subnetwork
    raise invalid(f"{field}.network", value, f"The network has no subnetwork in the region '{region}'.")


def _internal(call: Call, path: str, wanted: str, subnetwork: Thing, field: str) -> str:
    network = subnetwork["ipCidrRange"]
    taken = {
        interface["networkIP"]
        for key, thing in call.state.things.items()
        if "/instances/" in key
        for interface in thing.get("networkInterfaces", [])
        if interface.get("subnetwork") == subnetwork["selfLink"]
    }
    if wanted:
        inside = ipaddress.ip_address(wanted) in ipaddress.ip_network(network)
        if not inside:
            raise invalid(field, wanted, f"IP address '{wanted}' is not in the subnetwork's range '{network}'.")
        if wanted in taken:
            raise Refusal(
                400, f"IP '{wanted}' is already being used by another resource.", "IP_IN_USE_BY_ANOTHER_RESOURCE"
            )
    reserved = _reserved(call, wanted) if wanted else None
    if reserved is not None:
        _take(reserved, path)
    return drivers.of(call.google).address(wanted, network, taken)


def access_config(call: Call, path: str, zone: str, given: Thing, field: str) -> Thing:
    """An access configuration with its external address: the reserved one that is named, or one that is free."""
    if call.constraint("compute.vmExternalIpAccess"):
        message = (
            f"Constraint constraints/compute.vmExternalIpAccess violated for project {call.project}. "
            f"Add instance {path} to the constraint to use external IP with it."
        )
        raise Refusal(412, message, "conditionNotMet")
    config: Thing = {
        "kind": "compute#accessConfig",
        "name": "external-nat",
        "type": "ONE_TO_ONE_NAT",
        "networkTier": "PREMIUM",
        **given,
    }
    if not given.get("natIP"):
        config["natIP"] = _external(call)
        return config
    address = _reserved(call, given["natIP"])
    region = region_of_zone(zone)
    if address is None or last(address.get("region", "")) != region:
        message = f"The specified external IP address '{given['natIP']}' was not found in region '{region}'."
        raise invalid(f"{field}.accessConfigs[0].natIP", given["natIP"], message)
    _take(address, path)
    return config


def _external(call: Call) -> str:
    taken = {
        config.get("natIP")
        for thing in call.state.things.values()
        for interface in thing.get("networkInterfaces", [])
        for config in interface.get("accessConfigs", [])
    } | {thing.get("address") for thing in call.state.things.values()}
    for host in EXTERNAL.hosts():
        if str(host) not in taken:
            return str(host)
    raise Refusal(403, "Quota 'IN_USE_ADDRESSES' exceeded.  Limit: 254.0 globally.", "quotaExceeded")


def _reserved(call: Call, address: str) -> Thing | None:
    start = f"compute/projects/{call.project}/"
    for key, thing in call.state.things.items():
        if key.startswith(start) and "/addresses/" in key and thing.get("address") == address:
            return thing
    return None


def _take(address: Thing, path: str) -> None:
    user = self_link(path)
    others = [known for known in address.get("users", []) if known != user]
    if others:
        message = f"External IP address: {address['address']} is already in-use by '{path_of(others[0])}'."
        raise Refusal(400, message, "IP_IN_USE_BY_ANOTHER_RESOURCE")
    address["users"], address["status"] = [user], "IN_USE"


def release(call: Call, path: str, addresses: set[str]) -> None:
    """Give reserved addresses back that an instance has used."""
    for address in addresses:
        reserved = _reserved(call, address)
        if reserved is not None and reserved.get("users") == [self_link(path)]:
            del reserved["users"]
            reserved["status"] = "RESERVED"


def addresses(instance: Thing) -> set[str]:
    """Every address that an instance has."""
    found = set()
    for interface in instance.get("networkInterfaces", []):
        found.add(interface["networkIP"])
        found |= {config["natIP"] for config in interface.get("accessConfigs", []) if config.get("natIP")}
    return found
