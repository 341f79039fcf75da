"""What answers a request: a function for each of Google's methods.

A handler takes a :class:`Call` and returns the answer as a dict, or raises :class:`lab.google.errors.Refusal`::

    @handles("compute.zones.get")
    def get_zone(call: Call) -> Thing:
        return call.thing()

Ids are the documents' own; of an API with two versions they name it (``cloudresourcemanager.v3.projects.get``).
A handler runs alone (under the state's lock), after token, scope, permission, the API's being enabled and the request's
schema have been checked, and its answer is checked against the schema: what it must add is only what the thing does.
Every module of ``lab.google.compute`` and the modules in ``MODULES`` are imported at the first request.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .discovery import Document, Method
from .errors import Refusal, not_found
from .state import State, Thing

if TYPE_CHECKING:
    from .server import Google

MODULES = [
    *("iam", "workload_identity", "projects", "services", "artifacts", "secrets", "oslogin", "iap", "oauth"),
    *("storage", "storage_media"),
]


@dataclass
class Caller:
    """Who calls: the token's account."""

    email: str
    scopes: frozenset[str]

    @property
    def member(self) -> str:
        """As in a policy's members."""
        if self.email.startswith("principal:"):
            return self.email
        kind = "serviceAccount" if self.email.endswith("gserviceaccount.com") else "user"
        return f"{kind}:{self.email}"


@dataclass
class Call:
    """One request, and what a handler needs to answer it."""

    google: Google
    document: Document
    method: Method
    path: dict[str, str]
    """The path's parameters by name (``call.path["zone"]``)."""
    queries: dict[str, list[str]]
    body: dict[str, Any]
    """The request's body; {} where there is none. A copy: a handler may keep and change it."""
    caller: Caller
    request_path: str
    """Without the service's prefix and version: ``projects/p/zones/z/disks/d/setLabels``."""

    @property
    def state(self) -> State:
        return self.google.state

    @property
    def api(self) -> str:
        """``compute``, ``iam``…: the first part of every key."""
        return self.method.api.split(".")[0]

    @property
    def project(self) -> str:
        """The id of the project that the path names, or "" where it names none."""
        match = re.search(r"(?:^|/)projects/([^/:]+)", self.request_path)
        return self.google.project_id(match[1]) if match else ""

    def query(self, name: str, default: str = "") -> str:
        """A query parameter's (last) value."""
        return self.queries.get(name, [default])[-1]

    @property
    def target(self) -> str:
        """The path of the resource that the request names: all up to its last parameter, without a verb.

        ``projects/p/zones/z/disks/d`` for ``…/disks/d/setLabels``; ``projects/p`` for a list of its networks.
        """
        template = self.method.path.removeprefix(self.document.service_path)
        template = template[: template.rfind("}") + 1] or template
        path = re.sub(r"\{\+?(\w+)\}", lambda match: self.path[match[1]], template)
        return path if self.document.classic else re.sub(r"^v\d+/", "", path)

    def key(self, path: str) -> str:
        """The state's key of a path of this API."""
        return f"{self.api}/{path}"

    def find(self, path: str) -> Thing | None:
        """The thing at a path of this API."""
        return self.state.get(self.key(path))

    def thing(self, path: str | None = None) -> Thing:
        """The thing at a path of this API (by default the one that the request names), or 404."""
        path = self.target if path is None else path
        found = self.find(path)
        if found is None:
            if self.document.classic:
                raise not_found(path)
            raise Refusal(404, f"Requested entity was not found: {path}")
        return found

    def put(self, path: str, thing: Thing) -> Thing:
        """Keep a thing at a path of this API."""
        return self.state.put(self.key(path), thing)

    def delete(self, path: str) -> Thing | None:
        return self.state.delete(self.key(path))

    def children(self, path: str) -> list[Thing]:
        """The things directly below a path of this API, by name."""
        return [thing for _, thing in self.state.children(self.key(path))]

    def constraint(self, name: str) -> bool:
        """Whether an organisation policy (``compute.vmExternalIpAccess``) forbids something in this call's project."""
        return name in self.state.note("constraints").get(self.project, [])


class Raw(dict[str, Any]):
    """An answer that is no JSON: an object's content."""

    def __init__(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        super().__init__()
        self.content, self.headers, self.status = content, headers, status

    def part(self, wanted: str) -> Raw:
        """What the header ``Range: bytes=N-[M]`` asks for."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        if not match:
            return self
        first, size = int(match[1]), len(self.content)
        last = min(int(match[2] or size - 1), size - 1)
        if first >= size:
            raise Refusal(416, "Request range not satisfiable", "requestedRangeNotSatisfiable")
        headers = {**self.headers, "Content-Range": f"bytes {first}-{last}/{size}"}
        return Raw(self.content[first : last + 1], headers, 206)


Handler = Callable[[Call], Thing]
HANDLERS: dict[str, Handler] = {}


def handles(*ids: str) -> Callable[[Handler], Handler]:
    """Say which of Google's methods a function answers."""

    def register(function: Handler) -> Handler:
        for method_id in ids:
            if method_id in HANDLERS:
                raise ValueError(f"two handlers for {method_id}")
            HANDLERS[method_id] = function
        return function

    return register


def load() -> None:
    """Import every module with handlers."""
    package = importlib.import_module(f"{__package__}.compute")
    for found in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{found.name}")
    for name in MODULES:
        importlib.import_module(f"{__package__}.{name}")
