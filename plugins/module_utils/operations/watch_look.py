# SPDX-License-Identifier: Apache-2.0
"""One look at the machine: containers, runs that should have a worker, heartbeats, what the webserver serves.

Cheap, since it is taken twice a minute: two calls of the engine, one query, one request. What cannot be asked is None,
and nothing is concluded from it.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import code_server, docker_cli, graphql, swarm
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config, database
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.watch_settings import Settings

CONTAINER_TAG = "docker/container_id"
SERVICE_TAG = "dagster_gce/service"
SERVER_TAG = ".dagster/grpc_info"
PROMISE_TAG = "dagster/will_retry"
RETRY_TAG = "dagster/auto_retry_run_id"
# Seconds since its failure within which a run's retry is missed: the daemon begins one within seconds, and what nobody
# has missed for an hour is a person's affair.
UNRETRIED = (60, 3600)

# The engine answers in some hundredths of a second. On a machine where it takes so long everything is slow, and nothing
# is proved by a service that does not answer in time.
STARVED_SECONDS = 3.0

_RUN_ID = re.compile(r"[0-9A-Za-z-]+")


@dataclass(frozen=True)
class Container:
    """A container of ours, as the engine knows it. ``started`` and ``finished`` are seconds since the epoch."""

    id: str
    name: str
    part: str
    status: str
    run_id: str = ""
    pid: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    health: str = ""
    policy: str = ""
    started: float = 0.0
    started_text: str = ""
    finished: float = 0.0
    addresses: tuple[str, ...] = ()
    # Of Docker Swarm, which looks after the container itself.
    service: str = ""

    @property
    def gone(self) -> bool:
        """Whether nothing runs in it, and nothing will by itself."""
        return self.status in ("exited", "dead")

    @property
    def life(self) -> str:
        """Changes whenever the processes in it are new ones."""
        return f"{self.id[:12]} {self.started_text}"


@dataclass(frozen=True)
class Run:
    """A run that should have a worker. ``begun``: when it started, else when it was made; by the database.

    ``updated`` is when its state was last written.
    """

    run_id: str
    status: str
    begun: float
    container_id: str
    server: str
    has_started: bool
    updated: float = 0.0
    service: str = ""

    @property
    def is_service(self) -> bool:
        """Whether it was launched as a service of Docker Swarm: a retry has its predecessor's tag before it is."""
        return self.service == swarm.service_name(self.run_id)


@dataclass
class Look:
    """What was found; None stands for what could not be asked."""

    # Whether the machine has no time left for anything.
    starved: bool = False
    containers: dict[str, Container] = field(default_factory=dict)
    # By id: those that a run in flight names, and those that run.
    workers: dict[str, Container] = field(default_factory=dict)
    # Ids that the engine does not know.
    missing: frozenset[str] = frozenset()
    ended_workers: int = 0
    # By run: those of runs in flight, and those that go. None: there is no swarm, or it could not be asked.
    services: dict[str, swarm.Task] | None = None
    # Runs that have, or had, a container in which something was started.
    launched: frozenset[str] = frozenset()
    runs: list[Run] | None = None
    # Of runs that have a running container: status, and None for a run that Dagster does not know.
    known: dict[str, str] = field(default_factory=dict)
    # Runs that have failed a minute ago or more and were promised a retry that is not there.
    unretried: list[str] = field(default_factory=list)
    # Whether a sensor's state was last written in the future.
    sensors_ahead: bool = False
    heartbeats: dict[str, float] | None = None
    database_error: str = ""
    locations: dict[str, graphql.Location] | None = None
    webserver_error: str = ""


