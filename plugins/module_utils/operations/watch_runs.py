# SPDX-License-Identifier: Apache-2.0
"""Runs that have no worker any more, and workers that have no run any more.

Dagster's run monitoring fails a run of the Docker launcher whose container died, within its poll interval. What it does
not do: runs inside a code server (DefaultRunLauncher) that went with their container stay STARTED for ever; a run whose
worker died before it began, or while it was being cancelled, holds its place for three minutes; a run of the launcher
that was used before the present one is not understood; a container whose run was marked as failed goes on.

Never is a run judged that may still go:
- a retry carries the tags of the run that it repeats, the id of the dead container too, until it is launched itself:
  a container counts only if its label names the run;
- STARTING without a container of its own belongs to run monitoring (start_timeout_seconds, three minutes), unless the
  daemon that was launching it is gone: the one of today takes runs from the queue, and this one is not there any more;
- a code server that was restarted is asked which runs it has: clocks are no proof, since they are set;
- two looks have to agree.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli, graphql, releases, swarm
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config, watch_look
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.watch_memory import Memory
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.watch_settings import Settings

# Run monitoring looks every dagster_home_run_poll_seconds (15 s): where it does its work, it comes first.
MONITORING_SECONDS = 60.0

FAIL = "fail_run"
CANCEL = "cancel_run"


@dataclass(frozen=True)
class Dead:
    """A run without a worker: what to do with it, and the reason as it stands in the run's log."""

    run: watch_look.Run
    action: str
    reason: str
    # The container, or the service, whose last words belong to the evidence; empty where there is none.
    container: str = ""
    service: str = ""


@dataclass(frozen=True)
class _Finding:
    fact: str
    text: str
    container: str = ""
    seconds: float = 0.0
    service: str = ""


# Which runs a code server has; None if it does not say.
AskServer = Callable[[watch_look.Container], "frozenset[str] | None"]


def dead_runs(look: watch_look.Look, memory: Memory, settings: Settings, ask: AskServer, released: bool) -> list[Dead]:
    """Runs that two looks found without a worker.

    Args:
        ask: asks a code server for its runs.
        released: whether a release is under way; containers of releases come and go then.
    """
    found = []
    answers: dict[str, frozenset[str] | None] = {}

    def asked(container: watch_look.Container) -> frozenset[str] | None:
        if container.name not in answers:
            answers[container.name] = ask(container)
        return answers[container.name]

    for run in look.runs or ():
        finding = (_service_finding if run.is_service else _container_finding)(run, look, settings)
        if finding is None:
            finding = _launch_finding(run, look, memory, settings)
        if finding is None and not released and not run.is_service:
            finding = _server_finding(run, look, memory, settings, asked)
        if finding is None:
            continue
        if memory.seen(f"run {run.run_id} {run.status}", finding.fact, finding.seconds):
            action = CANCEL if run.status == "CANCELING" else FAIL
            found.append(Dead(run, action, finding.text, finding.container, finding.service))
    return found


def _container_finding(run: watch_look.Run, look: watch_look.Look, settings: Settings) -> _Finding | None:
    """What is wrong with the container that the run has of its own; None if nothing is, or it has none."""
    # Run monitoring sees a run that started too, if the launcher is still the same and nobody has switched it off.
    patience = max(settings.agree_seconds, MONITORING_SECONDS if run.status == "STARTED" else 0)
    short = run.container_id[:12]
    worker = look.workers.get(run.container_id)
    if worker is not None and worker.run_id == run.run_id and worker.gone:
        how = "was killed for its memory" if worker.oom_killed else f"ended with exit code {worker.exit_code}"
        return _Finding(
            f"{short} {worker.status}",
            f"container {short} of this run {how} at {releases.stamp(worker.finished)} and the run did not end with it",
            worker.id,
            patience,
        )
    # Only a run that has begun was launched for sure with this container; before, it may be its predecessor's.
    if run.container_id in look.missing and run.status == "STARTED" and not run.server:
        text = f"container {short} of this run is not on this machine any more"
        return _Finding(f"{short} missing", text, "", patience)
    return None


