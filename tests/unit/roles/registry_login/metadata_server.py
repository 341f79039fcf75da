"""A metadata server in a thread: https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PREFIX = "/computeMetadata/v1/instance/service-accounts/default/"
SCOPE = "https://www.googleapis.com/auth/"


@dataclass
class Metadata:
    """What it answers; `fail_first` requests get a 503, as a machine under load sees."""

    scopes: list[str] | None = field(default_factory=lambda: [SCOPE + "cloud-platform"])
    flavor: str = "Google"
    fail_first: int = 0
    token: str = "ya29.machine"
    address: str = ""
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str, flavor: str | None) -> tuple[int, Any]:
        self.asked.append(path)
        if flavor != "Google":
            return 403, "Missing Metadata-Flavor:Google header."
        if self.fail_first:
            self.fail_first -= 1
            return 503, "busy"
        if self.scopes is None or not path.startswith(PREFIX):
            return 404, "not found"
        if path == PREFIX + "token":
            return 200, {"access_token": self.token, "expires_in": 3599, "token_type": "Bearer"}
        email = "dagster-vm-prod@example-project.iam.gserviceaccount.com"
        return 200, {"aliases": ["default"], "email": email, "scopes": self.scopes}


@contextlib.contextmanager
def serving(port: int = 0) -> Iterator[Metadata]:
    metadata = Metadata()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = metadata.answer(self.path, self.headers.get("Metadata-Flavor"))
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Metadata-Flavor", metadata.flavor)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    metadata.address = f"127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield metadata
    finally:
        server.shutdown()
        server.server_close()
