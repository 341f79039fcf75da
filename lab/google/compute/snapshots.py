"""Snapshots."""

from __future__ import annotations

import copy
from functools import partial

from .. import drivers
from ..handlers import Call, handles
from ..state import Thing, new_id, timestamp
from .common import (
    check_labels,
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

KIND = "compute#snapshot"


def make(call: Call, disk_path: str, disk: Thing, kind: str) -> Thing:
    """Keep a new snapshot of a disk; the operation is the disk's or the snapshot's, as the caller's method has it."""
    body = {name: value for name, value in call.body.items() if value is not None}
    path = f"projects/{call.project}/global/snapshots/{body['name']}"
    new_path(call, path)
    ready(call, disk_path)
    check_labels(body.get("labels"))
    region = scope_of(disk_path).rsplit("/", 1)[1].rpartition("-")[0]
    snapshot: Thing = {
        "kind": KIND,
        "id": new_id(),
        "creationTimestamp": timestamp(),
        "selfLink": self_link(path),
        "storageLocations": [region],
        **body,
        "status": "READY",
        "sourceDisk": disk["selfLink"],
        "sourceDiskId": disk["id"],
        "diskSizeGb": disk["sizeGb"],
        "storageBytes": "0",
        "storageBytesStatus": "UP_TO_DATE",
        "downloadBytes": "0",
        "autoCreated": False,
        "snapshotType": body.get("snapshotType", "STANDARD"),
    }
    put_labels(snapshot, body.get("labels"))
    call.put(path, snapshot)
    driver, state = drivers.of(call.google), call.state

    def copy_disk() -> None:
        size = driver.create_snapshot(path, disk_path)
        with state.lock:
            snapshot["storageBytes"] = snapshot["downloadBytes"] = str(size)

    target = disk_path if kind == "createSnapshot" else path
    answer = operation(call, target, kind, work=drivers.work(call, copy_disk))
    # Not to be used before it is whole, although the operation is the disk's.
    state.note("busy")[path] = path_of(answer["selfLink"])
    return answer


@handles("compute.disks.createSnapshot")
def create_snapshot(call: Call) -> Thing:
    """What is on the disk now."""
    return make(call, call.target, call.thing(), "createSnapshot")


@handles("compute.snapshots.insert")
def insert(call: Call) -> Thing:
    """The same, called on the snapshots' side."""
    path, disk = refer(call, call.body.get("sourceDisk", ""), "disks", "resource.sourceDisk")
    return make(call, path, disk, "insert")


def shown(call: Call, snapshot: Thing) -> Thing:
    """A snapshot as it is answered."""
    view = copy.deepcopy(snapshot)
    if call.google.operations.busy(path_of(snapshot["selfLink"])):
        view["status"] = "UPLOADING"
    return view


@handles("compute.snapshots.get")
def get(call: Call) -> Thing:
    """One snapshot."""
    return shown(call, call.thing())


@handles("compute.snapshots.list")
def list_(call: Call) -> Thing:
    """The snapshots of a project."""
    things = [shown(call, thing) for thing in call.children(call.request_path)]
    return listing(call, f"{KIND}List", things, call.request_path)


handles("compute.snapshots.setLabels")(set_labels)


@handles("compute.snapshots.delete")
def delete(call: Call) -> Thing:
    """A snapshot; disks that were made from it stay."""
    snapshot = call.thing()
    ready(call, call.target)
    call.delete(call.target)
    step = partial(drivers.of(call.google).delete_snapshot, call.target)
    return operation(call, call.target, "delete", target_id=snapshot["id"], work=drivers.work(call, step))