def take(settings: Settings) -> Look:
    """Look at everything.

    Raises:
        docker_cli.DockerError: the engine does not answer; without it nothing can be said.
    """
    look = Look()
    # Containers before runs: the container of a run that appears meanwhile is asked for by its id.
    begun = time.monotonic()
    listed = _list()
    look.starved = time.monotonic() - begun > STARVED_SECONDS
    services = _services(listed)
    own = [each for each in listed if not each["service"]]
    look.ended_workers = sum(1 for each in own if each["run"] and each["state"] in ("exited", "dead"))
    look.launched = frozenset(each["run"] for each in listed if each["run"] and each["state"] != "created")
    working = [each for each in listed if each["run"] and each["state"] not in ("exited", "dead", "created")]
    labelled = [*(each["run"] for each in working), *(each.run_id for each in services or () if each.goes)]
    _ask_database(look, labelled, settings)
    _ask_swarm(look, services)
    named = [each.container_id for each in look.runs or () if each.container_id]
    standing = [each["id"] for each in listed if not each["run"]]
    found, look.missing = _inspect(dict.fromkeys([*standing, *(each["id"] for each in working), *named]))
    for each in found:
        if each.run_id:
            look.workers[each.id] = each
        else:
            look.containers[each.name] = each
    _ask_webserver(look, settings)
    return look


def inspect(name: str) -> Container | None:
    """One container, asked for now; None if the engine does not know it."""
    found, _missing = _inspect({name: None})
    return found[0] if found else None


def _list() -> list[dict[str, str]]:
    form = (
        '{"id":"{{.ID}}","state":"{{.State}}","run":"{{.Label "dagster/run_id"}}","networks":"{{.Networks}}",'
        '"service":"{{.Label "com.docker.swarm.service.id"}}"}'
    )
    shown = docker_cli.run(
        ["ps", "-a", "--no-trunc", "--filter", f"label={code_server.LABEL}", "--format", form], timeout=20
    )
    return [json.loads(line) for line in shown.stdout.splitlines() if line.strip()]


def _services(listed: Sequence[Mapping[str, str]]) -> list[swarm.Service] | None:
    """The services of runs, on a machine that has any; None where they cannot be asked for."""
    # PostgreSQL is on the network of the swarm, where there is one: no call of the engine on a machine without.
    if not any(swarm.NETWORK in each["networks"].split(",") for each in listed):
        return None
    try:
        return swarm.services()
    except docker_cli.DockerError:
        return None


def _ask_swarm(look: Look, services: Sequence[swarm.Service] | None) -> None:
    if services is None:
        return
    flying = {run.run_id for run in look.runs or ()}
    wanted = [each for each in services if each.goes or each.run_id in flying]
    look.ended_workers += len(services) - len(wanted)
    try:
        look.services = {each.run_id: each for each in swarm.tasks(wanted)}
    except docker_cli.DockerError:
        return
    begun = {run for run, task in look.services.items() if not task.waits}
    look.launched |= begun


def _inspect(names: Mapping[str, None]) -> tuple[list[Container], frozenset[str]]:
    if not names:
        return [], frozenset()
    shown = docker_cli.run(["container", "inspect", *names], check=False, timeout=20)
    try:
        listed = json.loads(shown.stdout or "[]")
    except ValueError as error:
        raise docker_cli.DockerError(f"`docker container inspect` printed no JSON: {shown.stdout[:200]}") from error
    found = [_container(each) for each in listed]
    there = {each.id for each in found} | {each.name for each in found}
    # Only what the engine itself calls unknown: one that it failed to look up may be there.
    said = [line for line in shown.stderr.splitlines() if docker_cli.not_found(docker_cli.Result(1, "", line))]
    missing = {name for name in names if name not in there and any(name in line for line in said)}
    return found, frozenset(missing)


def _container(found: Mapping[str, Any]) -> Container:
    state, labels = found["State"], found["Config"].get("Labels") or {}
    networks = (found.get("NetworkSettings") or {}).get("Networks") or {}
    return Container(
        id=str(found["Id"]),
        name=str(found["Name"]).lstrip("/"),
        part=str(labels.get(code_server.LABEL, "")),
        status=str(state["Status"]),
        run_id=str(labels.get(swarm.LABEL_RUN, "")),
        pid=int(state.get("Pid") or 0),
        exit_code=int(state.get("ExitCode") or 0),
        oom_killed=bool(state.get("OOMKilled")),
        health=str((state.get("Health") or {}).get("Status") or ""),
        policy=str((found["HostConfig"].get("RestartPolicy") or {}).get("Name") or "no"),
        started=_moment(state.get("StartedAt")),
        started_text=str(state.get("StartedAt") or ""),
        finished=_moment(state.get("FinishedAt")),
        addresses=tuple(
            str(each[key]) for each in networks.values() for key in ("IPAddress", "GlobalIPv6Address") if each.get(key)
        ),
        service=str(labels.get("com.docker.swarm.service.id", "")),
    )


