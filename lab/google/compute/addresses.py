"""Static addresses of a region."""

from __future__ import annotations

import ipaddress

from ..errors import Refusal, invalid
from ..handlers import Call
from ..state import Thing, texts
from .common import Collection, all_of, refer

# Documentation's own range (RFC 5737): nobody can reach a stranger by mistake.
EXTERNAL = ipaddress.IPv4Network("203.0.113.0/24")
RESERVED = 2  # a subnetwork's network address and gateway


def taken(call: Call) -> set[str]:
    """Every address that a thing of this project has."""
    things = [*all_of(call, "addresses"), *all_of(call, "instances")]
    return {text for thing in things for text in texts(thing) if text.count(".") == 3 and text[0].isdigit()}


def free(call: Call, network: ipaddress.IPv4Network) -> str:
    """The first address of a range that nobody has; the gateway and Google's last ones are never given out."""
    used = taken(call)
    for offset in range(RESERVED, network.num_addresses - 2):
        if str(network[offset]) not in used:
            return str(network[offset])
    raise Refusal(400, f"IP space of '{network}' is exhausted.", "ipSpaceExhausted")


def external(call: Call) -> str:
    """A public address that nobody has."""
    return free(call, EXTERNAL)


def check(call: Call, path: str, address: Thing) -> None:
    """Find an address, or check the one that was asked for."""
    # By Google's reference an address gets labels from setLabels alone.
    address.pop("labels", None)
    if address["addressType"] == "EXTERNAL":
        if address.get("subnetwork"):
            raise invalid("resource.subnetwork", address["subnetwork"], "An external address has no subnetwork.")
        address.setdefault("networkTier", "PREMIUM")
        network = EXTERNAL
    else:
        if not address.get("subnetwork"):
            raise invalid("resource.subnetwork", "", "An internal address needs a subnetwork.")
        _, subnetwork = refer(call, address["subnetwork"], "subnetworks", "resource.subnetwork")
        address.setdefault("purpose", "GCE_ENDPOINT")
        network = ipaddress.IPv4Network(subnetwork["ipCidrRange"])
    wanted = address.get("address")
    if not wanted:
        address["address"] = free(call, network)
    elif ipaddress.ip_address(wanted) not in network:
        raise invalid("resource.address", wanted, f"It is not in {network}.")
    elif wanted in taken(call):
        raise Refusal(
            400, f"Invalid value for field 'resource.address': '{wanted}'. Specified IP address is in use.", "invalid"
        )
    address["status"] = "RESERVED"


def view(call: Call, path: str, address: Thing) -> None:
    """An address that a machine has says so."""
    users = [thing["selfLink"] for thing in all_of(call, "instances") if address["address"] in texts(thing)]
    if users:
        address["users"], address["status"] = users, "IN_USE"


class Addresses(Collection):
    """Addresses are used by value, not by link."""

    def remove(self, call: Call) -> Thing:
        """Refuse where a machine has the address."""
        for user in self.shown(call, call.thing()).get("users", ()):
            other = user.split("/compute/v1/")[1]
            message = f"The address resource '{call.target}' is already being used by '{other}'"
            raise Refusal(400, message, "resourceInUseByAnotherResource")
        return super().remove(call)


ADDRESSES = Addresses(
    "addresses",
    "regions",
    kind="compute#address",
    defaults={"addressType": "EXTERNAL"},
    references={"subnetwork": "subnetworks"},
    check=check,
    view=view,
    labels=True,
)
ADDRESSES.serve("get", "list", "aggregatedList", "insert", "delete", "setLabels")
