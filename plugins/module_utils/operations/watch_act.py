# SPDX-License-Identifier: Apache-2.0
"""The hands of the watch: each repair is done, bounded, and written down."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    code_server,
    deployment,
    deployment_leftovers,
    docker_cli,
    graphql,
    postgres_volume,
    swarm,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    config,
    jobs,
    watch_actions,
    watch_location,
    watch_look,
    watch_retries,
    watch_runs,
    watch_sensors,
    watch_services,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.watch_actions import Action
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.watch_memory import Memory
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.watch_settings import Settings

# What hangs does not end by SIGTERM either.
STOP_SECONDS = 10
# A hanging process gets this long to say where it hangs.
DUMP_SECONDS = 5.0
LOG_LINES = 60


class Hands:
    """Does repairs and remembers what came of them.

    Args:
        memory: counts what was done to whom.
        settings: bounds it.
    """

    def __init__(self, memory: Memory, settings: Settings) -> None:
        self.memory = memory
        self.settings = settings
        self.done: list[Action] = []
        self.problems: list[jobs.Problem] = []

    def note(self, action: str, target: str, why: str, error: str = "", evidence: str = "") -> None:
        """Write down what was done."""
        found = Action(action, target, why, not error, error, evidence)
        watch_actions.write(found)
        self.done.append(found)

    def repair(self, repair: watch_services.Repair) -> None:
        """Do one repair; an error of it is written down and the next look tries again, within the bounds."""
        key = f"{repair.action} {repair.name}"
        # A change of a setting disturbs nobody, and a reload has its own pauses.
        bounded = repair.action not in (watch_services.POLICY, watch_location.RELOAD)
        if bounded and self.memory.within_hour(key) >= self.settings.restarts_per_hour:
            self.problems.append(
                jobs.Problem(
                    f"watch_{repair.action}_{repair.name}",
                    jobs.CRITICAL,
                    f"{repair.name}: {repair.why}; the watch did `{repair.action}` {self.settings.restarts_per_hour}"
                    f" times within an hour and stops there: see `docker logs --tail 100 {repair.name}` and"
                    f" {os.path.join(config.stack().state, 'evidence')}",
                )
            )
            return
        if bounded:
            self.memory.count(key)
        error = evidence = ""
        try:
            evidence = self._do(repair) or ""
        except (docker_cli.DockerError, graphql.GraphQLError) as failed:
            error = str(failed).strip()[:500]
        for each in ("standing", "silent", "release", "steady"):
            self.memory.forget(f"{each} {repair.name}")
        self.note(repair.action, repair.name, repair.why, error, evidence)

    def _do(self, repair: watch_services.Repair) -> str | None:
        name = repair.name
        if repair.action == watch_services.START:
            docker_cli.run(["start", name], timeout=120)
            self._policy(name)
        elif repair.action == watch_services.CREATE:
            _compose_up(name)
        elif repair.action == watch_services.UNPAUSE:
            docker_cli.run(["unpause", name], timeout=60)
        elif repair.action == watch_services.POLICY:
            self._policy(name)
        elif repair.action == watch_services.RESTART:
            if repair.hangs:
                return restart_hanging(name, repair.why)
            docker_cli.run(["restart", name], timeout=180)
        elif repair.action == watch_location.RELOAD:
            found = graphql.Webserver(config.stack().webserver_url).reload_workspace(120).get(name)
            if found is None or found.error or not found.loaded:
                said = found.error.splitlines()[0][:300] if found and found.error else "it is not loaded"
                raise graphql.GraphQLError(f"after the reload: {said}")
        return None

    def _policy(self, name: str) -> None:
        """What brings the container back after a death and a boot: releases differ from the stack."""
        if name.startswith("docker_dagster_core_"):
            code_server.keep_running(name)
        else:
            docker_cli.run(["update", "--restart", "always", name])

    def end_runs(self, dead: Sequence[watch_runs.Dead]) -> None:
        """Tell Dagster about runs without a worker."""
        if not dead:
            return
        stack = config.stack()
        try:
            told = watch_runs.report(list(dead), [stack.daemon_container, stack.webserver_container])
        except docker_cli.DockerError as failed:
            for each in dead:
                self.note(each.action, each.run.run_id, each.reason, str(failed).strip()[:500])
            return
        for each, meanwhile in zip(dead, told, strict=True):
            if not meanwhile:
                said = code_server.logs(each.container, LOG_LINES) if each.container else ""
                if each.service:
                    said = swarm.logs(each.service, LOG_LINES)
                kept = watch_actions.evidence(f"run-{each.run.run_id[:8]}", said) if said else ""
                self.note(each.action, each.run.run_id, each.reason, evidence=kept)

    def retry(self, runs: Sequence[str]) -> None:
        """Begin retries that were promised and forgotten."""
        if not runs:
            return
        why = "Dagster promised a retry when it failed, and had not begun one"
        try:
            told = watch_retries.begin(runs, config.stack().daemon_container)
        except docker_cli.DockerError as failed:
            for each in runs:
                self.note(watch_retries.ACTION, each, why, str(failed).strip()[:500])
            return
        for each in runs:
            if told.get(each):
                self.note(watch_retries.ACTION, each, f"{why}; it is {told[each]}")

    def wake_sensors(self) -> None:
        """Let sensors tick again whose last tick is in the future."""
        why = "the clock was set back, and they would wait until it is there again"
        daemon = config.stack().daemon_container
        try:
            woken = watch_sensors.wake(daemon)
        except docker_cli.DockerError as failed:
            self.note(watch_sensors.ACTION, daemon, why, str(failed).strip()[:500])
            return
        if woken:
            self.note(watch_sensors.ACTION, ", ".join(woken)[:500], why)

    def end_strays(self, strays: Sequence[watch_runs.Stray]) -> None:
        """Stop containers whose run has ended."""
        for each in strays:
            error, name = "", each.container.id if each.container else each.service
            try:
                if each.container is None:
                    swarm.remove([each.service])
                else:
                    docker_cli.run(["stop", "-t", "30", name], timeout=90)
                    if each.remove:
                        docker_cli.run(["rm", "-v", name], check=False, timeout=60)
            except docker_cli.DockerError as failed:
                error = str(failed).strip()[:500]
            self.note("stop_container" if each.container else "remove_service", name[:12], each.why, error)

    def remove_ended_workers(self, ended: int) -> None:
        """Remove containers of finished runs by age and count, as a deploy does; once an hour, or if they are many."""
        if not ended or (ended <= self.settings.keep_run_containers and self.memory.within_hour("leftovers")):
            return
        self.memory.values["count leftovers"] = [self.memory.now]
        stack = config.stack()
        options = deployment.Options(
            root=stack.root,
            webserver_url=stack.webserver_url,
            keep_run_containers=self.settings.keep_run_containers,
            keep_run_containers_hours=self.settings.keep_run_containers_hours,
        )
        with contextlib.suppress(docker_cli.DockerError):
            count = deployment_leftovers.remove_run_containers(deployment.Deployment(options, code_server.Settings()))
            if count:
                self.note("remove_containers", f"{count} containers", "their runs have ended")


def _compose_up(name: str) -> None:
    root = config.stack().root
    try:
        volume = postgres_volume.name(root)
    except ValueError as error:
        raise docker_cli.DockerError(str(error)) from error
    if docker_cli.inspect("volume", volume) is None:
        # Compose would make an empty one, and Dagster begin anew in it.
        raise docker_cli.DockerError(
            f"volume {volume}, which holds PostgreSQL's data, is not on this machine (is the data disk mounted below"
            " Docker's folder?); the watch makes no empty one"
        )
    # --no-recreate: a play that is changing the stack decides what is replaced.
    docker_cli.run(
        ["compose", "-f", f"{root}/docker-compose-GCE.yml", "-p", "dagster", "up", "-d", "--no-recreate", "--no-build",
         "--pull", "never", name],
        timeout=240, cwd=root,
    )  # fmt: skip


def restart_hanging(name: str, why: str) -> str:
    """Restart a container that is alive and does nothing; returns the file with what it said.

    Raises:
        docker_cli.DockerError: the engine did not restart it.
    """
    before = watch_look.inspect(name)
    seen = [f"{name}: {why}", "", *(processes(before.pid) if before else []), ""]
    if before and before.status == "running":
        dump(before)
    said = code_server.logs(name, 400)
    after = watch_look.inspect(name)
    # What ended by the dump is on its way up again, started by the engine.
    if before is None or after is None or after.life == before.life or after.gone:
        docker_cli.run(["restart", "-t", str(STOP_SECONDS), name], timeout=120)
    return watch_actions.evidence(name, "\n".join([*seen, "last lines of its log:", said, ""]))


def dump(container: watch_look.Container) -> None:
    """Make Python print the stack of every thread: faulthandler does on SIGABRT (PYTHONFAULTHANDLER), and it ends then.

    Without faulthandler it only ends, which is what is wanted anyway.
    """
    for pid in _python(container.pid):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGABRT)
            # One that was stopped takes no signal before it goes on.
            os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + DUMP_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.25)
        now = watch_look.inspect(container.name)
        if now is None or now.life != container.life or now.gone:
            return


def processes(pid: int) -> list[str]:
    """A line for each thread of the container: its state and where in the kernel it waits."""
    lines = ["processes (pid, thread, state, waits in, name):"]
    for process in [pid, *_children(pid)]:
        with contextlib.suppress(OSError):
            for thread in sorted(os.listdir(f"/proc/{process}/task"), key=int):
                folder = f"/proc/{process}/task/{thread}"
                state = _read(f"{folder}/stat").rpartition(")")[2].split()[:1]
                comm = _read(f"{folder}/comm").strip()
                lines.append(f"{process} {thread} {' '.join(state)} {_read(f'{folder}/wchan') or '-'} {comm}")
    return lines[:400]


def _python(pid: int) -> list[int]:
    """The processes in the container that run Python: `init` is the first one, and passes no abort on."""
    children = _children(pid)
    return [each for each in (children[:1] or [pid]) if each > 1]


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in _read(f"/proc/{pid}/task/{thread}/children").split():
                found += [int(child), *_children(int(child))]
    return found


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""
