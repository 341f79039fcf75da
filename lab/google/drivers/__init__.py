"""What stands behind the API's instances, disks and snapshots.

The handlers keep the records and their rules; a driver does what a record means. ``none`` does nothing, so that an API
test costs milliseconds; ``container`` runs the lab's machines with real disks; ``vm`` boots virtual ones.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..state import Thing

if TYPE_CHECKING:
    from ..handlers import Call
    from ..server import Google

NAMES = ("none", "container", "vm")


class Driver(Protocol):
    """Paths are the resources' own (``projects/p/zones/z/instances/i``). What cannot be done raises Refusal."""

    in_background: bool
    """Whether its work takes real time: then it runs beside the operation, without the state's lock."""

    def address(self, wanted: str, network: str, taken: set[str]) -> str:
        """The internal address of a new instance in the range ``network``; ``wanted`` if that is not empty."""

    def create_disk(self, path: str, size_gb: int, snapshot: str) -> None:
        """Make a disk, blank or (``snapshot`` not empty) with a snapshot's content."""

    def resize_disk(self, path: str, size_gb: int) -> None:
        """Let a disk grow, attached or not."""

    def delete_disk(self, path: str) -> None:
        """Remove a disk's content."""

    def create_snapshot(self, path: str, disk: str) -> int:
        """Keep what is on a disk now; returns how many bytes that takes."""

    def delete_snapshot(self, path: str) -> None:
        """Remove a snapshot's content."""

    def create(self, path: str) -> None:
        """Make an instance's machine, with its disks, and boot it."""

    def start(self, path: str) -> None:
        """Boot a machine that is off, with the disks that it has now."""

    def stop(self, path: str) -> None:
        """Shut a machine down."""

    def reset(self, path: str) -> None:
        """Switch a machine off and on, without a shutdown."""

    def delete(self, path: str, instance: Thing) -> None:
        """Remove a machine. ``instance``: its last record."""

    def attach(self, path: str, disk: Thing) -> None:
        """Put a disk (an entry of ``disks``) into a machine that runs."""

    def detach(self, path: str, disk: Thing) -> None:
        """Take a disk out of a machine that runs."""

    def serial(self, path: str) -> str:
        """What the machine has written to its serial port."""

    def interface(self, path: str) -> Mapping[str, Any]:
        """What the metadata server says of the machine's interface: ``mac``, ``gateway``, ``subnetmask``."""

    def endpoint(self, path: str, port: int) -> tuple[str, int] | None:
        """Where this computer reaches a TCP port of a machine that runs; None: nowhere."""

    def close(self) -> None:
        """The server ends; machines may go on."""


def of(google: Google) -> Driver:
    """The driver of a Google, made when it is first needed."""
    if google.driver is None:
        if google.driver_name not in NAMES:
            raise ValueError(f"driver: found {google.driver_name!r}; expected one of {', '.join(NAMES)}")
        module = importlib.import_module(f"{__package__}.{google.driver_name}")
        google.driver = module.make(google, **google.driver_options)
    return cast(Driver, google.driver)


def work(call: Call, *steps: Callable[[], None]) -> Callable[[], None] | None:
    """The steps as an operation's ``work``; done at once, and None, where the driver needs no time."""

    def run() -> None:
        for step in steps:
            step()

    if of(call.google).in_background:
        return run
    run()
    return None
