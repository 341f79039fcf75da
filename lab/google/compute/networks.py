"""Networks."""

from __future__ import annotations

from ..errors import Refusal, invalid
from ..handlers import Call
from ..state import Thing
from .common import Collection, all_of, self_link


def check(call: Call, path: str, network: Thing) -> None:
    """Custom mode unless asked for otherwise, as the API's default without ``IPv4Range`` is to refuse."""
    mtu = network.get("mtu")
    if mtu is not None and not 1300 <= int(mtu) <= 8896:
        raise invalid("resource.mtu", mtu, "Must be between 1300 and 8896.")
    network.setdefault("autoCreateSubnetworks", True)
    network["mtu"] = int(mtu or 1460)
    network["routingConfig"] = {
        "routingMode": "REGIONAL",
        "bgpBestPathSelectionMode": "LEGACY",
        **network.get("routingConfig", {}),
    }
    network["selfLinkWithId"] = self_link(f"{path.rsplit('/', 1)[0]}/{network['id']}")


def change(call: Call, path: str, network: Thing) -> None:
    """What cannot be patched on a network."""
    before = call.thing(path)
    for name in ("name", "autoCreateSubnetworks", "description"):
        if network.get(name) != before.get(name):
            raise Refusal(400, f"Invalid value for field 'resource.{name}': it cannot be changed.", "invalid")
    check(call, path, network)


def view(call: Call, path: str, network: Thing) -> None:
    """A network lists its subnetworks."""
    links = [thing["selfLink"] for thing in all_of(call, "subnetworks") if thing["network"] == network["selfLink"]]
    if links:
        network["subnetworks"] = links


NETWORKS = Collection(
    "networks",
    "global",
    kind="compute#network",
    defaults={"networkFirewallPolicyEnforcementOrder": "AFTER_CLASSIC_FIREWALL"},
    check=check,
    change=change,
    view=view,
)
NETWORKS.serve("get", "list", "insert", "patch", "delete")
