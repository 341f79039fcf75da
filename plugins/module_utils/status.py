# SPDX-License-Identifier: Apache-2.0
"""The state of the whole, gathered in one go and shown at a glance.

What cannot be asked (no engine, no webserver) is one more line under ``problems``: a status that fails when something
is broken would be of no use.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    code_server,
    daemon,
    deployment,
    deployment_housekeeping,
    docker_cli,
    engine_api,
    graphql,
    releases,
    workspace,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    capacity,
    gateway_place,
    health,
    jobs,
    safety,
    watch_actions,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config as operations_config
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.jobs import CRITICAL, WARNING, Problem


class Findings:
    """What is wrong, in the order in which it was found."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def critical(self, name: str, text: str) -> None:
        """Dagster does not do its work, or will soon not."""
        self.found.append(Problem(name, CRITICAL, text))

    def warning(self, name: str, text: str) -> None:
        """Dagster works; somebody should look."""
        self.found.append(Problem(name, WARNING, text))

    def add(self, problems: list[Problem]) -> None:
        self.found.extend(problems)


def gather(task: deployment.Deployment, deploys: int) -> dict[str, Any]:
    """Everything that `render` shows, as plain data; ``problems`` is a list of ``name``, ``severity``, ``text``."""
    state: dict[str, Any] = {"time": releases.stamp()}
    problems = Findings()
    containers, state["containers"] = _containers(task, problems)
    _webserver(task, state, problems)
    _releases(task, state, containers, problems)
    state["machines"], state["waiting"] = _machines(problems)
    state["disk"] = _disk(task)
    state["deploys"] = task.store.last_deploys(deploys)
    state["jobs"] = _jobs()
    state["actions"] = [asdict(each) for each in watch_actions.last(5)]
    state["lock"] = releases.read_lock(task.store.lock_path)
    if state["lock"] and not state["lock"].get("held"):
        problems.warning(
            "deploy_interrupted",
            f"a {state['lock'].get('operation')} by {state['lock'].get('who') or 'somebody'} died in phase"
            f" {state['lock'].get('phase')}; the next deploy finishes it",
        )
    problems.add(health.of_disk(task.options.root))
    problems.add(health.of_clock())
    problems.add(health.of_jobs())
    problems.add(health.of_units())
    problems.add(safety.of_rotation(task.options.root))
    problems.add(safety.of_reboot())
    problems.add(gateway_place.of_certificate())
    state["problems"] = [asdict(each) for each in health.unique(problems.found)]
    return state


def _containers(
    task: deployment.Deployment, problems: Findings
) -> tuple[list[code_server.Container], list[dict[str, Any]]]:
    try:
        found = health.services(task.options.root)
        problems.add(health.of_services(found))
        return code_server.containers(), [asdict(each) for each in found]
    except docker_cli.DockerError as error:
        problems.critical("engine", str(error))
        return [], []


