"""A small registry in a thread, for what a real engine says when a registry misbehaves.

Speaks enough of the distribution protocol for `docker pull` and `docker push`: https://github.com/opencontainers/distribution-spec
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Registry:
    """Images by `name:tag`; `refuse` answers every request with that status, `user` (`name:password`) has to log in."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.refuse = 0
        self.user = ""
        self.pieces = b""
        self.address = ""

    def add(self, reference: str, text: str, architecture: str = "amd64", index: bool = False) -> str:
        """Make an image of one file and let `reference` name it; returns the digest of its manifest."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            info = tarfile.TarInfo("file")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
        layer = gzip.compress(packed.getvalue(), mtime=0)
        rootfs = {"type": "layers", "diff_ids": [sha256(packed.getvalue())]}
        config = json.dumps({"architecture": architecture, "os": "linux", "config": {}, "rootfs": rootfs}).encode()
        described = [self._blob(CONFIG, config), self._blob(LAYER, layer)]
        body: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described[0],
            "layers": described[1:],
        }
        kind, manifest = MANIFEST, json.dumps(body).encode()
        name = reference.partition(":")[0]
        if index:
            self.manifests[f"{name}:{sha256(manifest)}"] = (kind, manifest)
            entry = {"mediaType": MANIFEST, "size": len(manifest), "digest": sha256(manifest)}
            entry["platform"] = {"architecture": architecture, "os": "linux"}
            kind, manifest = INDEX, json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
        for key in (reference, f"{name}:{sha256(manifest)}"):
            self.manifests[key] = (kind, manifest)
        return sha256(manifest)

    def _blob(self, kind: str, data: bytes) -> dict[str, Any]:
        self.blobs[sha256(data)] = data
        return {"mediaType": kind, "size": len(data), "digest": sha256(data)}

    def login_refused(self, authorization: str) -> tuple[int, dict[str, str], bytes] | None:
        """What an upload without the login gets."""
        answer = self.answer("/v2/", authorization)
        return None if answer[0] == 200 else answer

    def upload(self, verb: str, path: str, kind: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Take a blob in one or more pieces, or a manifest."""
        path, _, query = path.partition("?")
        name, _, last = path.removeprefix("/v2/").rpartition("/")
        if verb == "POST":
            self.pieces = b""
            return 202, {"Location": f"/v2/{name}/piece"}, b""
        if verb == "PATCH":
            self.pieces += body
            return 202, {"Location": path, "Range": f"0-{len(self.pieces) - 1}"}, b""
        if name.endswith("/manifests"):
            digest = sha256(body)
            for key in (last, digest):
                self.manifests[f"{name.removesuffix('/manifests')}:{key}"] = (kind, body)
            return 201, {"Docker-Content-Digest": digest}, b""
        blob = self.pieces + body
        self.blobs[sha256(blob)] = blob
        return (201 if sha256(blob) in unquote(query) else 400), {"Location": path}, b""

    def answer(self, path: str, authorization: str = "") -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a path."""
        login = "Basic " + base64.b64encode(self.user.encode()).decode() if self.user else authorization
        refuse = self.refuse or (401 if authorization != login else 0)
        if refuse:
            code = {401: "UNAUTHORIZED", 403: "DENIED", 429: "TOOMANYREQUESTS"}[refuse]
            headers = {"WWW-Authenticate": 'Basic realm="small"'} if refuse == 401 else {}
            return refuse, headers, json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode()
        parts = path.strip("/").split("/")
        if parts == ["v2"]:
            return 200, {}, b"{}"
        if parts[1].startswith("_catalog"):
            names = {reference.partition(":")[0] for reference in self.manifests}
            return 200, {}, json.dumps({"repositories": sorted(names)}).encode()
        kind, last = parts[-2:]
        name = "/".join(parts[1:-2])
        if kind == "manifests" and f"{name}:{last}" in self.manifests:
            media, body = self.manifests[f"{name}:{last}"]
            return 200, {"Content-Type": media, "Docker-Content-Digest": sha256(body)}, body
        if kind == "blobs" and last in self.blobs:
            return 200, {"Content-Type": "application/octet-stream"}, self.blobs[last]
        return 404, {}, json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}).encode()


@contextlib.contextmanager
def serving(port: int = 0) -> Iterator[Registry]:
    """A registry on 127.0.0.1 (on a free port, if none is given), which engines talk to without TLS."""
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = registry.answer(self.path, self.headers.get("Authorization", ""))
            self.send_response(status)
            for name, value in {"Docker-Distribution-API-Version": "registry/2.0", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def do_POST(self) -> None:
            body = self._body()
            answer = registry.login_refused(self.headers.get("Authorization", ""))
            status, headers, content = answer or registry.upload(
                self.command, self.path, self.headers.get("Content-Type", ""), body
            )
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_PATCH = do_PUT = do_POST

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    registry.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
