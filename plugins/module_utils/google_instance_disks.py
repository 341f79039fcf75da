# Copyright (c) 2026, the dataops.dagster_gce authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The disks of an instance: the boot disk that it is made with, and disks of their own that it only borrows."""

from __future__ import annotations

from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_links import (
    MANAGED_BY,
    Place,
    image_path,
    last,
    path,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_plan import Call, Json, Plan


def bodies(place: Place, name: str, boot: Json, disks: list[Json]) -> list[Json]:
    """The disks in the request that makes the instance; the boot disk has to be the first."""
    return [boot_body(place, name, boot), *(attached(place, disk) for disk in disks if disk["state"] == "present")]


def boot_body(place: Place, name: str, boot: Json) -> Json:
    """The boot disk, made with the instance or, with `source`, there before it."""
    made: Json = {"boot": True, "type": "PERSISTENT", "mode": "READ_WRITE", "autoDelete": auto_delete(boot)}
    if boot.get("device_name"):
        made["deviceName"] = boot["device_name"]
    if boot.get("source"):
        return {**made, "source": place.zonal("disks", boot["source"])}
    new: Json = {"labels": {**(boot.get("labels") or {}), **MANAGED_BY}}
    if boot.get("image"):
        new["sourceImage"] = image_path(boot["image"])
    if boot.get("snapshot"):
        new["sourceSnapshot"] = place.everywhere("snapshots", boot["snapshot"])
    if boot.get("size_gb"):
        new["diskSizeGb"] = str(boot["size_gb"])
    if boot.get("type"):
        new["diskType"] = place.zonal("diskTypes", boot["type"])
    if boot.get("kms_key"):
        made["diskEncryptionKey"] = {"kmsKeyName": boot["kms_key"]}
    return {**made, "initializeParams": new}


def auto_delete(boot: Json) -> bool:
    """Whether the boot disk goes with the instance; it does, unless said otherwise or it was there before."""
    if boot.get("auto_delete") is not None:
        return bool(boot["auto_delete"])
    return not boot.get("source")


def attached(place: Place, disk: Json) -> Json:
    """A disk of its own as the API attaches it. It never goes with the instance."""
    return {
        "type": "PERSISTENT",
        "source": place.zonal("disks", disk["source"]),
        "deviceName": device_name(disk),
        "mode": disk.get("mode") or "READ_WRITE",
        "boot": False,
        "autoDelete": False,
    }


def device_name(disk: Json) -> str:
    """The name under which the machine sees the disk (`/dev/disk/by-id/google-<name>`)."""
    return disk.get("device_name") or last(disk["source"])


def compare(plan: Plan, place: Place, instance_path: str, boot: Json | None, disks: list[Json], found: Json) -> None:
    """Plan what the disks need. A disk that nobody mentions is left alone."""
    have = found.get("disks", [])
    if boot is not None:
        _boot(plan, place, instance_path, boot, next((disk for disk in have if disk.get("boot")), {}))
    for disk in disks:
        _attached(plan, place, instance_path, disk, have)


def _boot(plan: Plan, place: Place, instance_path: str, boot: Json, have: Json) -> None:
    device = have.get("deviceName", "")
    if boot.get("source") and place.zonal("disks", boot["source"]) != path(have.get("source", "")):
        plan.refuse(
            "boot_disk.source",
            path(have.get("source", "")),
            place.zonal("disks", boot["source"]),
            "an instance keeps its boot disk; remove the instance (data disks stay) and create it again",
        )
    if boot.get("device_name") and boot["device_name"] != device:
        plan.refuse("boot_disk.device_name", device, boot["device_name"], "it is given when the instance is made")
    if boot.get("size_gb"):
        size = int(have.get("diskSizeGb", 0))
        if boot["size_gb"] < size:
            plan.refuse("boot_disk.size_gb", size, boot["size_gb"], "a disk only grows; ask for at least what it has")
        else:
            request = {"sizeGb": str(boot["size_gb"])}
            resize = Call("POST", f"{path(have.get('source', ''))}/resize", body=request)
            plan.compare("boot_disk.size_gb", size, boot["size_gb"], lambda: [resize])
    if boot.get("auto_delete") is not None:
        _auto_delete(plan, instance_path, "boot_disk.auto_delete", have, boot["auto_delete"])


def _attached(plan: Plan, place: Place, instance_path: str, disk: Json, have: list[Json]) -> None:
    source, device = place.zonal("disks", disk["source"]), device_name(disk)
    name = f"disks.{device}"
    here = next((other for other in have if path(other.get("source", "")) == source), None)
    if disk["state"] == "absent":
        there = here.get("deviceName", "") if here else ""
        detach = Call("POST", f"{instance_path}/detachDisk", query={"deviceName": there})
        plan.compare(name, "attached" if here else "detached", "detached", lambda: [detach])
        return
    if here is None:
        other = next((other for other in have if other.get("deviceName") == device), None)
        if other:
            plan.refuse(
                name,
                path(other.get("source", "")),
                source,
                "another disk has this device name; unmount and detach that one first (its source, state: absent)",
            )
            return
        attach = Call("POST", f"{instance_path}/attachDisk", body=attached(place, disk))
        plan.compare(name, "detached", "attached", lambda: [attach])
        return
    plan.compare(name, "attached", "attached", list)
    mode = disk.get("mode") or "READ_WRITE"
    for setting, found, wanted in (("device_name", here.get("deviceName"), device), ("mode", here.get("mode"), mode)):
        if found != wanted:
            plan.refuse(
                f"{name}.{setting}",
                found,
                wanted,
                "it is given when a disk is attached; unmount it, detach it (state: absent) and attach it again",
            )
    _auto_delete(plan, instance_path, f"{name}.auto_delete", here, False)


def _auto_delete(plan: Plan, instance_path: str, name: str, have: Json, wanted: bool) -> None:
    call = keep_disk(instance_path, have.get("deviceName", ""), wanted)
    plan.compare(name, have.get("autoDelete", False), wanted, lambda: [call])


def keep_disk(instance_path: str, device: str, auto_delete: bool = False) -> Call:
    """The call that says whether a disk goes with its instance."""
    query = {"deviceName": device, "autoDelete": "true" if auto_delete else "false"}
    return Call("POST", f"{instance_path}/setDiskAutoDelete", query=query)
