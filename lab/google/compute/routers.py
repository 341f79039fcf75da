"""Routers, and the NAT on them."""

from __future__ import annotations

import re

from ..errors import invalid
from ..handlers import Call
from ..state import Thing
from .common import Collection, all_of, refer, self_link

ALL = ("ALL_SUBNETWORKS_ALL_IP_RANGES", "ALL_SUBNETWORKS_ALL_PRIMARY_IP_RANGES")
NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
NAT = {
    "type": "PUBLIC",
    "autoNetworkTier": "PREMIUM",
    "endpointTypes": ["ENDPOINT_TYPE_VM"],
    "enableEndpointIndependentMapping": False,
}


def check(call: Call, path: str, router: Thing) -> None:
    """NATs: complete, with a name, and one for all subnetworks at most."""
    nats = router.get("nats", [])
    for position, nat in enumerate(nats):
        field = f"resource.nats[{position}]"
        if not NAME.fullmatch(nat.get("name", "")):
            raise invalid(
                f"{field}.name", nat.get("name", ""), "Must be a match of regex '[a-z]([-a-z0-9]{0,61}[a-z0-9])?'"
            )
        for name, value in NAT.items():
            nat.setdefault(name, value)
        _addresses(call, field, nat)
        _subnetworks(call, path, router, field, nat)
        if "logConfig" in nat:
            nat["logConfig"] = {"enable": False, "filter": "ALL", **nat["logConfig"]}
    if len({nat["name"] for nat in nats}) != len(nats):
        raise invalid("resource.nats", [nat["name"] for nat in nats], "Two NATs have the same name.")
    if not nats:
        router.pop("nats", None)
    router.setdefault("encryptedInterconnectRouter", False)


def _addresses(call: Call, field: str, nat: Thing) -> None:
    option = nat.get("natIpAllocateOption")
    if option is None:
        raise invalid(f"{field}.natIpAllocateOption", "", "It must be AUTO_ONLY or MANUAL_ONLY.")
    if (option == "MANUAL_ONLY") != bool(nat.get("natIps")):
        raise invalid(f"{field}.natIps", nat.get("natIps", []), f"It does not go with natIpAllocateOption {option}.")
    nat["natIps"] = [self_link(refer(call, link, "addresses", f"{field}.natIps")[0]) for link in nat.get("natIps", ())]
    if not nat["natIps"]:
        del nat["natIps"]


def _subnetworks(call: Call, path: str, router: Thing, field: str, nat: Thing) -> None:
    wanted = nat.get("sourceSubnetworkIpRangesToNat")
    if wanted is None:
        raise invalid(f"{field}.sourceSubnetworkIpRangesToNat", "", "It must be specified.")
    if (wanted == "LIST_OF_SUBNETWORKS") != bool(nat.get("subnetworks")):
        raise invalid(f"{field}.subnetworks", nat.get("subnetworks", []), f"It does not go with {wanted}.")
    for entry in nat.get("subnetworks", ()):
        entry["name"] = self_link(refer(call, entry["name"], "subnetworks", f"{field}.subnetworks.name")[0])
        entry.setdefault("sourceIpRangesToNat", ["ALL_IP_RANGES"])
    for other in all_of(call, "routers"):
        same = other["network"] == router["network"] and other["region"] == router["region"]
        if same and not other["selfLink"].endswith("/" + path) and wanted in ALL:
            taken = [found for found in other.get("nats", ()) if found["sourceSubnetworkIpRangesToNat"] in ALL]
            if taken:
                other_nat = f"NAT '{taken[0]['name']}' of router '{other['name']}'"
                why = f"{other_nat} has all subnetworks of this network and region."
                raise invalid(f"{field}.sourceSubnetworkIpRangesToNat", wanted, why)


def change(call: Call, path: str, router: Thing) -> None:
    """A patch replaces the list of NATs; the network is for ever."""
    before = call.thing(path)
    for name in ("name", "network", "region"):
        if router.get(name) != before.get(name):
            raise invalid(f"resource.{name}", router.get(name), "It cannot be changed.")
    check(call, path, router)


def view(call: Call, path: str, router: Thing) -> None:
    """A NAT says how long it waits, which no request may."""
    for nat in router.get("nats", ()):
        nat["effectiveTcpTimeWaitTimeoutSec"] = nat.get("tcpTimeWaitTimeoutSec", 120)


ROUTERS = Collection(
    "routers",
    "regions",
    kind="compute#router",
    references={"network": "networks"},
    check=check,
    change=change,
    view=view,
)
ROUTERS.serve("get", "list", "aggregatedList", "insert", "patch", "delete")
