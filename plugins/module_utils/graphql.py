# SPDX-License-Identifier: Apache-2.0
"""The webserver's GraphQL API, as far as releases, the status and the proof need it.

Standard library only. Checked against Dagster 1.13; the schema is what ``dagster-graphql`` prints.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# How many runs one query asks for. An answer of this length may not be all of them.
RUNS_LIMIT = 500

# Daemons send a heartbeat every 30 s, later when an evaluation takes long.
HEARTBEAT_SECONDS = 120

# A run in one of these states has a worker somewhere (or should have one).
IN_FLIGHT = ("STARTING", "STARTED", "CANCELING")
# A run in one of these states waits for one; its image is needed later.
WAITING = ("QUEUED", "NOT_STARTED")
FINISHED = ("SUCCESS", "FAILURE", "CANCELED")

_ERROR = "... on PythonError { message className stack causes { message className stack } }"
_ENTRY = f"""
  name loadStatus updatedTimestamp displayMetadata {{ key value }}
  locationOrLoadError {{
    __typename
    ... on RepositoryLocation {{ repositories {{ name }} }}
    {_ERROR}
  }}
"""
_RUN = """
  runId status jobName creationTime startTime
  tags { key value }
  repositoryOrigin { repositoryLocationName repositoryLocationMetadata { key value } }
"""


class GraphQLError(Exception):
    """The webserver answered, with an error."""


class WebserverUnreachableError(GraphQLError):
    """No usable answer: connection refused, reset, timed out, or not GraphQL."""


@dataclass(frozen=True)
class Location:
    """What the webserver serves under one location's name."""

    name: str
    loaded: bool
    error: str
    host: str
    image: str
    repositories: tuple[str, ...] = ()
    load_status: str = ""
    updated: float = 0.0


@dataclass(frozen=True)
class Run:
    """A run, with the image it needs and the code server (``host``) that it was made from."""

    run_id: str
    status: str
    job: str
    location: str
    image: str
    host: str
    container_id: str
    created: float
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Daemon:
    """One daemon type. ``healthy`` is stricter than Dagster's own, which trusts a heartbeat for half an hour."""

    kind: str
    required: bool
    healthy: bool
    last_heartbeat: float
    errors: tuple[str, ...]


