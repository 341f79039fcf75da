"""Machines of the lab behind the API: an instance is a container with systemd, sshd and Google's own guest agent.

Disks are real: files that the machine has as block devices, under the names that Google's udev rules give them. The
boot disk is the container's own root and only a record. Machines lie on the lab's network, so a subnetwork has to be
that range or a part of it, and an instance's internal address can be reached from this computer.
"""

from __future__ import annotations

import io
import ipaddress
import json
import socket
import tarfile
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import docker.errors
from docker.models.containers import Container

from ... import machine
from ...shell import LabError, wait_until
from .. import proxy, tls
from ..compute.common import path_of
from ..errors import Refusal, invalid
from ..metadata import MetadataServer
from ..metadata_source import StateSource
from ..state import Thing
from .loops import Disks

if TYPE_CHECKING:
    from ..server import Google

INSTANCE = f"{machine.LABEL}.instance"
OWNER = f"{machine.LABEL}.google"
# A machine's own address, where its container has another one.
ADDRESS = f"{machine.LABEL}.address"
# Below are the registry and what Docker chooses by itself.
FIRST_ADDRESS = ipaddress.ip_address("10.128.2.2")
# The journal without what the computer's kernel says.
CONSOLE = "journalctl --boot --no-pager --output=short _TRANSPORT=stdout + _TRANSPORT=syslog + _TRANSPORT=journal"
FOLDER = "/etc/lab-google"
RULES = "/etc/udev/rules.d/65-lab-disks.rules"
AUTHORITY = "/usr/local/share/ca-certificates/lab-google.crt"


def make(google: Google, prefix: str = "google") -> ContainerDriver:
    """The driver of one Google; ``prefix`` keeps the names of its containers apart from those of another one."""
    return ContainerDriver(google, prefix)


