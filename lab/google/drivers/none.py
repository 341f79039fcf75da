"""No machines: an instance is a record that says RUNNING.

What a machine would tell about itself is made up: host keys in the guest attributes, a login prompt on the serial port.
``google.state.note("machines")["boot"] = "never"`` has new machines hang before either. ``google.state.note("serial")``
and ``google.state.note("guest attributes")`` (both by the instance's path) hold what a test wants them to say.
``google.state.note("ports")["projects/…/instances/i:22"] = ["127.0.0.1", 2222]`` says where IAP's tunnel leads.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import Refusal
from ..state import Thing

if TYPE_CHECKING:
    from ..server import Google

HOST_KEYS = {
    "ssh-ed25519": "AAAAC3NzaC1lZDI1NTE5AAAAIJjQ1uG4ZC6pXvZrWJm2bX8l8hW1w9d9kH3oB0J3m2Zk",
    "ecdsa-sha2-nistp256": (
        "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBGm7dYb0oYVb0m0yqzB4m1rj4k1u0aQ8Y3mWv0k2Qm1s"
        "b0n7cJ8s0G3b7yq5u8E2v3G6c9i1x4F5k7p0Z2sXw8="
    ),
}


def make(google: Google) -> NoDriver:
    """The driver of one Google."""
    return NoDriver(google)


class NoDriver:
    """See the module's docstring; the methods are the protocol's."""

    in_background = False

    def __init__(self, google: Google) -> None:
        self.google = google

    def address(self, wanted: str, network: str, taken: set[str]) -> str:
        """The lowest free address; the first two and the last two of a range are Google's own."""
        if wanted:
            return wanted
        hosts = list(ipaddress.ip_network(network))[2:-2]
        for host in hosts:
            if str(host) not in taken:
                return str(host)
        raise Refusal(400, f"IP space of '{network}' is exhausted.", "IP_SPACE_EXHAUSTED")

    def create_disk(self, path: str, size_gb: int, snapshot: str) -> None:
        """Nothing: the record is all."""

    def resize_disk(self, path: str, size_gb: int) -> None:
        """Nothing."""

    def delete_disk(self, path: str) -> None:
        """Nothing."""

    def create_snapshot(self, path: str, disk: str) -> int:
        """Nothing; every snapshot takes a megabyte."""
        return 2**20

    def delete_snapshot(self, path: str) -> None:
        """Nothing."""

    def create(self, path: str) -> None:
        self._boot(path)

    def start(self, path: str) -> None:
        self._boot(path)

    def stop(self, path: str) -> None:
        self._write(path, "reboot: Power down")

    def reset(self, path: str) -> None:
        self._boot(path)

    def delete(self, path: str, instance: Thing) -> None:
        for topic in ("serial", "guest attributes"):
            self.google.state.note(topic).pop(path, None)

    def attach(self, path: str, disk: Thing) -> None:
        """Nothing."""

    def detach(self, path: str, disk: Thing) -> None:
        """Nothing."""

    def serial(self, path: str) -> str:
        return str(self.google.state.note("serial").get(path, ""))

    def interface(self, path: str) -> Mapping[str, Any]:
        return {"mac": "42:01:0a:80:00:02", "gateway": "10.128.0.1", "subnetmask": "255.255.240.0"}

    def endpoint(self, path: str, port: int) -> tuple[str, int] | None:
        found = self.google.state.note("ports").get(f"{path}:{port}")
        return (found[0], found[1]) if found else None

    def close(self) -> None:
        """Nothing."""

    def _boot(self, path: str) -> None:
        self._write(path, "Loading Linux 6.12-cloud-amd64 ...")
        if self.google.state.note("machines").get("boot") == "never":
            self._write(path, "You are in emergency mode.")
            return
        instance = self.google.state.get(f"compute/{path}") or {}
        items = {item["key"]: item["value"] for item in instance.get("metadata", {}).get("items", [])}
        if items.get("enable-guest-attributes", "").upper() == "TRUE":
            held = self.google.state.note("guest attributes").setdefault(path, {})
            held.update({f"hostkeys/{kind}": key for kind, key in HOST_KEYS.items()})
        self._write(path, f"{path.rsplit('/', 1)[-1]} login:")

    def _write(self, path: str, line: str) -> None:
        serial = self.google.state.note("serial")
        serial[path] = serial.get(path, "") + line + "\n"
