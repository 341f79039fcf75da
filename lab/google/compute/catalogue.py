"""What Google itself brings: regions, zones, machine types, disk types, images."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from ..errors import Refusal, not_found
from ..handlers import Call, handles
from ..state import Thing
from .common import check_scope_exists, listing, region_of_zone, self_link

REGIONS = ["europe-west1", "europe-west3", "us-central1"]
ZONES = [f"{region}-{letter}" for region in REGIONS for letter in ("bcd" if region == "europe-west1" else "abc")]
CREATED = "2019-01-01T00:00:00.000-08:00"

# Machine type -> (processors, memory in MB); as far as anybody needs one here.
MACHINE_TYPES: dict[str, tuple[int, int]] = {
    "e2-micro": (2, 1024),
    "e2-small": (2, 2048),
    "e2-medium": (2, 4096),
    **{f"e2-standard-{size}": (size, size * 4096) for size in (2, 4, 8, 16)},
    **{f"e2-highmem-{size}": (size, size * 8192) for size in (2, 4, 8)},
    **{f"n2-standard-{size}": (size, size * 4096) for size in (2, 4, 8)},
    **{f"n2d-standard-{size}": (size, size * 4096) for size in (2, 4, 8)},
    "c3-standard-4": (4, 16384),
}
# Not every zone has every type.
ONLY_IN = {"c3-standard-4": {"europe-west1-b", "us-central1-a"}}
# Disk type -> (smallest size, largest size) in GB.
DISK_TYPES = {
    "pd-standard": (10, 65536),
    "pd-balanced": (10, 65536),
    "pd-ssd": (10, 65536),
    "pd-extreme": (500, 65536),
    "hyperdisk-balanced": (4, 65536),
}
# Project -> family -> (images from old to new, architecture, size in GB).
IMAGES: dict[str, dict[str, tuple[list[str], str, int]]] = {
    "debian-cloud": {
        "debian-13": (["debian-13-trixie-v20261013", "debian-13-trixie-v20261110"], "X86_64", 10),
        "debian-13-arm64": (["debian-13-trixie-arm64-v20261110"], "ARM64", 10),
        "debian-12": (["debian-12-bookworm-v20261110"], "X86_64", 10),
    },
    "ubuntu-os-cloud": {"ubuntu-2404-lts-amd64": (["ubuntu-2404-noble-amd64-v20261104"], "X86_64", 10)},
}


def _id(text: str) -> str:
    """A number that is always the same for a name."""
    return str(int(hashlib.sha256(text.encode()).hexdigest()[:15], 16) + 2**60)


def _thing(path: str, kind: str, **more: Any) -> Thing:
    name = path.rsplit("/", 1)[-1]
    return {
        "kind": f"compute#{kind}",
        "id": _id(path),
        "creationTimestamp": CREATED,
        "name": name,
        "description": name,
        "selfLink": self_link(path),
        **more,
    }


def region(project: str, name: str) -> Thing:
    """A region as the API answers it."""
    zones = [self_link(f"projects/{project}/zones/{zone}") for zone in ZONES if region_of_zone(zone) == name]
    quotas = [
        {"metric": metric, "limit": limit, "usage": 0} for metric, limit in (("CPUS", 24), ("STATIC_ADDRESSES", 8))
    ]
    return _thing(f"projects/{project}/regions/{name}", "region", status="UP", zones=zones, quotas=quotas)


def zone(project: str, name: str) -> Thing:
    """A zone as the API answers it."""
    parent = self_link(f"projects/{project}/regions/{region_of_zone(name)}")
    return _thing(f"projects/{project}/zones/{name}", "zone", status="UP", region=parent)


def machine_type(project: str, zone_name: str, name: str) -> Thing | None:
    """A machine type as the API answers it, or None where the zone does not have it."""
    custom = re.fullmatch(r"(?:e2|n2|n2d)-custom-(\d+)-(\d+)", name)
    size = (int(custom[1]), int(custom[2])) if custom else MACHINE_TYPES.get(name)
    if size is None or zone_name not in ONLY_IN.get(name, ZONES):
        return None
    return _thing(
        f"projects/{project}/zones/{zone_name}/machineTypes/{name}",
        "machineType",
        zone=zone_name,
        guestCpus=size[0],
        memoryMb=size[1],
        isSharedCpu=name in ("e2-micro", "e2-small", "e2-medium"),
        maximumPersistentDisks=128,
        maximumPersistentDisksSizeGb="263168",
        imageSpaceGb=0,
        architecture="X86_64",
    )


def disk_type(project: str, zone_name: str, name: str) -> Thing | None:
    """A disk type as the API answers it."""
    if name not in DISK_TYPES or zone_name not in ZONES:
        return None
    smallest, largest = DISK_TYPES[name]
    return _thing(
        f"projects/{project}/zones/{zone_name}/diskTypes/{name}",
        "diskType",
        zone=self_link(f"projects/{project}/zones/{zone_name}"),
        validDiskSize=f"{smallest}GB-{largest}GB",
        defaultDiskSizeGb="100",
    )


def image(project: str, name: str) -> Thing | None:
    """One of Google's public images, by its name."""
    for family, (names, architecture, size) in IMAGES.get(project, {}).items():
        if name in names:
            found = _thing(
                f"projects/{project}/global/images/{name}",
                "image",
                family=family,
                status="READY",
                diskSizeGb=str(size),
                archiveSizeBytes="1073741824",
                sourceType="RAW",
                architecture=architecture,
                guestOsFeatures=[{"type": "UEFI_COMPATIBLE"}, {"type": "VIRTIO_SCSI_MULTIQUEUE"}, {"type": "GVNIC"}],
                labelFingerprint="42WmSpB8rSM=",
            )
            if name != names[-1]:
                found["deprecated"] = {
                    "state": "DEPRECATED",
                    "replacement": self_link(f"projects/{project}/global/images/{names[-1]}"),
                }
            return found
    return None


