# SPDX-License-Identifier: Apache-2.0
"""The container of one release: how it is started, how it is judged, what it is still needed for."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    code_server_probe,
    connections,
    docker_api,
    docker_cli,
    engine_api,
    python_errors,
    releases,
)

LABEL = "dataops.dagster_gce"
LABEL_RELEASE = "dataops.dagster_gce.release"
LABEL_CONFIG = "dataops.dagster_gce.config"
LABEL_IDENTITY = "dataops.dagster_gce.image"

KEY_PATH = "/opt/dagster/dagster_home/secrets/service-account.json"
STORAGE = "/opt/dagster/storage"
# The database's password; runs of the launcher `default`, sensors and schedules open the instance.
DATABASE = "/opt/dagster/dagster_home/database"

# The docker command itself would obey these: it is started with the release's environment.
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
STEERS_DOCKER = re.compile(r"PATH|HOME|(DOCKER|LD)_.*")

# What docker calls a container that died and is about to be started again.
RESTARTING = "restarting"

# A chain of Dagster's tracebacks is some hundred lines.
_CAUSE_LINES = 600


class CandidateError(Exception):
    """The release may not have traffic; the message says why, where in the code, and what it printed last."""


@dataclass(frozen=True)
class Settings:
    """How containers of releases are run.

    ``environment`` (what `.env` holds, secrets too) and ``extra`` (the user code's own settings) go through the docker
    command's own environment: no value is ever an argument of a process.
    """

    network: str = "dagster-network"
    volume: str = "dagster-storage"
    user: str = "10001:10001"
    port: int = 4000
    location: str = "dagster_core"
    memory: str = "2g"
    cpus: str = ""
    pids: int = 1024
    tmp_size: str = "512m"
    stop_timeout: int = 75
    log_max_size: str = "10m"
    log_max_file: int = 3
    key_file: str = ""
    database_folder: str = "/opt/dagster/dagster_home/database"
    read_only: bool = True
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)

    def config_hash(self) -> str:
        """Changes whenever a container started now would differ from one started before, image aside."""
        content: dict[str, Any] = {**self.__dict__, "environment": dict(self.environment), "extra": dict(self.extra)}
        content["key"] = _file_hash(self.key_file)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _file_hash(path: str) -> str:
    if not path:
        return ""
    try:
        with open(path, "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except OSError:
        return "missing"


@dataclass(frozen=True)
class Container:
    """One container of a release, as ``docker inspect`` shows it."""

    name: str
    release: str
    identity: str
    config: str
    running: bool
    status: str
    pid: int
    addresses: tuple[str, ...]
    exit_code: int
    oom_killed: bool
    restarts: int
    started: str
    image_id: str


@dataclass(frozen=True)
class Image:
    """An image on the machine.

    ``id`` is the one name that everything uses for it: it cannot move, exists for every image, and the engine finds it
    without a registry. ``digest`` is the registry's name for it, where there is one.
    """

    reference: str
    id: str
    digest: str


def image(reference: str) -> Image:
    """Resolve a reference (tag, digest or id) to what cannot move.

    Raises:
        CandidateError: the machine has no such image, or it is built for another kind of machine.
    """
    found = docker_cli.inspect("image", reference)
    if found is None:
        raise CandidateError(
            f"image {reference}: not on this machine; expected it to be pulled or built before the release"
            " (role dagster_image)"
        )
    if problem := docker_cli.platform_problem(found):
        raise CandidateError(f"image {reference}: {problem}")
    return Image(reference, str(found["Id"]), docker_cli.repository_digest(found, reference))


def containers() -> list[Container]:
    """Every container of a release, running or not, oldest release first."""
    listed = docker_api.containers(label=[f"{LABEL}=release"])
    # One may vanish in between.
    found = [container(each["Id"]) for each in listed]
    return sorted((each for each in found if each and each.release), key=lambda each: each.release)


def container(name: str) -> Container | None:
    """One container by name or id."""
    found = docker_api.container(name)
    return _container(found) if found else None


def _container(found: Mapping[str, Any]) -> Container:
    state = found["State"]
    labels = found["Config"].get("Labels") or {}
    networks = found["NetworkSettings"].get("Networks") or {}
    addresses = [each.get(key) for each in networks.values() for key in ("IPAddress", "GlobalIPv6Address")]
    return Container(
        name=found["Name"].lstrip("/"),
        release=labels.get(LABEL_RELEASE, ""),
        identity=labels.get(LABEL_IDENTITY, ""),
        config=labels.get(LABEL_CONFIG, ""),
        running=bool(state["Running"]) and not state.get("Restarting"),
        status=state["Status"],
        pid=int(state.get("Pid") or 0),
        addresses=tuple(str(each) for each in addresses if each),
        exit_code=int(state.get("ExitCode") or 0),
        oom_killed=bool(state.get("OOMKilled")),
        restarts=int(found.get("RestartCount") or 0),
        started=state.get("StartedAt", ""),
        image_id=found.get("Image", ""),
    )


def instant(text: str) -> float:
    """The time of ``docker inspect``, as ``2026-11-22T20:01:02.123456789Z``, in seconds since the epoch."""
    # Go leaves zeros at the end out, so that there are any number of digits, which Python reads only since 3.11.
    seconds, fraction = re.sub(r"\.\d+", "", text), re.search(r"\.\d+", text)
    whole = datetime.datetime.fromisoformat(seconds.replace("Z", "+00:00")).timestamp()
    return whole + (float(fraction[0]) if fraction else 0)


def run_arguments(release: releases.Release, settings: Settings) -> list[str]:
    """The arguments of ``docker`` that start the release. No value of the environment is among them."""
    arguments = ["run", "-d", "--pull", "never", "--name", release.container]
    arguments += ["--network", settings.network]
    arguments += ["--label", f"{LABEL}=release", "--label", f"{LABEL_RELEASE}={release.release}"]
    arguments += [
        "--label",
        f"{LABEL_CONFIG}={settings.config_hash()}",
        "--label",
        f"{LABEL_IDENTITY}={release.identity}",
    ]
    # A candidate that dies stays dead, so that its exit code and its last words can be read; the gate changes this.
    arguments += ["--restart", "no"]
    arguments += ["--user", settings.user, "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    if settings.read_only:
        arguments += ["--read-only"]
    arguments += ["--tmpfs", f"/tmp:rw,nosuid,nodev,mode=1777,size={settings.tmp_size}"]
    if settings.memory:
        # The same limit for swap: a code server that swaps is slower than one that is replaced.
        arguments += ["--memory", settings.memory, "--memory-swap", settings.memory]
    if settings.cpus:
        arguments += ["--cpus", settings.cpus]
    arguments += ["--pids-limit", str(settings.pids), "--stop-timeout", str(settings.stop_timeout)]
    arguments += ["--log-driver", "json-file"]
    arguments += ["--log-opt", f"max-size={settings.log_max_size}", "--log-opt", f"max-file={settings.log_max_file}"]
    if settings.volume:
        arguments += ["--volume", f"{settings.volume}:{STORAGE}"]
    if settings.database_folder:
        arguments += ["--volume", f"{settings.database_folder}:{DATABASE}:ro"]
    if settings.key_file:
        arguments += ["--volume", f"{settings.key_file}:{KEY_PATH}:ro"]
    for name in sorted(environment(release, settings)):
        arguments += ["--env", name]
    return [*arguments, release.identity, *settings.command]


def environment(release: releases.Release, settings: Settings) -> dict[str, str]:
    """The release's environment: the article's, and the image that runs are to use."""
    own = {**settings.extra, "DAGSTER_CURRENT_IMAGE": release.identity, "DAGSTER_CORE_RELEASE": release.release}
    found = {**settings.environment, **own}
    if settings.key_file:
        found["GOOGLE_APPLICATION_CREDENTIALS"] = KEY_PATH
    # Runs get the same, also in containers of their own: the run launcher adds this to what dagster.yaml names.
    # Dagster stores it with each run, which is why no secret goes this way.
    context = {"docker": {"env_vars": [f"{name}={value}" for name, value in sorted(own.items())]}}
    found["DAGSTER_CONTAINER_CONTEXT"] = json.dumps(context)
    return found


def environment_problem(settings: Settings) -> str:
    """What is wrong with the names of the release's variables; empty if nothing is."""
    for variable, given in (
        ("dagster_core_environment", settings.extra),
        ("dagster_core_env_names", settings.environment),
    ):
        odd = sorted(name for name in given if not _VARIABLE.fullmatch(name))
        if odd:
            return f"{variable}: found {odd[0]!r}; expected names of letters, digits and _, not beginning with a digit"
        found = sorted(name for name in given if STEERS_DOCKER.fullmatch(name))
        if found:
            return (
                f"{variable}: found {', '.join(found)}; expected no PATH, HOME, DOCKER_* or LD_*: these steer the"
                " docker command that starts the release. Set them in the image (ENV)"
            )
    return ""


def start(release: releases.Release, settings: Settings) -> None:
    """Start the release's container; one of the same name that is left over is removed first.

    Raises:
        CandidateError: the engine would not start it.
    """
    remove(release.container)
    try:
        docker_cli.run(run_arguments(release, settings), env=environment(release, settings), timeout=120)
    except docker_cli.DockerError as error:
        said = logs(release.container, 20)
        remove(release.container)
        raise CandidateError(_start_problem(str(error), release, said)) from error


def _start_problem(text: str, release: releases.Release, said: str) -> str:
    hint = ""
    if "exec format error" in text + said:
        hint = f"; the image is built for another architecture than this machine's ({platform.machine()})"
    elif "no space left on device" in text.lower():
        hint = "; the disk is full: see `docker system df`, or lower dagster_core_keep_releases"
    elif "network" in text and "not found" in text:
        hint = "; the stack is not up: run site.yml first"
    elif "executable file not found" in text:
        hint = "; the image's command is not in the image"
    return f"release {release.release}: the engine did not start {release.identity}{hint}. {text}" + (
        f"\nLast log lines:\n{said}" if said else ""
    )


def gate(name: str, settings: Settings, timeout: float, log_lines: int = 40) -> dict[str, Any]:
    """Wait until the container serves and its definitions load; returns what the probe saw.

    Raises:
        CandidateError: it exited, was killed for its memory, does not answer in time, or its definitions do not load.
    """
    deadline = time.monotonic() + timeout
    ask = ["exec", name, "python", "-c", code_server_probe.SOURCE, str(settings.port), settings.location]
    answer: dict[str, Any] = {}
    said = ""
    while True:
        left = deadline - time.monotonic()
        try:
            probe = docker_cli.run(
                [*ask, str(max(1.0, left))],
                check=False,
                timeout=max(5.0, left + 10),
            )
            said = probe.stderr.strip() or probe.stdout.strip()
            with contextlib.suppress(ValueError, IndexError):
                answer = json.loads(probe.stdout.strip().splitlines()[-1])
        except docker_cli.DockerTimeoutError:
            answer = {"ok": False, "stage": "serve", "problem": "the probe inside the container did not end"}
        state = container(name)
        if state is None:
            raise CandidateError(f"{name}: the container vanished while it was starting")
        if not state.running:
            raise CandidateError(_exit_problem(state, log_lines))
        if answer:
            break
        if time.monotonic() > deadline or "No module named" in said or "not found" in said:
            # The container runs, the probe does not: an image without Python or grpcio is no code server.
            raise CandidateError(
                f"{name}: found a container in which the gRPC probe cannot run; expected an image with python and"
                f" grpcio. {said}"
            )
        time.sleep(0.1)
    if not answer["ok"]:
        where = "does not serve gRPC" if answer.get("stage") == "serve" else "serves, but its definitions do not load"
        raise CandidateError(
            f"{name} {where} (waited {timeout:g} s): {_errors(answer)}\nLast log lines:\n{logs(name, log_lines)}"
        )
    return answer


def _errors(answer: Mapping[str, Any]) -> str:
    """The probe's finding, innermost cause first: that is the line that the user has to look at."""
    parts = []
    for each in reversed(answer.get("errors") or []):
        parts.append(each["message"].strip() + "\n" + "".join(each["stack"]).rstrip())
    return "\ncaused:\n".join(parts) or str(answer.get("problem", ""))


def _exit_problem(state: Container, log_lines: int) -> str:
    said = logs(state.name, _CAUSE_LINES)
    cause = python_errors.cause(said)
    why = f"exited with code {state.exit_code}"
    if state.oom_killed:
        why = "was killed because it used more memory than dagster_core_memory allows"
    elif "exec format error" in said:
        why = f"cannot run here: its image is built for another architecture than this machine's ({platform.machine()})"
    elif state.exit_code == 137:
        why = "was killed (exit code 137)"
    # Tracebacks are long, and their first lines say the least: without the cause above them they would hide it.
    last = docker_cli.last_lines(said, log_lines)
    return f"{state.name} {why} before it served.{_shown(cause)}\nLast log lines:\n{last}"


def _shown(cause: str) -> str:
    return f"\nCause: {cause}" if cause else ""


def logs(name: str, lines: int) -> str:
    """The last lines that a container printed, both streams in order of arrival as far as the engine tells."""
    with contextlib.suppress(docker_cli.DockerError):
        found = docker_cli.run(["logs", "--tail", str(lines), name], check=False, timeout=20)
        return docker_cli.last_lines(python_errors.plain(found.stdout + found.stderr), lines)
    return ""


def keep_running(name: str) -> None:
    """From now on the engine restarts it whenever it dies, and after a reboot."""
    policy = {"RestartPolicy": {"Name": "unless-stopped"}}
    docker_api.ask("POST", f"/containers/{engine_api.part(name)}/update", body=policy)


def workers(name: str) -> int | None:
    """How many run processes live inside the container (DefaultRunLauncher starts each by multiprocessing's spawn).

    None where that cannot be told: no `ps` on the machine, an engine that is slow to answer, a container that ends.
    """
    try:
        shown = docker_api.processes(name)
    except docker_cli.DockerError:
        return None
    return sum(1 for line in shown if "multiprocessing.spawn" in line or "execute_run" in line)


def users(target: Container, clients: Mapping[str, int], quiet: float, port: int) -> list[str]:
    """Who still uses the container: names of ``clients`` (name → process id) in contact within ``quiet`` seconds.

    A client whose connections cannot be read is one of them.
    """
    found = []
    for name, pid in clients.items():
        try:
            age = connections.last_contact(pid, target.addresses, port)
        except OSError:
            age = 0.0
        if age is not None and age < quiet:
            found.append(name)
    return found


def contacts(targets: Sequence[Container], pid: int | None, port: int) -> dict[str, float]:
    """For each release, the seconds since the client process ``pid`` last used it, if that is less than a minute."""
    found: dict[str, float] = {}
    if pid is not None:
        with contextlib.suppress(OSError):
            rows = connections.of_process(pid)
            for target in targets:
                ages = connections.ages(rows, target.addresses, port)
                if ages:
                    found[target.release] = round(min(ages), 2)
    return found


def connected(target: Container, port: int) -> int | None:
    """Connections that are open to the container right now, whoever holds them; None where that cannot be read."""
    try:
        return connections.served_now(target.pid, port)
    except OSError:
        return None


def remove(name: str) -> None:
    """Remove the container at once. The caller has checked that nobody needs it: a code server whose clients watch
    it would take its whole stop timeout.

    Raises:
        docker_cli.DockerUnreachableError: an engine that refuses (there is no such container, say) is no failure.
    """
    try:
        query = {"force": True, "v": True}
        docker_api.ask("DELETE", f"/containers/{engine_api.part(name)}", query=query, timeout=120)
    except docker_cli.DockerError as error:
        if error.result is None:
            raise


def client_pids(names: list[str]) -> dict[str, int]:
    """The main process of each running container among ``names``."""
    found = {}
    for name in names:
        state = (docker_api.container(name) or {}).get("State") or {}
        if state.get("Running") and os.path.exists(f"/proc/{state['Pid']}"):
            found[name] = int(state["Pid"])
    return found