def _machines(problems: Findings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The swarm's machines and the runs that wait for one; empty without a swarm."""
    try:
        found = capacity.look()
    except engine_api.EngineError:
        # That the engine does not answer is told of the containers.
        return [], []
    if found is None:
        return [], []
    problems.add(capacity.problems(found))
    return [asdict(each) for each in found.machines], [asdict(each) for each in found.waiting]


def _jobs() -> list[dict[str, Any]]:
    """Every job that is set up here or was run by hand, with its last result."""
    known, states = operations_config.jobs(), jobs.current_states()
    return [
        {
            "job": name,
            "part": known[name].part if name in known else "",
            "schedule": (known[name].schedule or known[name].every) if name in known else "",
            "stays": name in known and known[name].stays,
            **{key: states.get(name, {}).get(key) for key in ("ok", "ended", "last_success", "summary")},
        }
        for name in sorted({*known, *states})
    ]


def _webserver(task: deployment.Deployment, state: dict[str, Any], problems: Findings) -> None:
    state.update({"location": None, "daemons": [], "runs": {"in_flight": [], "waiting": 0}, "dagster": ""})
    try:
        location = task.webserver.locations().get(task.settings.location)
        state["location"] = asdict(location) if location else None
        state["dagster"] = task.webserver.version()
        state["daemons"] = [asdict(each) for each in task.webserver.daemons() if each.required]
        in_flight = task.webserver.runs(graphql.IN_FLIGHT)
        state["runs"] = {
            "in_flight": [
                {
                    "run_id": each.run_id,
                    "job": each.job,
                    "status": each.status,
                    # A clock that was set back has runs in its future.
                    "seconds": max(0, round(time.time() - each.created)) if each.created else None,
                    "release": releases.release_of(each.host) or "",
                }
                for each in in_flight
            ],
            "waiting": task.webserver.run_counts()["waiting"],
        }
    except graphql.GraphQLError as error:
        problems.critical("webserver", str(error))
    location = state["location"]
    if location and location["error"]:
        problems.critical("location", f"code location {location['name']} does not load: {location['error']}")
    for each in state["daemons"]:
        if not each["healthy"]:
            problems.critical(f"daemon_{each['kind'].lower()}", f"daemon {each['kind']} is not healthy{_silence(each)}")


def _silence(daemon_state: dict[str, Any]) -> str:
    last = daemon_state["last_heartbeat"]
    return f"; its last heartbeat came {health.duration(time.time() - last)} ago" if last else "; it gave no heartbeat"


def _releases(
    task: deployment.Deployment, state: dict[str, Any], containers: list[code_server.Container], problems: Findings
) -> None:
    try:
        intended = task.serving_release()
    except workspace.WorkspaceError as error:
        intended = None
        problems.critical("workspace", str(error))
    # The truth is what the webserver says; the files only say what it should be.
    served = releases.release_of(state["location"]["host"]) if state["location"] else None
    if intended != served and (state["location"] or intended):
        problems.warning(
            "release_mismatch",
            f"workspace.yaml names release {intended or 'none'}, the webserver serves {served or 'none'};"
            " the next deploy finishes this",
        )
    clients = (
        code_server.client_pids([task.options.webserver_container, task.options.daemon_container]) if containers else {}
    )
    running = {each.release: each for each in containers}
    asked = code_server.contacts(containers, clients.get(task.options.daemon_container), task.settings.port)
    warm = releases.warm(intended, task.store.all())
    state["releases"] = []
    for record in reversed(task.store.all()):
        found = running.pop(record.release, None)
        state["releases"].append(
            {
                "release": record.release,
                "state": "serves"
                if record.release == served
                else "warm"
                if found and record.release == warm
                else record.state,
                "container": found.status if found else "",
                "restarts": found.restarts if found else 0,
                "image": record.identity,
                "reference": record.reference,
                "git_sha": record.git_sha,
                "who": record.who,
                "served": [releases.stamp(each) for each in record.served],
                "daemon_asked_seconds_ago": asked.get(record.release),
                "needed": deployment_housekeeping.needed_by(task, found, clients)
                if found and record.release not in (intended, warm)
                else "",
            }
        )
    state["serves"] = served
    state["daemon_uses"] = [name for name, age in asked.items() if age < daemon.ASKS_WITHIN]
    for name in running:
        problems.warning("release_stray", f"container {releases.container_name(name)} belongs to no recorded release")
    # Where the webserver does not answer, the release that it should serve has to run all the same.
    wanted = served or intended
    serving = next((each for each in containers if each.release == wanted), None)
    if wanted and not (serving and serving.running):
        problems.critical(
            "release_container",
            f"the container of release {wanted}, which serves, is {serving.status if serving else 'gone'};"
            " rollback_core.yml or deploy_core.yml brings one back",
        )
    elif serving and serving.restarts:
        problems.warning(
            "release_restarts", f"the release that serves was restarted {serving.restarts} times by the engine"
        )
    for each in health.of_services(health.inspect([releases.container_name(wanted)] if serving and wanted else [])):
        # That it does not run stands above.
        if serving and serving.running:
            problems.add([each])


def _disk(task: deployment.Deployment) -> dict[str, Any]:
    try:
        found = os.statvfs(task.options.root)
    except OSError:
        return {}
    return {
        "total_gb": round(found.f_blocks * found.f_frsize / 1e9, 1),
        "free_gb": round(found.f_bavail * found.f_frsize / 1e9, 1),
    }


def render(state: dict[str, Any]) -> str:
    """The state as people read it, a screen high."""
    lines = [f"Dagster {state['dagster'] or 'does not answer'}; {state['time']}"]
    location = state["location"]
    if location:
        loaded = "LOADED" if location["loaded"] else "NOT LOADED"
        lines.append(f"{location['name']}: {loaded}, release {state['serves'] or 'unknown'}, image {location['image']}")
    uses = ", ".join(state["daemon_uses"]) or "none"
    lines.append(f"the daemon uses: {uses}")
    lines += ["", "releases"]
    for each in state["releases"]:
        detail = "; ".join(
            part
            for part in (
                each["container"] and f"container {each['container']}",
                each["git_sha"] and f"commit {each['git_sha'][:12]}",
                each["who"] and f"by {each['who']}",
                each["needed"] and f"drains: {each['needed']}",
            )
            if part
        )
        mark = ">" if each["state"] == "serves" else " "
        lines.append(
            f" {mark} {each['release']}  {each['state']:<11} {each['reference'] or each['image']}  {detail}".rstrip()
        )
    if not state["releases"]:
        lines.append("   none")
    daemons = [f"{each['kind']} {'ok' if each['healthy'] else 'NOT HEALTHY'}" for each in state["daemons"]]
    lines += ["", "daemons   " + (", ".join(daemons) or "unknown")]
    runs = state["runs"]
    lines.append(f"runs      {len(runs['in_flight'])} in flight, {runs['waiting']} wait")
    lines += [
        f"   {each['status']:<9} {each['run_id']}  {each['job']}  {each['seconds']} s  {each['release']}"
        for each in runs["in_flight"][:10]
    ]
    if state["machines"]:
        machines = [capacity.Machine(**each) for each in state["machines"]]
        waiting = [capacity.Waiting(**each) for each in state["waiting"]]
        lines += ["machines", *capacity.lines(capacity.Capacity(machines, waiting))]
    if state["disk"]:
        lines.append(f"disk      {state['disk']['free_gb']} GB of {state['disk']['total_gb']} GB free")
    lock = state["lock"]
    if lock.get("held"):
        lines.append(
            f"lock      {lock.get('who')}: {lock.get('operation')} of {lock.get('image')}, phase {lock.get('phase')}"
        )
    # A service that stays has no result; whether it runs is among the problems.
    timed = [each for each in state["jobs"] if not each["stays"]]
    if timed:
        lines += ["", "jobs", *map(_job_line, timed)]
    if state["actions"]:
        lines += ["", "last actions of the watch"]
        lines += [
            f"   {each['time']}  {each['action']} {each['target']}: {each['why']}{'' if each['ok'] else ' FAILED'}"
            for each in state["actions"]
        ]
    lines += ["", "last deploys"]
    lines += [
        f"   {each.get('time')}  {each.get('operation', ''):<8} {each.get('result', ''):<11} {each.get('release', '')}"
        f"  {each.get('seconds')} s  {each.get('who', '')}  {each.get('failure', '')}".rstrip()
        for each in state["deploys"]
    ] or ["   none"]
    if state["problems"]:
        lines += ["", "problems"]
        lines += [f" {'!!' if each['severity'] == CRITICAL else ' !'} {each['text']}" for each in state["problems"]]
    return "\n".join(lines) + "\n"


def _job_line(found: dict[str, Any]) -> str:
    when = f"{health.duration(time.time() - found['ended'])} ago" if found["ended"] else "never ran"
    result = {True: "ok", False: "FAILED", None: ""}[found["ok"]]
    return f"   {found['job']:<8} {result:<6} {when:<10} {found['summary'] or ''}".rstrip()
