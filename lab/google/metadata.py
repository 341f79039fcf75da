"""The metadata server: what a machine learns about itself on ``169.254.169.254``, and its service account's token.

One server serves all machines of the lab; who asks is told apart by the address that the request comes from, so no
machine sees another one's metadata. It imitates https://cloud.google.com/compute/docs/metadata/querying-metadata.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import threading
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

PREFIX = "computeMetadata/v1"
# How long a request with wait_for_change may stay open where it says nothing itself, and how often we look, in seconds.
LONGEST_WAIT = 3600.0
LOOK_EVERY = 0.25
ATTRIBUTE_BYTES = 256 * 1024
ATTRIBUTE_PATH = re.compile(r"[A-Za-z0-9_-]{1,128}/[A-Za-z0-9_-]{1,128}")


class Refused(Exception):
    """An answer other than 200: ``status`` and what the body says."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Source(Protocol):
    """Where the metadata server takes its answers from: the lab's Google."""

    def instance_at(self, address: str) -> dict[str, Any] | None:
        """The instance resource whose machine has ``address``, or None."""

    def project_of(self, instance: Mapping[str, Any]) -> dict[str, Any]:
        """The compute project resource that the instance belongs to; ``id`` is the project's number."""

    def network_interfaces(self, instance: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The interfaces as the metadata server names their fields."""

    def access_token(self, email: str, scopes: Sequence[str]) -> tuple[str, int]:
        """A token of the service account, and the seconds that it is good for."""

    def guest_attributes(self, instance: Mapping[str, Any]) -> dict[str, str]:
        """The instance's guest attributes by ``namespace/key``."""

    def set_guest_attribute(self, instance: Mapping[str, Any], name: str, value: str | None) -> None:
        """Keep a guest attribute; None: forget it."""

    def oslogin(self, instance: Mapping[str, Any], kind: str, query: Mapping[str, str]) -> dict[str, Any]:
        """What ``oslogin/<kind>`` answers (``users``, ``groups``, ``authorize``). Raises Refused."""


class Raw(dict[str, Any]):
    """A folder whose keys are the user's own: they are not respelled."""


def attributes(resource: Mapping[str, Any], field: str) -> Raw:
    """The items of an instance's ``metadata`` or a project's ``commonInstanceMetadata``."""
    items = (resource.get(field) or {}).get("items") or []
    return Raw({item["key"]: item.get("value", "") for item in items})


def is_on(source: Source, instance: Mapping[str, Any], key: str) -> bool:
    """Whether a boolean attribute is set; the instance's own value wins over the project's."""
    own, common = attributes(instance, "metadata"), attributes(source.project_of(instance), "commonInstanceMetadata")
    return str(own.get(key, common.get(key, ""))).strip().lower() in ("true", "y", "yes", "1")


def dashed(name: str) -> str:
    """The spelling of a JSON key as a path: ``networkInterfaces`` is ``network-interfaces``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def tree(source: Source, instance: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that ``?recursive=true`` shows at the root, as JSON spells it."""
    project = source.project_of(instance)
    number = str(project["id"])
    boot: Mapping[str, Any] = next((disk for disk in instance.get("disks", []) if disk.get("boot")), {})
    scheduling = instance.get("scheduling", {})
    return {
        "instance": {
            "attributes": attributes(instance, "metadata"),
            "cpuPlatform": instance.get("cpuPlatform", "Intel Broadwell"),
            "description": instance.get("description", ""),
            "disks": [
                {
                    "deviceName": disk.get("deviceName", ""),
                    "index": disk.get("index", place),
                    "interface": disk.get("interface", "SCSI"),
                    "mode": disk.get("mode", "READ_WRITE"),
                    "type": "PERSISTENT-BALANCED" if disk.get("type") != "SCRATCH" else "LOCAL-SSD",
                }
                for place, disk in enumerate(instance.get("disks", []))
            ],
            "guestAttributes": Raw(),
            "hostname": instance.get("hostname")
            or f"{instance['name']}.{_last(instance['zone'])}.c.{project['name']}.internal",
            "id": int(instance["id"]),
            "image": boot.get("initializeParams", {}).get("sourceImage", ""),
            "licenses": [],
            "machineType": f"projects/{number}/machineTypes/{_last(instance['machineType'])}",
            "maintenanceEvent": "NONE",
            "name": instance["name"],
            "networkInterfaces": source.network_interfaces(instance),
            "preempted": "FALSE",
            "remainingCpuTime": -1,
            "scheduling": {
                "automaticRestart": "TRUE" if scheduling.get("automaticRestart", True) else "FALSE",
                "onHostMaintenance": scheduling.get("onHostMaintenance", "MIGRATE"),
                "preemptible": "TRUE" if scheduling.get("preemptible") else "FALSE",
            },
            "serviceAccounts": _service_accounts(instance),
            "tags": list(instance.get("tags", {}).get("items", [])),
            "virtualClock": {"driftToken": "0"},
            "zone": f"projects/{number}/zones/{_last(instance['zone'])}",
        },
        "oslogin": {"authenticate": {"sessions": {}}},
        "project": {
            "attributes": attributes(project, "commonInstanceMetadata"),
            "numericProjectId": int(number),
            "projectId": project["name"],
        },
    }


def hostname(instance: Mapping[str, Any], project: Mapping[str, Any]) -> str:
    """The zonal name that an instance has where nobody chose one."""
    return f"{instance['name']}.{_last(instance['zone'])}.c.{project['name']}.internal"


def _service_accounts(instance: Mapping[str, Any]) -> Raw:
    found = Raw()
    for number, account in enumerate(instance.get("serviceAccounts", [])):
        entry = {"aliases": ["default"], "email": account["email"], "scopes": list(account.get("scopes", []))}
        found[account["email"]] = entry
        if not number:
            found["default"] = entry
    return found


def _last(link: str) -> str:
    return link.rsplit("/", 1)[-1]


def children(node: Any) -> dict[str, Any] | None:
    """What lies in a folder, by its name in a path; None for a value."""
    if isinstance(node, Raw):
        return dict(node)
    if isinstance(node, dict):
        return {dashed(key): value for key, value in node.items()}
    if isinstance(node, list) and node and isinstance(node[0], dict):
        return {str(number): value for number, value in enumerate(node)}
    return None


def as_text(node: Any, path: str = "") -> str:
    """A value as text, or a folder with all that is below it, one ``path value`` a line."""
    below = children(node)
    if below is None:
        text = value_text(node, path.rsplit("/", 1)[-1])
        return f"{path} {text}\n" if path else text
    return "".join(as_text(value, f"{path}/{name}" if path else name) for name, value in below.items())


def value_text(value: Any, name: str) -> str:
    """A value as the server writes it without ``alt=json``."""
    if isinstance(value, list):
        return json.dumps(value) if name == "tags" else "\n".join(str(item) for item in value) + ("\n" if value else "")
    return str(value)


def etag(node: Any) -> str:
    """The tag that changes when the content does."""
    return hashlib.sha256(json.dumps(node, sort_keys=True).encode()).hexdigest()[:16]


class Answer:
    """A body and its type."""

    def __init__(self, text: str, kind: str = "application/text", tag: str | None = None) -> None:
        self.body, self.kind, self.tag = text.encode(), kind, tag or etag(text)


class Handler(BaseHTTPRequestHandler):
    """One request of a machine."""

    protocol_version = "HTTP/1.1"
    server_version = "Metadata Server for VM"
    sys_version = ""
    server: _Server

    def do_GET(self) -> None:
        """Read metadata."""
        self._answer()

    def do_PUT(self) -> None:
        """Write a guest attribute."""
        self._answer()

    def do_DELETE(self) -> None:
        """Remove a guest attribute."""
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a machine asks every minute."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            answer, status = self._respond(body), 200
        except Refused as error:
            answer, status = Answer(f"{error}\n", "text/html; charset=UTF-8"), error.status
        self.send_response(status)
        if status == 301:
            self.send_header("Location", answer.body.decode().strip())
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("ETag", answer.tag)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def _respond(self, body: bytes) -> Answer:
        instance = self.server.source.instance_at(self.client_address[0])
        if instance is None:
            raise Refused(403, f"no machine of the lab has the address {self.client_address[0]}")
        target = urlsplit(self.path)
        path = re.sub(r"/{2,}", "/", unquote(target.path)).lstrip("/")
        query = {key: values[-1] for key, values in parse_qs(target.query, keep_blank_values=True).items()}
        if path == "":
            return Answer("computeMetadata/\n")
        if self.headers.get("Metadata-Flavor") != "Google":
            raise Refused(403, "Missing Metadata-Flavor:Google header.")
        if self.headers.get("X-Forwarded-For"):
            raise Refused(403, "Requests with an X-Forwarded-For header are not served.")
        if path in ("computeMetadata", "computeMetadata/"):
            return Answer("v1/\n")
        if path != PREFIX and not path.startswith(f"{PREFIX}/"):
            raise Refused(404, "Not Found")
        rest = path[len(PREFIX) :].lstrip("/")
        if re.match(r"instance/guest-attributes(/|$)", rest):
            return self._guest_attributes(instance, rest[len("instance/guest-attributes") :].strip("/"), query, body)
        if self.command != "GET":
            raise Refused(405, "Method Not Allowed")
        if found := re.fullmatch(r"oslogin/(users|groups|authorize)/?", rest):
            return _json(self.server.source.oslogin(instance, found[1], query))
        if found := re.fullmatch(r"instance/service-accounts/([^/]+)/token", rest):
            return self._token(instance, found[1], query)
        return self._metadata(instance, rest, query)

    def _token(self, instance: Mapping[str, Any], name: str, query: Mapping[str, str]) -> Answer:
        account = _service_accounts(instance).get(name)
        if account is None:
            raise Refused(404, "Service account not found")
        wanted = [scope for scope in query.get("scopes", "").split(",") if scope] or account["scopes"]
        token, seconds = self.server.source.access_token(account["email"], wanted)
        return _json({"access_token": token, "expires_in": seconds, "token_type": "Bearer"})

    def _guest_attributes(
        self, instance: Mapping[str, Any], name: str, query: Mapping[str, str], body: bytes
    ) -> Answer:
        if not is_on(self.server.source, instance, "enable-guest-attributes"):
            raise Refused(403, "Guest attributes endpoint access is disabled.")
        held = self.server.source.guest_attributes(instance)
        if self.command in ("PUT", "DELETE"):
            if not ATTRIBUTE_PATH.fullmatch(name):
                raise Refused(400, "expected guest-attributes/<namespace>/<key>")
            if len(body) > ATTRIBUTE_BYTES:
                raise Refused(413, "the value is larger than 256 KiB")
            value = None if self.command == "DELETE" else body.decode(errors="replace")
            self.server.source.set_guest_attribute(instance, name, value)
            return Answer("")
        if name in held:
            return Answer(held[name])
        below: dict[str, Raw] = {}
        for key, value in held.items():
            space, _, last = key.partition("/")
            below.setdefault(space, Raw())[last] = value
        if name and name not in below:
            raise Refused(404, "Not Found")
        return _folder(below[name] if name else Raw(below), query)

    def _metadata(self, instance: Mapping[str, Any], path: str, query: Mapping[str, str]) -> Answer:
        node = find(tree(self.server.source, instance), path)
        if query.get("wait_for_change", "").lower() == "true":
            node = self._changed(node, path, query)
        if children(node) is not None:
            if path and not path.endswith("/") and query.get("recursive", "").lower() != "true":
                raise Refused(301, f"http://{self.headers.get('Host', 'metadata.google.internal')}/{PREFIX}/{path}/")
            return _folder(node, query)
        if query.get("alt") == "json":
            return _json(node)
        return Answer(value_text(node, path.rsplit("/", 1)[-1]), tag=etag(node))

    def _changed(self, node: Any, path: str, query: Mapping[str, str]) -> Any:
        """The node once it differs from what the caller knows, or as it is when the caller's time is over."""
        known = query.get("last_etag") or etag(node)
        timeout = query.get("timeout_sec", "")
        deadline = time.monotonic() + (float(timeout) if timeout.isdigit() and int(timeout) else LONGEST_WAIT)
        while etag(node) == known and time.monotonic() < deadline and not self.server.closing.wait(LOOK_EVERY):
            instance = self.server.source.instance_at(self.client_address[0])
            if instance is None:
                raise Refused(503, "the machine is gone")
            node = find(tree(self.server.source, instance), path)
        return node


def find(node: Any, path: str) -> Any:
    """What stands at a path of the tree. Raises Refused(404)."""
    for name in [part for part in path.split("/") if part]:
        below = children(node)
        if below is None or name not in below:
            raise Refused(404, "Not Found")
        node = below[name]
    return node


def _json(value: Any) -> Answer:
    return Answer(json.dumps(value, separators=(",", ":")), "application/json", etag(value))


def _folder(node: Any, query: Mapping[str, str]) -> Answer:
    if query.get("recursive", "").lower() == "true":
        return Answer(as_text(node), tag=etag(node)) if query.get("alt") == "text" else _json(node)
    below = children(node) or {}
    lines = [f"{name}/\n" if children(value) is not None else f"{name}\n" for name, value in below.items()]
    return Answer("".join(lines), tag=etag(node))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    source: Source
    closing: threading.Event

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A machine that hangs up (or goes down) is no news."""


class MetadataServer:
    """The server on one address of this computer; never on all of them, since it hands out tokens."""

    def __init__(self, source: Source, host: str = "127.0.0.1", port: int = 0) -> None:
        if not host or ipaddress.ip_address(host).is_unspecified:
            raise ValueError(f"metadata server: found the address {host!r}; expected one of the lab's network")
        self._server = _Server((host, port), Handler)
        self._server.source = source
        self._server.closing = threading.Event()
        self.port = int(self._server.server_address[1])
        self.address = f"{host}:{self.port}"

    def start(self) -> MetadataServer:
        """Serve in a thread of its own."""
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop; requests that wait for a change are answered."""
        self._server.closing.set()
        self._server.shutdown()
        self._server.server_close()
