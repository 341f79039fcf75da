"""Secret Manager."""

from __future__ import annotations

import base64
import re

from . import policies
from .errors import Refusal
from .handlers import Call, handles
from .state import Thing, fingerprint, timestamp_utc
from .wire import masked, proto

API = "secretmanager.projects.secrets"


def _crc32c_of(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC32C = [_crc32c_of(byte) for byte in range(256)]


def _path(call: Call) -> str:
    """The canonical path of the secret that a request names: with the project's id."""
    match = re.match(r"projects/[^/]+/secrets/([^/]+)", call.target)
    return f"projects/{call.project}/secrets/{match[1]}" if match else ""


def _public(call: Call, path: str) -> str:
    """A path as it is answered: with the project's number."""
    number = call.state.note("projects")[call.project]["number"]
    return path.replace(f"projects/{call.project}/", f"projects/{number}/", 1)


def _secret(call: Call) -> Thing:
    found = call.find(_path(call))
    if found is None:
        raise Refusal(404, f"Secret [{_public(call, _path(call))}] not found.")
    return found


def _versions(call: Call) -> list[Thing]:
    """A secret's versions from old to new, with their data."""
    versions: list[Thing] = call.state.note("secret versions").setdefault(_path(call), [])
    return versions


@handles(f"{API}.create")
def create(call: Call) -> Thing:
    """A secret without a value."""
    name = call.query("secretId")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", name):
        raise Refusal(400, f"The secret's id '{name}' may hold letters, digits, - and _ only, 255 of them at most.")
    path = f"projects/{call.project}/secrets/{name}"
    if call.find(path):
        raise Refusal(409, f"Secret [{_public(call, path)}] already exists.")
    if len([kind for kind in ("automatic", "userManaged") if kind in call.body["replication"]]) != 1:
        raise Refusal(400, "Exactly one of automatic and userManaged replication must be given.")
    thing = {**call.body, "name": _public(call, path), "createTime": timestamp_utc()}
    thing["etag"] = f'"{fingerprint(thing)}"'
    return proto(call.put(path, thing))


@handles(f"{API}.get")
def get(call: Call) -> Thing:
    """A secret, without its value."""
    return proto(_secret(call))


@handles(f"{API}.list")
def list_secrets(call: Call) -> Thing:
    """A project's secrets."""
    found = [proto(thing) for thing in call.children(f"projects/{call.project}/secrets")]
    return {"secrets": found, "totalSize": len(found)} if found else {}


@handles(f"{API}.patch")
def patch(call: Call) -> Thing:
    """Labels and the like."""
    allowed = {"labels", "annotations", "topics", "expireTime", "ttl", "rotation", "versionAliases"}
    changed = masked(_secret(call), call.body, call.query("updateMask"), allowed)
    changed["etag"] = f'"{fingerprint({**changed, "etag": ""})}"'
    return proto(call.put(_path(call), changed))


@handles(f"{API}.delete")
def delete(call: Call) -> Thing:
    """The secret and every version of it."""
    _secret(call)
    call.delete(_path(call))
    call.state.note("secret versions").pop(_path(call), None)
    return {}


@handles(f"{API}.getIamPolicy")
def get_policy(call: Call) -> Thing:
    """Who may read it."""
    _secret(call)
    return policies.read(call, call.key(_path(call)), policies.requested_version(call))


@handles(f"{API}.setIamPolicy")
def set_policy(call: Call) -> Thing:
    """Replace who may read it."""
    _secret(call)
    return policies.write(call, call.key(_path(call)), call.body.get("policy"))


def crc32c(data: bytes) -> int:
    """The checksum (Castagnoli's) that payloads carry."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _CRC32C[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


@handles(f"{API}.addVersion")
def add_version(call: Call) -> Thing:
    """A new value."""
    _secret(call)
    payload = call.body["payload"]
    data = base64.b64decode(payload.get("data", ""))
    if not data or len(data) > 65536:
        raise Refusal(400, "The secret payload must have 1 to 65536 bytes.")
    if "dataCrc32c" in payload and int(payload["dataCrc32c"]) != crc32c(data):
        raise Refusal(400, "The payload's checksum does not match its data.")
    versions = _versions(call)
    version: Thing = {
        "name": f"{_public(call, _path(call))}/versions/{len(versions) + 1}",
        "createTime": timestamp_utc(),
        "state": "ENABLED",
        "replicationStatus": {"automatic": {}},
        "etag": f'"{fingerprint([len(versions), _path(call)])}"',
        "clientSpecifiedPayloadChecksum": "dataCrc32c" in payload,
    }
    versions.append({"version": version, "data": base64.b64encode(data).decode()})
    return proto(version)


def _version(call: Call) -> Thing:
    _secret(call)
    wanted, versions = call.target.rsplit("/", 1)[-1], _versions(call)
    number = len(versions) if wanted == "latest" else int(wanted) if wanted.isdigit() else 0
    if not 1 <= number <= len(versions):
        where = f"{_public(call, _path(call))}/versions/{wanted}"
        raise Refusal(404, f"Secret Version [{where}] not found.")
    return versions[number - 1]


@handles(f"{API}.versions.get")
def get_version(call: Call) -> Thing:
    """What is known of a version, without its value."""
    return proto(_version(call)["version"])


@handles(f"{API}.versions.list")
def list_versions(call: Call) -> Thing:
    """All versions, the newest first."""
    _secret(call)
    found = [proto(entry["version"]) for entry in reversed(_versions(call))]
    return {"versions": found, "totalSize": len(found)} if found else {}


@handles(f"{API}.versions.access")
def access(call: Call) -> Thing:
    """A version's value."""
    entry = _version(call)
    name, state = entry["version"]["name"], entry["version"]["state"]
    if state != "ENABLED":
        raise Refusal(400, f"Secret Version [{name}] is in {state} state.", state="FAILED_PRECONDITION")
    data = entry["data"]
    return {"name": name, "payload": {"data": data, "dataCrc32c": str(crc32c(base64.b64decode(data)))}}


@handles(f"{API}.versions.disable", f"{API}.versions.enable", f"{API}.versions.destroy")
def switch(call: Call) -> Thing:
    """Off, on, gone for ever."""
    entry = _version(call)
    version = entry["version"]
    if version["state"] == "DESTROYED":
        raise Refusal(400, f"Secret Version [{version['name']}] is in DESTROYED state.", state="FAILED_PRECONDITION")
    verb = call.method.id.rsplit(".", 1)[-1]
    version["state"] = {"disable": "DISABLED", "enable": "ENABLED", "destroy": "DESTROYED"}[verb]
    if verb == "destroy":
        entry["data"] = ""
        version["destroyTime"] = timestamp_utc()
    return proto(version)