class Webserver:
    """GraphQL over HTTP to one webserver.

    Args:
        url: base address, e.g. ``http://127.0.0.1:3000``.
        timeout: seconds for one request.
    """

    def __init__(self, url: str, timeout: float = 30) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        # Never through a proxy of the environment: this is the machine's own address.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def query(
        self, text: str, variables: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Run a query or mutation and return its ``data``.

        Raises:
            WebserverUnreachableError: there was no usable answer.
            GraphQLError: the answer carries errors.
        """
        request = urllib.request.Request(
            self.url + "/graphql",
            data=json.dumps({"query": text, "variables": variables or {}}).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=timeout or self.timeout) as response:
                payload = json.load(response)
        except urllib.error.HTTPError as error:
            # GraphQL errors of the request itself come with status 400 or 500 and a JSON body.
            body = error.read().decode("utf-8", "replace")
            try:
                payload = json.loads(body)
            except ValueError:
                raise WebserverUnreachableError(f"{self.url} answered HTTP {error.code}: {body[:300]}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise WebserverUnreachableError(f"{self.url} does not answer: {reason}") from error
        if not isinstance(payload, dict):
            raise WebserverUnreachableError(f"{self.url} is no GraphQL server: {str(payload)[:200]}")
        if payload.get("errors"):
            raise GraphQLError("; ".join(str(each.get("message", each)) for each in payload["errors"]))
        return dict(payload.get("data") or {})

    def locations(self) -> dict[str, Location]:
        """What is served now, by location name."""
        data = self.query(
            f"{{ workspaceOrError {{ __typename ... on Workspace {{ locationEntries {{ {_ENTRY} }} }} {_ERROR} }} }}"
        )
        return _workspace(data["workspaceOrError"])

    def reload_workspace(self, timeout: float = 120) -> dict[str, Location]:
        """Make the webserver read workspace.yaml again; returns what it serves after that.

        ``reloadRepositoryLocation`` would not do: it keeps the address that the webserver already has.
        """
        data = self.query(
            f"mutation {{ reloadWorkspace {{ __typename ... on Workspace {{ locationEntries {{ {_ENTRY} }} }}"
            f" ... on UnauthorizedError {{ message }} {_ERROR} }} }}",
            timeout=timeout,
        )
        return _workspace(data["reloadWorkspace"])

    def runs(self, statuses: Sequence[str], limit: int = RUNS_LIMIT) -> list[Run]:
        """The newest ``limit`` runs in these states."""
        data = self.query(
            f"query($filter: RunsFilter, $limit: Int) {{ runsOrError(filter: $filter, limit: $limit) {{ __typename"
            f" ... on Runs {{ results {{ {_RUN} }} }} ... on InvalidPipelineRunsFilterError {{ message }}"
            f" {_ERROR} }} }}",
            {"filter": {"statuses": list(statuses)}, "limit": limit},
        )
        found = data["runsOrError"]
        if found["__typename"] != "Runs":
            raise GraphQLError(error_text(found))
        return [_run(each) for each in found["results"]]

    def all_runs(self, statuses: Sequence[str]) -> list[Run]:
        """Every run in these states.

        Raises:
            GraphQLError: there are too many to be asked for in one query; what they need is unknown then.
        """
        found = self.runs(statuses)
        if len(found) >= RUNS_LIMIT:
            raise GraphQLError(f"{RUNS_LIMIT} or more runs are {', '.join(statuses)}; expected fewer")
        return found

    def run_counts(self) -> dict[str, int]:
        """How many runs are in flight and how many wait."""
        data = self.query(
            "query($flight: RunsFilter, $wait: RunsFilter) {"
            " flight: runsOrError(filter: $flight) { __typename ... on Runs { count } }"
            " wait: runsOrError(filter: $wait) { __typename ... on Runs { count } } }",
            {"flight": {"statuses": list(IN_FLIGHT)}, "wait": {"statuses": list(WAITING)}},
        )
        return {"in_flight": int(data["flight"].get("count", 0)), "waiting": int(data["wait"].get("count", 0))}

    def daemons(self) -> list[Daemon]:
        """The state of every daemon type that the instance knows."""
        now = time.time()
        data = self.query(
            "{ instance { daemonHealth { allDaemonStatuses {"
            " daemonType required healthy lastHeartbeatTime lastHeartbeatErrors { message } } } } }"
        )
        return [
            Daemon(
                kind=str(each["daemonType"]),
                required=bool(each["required"]),
                healthy=bool(each["healthy"]) and now - float(each["lastHeartbeatTime"] or 0) < HEARTBEAT_SECONDS,
                last_heartbeat=float(each["lastHeartbeatTime"] or 0),
                errors=tuple(error["message"].strip() for error in each["lastHeartbeatErrors"]),
            )
            for each in data["instance"]["daemonHealth"]["allDaemonStatuses"]
        ]

    def version(self) -> str:
        """Dagster's version, as the webserver reports it."""
        return str(self.query("{ version }")["version"])


def error_text(error: Mapping[str, Any], lines: int = 0) -> str:
    """A GraphQL error as text: message, then Python's stack (the innermost ``lines`` of it; 0: all) and its causes."""
    parts = [str(error.get("message") or error.get("__typename") or error).strip()]
    for each in [error, *(error.get("causes") or [])]:
        if each is not error:
            parts.append("caused by: " + str(each.get("message", "")).strip())
        stack = "".join(each.get("stack") or ()).rstrip().splitlines()
        parts.extend(stack[-lines:] if lines else stack)
    return "\n".join(parts)


def _metadata(entries: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {each["key"]: each["value"] for each in entries or ()}


def _workspace(found: Mapping[str, Any]) -> dict[str, Location]:
    if found["__typename"] != "Workspace":
        raise GraphQLError(error_text(found))
    return {each["name"]: _location(each) for each in found["locationEntries"]}


def _location(entry: Mapping[str, Any]) -> Location:
    metadata = _metadata(entry["displayMetadata"])
    inside = entry["locationOrLoadError"]
    loaded = bool(inside) and inside["__typename"] == "RepositoryLocation"
    return Location(
        name=entry["name"],
        loaded=loaded and entry["loadStatus"] == "LOADED",
        error="" if loaded or not inside else error_text(inside),
        host=metadata.get("host", ""),
        image=metadata.get("image", ""),
        repositories=tuple(each["name"] for each in inside["repositories"]) if loaded else (),
        load_status=entry["loadStatus"],
        updated=float(entry.get("updatedTimestamp") or 0),
    )


def _run(found: Mapping[str, Any]) -> Run:
    tags = _metadata(found["tags"])
    origin = found.get("repositoryOrigin") or {}
    metadata = _metadata(origin.get("repositoryLocationMetadata") or ())
    return Run(
        run_id=found["runId"],
        status=found["status"],
        job=found["jobName"],
        location=origin.get("repositoryLocationName", ""),
        image=tags.get("dagster/image") or metadata.get("image", ""),
        host=metadata.get("host", ""),
        container_id=tags.get("docker/container_id", ""),
        created=float(found.get("creationTime") or 0),
        tags=tags,
    )
