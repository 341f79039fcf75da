"""Disks."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from functools import partial
from typing import Any

from .. import discovery, drivers
from ..errors import Refusal, invalid
from ..handlers import HANDLERS, Call, handles
from ..state import Thing, new_id, timestamp
from .common import (
    aggregated,
    all_of,
    check_labels,
    check_scope_exists,
    last,
    link,
    listing,
    new_path,
    operation,
    path_of,
    put_labels,
    ready,
    refer,
    scope_of,
    self_link,
    set_labels,
)

KIND = "compute#disk"
NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
# What Google gives a disk for which nobody says a size, and the least that it takes, in GB.
BLANK_SIZE, LEAST = 500, 10


def ask(call: Call, method_id: str, **path: str) -> Thing:
    """Another method's answer to the same caller."""
    document, method = discovery.method(method_id)
    names = {"project": call.project, **path}
    template = method.path.removeprefix(document.service_path)
    where = re.sub(r"\{\+?(\w+)\}", lambda match: names[match[1]], template)
    other = replace(call, document=document, method=method, path=names, queries={}, body={}, request_path=where)
    return HANDLERS[method.key](other)


def disk_type(call: Call, value: str, zone: str, field: str) -> str:
    """The full link of a disk type that the zone has."""
    name = last(value or "pd-standard")
    try:
        ask(call, "compute.diskTypes.get", zone=zone, diskType=name)
    except Refusal:
        message = f"Disk type with name '{name}' does not exist in zone '{zone}'."
        raise invalid(field, value, message) from None
    return self_link(f"projects/{call.project}/zones/{zone}/diskTypes/{name}")


def image(call: Call, value: str, field: str) -> Thing:
    """The image that a reference (to an image or a family) means."""
    # gcloud hands a family over as a view of it.
    given = re.sub(r"/zones/[^/]+/imageFamilyViews/", "/global/images/family/", path_of(value))
    match = re.search(r"projects/([^/]+)/global/images/(family/)?([^/]+)$", given) or re.fullmatch(
        r"()global/images/(family/)?([^/]+)", given
    )
    if not match:
        raise invalid(field, value, "The URL is malformed.")
    project = match[1] or call.project
    try:
        if match[2]:
            return ask(call, "compute.images.getFromFamily", project=project, family=match[3])
        return ask(call, "compute.images.get", project=project, image=match[3])
    except Refusal:
        raise invalid(field, value, "The referenced image resource cannot be found.") from None


def make(call: Call, path: str, body: Thing, prefix: str = "resource") -> Thing:
    """A new disk's record, checked and kept. ``body``: what ``disks.insert`` takes; ``prefix``: of fields in errors."""
    zone = scope_of(path).rsplit("/", 1)[1]
    new_path(call, path)
    disk: Thing = {
        "kind": KIND,
        "id": new_id(),
        "creationTimestamp": timestamp(),
        "selfLink": self_link(path),
        "zone": self_link(scope_of(path)),
        "status": "READY",
        "physicalBlockSizeBytes": "4096",
        "accessMode": "READ_WRITE_SINGLE",
        **body,
    }
    disk["type"] = disk_type(call, body.get("type", ""), zone, f"{prefix}.type")
    least = LEAST
    if body.get("sourceSnapshot"):
        source, snapshot = refer(call, body["sourceSnapshot"], "snapshots", f"{prefix}.sourceSnapshot")
        disk |= {"sourceSnapshot": self_link(source), "sourceSnapshotId": snapshot["id"]}
        least = int(snapshot["diskSizeGb"])
    elif body.get("sourceImage"):
        found = image(call, body["sourceImage"], f"{prefix}.sourceImage")
        disk |= {"sourceImage": found["selfLink"], "sourceImageId": found["id"]}
        least = int(found.get("diskSizeGb", LEAST))
    has_source = "sourceSnapshotId" in disk or "sourceImageId" in disk
    size = int(body.get("sizeGb") or (least if has_source else BLANK_SIZE))
    if size < least:
        what = "snapshot" if "sourceSnapshotId" in disk else "image" if has_source else "minimum"
        message = f"Requested disk size cannot be smaller than the {what} size ({least} GB)"
        raise invalid(f"{prefix}.sizeGb", size, message)
    disk["sizeGb"] = str(size)
    if body.get("resourcePolicies"):
        disk["resourcePolicies"] = policies(call, body["resourcePolicies"], f"{prefix}.resourcePolicies")
    check_labels(body.get("labels"), f"{prefix}.labels")
    put_labels(disk, body.get("labels"))
    return call.put(path, disk)


def policies(call: Call, values: list[str], field: str) -> list[str]:
    """Resource policies as full links; a disk takes one snapshot schedule."""
    found = [self_link(refer(call, value, "resourcePolicies", f"{field}[{n}]")[0]) for n, value in enumerate(values)]
    if len(found) > 1:
        raise invalid(field, ", ".join(map(last, found)), "A disk can have no more than 1 snapshot schedule.")
    return found