def image_of_family(project: str, family: str) -> Thing | None:
    """The newest image of a family."""
    names = IMAGES.get(project, {}).get(family, ([], "", 0))[0]
    return image(project, names[-1]) if names else None


def resolve_image(call: Call, link: str) -> Thing | None:
    """The image that ``projects/debian-cloud/global/images/family/debian-13`` (or a name, or a full URL) means."""
    match = re.search(r"(?:projects/([^/]+)/)?global/images/(family/)?([^/]+)$", link)
    if not match:
        return None
    project, family, name = match[1] or call.project, match[2], match[3]
    own = call.find(f"projects/{project}/global/images/{name}")
    return own or (image_of_family(project, name) if family else image(project, name))


def _found(call: Call, thing: Thing | None) -> Thing:
    if thing is None:
        raise not_found(call.target)
    return thing


@handles("compute.regions.get")
def get_region(call: Call) -> Thing:
    """One region."""
    return _found(call, region(call.project, call.path["region"]) if call.path["region"] in REGIONS else None)


@handles("compute.regions.list")
def list_regions(call: Call) -> Thing:
    """All regions."""
    return listing(call, "compute#regionList", [region(call.project, name) for name in REGIONS], call.request_path)


@handles("compute.zones.get")
def get_zone(call: Call) -> Thing:
    """One zone."""
    return _found(call, zone(call.project, call.path["zone"]) if call.path["zone"] in ZONES else None)


@handles("compute.zones.list")
def list_zones(call: Call) -> Thing:
    """All zones."""
    return listing(call, "compute#zoneList", [zone(call.project, name) for name in ZONES], call.request_path)


@handles("compute.machineTypes.get")
def get_machine_type(call: Call) -> Thing:
    """One machine type of a zone."""
    check_scope_exists(call)
    return _found(call, machine_type(call.project, call.path["zone"], call.path["machineType"]))


@handles("compute.machineTypes.list")
def list_machine_types(call: Call) -> Thing:
    """A zone's machine types."""
    check_scope_exists(call)
    types = [machine_type(call.project, call.path["zone"], name) for name in MACHINE_TYPES]
    return listing(call, "compute#machineTypeList", [found for found in types if found], call.request_path)


@handles("compute.diskTypes.get")
def get_disk_type(call: Call) -> Thing:
    """One disk type of a zone."""
    check_scope_exists(call)
    return _found(call, disk_type(call.project, call.path["zone"], call.path["diskType"]))


@handles("compute.images.get")
def get_image(call: Call) -> Thing:
    """An image by its name: Google's, or one that was made here."""
    return call.find(call.target) or _found(call, image(call.path["project"], call.path["image"]))


@handles("compute.images.getFromFamily")
def get_image_from_family(call: Call) -> Thing:
    """A family's newest image."""
    return _found(call, image_of_family(call.path["project"], call.path["family"]))


@handles("compute.imageFamilyViews.get")
def get_image_family_view(call: Call) -> Thing:
    """A family's newest image, as gcloud asks for it."""
    return {"image": _found(call, image_of_family(call.path["project"], call.path["family"]))}


@handles("compute.images.list")
def list_images(call: Call) -> Thing:
    """A project's images."""
    project = call.path["project"]
    found = [image(project, name) for names, _, _ in IMAGES.get(project, {}).values() for name in names]
    if project not in IMAGES and not call.state.note("projects").get(call.project):
        raise Refusal(404, f"The resource 'projects/{project}' was not found", "notFound")
    return listing(call, "compute#imageList", [thing for thing in found if thing], call.request_path)