class ContainerDriver:
    """See the module's docstring; the public methods are the protocol's."""

    in_background = True

    def __init__(self, google: Google, prefix: str) -> None:
        self.google, self.prefix = google, prefix
        self.client = docker.from_env(timeout=120)
        self.disks = Disks(google.folder / "disks")
        self._interfaces: dict[str, Mapping[str, Any]] = {}
        machine.network(self.client)
        self.gateway = machine.gateway(self.client)
        self._serve()
        self._recover()

    # -- what machines reach on this computer

    def _serve(self) -> None:
        """Listen on the lab's network: metadata and the API, on the ports of the last time where they are free."""
        ports = self.google.state.note("driver")
        source = StateSource(self.google)
        self.metadata = MetadataServer(source, self.gateway, _free(self.gateway, ports.get("metadata", 0))).start()
        _, server_file = tls.ensure(self.google.folder)
        address = (self.gateway, _free(self.gateway, ports.get("api", 0)))
        self._api = proxy.Listener(address, self.google, tls.context(server_file))
        threading.Thread(target=self._api.serve_forever, args=(0.1,), daemon=True, name="google-api").start()
        ports["metadata"], ports["api"] = self.metadata.port, int(self._api.server_address[1])

    def close(self) -> None:
        """Stop listening; machines go on."""
        self.metadata.stop()
        self._api.shutdown()
        self._api.server_close()
        self.client.close()

    def _recover(self) -> None:
        """Bring records and machines together again after this process was killed or the computer was off."""
        instances = dict(self._instances())
        for left in self._containers():
            if left.labels[INSTANCE] not in instances:
                _remove(self.client, left)
        running = set()
        for path, instance in instances.items():
            container = self._find(path)
            if container is not None and container.status == "running":
                instance["status"] = "RUNNING"
                self._configure(container, path)
                self._lead(container)
                running |= {path_of(disk["source"]) for disk in data_disks(instance)}
            else:
                instance["status"] = "TERMINATED"
        self.disks.detach_all(keep=running)

    def _lead(self, container: Container) -> None:
        """Lead a running machine to the ports that this process listens on."""
        machine.execute(container, "systemctl try-restart lab-metadata.service lab-api.service")

    def remove_all(self) -> None:
        """Remove every machine and device."""
        remove_machines(self.client, self.google.folder)
        self.disks.detach_all(keep=set())

    # -- machines

    def address(self, wanted: str, network: str, taken: set[str]) -> str:
        """An address that no container has, also none that is off."""
        lab = ipaddress.ip_network(machine.SUBNET)
        inside = ipaddress.ip_network(network)
        if not inside.subnet_of(lab):  # type: ignore[arg-type]  # both are IPv4
            why = f"The lab's machines lie on {lab}: a subnetwork with instances must be that range or a part of it."
            raise invalid("resource.networkInterfaces[0].subnetwork", network, why)
        taken = taken | self._taken()
        if wanted:
            if wanted in taken:
                raise Refusal(400, f"IP '{wanted}' is already being used.", "IP_IN_USE_BY_ANOTHER_RESOURCE")
            return wanted
        hosts = [host for host in list(inside)[2:-2] if inside != lab or host >= FIRST_ADDRESS]
        # Two Googles that look at the same time would both take the first one.
        start = zlib.crc32(str(self.google.folder).encode()) % len(hosts)
        for host in hosts[start:] + hosts[:start]:
            if str(host) not in taken:
                return str(host)
        raise Refusal(400, f"IP space of '{network}' is exhausted.", "IP_SPACE_EXHAUSTED")

    def _taken(self) -> set[str]:
        found = {self.gateway, machine.REGISTRY_ADDRESS}
        for container in self.client.containers.list(all=True, filters={"network": machine.NETWORK}):
            settings = container.attrs["NetworkSettings"]["Networks"][machine.NETWORK]
            found |= {settings.get("IPAddress", ""), (settings.get("IPAMConfig") or {}).get("IPv4Address", "")}
            found.add(container.labels.get(ADDRESS, ""))
        return found

    def create(self, path: str) -> None:
        instance = self._instance(path)
        labels = {OWNER: owner(self.google.folder), INSTANCE: path}
        address = instance["networkInterfaces"][0]["networkIP"]
        endpoint = self.client.api.create_endpoint_config(ipv4_address=address)
        with clear_errors():
            container = machine.create(
                self.client, self._name(path), instance["name"], labels, ["/var/lib"],
                networking_config={machine.NETWORK: endpoint},
            )  # fmt: skip
            self._boot(container, path)

    def start(self, path: str) -> None:
        container = self._find(path)
        if container is None:
            self.create(path)
            return
        with clear_errors():
            self._boot(container, path)

    def _boot(self, container: Container, path: str) -> None:
        for disk in data_disks(self._instance(path)):
            self.disks.attach(path_of(disk["source"]), disk["mode"] == "READ_ONLY")
        self._configure(container, path)
        self._interfaces.pop(path, None)
        container.start()

    def stop(self, path: str) -> None:
        container = self._find(path)
        if container is not None:
            container.stop(timeout=90)
        self._release(self._instance(path))

    def reset(self, path: str) -> None:
        container = self._find(path)
        if container is not None:
            with clear_errors():
                container.kill()
                self._boot(container, path)

    def delete(self, path: str, instance: Thing) -> None:
        container = self._find(path)
        if container is not None:
            _remove(self.client, container)
        self._release(instance)
        self.google.state.note("guest attributes").pop(path, None)

    def _release(self, instance: Thing) -> None:
        for disk in data_disks(instance):
            self._detach(path_of(disk["source"]))

    def serial(self, path: str) -> str:
        container = self._find(path)
        if container is None or container.status != "running":
            return ""
        return machine.execute(container, CONSOLE)

    def interface(self, path: str) -> Mapping[str, Any]:
        if path not in self._interfaces:
            container = self._running(path)
            settings = container.attrs["NetworkSettings"]["Networks"][machine.NETWORK]
            netmask = str(ipaddress.ip_network(machine.SUBNET).netmask)
            self._interfaces[path] = {"mac": settings["MacAddress"], "gateway": self.gateway, "subnetmask": netmask}
        return self._interfaces[path]

    def endpoint(self, path: str, port: int) -> tuple[str, int] | None:
        return self._instance(path)["networkInterfaces"][0]["networkIP"], port

    # -- disks

    def create_disk(self, path: str, size_gb: int, snapshot: str) -> None:
        self.disks.create(path, size_gb, snapshot)

    def resize_disk(self, path: str, size_gb: int) -> None:
        if self.disks.file(path).exists():  # a boot disk is only a record
            self.disks.grow(path, size_gb)

    def delete_disk(self, path: str) -> None:
        self._detach(path)
        self.disks.delete(path)

    def create_snapshot(self, path: str, disk: str) -> int:
        """The machine stands still meanwhile; what it has not written to the disk yet is not in it, as on Google."""
        if not self.disks.file(disk).exists():
            raise Refusal(400, "The lab's boot disks are records only: they cannot be kept.", "UNSUPPORTED_OPERATION")
        with self._paused(disk):
            return self.disks.copy(disk, path)

    def delete_snapshot(self, path: str) -> None:
        self.disks.delete(path)

    def attach(self, path: str, disk: Thing) -> None:
        container = self._running(path)
        device = self.disks.attach(path_of(disk["source"]), disk["mode"] == "READ_ONLY")
        self._configure(container, path)
        machine.execute(
            container,
            f"[ -b /dev/{device} ] || mknod --mode=0660 /dev/{device} b $(sed 's/:/ /' /sys/class/block/{device}/dev)\n"
            f"chgrp disk /dev/{device} && udevadm control --reload\n"
            f"udevadm trigger --settle --action=add /sys/class/block/{device}",
        )

    def detach(self, path: str, disk: Thing) -> None:
        container, source = self._running(path), path_of(disk["source"])
        device = self.disks.device(source)
        machine.execute(
            container,
            # Google pulls the disk out whether it is in use or not; a loop device would wait for its users.
            f"while umount --lazy /dev/{device} 2>/dev/null; do :; done\n"
            f"udevadm trigger --settle --action=remove /sys/class/block/{device}\n"
            f"rm -f /dev/{device}",
        )
        self._configure(container, path)
        machine.execute(container, "udevadm control --reload")
        self._detach(source)

    def _detach(self, disk: str) -> None:
        try:
            wait_until(lambda: self.disks.detach(disk), 15, f"the end of the use of {disk}")
        except LabError as error:
            raise Refusal(
                500, f"{error}: a process of the machine still has files open on it", "INTERNAL_ERROR"
            ) from None

    @contextmanager
    def _paused(self, disk: str) -> Iterator[None]:
        user = next((path for path, instance in self._instances() if has(instance, disk)), "")
        container = self._find(user) if user else None
        if container is None or container.status != "running":
            yield
            return
        container.pause()
        try:
            yield
        finally:
            container.unpause()

    # -- what a machine finds in its files

    def _configure(self, container: Container, path: str) -> None:
        """Write what the machine needs to know, running or not."""
        devices = {
            self.disks.device(path_of(disk["source"])): disk["deviceName"] for disk in data_disks(self._instance(path))
        }
        devices.pop("", None)
        environment = f"LAB_METADATA={self.metadata.address}\nLAB_API={self.gateway}:{self._api.server_address[1]}\n"
        files = {
            f"{FOLDER}/environment": environment,
            f"{FOLDER}/resolv.conf": machine.resolvers().replace("\\n", "\n"),
            f"{FOLDER}/dns/lab.conf": f"address=/{machine.REGISTRY_HOST}/{machine.REGISTRY_ADDRESS}\n",
            f"{FOLDER}/disks": "".join(f"{device}\n" for device in devices),
            RULES: _rules(devices),
            AUTHORITY: self.google.authority.read_text(),
        }
        container.put_archive("/", archive(files))

    # -- who is who

    def _name(self, path: str) -> str:
        return machine.container_name(f"{self.prefix}-{path.rsplit('/', 1)[-1]}")

    def _containers(self) -> list[Container]:
        return _containers(self.client, self.google.folder)

    def _find(self, path: str) -> Container | None:
        try:
            found = self.client.containers.get(self._name(path))
        except docker.errors.NotFound:
            return None
        return found if found.labels.get(INSTANCE) == path else None

    def _running(self, path: str) -> Container:
        container = self._find(path)
        if container is None or container.status != "running":
            raise Refusal(500, f"The lab's machine of '{path}' is not running.", "INTERNAL_ERROR")
        return container

    def _instances(self) -> list[tuple[str, Thing]]:
        with self.google.state.lock:
            things = list(self.google.state.things.items())
        return [
            (key.removeprefix("compute/"), thing) for key, thing in things if thing.get("kind") == "compute#instance"
        ]

    def _instance(self, path: str) -> Thing:
        with self.google.state.lock:
            found = self.google.state.get(f"compute/{path}")
            if found is None:
                raise Refusal(404, f"The resource '{path}' was not found", "notFound")
            copy: Thing = json.loads(json.dumps(found))
            return copy