def create_step(call: Call, disk: Thing) -> Any:
    """The driver's part of a new disk."""
    snapshot = path_of(disk["sourceSnapshot"]) if disk.get("sourceSnapshot") else ""
    path = path_of(disk["selfLink"])
    return partial(drivers.of(call.google).create_disk, path, int(disk["sizeGb"]), snapshot)


@handles("compute.disks.insert")
def insert(call: Call) -> Thing:
    """A disk: blank, from a snapshot or from an image."""
    check_scope_exists(call)
    body = {name: value for name, value in call.body.items() if value is not None}
    if call.query("sourceImage"):
        body["sourceImage"] = call.query("sourceImage")
    path = f"{call.request_path}/{body['name']}"
    disk = make(call, path, body)
    return operation(call, path, "insert", work=drivers.work(call, create_step(call, disk)))


@handles("compute.disks.get")
def get(call: Call) -> Thing:
    """One disk."""
    return shown(call, call.thing())


def shown(call: Call, disk: Thing) -> Thing:
    """A disk as it is answered."""
    view = copy.deepcopy(disk)
    if call.google.operations.busy(path_of(disk["selfLink"])):
        view["status"] = "RESTORING" if "sourceSnapshotId" in disk else "CREATING"
    return view


@handles("compute.disks.list")
def list_(call: Call) -> Thing:
    """The disks of a zone."""
    check_scope_exists(call)
    return listing(
        call, f"{KIND}List", [shown(call, disk) for disk in call.children(call.request_path)], call.request_path
    )


@handles("compute.disks.aggregatedList")
def aggregated_list(call: Call) -> Thing:
    """The disks of all zones."""
    return aggregated(call, "disks", f"{KIND}AggregatedList", [shown(call, disk) for disk in all_of(call, "disks")])


@handles("compute.disks.delete")
def delete(call: Call) -> Thing:
    """Only what no instance has."""
    disk = call.thing()
    ready(call, call.target)
    for user in disk.get("users", []):
        raise used(call.target, path_of(user))
    return operation(
        call, call.target, "delete", target_id=disk["id"], work=drivers.work(call, remove(call, call.target))
    )


def remove(call: Call, path: str) -> Any:
    """Remove a disk's record; returns the driver's part."""
    call.delete(path)
    return partial(drivers.of(call.google).delete_disk, path)


def used(disk: str, instance: str) -> Refusal:
    """Google's answer for a disk that an instance has."""
    message = f"The disk resource '{disk}' is already being used by '{instance}'"
    return Refusal(400, message, "resourceInUseByAnotherResource")


@handles("compute.disks.resize")
def resize(call: Call) -> Thing:
    """A disk grows, attached or not; it never shrinks."""
    disk = call.thing()
    ready(call, call.target)
    size, present = int(call.body["sizeGb"]), int(disk["sizeGb"])
    if size <= present:
        raise invalid("sizeGb", size, f"New disk size '{size}' must be larger than existing size '{present}'.")
    disk["sizeGb"] = str(size)
    for user in disk.get("users", []):
        for attached in call.thing(path_of(user))["disks"]:
            if attached.get("source") == disk["selfLink"]:
                attached["diskSizeGb"] = str(size)
    step = partial(drivers.of(call.google).resize_disk, call.target, size)
    return operation(call, call.target, "resizeDisk", work=drivers.work(call, step))


handles("compute.disks.setLabels")(set_labels)


@handles("compute.disks.addResourcePolicies")
def add_resource_policies(call: Call) -> Thing:
    """Attach a snapshot schedule."""
    disk = call.thing()
    present = disk.get("resourcePolicies", [])
    given = policies(call, call.body.get("resourcePolicies", []), "resourcePolicies")
    disk["resourcePolicies"] = policies(call, [*dict.fromkeys([*present, *given])], "resourcePolicies")
    return operation(call, call.target, "addResourcePolicies")


@handles("compute.disks.removeResourcePolicies")
def remove_resource_policies(call: Call) -> Thing:
    """Take a snapshot schedule away."""
    disk = call.thing()
    present = list(disk.get("resourcePolicies", []))
    for number, value in enumerate(call.body.get("resourcePolicies", [])):
        path = self_link(link(call, value, "resourcePolicies", f"resourcePolicies[{number}]"))
        if path not in present:
            raise invalid(f"resourcePolicies[{number}]", value, "The resource policy is not attached to the disk.")
        present.remove(path)
    disk.pop("resourcePolicies", None)
    if present:
        disk["resourcePolicies"] = present
    return operation(call, call.target, "removeResourcePolicies")