def _service_finding(run: watch_look.Run, look: watch_look.Look, settings: Settings) -> _Finding | None:
    """What is wrong with the service that the run is; None if nothing is, or nobody can say."""
    # A cancel removes the service, and its container may take long to end: that is for run monitoring's own limit.
    if look.services is None or run.status == "CANCELING":
        return None
    patience = max(settings.agree_seconds, MONITORING_SECONDS if run.status == "STARTED" else 0)
    task = look.services.get(run.run_id)
    if task is None:
        if run.status != "STARTED":
            return None
        name = swarm.service_name(run.run_id)
        return _Finding("service missing", f"service {name} of this run is not in the swarm any more", "", patience)
    if task.ended:
        text = f"{task.ended}, and the run did not end with it"
        return _Finding(f"{task.service} {task.state} {bool(task.lost)}", text, "", patience, task.service)
    return None


def _launch_finding(run: watch_look.Run, look: watch_look.Look, memory: Memory, settings: Settings) -> _Finding | None:
    """Whether the run's launch was cut off; None if it was not, or if something of it may have begun."""
    daemon = look.containers.get(config.stack().daemon_container)
    if run.status != "STARTING" or run.server or run.run_id in look.launched or daemon is None:
        return None
    # A service waits for room without its daemon; where the swarm does not say, nothing is concluded.
    if run.is_service and (look.services is None or run.run_id in look.services):
        return None
    # What was started in the future was started before the clock was set back, and proves nothing.
    if daemon.status != "running" or not 0 < run.updated < daemon.started <= memory.wall:
        return None
    since = releases.stamp(daemon.started)
    text = f"{daemon.name}, which was launching this run, was started again at {since}, and the run has no container"
    return _Finding(f"launch {daemon.life}", text, "", settings.agree_seconds)


def _in_server(run: watch_look.Run, look: watch_look.Look) -> bool:
    """Whether the run lives in a release's container. A retry of before a switch of launchers has both tags, one of
    them inherited: if the container is its own, or nobody knows, it does not."""
    if releases.release_of(run.server) is None:
        return False
    if not run.container_id or run.container_id in look.missing:
        return True
    worker = look.workers.get(run.container_id)
    return worker is not None and worker.run_id != run.run_id


def _server_finding(
    run: watch_look.Run, look: watch_look.Look, memory: Memory, settings: Settings, ask: AskServer
) -> _Finding | None:
    """What is wrong with the code server that the run lives in; None if nothing is, or it is none of ours."""
    if not _in_server(run, look):
        return None
    # A launch that is under way has its tag some moments before the server knows of the run.
    patience = max(settings.agree_seconds, MONITORING_SECONDS if run.status == "STARTING" else 0)
    server = look.containers.get(run.server)
    if server is None:
        return _Finding("gone", f"container {run.server}, in which this run was, is gone", "", patience)
    if server.gone or server.status == "restarting":
        return _Finding(
            f"{server.life} {server.status}",
            f"container {run.server}, in which this run was, is {server.status} (exit code {server.exit_code})",
            server.id,
            patience,
        )
    first = memory.keep(f"life {run.run_id}", memory.recall(f"life {run.run_id}") or server.life)
    if server.status != "running" or (server.started <= run.begun and first in (None, server.life)):
        return None
    known = ask(server)
    if known is None or run.run_id in known:
        return None
    return _Finding(
        f"{server.life} unknown",
        f"container {run.server}, in which this run was, was started again at {releases.stamp(server.started)}, and its"
        " code server does not have the run",
        server.id,
        patience,
    )


@dataclass(frozen=True)
class Stray:
    """A running container, or service, whose run has ended, or that Dagster does not know."""

    container: watch_look.Container | None
    why: str
    remove: bool
    service: str = ""


