"""Cloud Storage: buckets, and what is known of objects. Their content goes through :mod:`lab.google.storage_media`."""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from . import permissions, policies
from .errors import Refusal
from .handlers import Call, Raw, handles
from .state import Thing, fingerprint, timestamp_utc

if TYPE_CHECKING:
    from .handlers import Caller
    from .server import Google

ROOT = "https://www.googleapis.com/storage/v1/b"
MEDIA = "https://storage.googleapis.com/download/storage/v1/b"
PAGE = 1000
WEEK = 7 * 86400  # seconds; what soft delete keeps where nobody says otherwise
CHANGEABLE = {
    "labels", "lifecycle", "versioning", "iamConfiguration", "softDeletePolicy", "retentionPolicy", "storageClass",
    "defaultEventBasedHold", "website", "cors", "logging", "encryption", "billing", "autoclass", "rpo",
}  # fmt: skip


def moment() -> str:
    """Now, as storage writes it: with milliseconds."""
    return timestamp_utc()[:-4] + "Z"


def key(bucket: str) -> str:
    """A bucket's key in the state."""
    return f"storage/b/{bucket}"


def find_bucket(google: Google, caller: Caller, name: str, wanted: str) -> Thing:
    """A bucket, if the caller may do ``wanted`` with it.

    :raises Refusal: 404 where there is no such bucket, 403 without the permission: on the bucket, or on its project.
    """
    bucket = google.state.get(key(name))
    if bucket is None:
        raise Refusal(404, "The specified bucket does not exist.", "notFound")
    project = google.project_id(str(bucket["projectNumber"]))
    resources = [f"cloudresourcemanager/projects/{project}", key(name)]
    if not permissions.has(google, caller.member, wanted, resources):
        raise Refusal(
            403,
            f"{caller.email} does not have {wanted} access to the Google Cloud Storage bucket. "
            f"Permission '{wanted}' denied on resource (or it may not exist).",
            "forbidden",
        )
    return bucket


def objects(google: Google, bucket: str) -> dict[str, Thing]:
    """A bucket's objects by name."""
    found: dict[str, Thing] = google.state.note("storage objects").setdefault(bucket, {})
    return found


def content_path(google: Google, thing: Thing) -> Path:
    """The file with an object's content."""
    return google.folder / "storage" / str(thing["generation"])


def _may(call: Call, wanted: str) -> Thing:
    return find_bucket(call.google, call.caller, call.path["bucket"], wanted)


@handles("storage.buckets.insert")
def insert(call: Call) -> Thing:
    """A bucket of a project; its name is the only one in the world."""
    project = call.google.project_id(call.query("project"))
    known = call.state.note("projects").get(project)
    if known is None:
        raise Refusal(404, f"The requested project was not found: {project}", "notFound")
    wanted = "storage.buckets.create"
    if not permissions.has(call.google, call.caller.member, wanted, [f"cloudresourcemanager/projects/{project}"]):
        raise Refusal(
            403, f"{call.caller.email} does not have {wanted} access to the Google Cloud project.", "forbidden"
        )
    permissions.check_enabled(call, project, "storage.googleapis.com")
    name = call.body.get("name", "")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]", name) or "goog" in name[:4]:
        raise Refusal(400, f"Invalid bucket name: '{name}'", "invalid")
    if call.state.get(key(name)):
        raise Refusal(
            409, "Your previous request to create the named bucket succeeded and you already own it.", "conflict"
        )
    location = call.body.get("location", "US").upper()
    made = moment()
    uniform = ((call.body.get("iamConfiguration") or {}).get("uniformBucketLevelAccess") or {}).get("enabled", False)
    thing: Thing = {
        **call.body,
        "kind": "storage#bucket",
        "id": name,
        "name": name,
        "selfLink": f"{ROOT}/{name}",
        "projectNumber": known["number"],
        "generation": "1",
        "metageneration": "1",
        "location": location,
        "locationType": "region" if "-" in location else "multi-region",
        "storageClass": call.body.get("storageClass", "STANDARD"),
        "timeCreated": made,
        "updated": made,
        "iamConfiguration": {
            "publicAccessPrevention": "inherited",
            **(call.body.get("iamConfiguration") or {}),
            "uniformBucketLevelAccess": {"enabled": uniform},
            "bucketPolicyOnly": {"enabled": uniform},
        },
        "softDeletePolicy": {
            "retentionDurationSeconds": str(WEEK), "effectiveTime": made, **(call.body.get("softDeletePolicy") or {}),
        },
    }  # fmt: skip
    return _kept(call, thing)


def _kept(call: Call, thing: Thing) -> Thing:
    thing["etag"] = fingerprint(thing["metageneration"] + thing["name"])
    return copy.deepcopy(call.state.put(key(thing["name"]), thing))


@handles("storage.buckets.get")
def get(call: Call) -> Thing:
    """A bucket's settings."""
    return copy.deepcopy(_may(call, "storage.buckets.get"))


@handles("storage.buckets.list")
def list_buckets(call: Call) -> Thing:
    """A project's buckets."""
    project = call.google.project_id(call.query("project"))
    if not permissions.has(
        call.google, call.caller.member, "storage.buckets.list", [f"cloudresourcemanager/projects/{project}"]
    ):
        raise Refusal(403, f"{call.caller.email} does not have storage.buckets.list access.", "forbidden")
    number = call.state.note("projects")[project]["number"]
    found = [copy.deepcopy(thing) for _, thing in call.state.children("storage/b") if thing["projectNumber"] == number]
    return {"kind": "storage#buckets", **({"items": found} if found else {})}


