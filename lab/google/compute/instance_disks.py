"""Instances: attached disks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .. import drivers
from ..errors import Refusal, invalid
from ..handlers import Call, handles
from ..state import Thing
from . import disks
from .common import link, operation, path_of, ready, self_link

Step = Callable[[], None]
OFF = "TERMINATED"


def attachments(call: Call, path: str, wanted: list[Thing]) -> tuple[list[Thing], list[Step]]:
    """The disks of a new instance as they are answered, and the driver's part of those that are made with it."""
    if not wanted or not wanted[0].get("boot"):
        raise invalid("resource.disks", "", "Boot disk must be the first disk attached to the instance.")
    if any(disk.get("boot") for disk in wanted[1:]):
        raise invalid("resource.disks", "", "An instance has one boot disk.")
    found: list[Thing] = []
    steps: list[Step] = []
    for number, given in enumerate(wanted):
        disk, step = _attachment(call, path, number, given, found, f"resource.disks[{number}]")
        found.append(disk)
        steps += step
    return found, steps


def _attachment(
    call: Call, path: str, number: int, given: Thing, others: list[Thing], field: str
) -> tuple[Thing, list[Step]]:
    zone = path.rsplit("/", 2)[0]
    steps: list[Step] = []
    parameters = given.get("initializeParams")
    if given.get("source"):
        source = link(call, given["source"], "disks", f"{field}.source")
        disk = call.thing(source)
        ready(call, source)
    elif parameters is not None or given.get("boot"):
        parameters = dict(parameters or {})
        name = parameters.get("diskName") or (path.rsplit("/", 1)[1] if given.get("boot") else "")
        body = {"name": name or f"{path.rsplit('/', 1)[1]}-{number}"}
        names = {"type": "diskType", "sizeGb": "diskSizeGb", "sourceImage": "sourceImage", "labels": "labels"}
        names |= {"sourceSnapshot": "sourceSnapshot", "resourcePolicies": "resourcePolicies"}
        names |= {"description": "description"}
        body |= {ours: parameters[theirs] for ours, theirs in names.items() if parameters.get(theirs)}
        if given.get("diskSizeGb") and "sizeGb" not in body:
            body["sizeGb"] = given["diskSizeGb"]
        source = f"{zone}/disks/{body['name']}"
        disk = disks.make(call, source, body, f"{field}.initializeParams")
        if not given.get("boot"):
            steps.append(disks.create_step(call, disk))
    else:
        raise invalid(field, "", "Must specify either 'source' or 'initializeParams'.")
    if not source.startswith(f"{zone}/"):
        raise invalid(f"{field}.source", given["source"], "Disk must be in the same zone as the instance.")
    mode = given.get("mode", "READ_WRITE")
    if disk.get("users") and (mode == "READ_WRITE" or path in map(path_of, disk["users"])):
        raise disks.used(source, path_of(disk["users"][0]))
    name = given.get("deviceName") or f"persistent-disk-{number}"
    if any(other["deviceName"] == name for other in others):
        raise invalid(f"{field}.deviceName", name, "The device name is already in use on this instance.")
    disk["users"] = [*disk.get("users", []), self_link(path)]
    entry: Thing = {
        "kind": "compute#attachedDisk",
        "type": "PERSISTENT",
        "mode": mode,
        "source": self_link(source),
        "deviceName": name,
        "index": number,
        "boot": bool(given.get("boot")),
        "autoDelete": bool(given.get("autoDelete")),
        "interface": given.get("interface", "SCSI"),
        "diskSizeGb": disk["sizeGb"],
    }
    if given.get("boot"):
        entry |= {"architecture": "X86_64", "guestOsFeatures": [{"type": "UEFI_COMPATIBLE"}]}
    return entry, steps


@handles("compute.instances.attachDisk")
def attach(call: Call) -> Thing:
    """A disk that nobody else writes to; the machine may be running."""
    instance = call.thing()
    ready(call, call.target)
    taken = {disk["index"] for disk in instance["disks"]}
    number = next(index for index in range(len(taken) + 1) if index not in taken)
    entry, steps = _attachment(call, call.target, number, call.body, instance["disks"], "resource")
    instance["disks"].append(entry)
    if instance["status"] != OFF:
        steps.append(partial(drivers.of(call.google).attach, call.target, entry))
    return operation(call, call.target, "attachDisk", work=drivers.work(call, *steps))


def _named(call: Call, instance: Thing) -> Thing:
    name = call.query("deviceName")
    for disk in instance["disks"]:
        if disk["deviceName"] == name:
            found: Thing = disk
            return found
    raise invalid("deviceName", name, f"No attached disk found with device name '{name}'")


@handles("compute.instances.detachDisk")
def detach(call: Call) -> Thing:
    """The disk stays; a boot disk only from a stopped instance."""
    instance = call.thing()
    ready(call, call.target)
    entry = _named(call, instance)
    if entry["boot"] and instance["status"] != OFF:
        raise Refusal(400, "The boot disk can be detached only while the instance is stopped.", "invalidUsage")
    instance["disks"].remove(entry)
    leave(call, call.target, entry)
    steps = [] if instance["status"] == OFF else [partial(drivers.of(call.google).detach, call.target, entry)]
    return operation(call, call.target, "detachDisk", work=drivers.work(call, *steps))


def leave(call: Call, path: str, entry: Thing) -> None:
    """Take an instance from a disk's users."""
    disk = call.find(path_of(entry["source"]))
    if disk is not None:
        users = [user for user in disk.pop("users", []) if user != self_link(path)]
        if users:
            disk["users"] = users


@handles("compute.instances.setDiskAutoDelete")
def set_auto_delete(call: Call) -> Thing:
    """Whether the disk goes with the instance."""
    instance = call.thing()
    _named(call, instance)["autoDelete"] = call.query("autoDelete").lower() == "true"
    return operation(call, call.target, "setDiskAutoDelete")
