"""``*.pkg.dev``: images of Artifact Registry's repositories, with the lab's real registry behind.

A request's token and the repository's policy are checked here; what is stored, and the protocol, is the registry's.
An image ``europe-west1-docker.pkg.dev/p/r/i`` is the registry's ``europe-west1/p/r/i``.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import http.client
import json
import re
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

from . import permissions
from .errors import Refusal
from .handlers import Caller

if TYPE_CHECKING:
    from .proxy import Handler
    from .server import Google

PULL = "artifactregistry.repositories.downloadArtifacts"
PUSH = "artifactregistry.repositories.uploadArtifacts"
MANIFESTS = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
]
CHUNK = 1 << 16
HOP_BY_HOP = {"connection", "host", "authorization", "transfer-encoding", "keep-alive", "proxy-authorization", "expect"}
CODES = {401: "UNAUTHORIZED", 403: "DENIED", 404: "NAME_UNKNOWN", 400: "MANIFEST_INVALID", 503: "UNAVAILABLE"}


def serves(host: str) -> bool:
    """Whether a host is a registry's."""
    return host.endswith("-docker.pkg.dev")


def answer(handler: Handler, host: str, headers: dict[str, str]) -> None:
    """Answer one request on an open connection; layers are streamed, never held."""
    google = handler.server.google
    parts = urlsplit(handler.path)
    try:
        if parts.path == "/v2/token":
            _token(google, handler, headers, parse_qs(parts.query))
            return
        caller = _caller(google, headers)
        match = re.fullmatch(r"/v2/([^/]+)/([^/]+)/(.+)/(manifests|blobs|tags)/(.*)", parts.path)
        if match:
            location = host.removesuffix("-docker.pkg.dev")
            reading = handler.command in ("GET", "HEAD")
            with google.state.lock:
                repository = _repository(google, caller, location, match[1], match[2], PULL if reading else PUSH)
            pieces = handler.pieces(headers, CHUNK)
            if match[4] == "manifests" and handler.command == "PUT":
                manifest = b"".join(pieces)
                _keep_tags(google, repository, f"/v2/{location}{parts.path.removeprefix('/v2')}", match[5], manifest)
                pieces = iter([manifest])
            _forward(google, handler, host, location, headers, pieces)
        elif parts.path in ("/v2", "/v2/"):
            _send(handler, 200, {"Docker-Distribution-API-Version": "registry/2.0"}, b"{}")
        else:
            raise Refusal(404, "No such page.")
    except Refusal as refusal:
        # The body was not read: what follows on this connection would be taken for a request.
        handler.close_connection = handler.close_connection or handler.command not in ("GET", "HEAD")
        body = {"errors": [{"code": CODES.get(refusal.status, "UNKNOWN"), "message": refusal.message}]}
        if refusal.status == 401:
            refusal.headers["WWW-Authenticate"] = f'Bearer realm="https://{host}/v2/token",service="{host}"'
        _send(
            handler, refusal.status, {"Content-Type": "application/json", **refusal.headers}, json.dumps(body).encode()
        )


def _send(handler: Handler, status: int, headers: dict[str, str], body: bytes) -> None:
    headers = {**headers, "Content-Length": str(len(body))}
    _head(handler, status, headers.items())
    if handler.command != "HEAD":
        handler.wfile.write(body)


def _head(handler: Handler, status: int, headers: Any) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    reason = handler.responses.get(status, ("",))[0]
    handler.wfile.write(f"HTTP/1.1 {status} {reason}\r\n{lines}\r\n".encode())


# -- who