@handles("storage.buckets.patch")
def patch(call: Call) -> Thing:
    """Change settings: what the request does not name stays, null takes away."""
    bucket = copy.deepcopy(_may(call, "storage.buckets.update"))
    refused = set(call.body) - CHANGEABLE
    if refused:
        raise Refusal(400, f"The field '{min(refused)}' of a bucket cannot be changed.", "invalid")
    _merge(bucket, call.body)
    uniform = bucket["iamConfiguration"].get("uniformBucketLevelAccess", {"enabled": False})
    bucket["iamConfiguration"]["bucketPolicyOnly"] = copy.deepcopy(uniform)
    bucket["metageneration"] = str(int(bucket["metageneration"]) + 1)
    bucket["updated"] = moment()
    return _kept(call, bucket)


def _merge(target: Thing, change: Thing) -> None:
    for name, value in change.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict) and isinstance(target.get(name), dict):
            _merge(target[name], value)
        else:
            target[name] = copy.deepcopy(value)


@handles("storage.buckets.delete")
def delete(call: Call) -> Thing:
    """Delete a bucket that holds nothing."""
    bucket = _may(call, "storage.buckets.delete")
    if objects(call.google, bucket["name"]):
        raise Refusal(409, "The bucket you tried to delete is not empty.", "conflict")
    call.state.delete(key(bucket["name"]))
    call.state.note("policies").pop(key(bucket["name"]), None)
    return {}


@handles("storage.buckets.getIamPolicy")
def get_policy(call: Call) -> Thing:
    """Who may do what with the bucket."""
    bucket = _may(call, "storage.buckets.getIamPolicy")
    version = int(call.query("optionsRequestedPolicyVersion", "1"))
    return {**policies.read(call, key(bucket["name"]), version), "kind": "storage#policy"}


@handles("storage.buckets.setIamPolicy")
def set_policy(call: Call) -> Thing:
    """Replace who may do what with it."""
    bucket = _may(call, "storage.buckets.setIamPolicy")
    wanted = {name: value for name, value in call.body.items() if name not in ("kind", "resourceId")}
    return {**policies.write(call, key(bucket["name"]), wanted), "kind": "storage#policy"}


# -- objects


def describe(bucket: str, name: str, **more: Any) -> Thing:
    """What every object has."""
    made = moment()
    return {
        "kind": "storage#object",
        "id": f"{bucket}/{name}/{more['generation']}",
        "bucket": bucket,
        "name": name,
        "selfLink": f"{ROOT}/{bucket}/o/{quote(name, safe='')}",
        "mediaLink": f"{MEDIA}/{bucket}/o/{quote(name, safe='')}?alt=media",
        "metageneration": "1",
        "storageClass": "STANDARD",
        "timeCreated": made,
        "updated": made,
        "timeStorageClassUpdated": made,
        **more,
    }


def _object(call: Call, wanted: str) -> Thing:
    bucket = _may(call, wanted)
    found = objects(call.google, bucket["name"]).get(call.path["object"])
    if found is None:
        raise Refusal(404, f"No such object: {bucket['name']}/{call.path['object']}", "notFound")
    return found


@handles("storage.objects.get")
def get_object(call: Call) -> Thing:
    """What is known of an object; ``alt=media``: its content, or the part that the header Range asks for."""
    found = _object(call, "storage.objects.get")
    if call.query("alt") != "media":
        return copy.deepcopy(found)
    return Raw(
        content_path(call.google, found).read_bytes(),
        {
            "Content-Type": found.get("contentType", "application/octet-stream"),
            "X-Goog-Generation": found["generation"],
            "X-Goog-Hash": f"crc32c={found['crc32c']},md5={found['md5Hash']}",
        },
    )


@handles("storage.objects.list")
def list_objects(call: Call) -> Thing:
    """A bucket's objects by name, page after page."""
    bucket = _may(call, "storage.objects.list")
    prefix, delimiter = call.query("prefix"), call.query("delimiter")
    names = [name for name in sorted(objects(call.google, bucket["name"])) if name.startswith(prefix)]
    folders: list[str] = []
    if delimiter:
        below = [name for name in names if delimiter in name[len(prefix) :]]
        folders = sorted({prefix + name[len(prefix) :].split(delimiter)[0] + delimiter for name in below})
        names = [name for name in names if name not in below]
    after = call.query("pageToken")
    size = min(int(call.query("maxResults", str(PAGE))), PAGE)
    left = [name for name in names if name > after]
    answer: Thing = {"kind": "storage#objects"}
    if left[:size]:
        answer["items"] = [copy.deepcopy(objects(call.google, bucket["name"])[name]) for name in left[:size]]
    if left[size:]:
        answer["nextPageToken"] = left[size - 1]
    if folders:
        answer["prefixes"] = folders
    return answer


@handles("storage.objects.delete")
def delete_object(call: Call) -> Thing:
    """Delete an object, unless the bucket's retention policy keeps it."""
    found = _object(call, "storage.objects.delete")
    bucket = call.state.get(key(found["bucket"])) or {}
    if bucket.get("retentionPolicy"):
        raise Refusal(
            403,
            f"Object '{found['bucket']}/{found['name']}' is subject to bucket's retention policy or object retention "
            "and cannot be deleted or overwritten",
            "retentionPolicyNotMet",
        )
    del objects(call.google, found["bucket"])[found["name"]]
    content_path(call.google, found).unlink(missing_ok=True)
    return {}


def forget(google: Google) -> None:
    """Remove the content of all objects."""
    shutil.rmtree(google.folder / "storage", ignore_errors=True)
