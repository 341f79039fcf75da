"""Virtual machines behind the API: an instance boots Debian's cloud kernel with Google's own guest agent, in qemu.

Slower than a container, since mostly nothing virtualises here and qemu emulates, but nothing of it is this computer's:
kernel, udev, the boot, the disks on a SCSI bus with the identifiers of Google's, the serial port. qemu runs in a
container, which holds all that a machine needs (interface, routes, boot disk, process) and takes it along when it goes.
Data disks are files of this computer; the boot disk is in the container, and to the API a record only.

``google.state.note("machines")["boot"] = "never"`` has new machines look for a root that does not exist.
"""

from __future__ import annotations

import ipaddress
import json
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from docker.models.containers import Container

from ... import images, machine
from ...shell import LabError
from ..compute.common import path_of
from ..errors import Refusal
from ..state import Thing
from . import container
from .loops import GIGABYTE

if TYPE_CHECKING:
    from ..server import Google

ROOT = "root=LABEL=root"
NOWHERE = "root=LABEL=nowhere rootdelay=5"
MEMORY_MB = 1024
SEED = f"{container.FOLDER}/seed"
HOSTS = "127.0.0.1 localhost\n169.254.169.254 metadata.google.internal metadata\n"
SERIAL = "/var/lib/lab-vm/serial"
SERIAL_BYTES = 2**20


def make(google: Google, prefix: str = "google") -> VmDriver:
    """The driver of one Google; ``prefix`` keeps the names of its containers apart from those of another one."""
    return VmDriver(google, prefix)


class VmDriver(container.ContainerDriver):
    """See the module's docstring; who is who, addresses and files of disks are the container driver's."""

    def __init__(self, google: Google, prefix: str) -> None:
        super().__init__(google, prefix)
        images.ensure_vm(self.client)

    # -- machines

    def create(self, path: str) -> None:
        instance = self._instance(path)
        address = instance["networkInterfaces"][0]["networkIP"]
        labels = {
            container.OWNER: container.owner(self.google.folder),
            container.INSTANCE: path,
            container.ADDRESS: address,
        }
        self.disks.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = str(self.disks.folder)
        with container.clear_errors():
            made = machine.create(
                self.client, self._name(path), instance["name"], labels, [],
                image=images.VM, volumes={folder: {"bind": folder, "mode": "rw"}},
            )  # fmt: skip
            self._boot(made, path)

    def _boot(self, found: Container, path: str) -> None:
        self._configure(found, path)
        found.start()

    def serial(self, path: str) -> str:
        found = self._find(path)
        if found is None or found.status != "running":
            return ""
        return machine.execute(found, f"[ ! -e {SERIAL} ] || tail --bytes={SERIAL_BYTES} {SERIAL}")

    def interface(self, path: str) -> Mapping[str, Any]:
        address = self._instance(path)["networkInterfaces"][0]["networkIP"]
        netmask = str(ipaddress.ip_network(machine.SUBNET).netmask)
        return {"mac": mac(address), "gateway": self.gateway, "subnetmask": netmask}

    def _lead(self, found: Container) -> None:
        machine.execute(found, "lab-vm network")

    # -- disks

    def resize_disk(self, path: str, size_gb: int) -> None:
        super().resize_disk(path, size_gb)
        for instance, record in self._instances():
            found = self._find(instance)
            if found is not None and found.status == "running" and container.has(record, path):
                size = {"node-name": node(path), "size": size_gb * GIGABYTE}
                self._ask(found, {"execute": "block_resize", "arguments": size})

    def attach(self, path: str, disk: Thing) -> None:
        found = self._running(path)
        self._configure(found, path)
        self._execute(found, f"lab-vm attach {node(path_of(disk['source']))}")

    def detach(self, path: str, disk: Thing) -> None:
        found = self._running(path)
        self._execute(found, f"lab-vm detach {node(path_of(disk['source']))}")
        self._configure(found, path)

    # -- what a machine finds in its files

    def _configure(self, found: Container, path: str) -> None:
        """Write what the container needs to know to boot the machine, and what the machine finds on its seed."""
        instance = self._instance(path)
        boot = next(disk for disk in instance["disks"] if disk["boot"])
        never = self.google.state.note("machines").get("boot") == "never"
        settings = {
            "address": instance["networkInterfaces"][0]["networkIP"],
            **self.interface(path),
            "hostname": instance["name"],
            "kernel": NOWHERE if never else ROOT,
            "memory_mb": MEMORY_MB,
            "metadata": self.metadata.address,
            "api": f"{self.gateway}:{self._api.server_address[1]}",
            "boot": {"node": "boot", "name": boot["deviceName"], "size_gb": int(boot["diskSizeGb"])},
            "disks": [self._disk(disk) for disk in container.data_disks(instance)],
        }
        files = {
            f"{container.FOLDER}/vm.json": json.dumps(settings, indent=2) + "\n",
            f"{container.FOLDER}/resolv.conf": machine.resolvers().replace("\\n", "\n"),
            f"{container.FOLDER}/dns/lab.conf": f"address=/{machine.REGISTRY_HOST}/{machine.REGISTRY_ADDRESS}\n",
            f"{SEED}/etc/hosts": HOSTS + f"{settings['address']} {settings['hostname']}\n",
            f"{SEED}{container.AUTHORITY}": self.google.authority.read_text(),
        }
        found.put_archive("/", container.archive(files))

    def _disk(self, disk: Thing) -> dict[str, Any]:
        source = path_of(disk["source"])
        return {
            "node": node(source),
            "name": disk["deviceName"],
            "file": str(self.disks.file(source)),
            "read_only": disk["mode"] == "READ_ONLY",
        }

    # -- qemu

    def _ask(self, found: Container, command: Mapping[str, Any]) -> None:
        self._execute(found, f"lab-vm qmp '{json.dumps(command)}'")

    def _execute(self, found: Container, script: str) -> None:
        try:
            machine.execute(found, script)
        except LabError as error:
            raise Refusal(500, str(error), "INTERNAL_ERROR") from None


def mac(address: str) -> str:
    """The hardware address that Google gives an interface: 42:01 and the internal address."""
    return "42:01:" + ":".join(f"{part:02x}" for part in ipaddress.ip_address(address).packed)


def node(disk: str) -> str:
    """qemu's name for a disk, which may not be as long as a disk's path."""
    return f"disk-{zlib.crc32(disk.encode()):08x}"
