"""Google's discovery documents: which method a request means, and whether request and answer fit their schemas.

The documents come with PyPI's google-api-python-client; nothing of them is copied into this repository. What they do
not say (which fields of an insert are required) stands in ``required.json``, taken from Google's REST reference.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from .schemas import Checker, Problem, Schema, check_text, is_uuid, without_read_only

# The document names that are served, by host. Compute answers on two names.
DOCUMENTS: dict[str, list[str]] = {
    "compute.googleapis.com": ["compute.v1"],
    "www.googleapis.com": ["compute.v1"],
    "iam.googleapis.com": ["iam.v1"],
    "iamcredentials.googleapis.com": ["iamcredentials.v1"],
    "cloudresourcemanager.googleapis.com": ["cloudresourcemanager.v1", "cloudresourcemanager.v3"],
    "serviceusage.googleapis.com": ["serviceusage.v1"],
    "artifactregistry.googleapis.com": ["artifactregistry.v1"],
    "secretmanager.googleapis.com": ["secretmanager.v1"],
    "oslogin.googleapis.com": ["oslogin.v1"],
    "iap.googleapis.com": ["iap.v1"],
    "sts.googleapis.com": ["sts.v1"],
    "storage.googleapis.com": ["storage.v1"],
}

# What the reference documents for every list of compute's, and its v1 document has lost (the beta's has it).
LISTS = {"returnPartialSuccess": {"type": "boolean", "location": "query"}}


@dataclass
class Method:
    """One method of an API."""

    api: str  # compute.v1
    id: str  # compute.networks.insert, as the document has it
    http: str
    path: str  # with the service's path in front
    flat_path: str
    parameters: dict[str, Schema]
    common: dict[str, Schema]
    request: str | None
    response: str | None
    scopes: frozenset[str]
    _expression: re.Pattern[str] | None = field(default=None, repr=False)

    @property
    def key(self) -> str:
        """The id; with the version where one API has two (``cloudresourcemanager.v3.projects.get``)."""
        name, version = self.api.split(".")
        return self.id.replace(f"{name}.", f"{name}.{version}.", 1) if name == "cloudresourcemanager" else self.id

    def path_values(self, path: str) -> dict[str, str] | None:
        """The path's parameters, or None where the path is not this method's."""
        if self._expression is None:
            parts = re.split(r"\{(\+?)(\w+)\}", self.path)
            expression = re.escape(parts[0])
            for plus, name, literal in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
                expression += f"(?P<{name}>{'.+' if plus else '[^/]+'}){re.escape(literal)}"
            self._expression = re.compile(expression)
        match = self._expression.fullmatch(path)
        return {name: unquote(value) for name, value in match.groupdict().items()} if match else None


class Document:
    """One discovery document.

    :param name: ``compute.v1``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        source = importlib.resources.files("googleapiclient") / "discovery_cache" / "documents" / f"{name}.json"
        document = json.loads(source.read_bytes())
        self.revision: str = document["revision"]
        self.service_path: str = document["servicePath"]
        self.schemas: dict[str, Schema] = document["schemas"]
        self.methods: dict[str, Method] = {}
        self._tree: dict[str, Any] = {}
        self._deep: list[Method] = []
        self._read(document, document["parameters"])

    def _read(self, node: dict[str, Any], common: dict[str, Schema]) -> None:
        for entry in node.get("methods", {}).values():
            method = Method(
                api=self.name,
                id=entry["id"],
                http=entry["httpMethod"],
                path=self.service_path + entry["path"],
                flat_path=self.service_path + entry.get("flatPath", entry["path"]),
                parameters=entry.get("parameters", {}),
                common=common,
                request=entry.get("request", {}).get("$ref"),
                response=entry.get("response", {}).get("$ref"),
                scopes=frozenset(entry.get("scopes", ())),
            )
            self.methods[method.id] = method
            self._plant(method)
        for child in node.get("resources", {}).values():
            self._read(child, common)

    def _plant(self, method: Method) -> None:
        """Put the method into a tree of path segments: a thousand regular expressions would cost a test run 0.3 s."""
        if re.search(r"\{\+\w+\}", method.path) and any(
            ".*" in parameter.get("pattern", "") for parameter in method.parameters.values()
        ):
            self._deep.append(method)  # its one parameter may hold any number of segments
        branch = self._tree
        for step in _steps(method.flat_path):
            branch = branch.setdefault("{}" if step.startswith("{") else step, {})
        branch.setdefault(f" {method.http}", method)

    def match(self, http: str, path: str) -> tuple[Method, dict[str, str]] | None:
        """The method that a request means and its path parameters; ``path`` has no leading slash."""
        candidates: list[Method] = []
        _walk(self._tree, _steps(path), f" {http}", candidates)
        candidates += [method for method in self._deep if method.http == http]
        for method in candidates:
            values = method.path_values(path)
            if values is not None:
                return method, values
        return None

    # -- schemas

    def check_query(self, method: Method, query: dict[str, list[str]]) -> list[Problem]:
        """What is wrong with a request's query parameters."""
        problems = []
        for name, values in query.items():
            schema = method.parameters.get(name) or method.common.get(name)
            if schema is None and "pageToken" in method.parameters:
                schema = LISTS.get(name)
            if schema is None or schema.get("location") == "path":
                message = f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query parameter.'
                problems.append(Problem("unknown", name, message))
                continue
            if len(values) > 1 and not schema.get("repeated"):
                problems.append(Problem("type", name, f"Invalid value for parameter '{name}': it is given twice."))
            problems += [problem for value in values for problem in check_text(schema, value, name)]
            if name == "requestId" and not is_uuid(values[0]):
                problems.append(
                    Problem("format", name, f"Invalid value for field 'requestId': '{values[0]}'. Must be a UUID.")
                )
        for name, schema in method.parameters.items():
            if schema.get("required") and schema["location"] == "query" and name not in query:
                problems.append(Problem("required", name, f"Required parameter: {name}"))
        return problems

    def check_path(self, method: Method, values: dict[str, str]) -> list[Problem]:
        """What is wrong with a request's path parameters."""
        return [
            problem
            for name, value in values.items()
            # gcloud asks for an image "in any zone"; the document's pattern for zones does not know that.
            if (method.id, name, value) != ("compute.imageFamilyViews.get", "zone", "-")
            for problem in check_text(method.parameters[name], value, name)
        ]

    def check_request(self, method: Method, body: Any) -> list[Problem]:
        """What is wrong with a request's body."""
        if method.request is None:
            return [] if body is None else [Problem("unknown", "", f"{method.id} takes no body")]
        checker = Checker(self.schemas, method.id, strict=False)
        checker.value({"$ref": method.request}, {} if body is None else body, "resource" if self.classic else "")
        return checker.problems

    def check_response(self, method: Method, body: Any) -> list[Problem]:
        """What in an answer does not fit: types are exact (an int64 is text), every name is known."""
        if method.response is None:
            return [] if not body else [Problem("unknown", "", f"{method.id} answers nothing")]
        checker = Checker(self.schemas, method.id, strict=True)
        checker.value({"$ref": method.response}, body, "")
        return checker.problems

    @property
    def classic(self) -> bool:
        """Whether this API is one of the old ones (compute, storage), whose errors look different."""
        return self.name.startswith(("compute.", "storage."))

    def without_read_only(self, method: Method, body: Any) -> Any:
        """A request's body as Google takes it from a client that sends back what it read: without read-only fields."""
        return body if method.request is None else without_read_only(self.schemas, {"$ref": method.request}, body)