def strays(look: watch_look.Look, memory: Memory, settings: Settings) -> list[Stray]:
    """Containers that go on without a run. Nothing is said where the database does not answer."""
    found: list[Stray] = []
    if look.runs is None:
        return found
    flying = {run.run_id for run in look.runs}
    workers: list[tuple[str, str, watch_look.Container | None]] = [
        (each.id, each.run_id, each)
        for each in look.workers.values()
        if each.status in ("running", "paused") and not each.service
    ]
    workers += [(each.service, each.run_id, None) for each in (look.services or {}).values() if each.goes]
    for name, run_id, container in workers:
        if run_id in flying:
            continue
        status = look.known.get(run_id)
        if status in graphql.FINISHED:
            limit, why = settings.finished_run_seconds, f"its run {run_id} is {status}"
        elif status is None:
            limit, why = settings.unknown_run_seconds, f"Dagster has no run {run_id} (deleted?)"
        else:
            continue
        if memory.seen(f"stray {name}", why, limit):
            why = f"{why} for {memory.standing(f'stray {name}'):.0f} s or more"
            found.append(Stray(container, why, status is None, "" if container else name))
    return found


# Runs inside the code server's container. grpcio itself: importing dagster would cost a second of CPU.
_CURRENT_RUNS = r"""
import json, sys
import grpc
channel = grpc.insecure_channel("localhost:" + sys.argv[1], options=[("grpc.enable_http_proxy", 0)])
raw = channel.unary_unary("/api.DagsterApi/GetCurrentRuns")(b"", timeout=5)
size = shift = 0
at = 1
while raw:
    size |= (raw[at] & 127) << shift
    at, shift = at + 1, shift + 7
    if raw[at - 1] < 128:
        break
answer = json.loads(raw[at:at + size]) if raw else {}
print(json.dumps(answer.get("current_runs")))
"""


def current_runs(container: watch_look.Container, port: int) -> frozenset[str] | None:
    """The runs that the code server in the container has; None if it does not say."""
    try:
        said = docker_cli.run(["exec", container.id, "python", "-c", _CURRENT_RUNS, str(port)], check=False, timeout=15)
        listed = json.loads(said.stdout) if said.ok else None
    except (docker_cli.DockerError, ValueError):
        return None
    return frozenset(map(str, listed)) if isinstance(listed, list) else None


# Runs inside the daemon's or the webserver's container, where DAGSTER_HOME is: the run's end becomes an event of its
# log, and the daemon that retries runs reads that event. SQL would leave log, tags and retries out.
_REPORT = r"""
import json, sys
from dagster import DagsterInstance
told = []
with DagsterInstance.get() as instance:
    for each in json.load(sys.stdin):
        run = instance.get_run_by_id(each["run_id"])
        if run is None:
            told.append("deleted")
        elif run.status.value != each["status"]:
            told.append(run.status.value)
        else:
            report = instance.report_run_canceled if each["action"] == "cancel_run" else instance.report_run_failed
            report(run, each["message"])
            told.append("")
print(json.dumps(told))
"""


def report(dead: list[Dead], containers: list[str]) -> list[str]:
    """End these runs in Dagster, with the reason in their logs.

    Args:
        containers: where Dagster's instance can be reached; the first that runs is used.

    Returns:
        For each run an empty text, or what became of it meanwhile (its status, ``deleted``).

    Raises:
        docker_cli.DockerError: it could not be done.
    """
    orders = [
        {"run_id": each.run.run_id, "status": each.run.status, "action": each.action, "message": message(each)}
        for each in dead
    ]
    last: docker_cli.DockerError | None = None
    for name in containers:
        try:
            done = docker_cli.run(["exec", "-i", name, "python", "-c", _REPORT], input=json.dumps(orders), timeout=120)
            told = json.loads(done.stdout.strip().splitlines()[-1])
        except docker_cli.DockerError as error:
            last = error
        except (ValueError, IndexError) as error:
            last = docker_cli.DockerError(f"the program in {name} said {done.stdout[-300:]!r}: {error}")
        else:
            return [str(each) for each in told]
    raise last or docker_cli.DockerError("neither the daemon nor the webserver runs")


def message(dead: Dead) -> str:
    """The event in the run's log: what was found and what to do."""
    if dead.action == CANCEL:
        return f"Cancelled: {dead.reason}. It was being cancelled when its worker went."
    return (
        f"Failed by the watch of this machine: {dead.reason}. The run's process is gone, so nothing of it goes on; what"
        " its finished steps stored is kept. It is retried where run retries are on (dagster_home_run_retries) and its"
        " retries are not used up; otherwise re-execute it from failure."
    )