def remove_machines(client: docker.DockerClient, folder: Path) -> None:
    """Remove the machines of the Google that keeps its state in ``folder``."""
    for container in _containers(client, folder):
        _remove(client, container)


def _containers(client: docker.DockerClient, folder: Path) -> list[Container]:
    return list(client.containers.list(all=True, filters={"label": f"{OWNER}={owner(folder)}"}))


def owner(folder: Path) -> str:
    """What tells one Google's machines from another one's: where it keeps its state."""
    return str(folder.resolve())


def _remove(client: docker.DockerClient, container: Container) -> None:
    container.remove(force=True, v=True)
    for mount in container.attrs["Mounts"]:
        if mount["Type"] == "volume" and mount["Name"] != machine.SHARED_VOLUME:
            client.volumes.get(mount["Name"]).remove(force=True)


def data_disks(instance: Thing) -> list[Thing]:
    """Its disks but the one that it boots."""
    return [disk for disk in instance.get("disks", []) if not disk["boot"]]


def has(instance: Thing, disk: str) -> bool:
    """Whether a disk is attached to it."""
    return any(path_of(entry["source"]) == disk for entry in instance.get("disks", []))


def _rules(devices: Mapping[str, str]) -> str:
    """udev's rules for a machine's own disks: the links that Google's rules make, and systemd's device units."""
    lines = ["# Written by the lab. Everything else is the computer's.", 'SUBSYSTEM!="block", GOTO="lab_end"']
    for device, name in devices.items():
        links = f"disk/by-id/google-{name} disk/by-id/scsi-0Google_PersistentDisk_{name}"
        lines += [
            f'KERNEL=="{device}", SYMLINK+="{links}", GROUP="disk", TAG+="systemd", OPTIONS+="watch",'
            ' IMPORT{builtin}="blkid"',
            f'KERNEL=="{device}", ENV{{ID_FS_UUID_ENC}}=="?*", SYMLINK+="disk/by-uuid/$env{{ID_FS_UUID_ENC}}"',
        ]
    return "\n".join([*lines, 'LABEL="lab_end"', ""])


def archive(files: Mapping[str, str]) -> bytes:
    """Files by their absolute paths, as the engine takes them."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, text in files.items():
            content = text.encode()
            entry = tarfile.TarInfo(name.lstrip("/"))
            # A name server does not read a file that is not newer than the beginning of time.
            entry.size, entry.mode, entry.mtime = len(content), 0o644, int(time.time())
            tar.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def _free(host: str, port: int) -> int:
    """The port, or 0 (any) where somebody else has it by now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return 0
    return port


@contextmanager
def clear_errors() -> Iterator[None]:
    """The engine's own errors as an operation's error."""
    try:
        yield
    except docker.errors.APIError as error:
        raise Refusal(500, f"The lab's engine: {error.explanation or error}", "INTERNAL_ERROR") from None