def _caller(google: Google, headers: dict[str, str]) -> Caller:
    """Who calls, by an access token (as a password, or as the registry's own token) or a service account's key."""
    kind, _, text = headers.get("authorization", "").partition(" ")
    if kind.lower() == "basic":
        try:
            user, _, password = base64.b64decode(text, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            user = password = ""
        if user in ("_json_key", "_json_key_base64"):
            return _by_key(google, password if user == "_json_key" else _decoded(password))
        # Google takes other users, too, but every client is told to use this one.
        text = password if user == "oauth2accesstoken" else ""
    elif kind.lower() != "bearer":
        raise Refusal(401, "Unauthenticated request. Unauthenticated requests do not have permission here.")
    with google.state.lock:
        known = google.state.note("tokens").get(text)
    if known is None or known["expires"] < time.time():
        raise Refusal(401, "The access token is invalid or has expired.")
    if not permissions_of_token(known["scopes"]):
        raise Refusal(403, "The access token has no scope for Artifact Registry.")
    return Caller(known["email"], frozenset(known["scopes"]))


def permissions_of_token(scopes: list[str]) -> bool:
    """Whether a token's scopes let it near an image."""
    names = {scope.rsplit("/", 1)[-1] for scope in scopes}
    return bool(names & {"cloud-platform", "cloud-platform.read-only", "devstorage.read_only", "devstorage.read_write"})


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _by_key(google: Google, text: str) -> Caller:
    try:
        key = json.loads(text)
        known = google.state.note("keys")[key["private_key_id"]]
        if known["email"] != key["client_email"] or "PRIVATE KEY" not in key["private_key"]:
            raise KeyError
    except (ValueError, KeyError, TypeError):
        raise Refusal(401, "The service account key is none of this Google's.") from None
    return Caller(known["email"], frozenset())


def _token(google: Google, handler: Handler, headers: dict[str, str], query: dict[str, list[str]]) -> None:
    """The registry's own tokens, which clients fetch with what they logged in with."""
    fault = google.take_fault("registry.token")
    if fault:
        raise fault.refusal
    caller = _caller(google, headers)
    with google.state.lock:
        text = google.token(caller.email, [*caller.scopes, "https://www.googleapis.com/auth/cloud-platform"], 300)
    body = json.dumps({"token": text, "expires_in": 300}).encode()
    _send(handler, 200, {"Content-Type": "application/json"}, body)


# -- what


def images(google: Google) -> list[str]:
    """The names of all images of the registry behind; none where there is no registry."""
    if not google.registry:
        return []
    with _connection(google) as connection:
        connection.request("GET", "/v2/_catalog?n=1000")
        response = connection.getresponse()
        content = json.loads(response.read()) if response.status == 200 else {}
    return [str(name) for name in content.get("repositories") or []]


def _repository(google: Google, caller: Caller, location: str, project: str, name: str, wanted: str) -> dict[str, Any]:
    """The repository, if the caller may do that with it. A caller without any right is not told whether it exists."""
    path = f"projects/{project}/locations/{location}/repositories/{name}"
    keys = [f"cloudresourcemanager/projects/{project}", f"artifactregistry/{path}"]
    if not permissions.has(google, caller.member, wanted, keys):
        raise Refusal(403, f'Permission "{wanted}" denied on resource "{path}" (or it may not exist)')
    if "artifactregistry.googleapis.com" not in google.state.note("services").get(project, ()):
        raise Refusal(403, f"Artifact Registry API has not been used in project {project} before or it is disabled.")
    found = google.state.get(f"artifactregistry/{path}")
    if found is None or found["format"] != "DOCKER":
        raise Refusal(404, f'Repository "{name}" not found')
    return found


@contextlib.contextmanager
def _connection(google: Google) -> Iterator[http.client.HTTPConnection]:
    if not google.registry:
        raise Refusal(503, "The lab's Google was started without a registry behind it.")
    connection = http.client.HTTPConnection(google.registry, timeout=300)
    try:
        yield connection
    except (OSError, http.client.HTTPException) as error:
        raise Refusal(503, f"The lab's registry does not answer: {error}") from error
    finally:
        connection.close()


def _keep_tags(google: Google, repository: dict[str, Any], path: str, tag: str, manifest: bytes) -> None:
    """Refuse to move a tag of a repository whose tags are immutable."""
    if tag.startswith("sha256:") or not (repository.get("dockerConfig") or {}).get("immutableTags"):
        return
    with _connection(google) as connection:
        connection.request("HEAD", path, headers={"Accept": ", ".join(MANIFESTS)})
        response = connection.getresponse()
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        if response.status == 200 and response.getheader("Docker-Content-Digest") != digest:
            raise Refusal(400, f"cannot update tag {tag}. The repository has enabled tag immutability")


def _forward(
    google: Google, handler: Handler, host: str, location: str, headers: dict[str, str], pieces: Iterable[bytes]
) -> None:
    """Let the registry answer, with the location in front of the image's name."""
    target = handler.path.replace("/v2/", f"/v2/{location}/", 1)
    place = quote(f"{location}/", "")
    target = re.sub(r"([?&]from=)", lambda found: found[1] + place, target)
    with _connection(google) as connection:
        connection.putrequest(handler.command, target, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", google.registry)
        for name, value in headers.items():
            if name not in HOP_BY_HOP:
                connection.putheader(name, value)
        chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        for piece in filter(None, pieces):
            connection.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            connection.send(b"0\r\n\r\n")
        _relay(handler, host, location, connection.getresponse())


def _relay(handler: Handler, host: str, location: str, response: http.client.HTTPResponse) -> None:
    headers = []
    for name, value in response.getheaders():
        if name.lower() == "location":
            # The registry names itself and the image as it knows them.
            value = re.sub(r"^https?://[^/]+", f"https://{host}", value).replace(f"/v2/{location}/", "/v2/", 1)
        if name.lower() not in HOP_BY_HOP:
            headers.append((name, value))
    bodiless = handler.command == "HEAD" or response.status in (204, 304)
    sized = any(name.lower() == "content-length" for name, _ in headers) or bodiless
    if not sized:
        headers.append(("Transfer-Encoding", "chunked"))
    _head(handler, response.status, headers)
    while not bodiless and (piece := response.read(CHUNK)):
        handler.wfile.write(piece if sized else b"%x\r\n%s\r\n" % (len(piece), piece))
    if not sized:
        handler.wfile.write(b"0\r\n\r\n")