def _moment(text: Any) -> float:
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, code_server.instant(str(text)))
    return 0.0


# Only what the run table's own columns and two tags say; nothing is written (docs/watch.md).
_SQL = """
SELECT 'run', r.run_id, r.status,
       coalesce(r.start_time, extract(epoch FROM r.create_timestamp)),
       (SELECT t.value FROM run_tags t WHERE t.run_id = r.run_id AND t.key = '{container}' ORDER BY t.id DESC LIMIT 1),
       (SELECT t.value FROM run_tags t WHERE t.run_id = r.run_id AND t.key = '{server}' ORDER BY t.id DESC LIMIT 1),
       r.start_time IS NOT NULL, extract(epoch FROM r.update_timestamp),
       (SELECT t.value FROM run_tags t WHERE t.run_id = r.run_id AND t.key = '{service}' ORDER BY t.id DESC LIMIT 1)
  FROM runs r WHERE r.status IN ('STARTING', 'STARTED', 'CANCELING')
UNION ALL
SELECT 'known', r.run_id, r.status, 0, '', '', false, 0, '' FROM runs r WHERE r.run_id IN ({ids})
UNION ALL
SELECT 'unretried', r.run_id, r.status, 0, '', '', false, 0, '' FROM runs r
  JOIN run_tags w ON w.run_id = r.run_id AND w.key = '{promise}' AND w.value = 'true'
 WHERE r.status = 'FAILURE'
   AND r.end_time BETWEEN extract(epoch FROM now()) - {oldest} AND extract(epoch FROM now()) - {youngest}
   AND NOT EXISTS (SELECT 1 FROM run_tags a WHERE a.run_id = r.run_id AND a.key = '{retry}')
UNION ALL
SELECT 'sensor', i.selector_id, i.status, 0, '', '', false, 0, '' FROM instigators i
 WHERE i.instigator_type = 'SENSOR'
   AND extract(epoch FROM i.update_timestamp) > extract(epoch FROM now()) + {future}
UNION ALL
SELECT 'heartbeat', h.daemon_type, '', extract(epoch FROM h.timestamp), '', '', false, 0, '' FROM daemon_heartbeats h;
"""


def _ask_database(look: Look, ids: Sequence[str], settings: Settings) -> None:
    # Labels are written by the run launcher; all the same nothing but an id gets into the query.
    safe = [f"'{each}'" for each in ids if _RUN_ID.fullmatch(each)]
    sql = _SQL.format(
        container=CONTAINER_TAG, server=SERVER_TAG, service=SERVICE_TAG, promise=PROMISE_TAG, retry=RETRY_TAG,
        youngest=UNRETRIED[0], oldest=UNRETRIED[1], ids=", ".join(safe) or "''",
        future=settings.clock_seconds,
    )  # fmt: skip
    try:
        rows = database.query(sql, timeout=10)
    except database.DatabaseError as error:
        look.database_error = str(error)
        return
    look.runs, look.heartbeats = [], {}
    for kind, name, status, moment, container, server, started, updated, service in rows:
        if kind == "heartbeat":
            look.heartbeats[name] = float(moment or 0)
        elif kind == "known":
            look.known[name] = status
        elif kind == "unretried":
            look.unretried.append(name)
        elif kind == "sensor":
            look.sensors_ahead = True
        else:
            look.runs.append(
                Run(
                    name,
                    status,
                    float(moment or 0),
                    container,
                    _host(server),
                    started == "t",
                    float(updated or 0),
                    service,
                )
            )


def _host(tag: str) -> str:
    with contextlib.suppress(ValueError, AttributeError):
        return str(json.loads(tag).get("host") or "") if tag else ""
    return ""


def _ask_webserver(look: Look, settings: Settings) -> None:
    server = graphql.Webserver(config.stack().webserver_url, settings.webserver_seconds)
    try:
        look.locations = server.locations()
        # The first one needs no database, this one does.
        server.query("{ runsOrError(limit: 1) { __typename } }")
    except graphql.GraphQLError as error:
        look.webserver_error = str(error)