def _steps(path: str) -> list[str]:
    """A path's segments; a verb after a colon is one of its own (``…/repositories/r:getIamPolicy``)."""
    steps = path.split("/")
    last, colon, verb = steps[-1].rpartition(":")
    if colon and re.fullmatch(r"[A-Za-z]+", verb):
        steps[-1:] = [last, f":{verb}"]
    return steps


def _walk(branch: dict[str, Any], steps: list[str], http: str, found: list[Method]) -> None:
    if not steps:
        if http in branch:
            found.append(branch[http])
        return
    for choice in (steps[0], "{}"):
        if choice in branch and not (choice == "{}" and not steps[0]):
            _walk(branch[choice], steps[1:], http, found)


@functools.cache
def document(name: str) -> Document:
    """A document, read at its first use."""
    return Document(name)


def documents(host: str) -> list[Document]:
    """The documents that a host serves."""
    return [document(name) for name in DOCUMENTS.get(host, ())]


def find(host: str, http: str, path: str) -> tuple[Document, Method, dict[str, str]] | None:
    """What a request means: document, method and path parameters; None where Google has no such method."""
    for candidate in documents(host):
        found = candidate.match(http, path.lstrip("/"))
        if found:
            return candidate, *found
    return None


@functools.cache
def method(key: str) -> tuple[Document, Method]:
    """A method by its id (``compute.networks.insert``, ``cloudresourcemanager.v3.projects.get``)."""
    for name in dict.fromkeys(name for names in DOCUMENTS.values() for name in names):
        if key.startswith(name.split(".")[0] + "."):
            for candidate in document(name).methods.values():
                if candidate.key == key:
                    return document(name), candidate
    raise KeyError(f"Google's documents have no method {key}")


def path_names(wanted: Method) -> list[str]:
    """The names of a method's path parameters."""
    return re.findall(r"\{\+?(\w+)\}", wanted.path)


def expand(wanted: Method, values: dict[str, str]) -> str:
    """A method's path with its parameters filled in."""
    return re.sub(r"\{\+?(\w+)\}", lambda match: str(values[match[1]]), wanted.path)
