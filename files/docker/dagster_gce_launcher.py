# SPDX-License-Identifier: Apache-2.0
"""Run launchers of the collection: a run is a service of Docker Swarm, on whichever machine has room.

dagster.yaml names `SwarmRunLauncher`, a subclass of dagster-docker-swarm's, and on a machine with Swarm's network also
`DockerRunLauncher`, a subclass of dagster-docker's: each sees to the end of runs that the other one launched, so the
launcher can be exchanged while runs are in flight. The daemon's and the webserver's image has this on Python's path.

What the subclass does otherwise than dagster-docker-swarm 0.2.2 (tests/unit/launcher holds both to it):

- The service is found by its name, which is the run's. A tag of the run would be a retry's too, which has its
  predecessor's tags, and is lost when the run's worker writes its own copy of the run at the same moment.
- An engine that does not answer says nothing about a run: the error goes to run monitoring, which asks again.
- A machine that is down, or a task that is to be shut down, has lost the run although the task's last word was
  `running`: nobody is left to say another one.
- Mounts may be read-only, and the run is in one container with no privileges, as with the Docker launcher.
- The tags `dagster_gce/cpu`, `dagster_gce/memory` and `dagster_gce/node` choose room and machine.
- The image is asked for by what every machine can pull, its digest in a registry. One that has none can run on the
  machine only that built it.
- Nothing is removed here: the watch and a deploy remove services of finished runs, the newest stay for who wants to
  look at one.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster_docker
import docker.errors
import docker.models.services
from dagster import Field, IntSource, Noneable, Permissive, StringSource
from dagster._core.launcher.base import CheckRunHealthResult, ResumeRunContext, WorkerStatus
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.storage.tags import DOCKER_IMAGE_TAG, MAX_RETRIES_TAG
from dagster._core.utils import parse_env_var
from dagster_docker.docker_run_launcher import DOCKER_CONTAINER_ID_TAG
from docker.types import EndpointSpec, Mount, RestartPolicy, ServiceMode

with warnings.catch_warnings():
    # It counts its releases otherwise than Dagster's libraries, which would be in the logs at each start.
    warnings.filterwarnings("ignore", message="Found version mismatch")
    import dagster_docker_swarm
    from dagster_docker_swarm.run_launcher import SWARM_CONFIG_SCHEMA

SERVICE_TAG = "dagster_gce/service"
CPU_TAG, MEMORY_TAG, NODE_TAG = "dagster_gce/cpu", "dagster_gce/memory", "dagster_gce/node"

# The name that releases give their images on the machine; it leads to no registry.
LOCAL_REPOSITORY = "docker_dagster_core"
# Swarm's own words for a task that has not begun; https://docs.docker.com/engine/swarm/how-swarm-mode-works/swarm-task-states/
WAITING = ("new", "pending", "assigned", "accepted", "preparing", "ready", "starting")
_MIN_MEMORY = 16 << 20
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"


class UnlaunchableError(Exception):
    """The run cannot be launched as it is asked for, and to ask again would help nobody; the message says why."""


class TagError(UnlaunchableError):
    """A tag of the run asks for what there is not; the message names it, what was found and what was expected."""

    def __init__(self, tag: str, found: str, expected: str) -> None:
        super().__init__(f"{tag}: found {found!r}; expected {expected}")


def service_name(run_id: str) -> str:
    """The run's service; it cannot be another run's."""
    return f"dagster-run-{run_id}"


def is_service(run: DagsterRun) -> bool:
    """Whether the run was launched as a service. A retry has its predecessor's tag until it is launched itself."""
    return run.tags.get(SERVICE_TAG) == service_name(run.run_id)


# --- What a run asks for --------------------------------------------------------------------------------------------


def nano_cpus(tag: str, text: str) -> int:
    """CPUs in billionths.

    Raises:
        TagError: it is no number of CPUs.
    """
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,9})?", text) or float(text) < 0.01:
        raise TagError(tag, text, "a number of CPUs, 0.01 or more, such as 0.5 or 2")
    return round(float(text) * 1e9)


def memory_bytes(tag: str, text: str) -> int:
    """Bytes of a size such as 512m or 1.5g.

    Raises:
        TagError: it is no size, or less than any run needs.
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)([kmgt]?)i?b?", text.lower())
    size = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if not match or size < _MIN_MEMORY:
        raise TagError(tag, text, "a size of 16m or more, such as 512m or 2g")
    return size


@dataclass(frozen=True)
class Condition:
    """One condition on the machine: its name, or one of its labels."""

    key: str
    equal: bool
    value: str

    def __str__(self) -> str:
        """As Swarm writes it."""
        return f"node.{self.key}{'==' if self.equal else '!='}{self.value}"

    def met_by(self, node: Mapping[str, Any]) -> bool:
        """Whether a machine is such a one."""
        if self.key == "id":
            return (str(node.get("ID")) == self.value) == self.equal
        if self.key == "hostname":
            return (hostname(node) == self.value) == self.equal
        labels = node.get("Spec", {}).get("Labels") or {}
        return bool((labels.get(self.key.removeprefix("labels."), "") == self.value) == self.equal)


# What the roles dagster_swarm and dagster_worker give to machines that take runs. One without it may have nothing of
# what a run finds on its machine.
TAKES_RUNS = Condition("labels.dagster.worker", True, "true")


def conditions(text: str) -> list[Condition]:
    """The machine that ``dagster_gce/node`` asks for: names of machines, `label=value` or `label!=value`, by commas.

    Raises:
        TagError: it is none of these.
    """
    found = []
    for part in filter(None, re.split(r"\s*,\s*", text.strip())):
        match = re.fullmatch(rf"(?:({_NAME})\s*(!?=)=?\s*)?({_NAME})", part)
        if not match:
            raise TagError(NODE_TAG, text, "a machine's name, or conditions on its labels such as gpu=true, by commas")
        key = f"labels.{match[1]}" if match[1] else "hostname"
        found.append(Condition(key, match[2] != "!=", match[3]))
    if not found:
        raise TagError(NODE_TAG, text, "a machine's name, or conditions on its labels such as gpu=true, by commas")
    return found


@dataclass(frozen=True)
class Wish:
    """What the tags of a run ask for; 0 and empty: nothing."""

    cpus: int = 0
    memory: int = 0
    conditions: tuple[Condition, ...] = ()

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> Wish:
        """Read the tags.

        Raises:
            TagError
        """
        return cls(
            nano_cpus(CPU_TAG, tags[CPU_TAG].strip()) if CPU_TAG in tags else 0,
            memory_bytes(MEMORY_TAG, tags[MEMORY_TAG].strip()) if MEMORY_TAG in tags else 0,
            tuple(conditions(tags[NODE_TAG])) if NODE_TAG in tags else (),
        )

    def check(self, nodes: Sequence[Mapping[str, Any]], tags: Mapping[str, str], home: Condition | None) -> None:
        """Refuse what no machine of the swarm could ever do: Swarm itself would let the run wait for it.

        Args:
            home: the one machine that has the image, if only one has it.

        Raises:
            UnlaunchableError
        """
        nodes = [node for node in nodes if TAKES_RUNS.met_by(node)]
        if home and not any(home.met_by(node) and _is_active(node) for node in nodes):
            raise UnlaunchableError(
                "the user code's image: found on the main machine only, which takes no runs; expected one that the"
                " other machines can pull: release it from a registry (dagster_core_image=<name>@sha256:…)"
            )
        fitting = [node for node in nodes if all(each.met_by(node) for each in self.conditions)]
        if not fitting:
            names = ", ".join(sorted(hostname(node) for node in nodes))
            raise TagError(NODE_TAG, tags.get(NODE_TAG, ""), f"what one of the machines is: {names}")
        if home:
            fitting = [node for node in fitting if home.met_by(node)]
            if not fitting:
                raise TagError(
                    NODE_TAG, tags.get(NODE_TAG, ""),
                    "the machine that the user code's image was built on, since no registry has it: release it from"
                    " a registry (dagster_core_image=<name>@sha256:…) to run it on other machines",
                )  # fmt: skip
        for tag, wanted, key, unit in (
            (CPU_TAG, self.cpus, "NanoCPUs", 1e9),
            (MEMORY_TAG, self.memory, "MemoryBytes", 1 << 30),
        ):
            most = max(_room(node).get(key, 0) for node in fitting)
            if wanted > most > 0:
                what = "" if unit == 1e9 else "g"
                raise TagError(tag, tags.get(tag, ""), f"at most {most / unit:.3g}{what}, what the largest machine has")


def hostname(node: Mapping[str, Any]) -> str:
    """A machine's name, as Swarm knows it."""
    return str(node.get("Description", {}).get("Hostname") or node.get("ID", "")[:12])


def _is_active(node: Mapping[str, Any]) -> bool:
    return str(node.get("Spec", {}).get("Availability", "active")) == "active"


def _room(node: Mapping[str, Any]) -> dict[str, int]:
    return node.get("Description", {}).get("Resources") or {}


# --- What became of it ----------------------------------------------------------------------------------------------


def newest(tasks: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The task that counts: a service of ours has one, and Swarm makes no second one of it."""
    return max(tasks, key=lambda task: str(task.get("CreatedAt", "")), default=None)


def verdict(task: Mapping[str, Any], node: Mapping[str, Any] | None) -> tuple[WorkerStatus, str]:
    """Whether the run's task goes on, and why not.

    Args:
        node: the machine that the task is on; None: it has none yet, or the swarm does not know it any more.
    """
    status = task.get("Status", {})
    state, desired = str(status.get("State", "")), str(task.get("DesiredState", ""))
    where = f"machine {hostname(node)}" if node else "its machine"
    if state == "complete":
        return WorkerStatus.SUCCESS, f"the run's container on {where} ended with exit code 0"
    if state not in (*WAITING, "running"):
        code = (status.get("ContainerStatus") or {}).get("ExitCode")
        said = str(status.get("Err") or status.get("Message") or "").strip()
        ended = f", exit code {code}" if code else ""
        return WorkerStatus.FAILED, f"the run's container on {where} is {state}{ended}{f': {said}' if said else ''}"
    if task.get("NodeID") and node is None:
        return WorkerStatus.FAILED, f"machine {task['NodeID']}, on which this run was, is no part of the swarm any more"
    # Not `unknown` (a manager that has just begun) or `disconnected` (an engine that starts again): these pass.
    if node is not None and node.get("Status", {}).get("State") == "down":
        said = str(node["Status"].get("Message") or "")
        return WorkerStatus.FAILED, f"{where}, on which this run was, is down{f' ({said})' if said else ''}"
    if desired in ("shutdown", "remove", "orphaned"):
        return WorkerStatus.FAILED, f"the run's container on {where} was {state} and is to be shut down"
    if state == "running":
        return WorkerStatus.RUNNING, f"the run's container runs on {where}"
    said = str(status.get("Err") or status.get("Message") or "").strip()
    return (
        WorkerStatus.RUNNING,
        f"the run's container is {state}{f' on {where}' if node else ''}{f': {said}' if said else ''}",
    )


# --- The launchers --------------------------------------------------------------------------------------------------

_AMOUNTS = {
    "cpus": Field(Noneable(StringSource), is_required=False),
    "memory": Field(Noneable(StringSource), is_required=False),
}


class SwarmRunLauncher(dagster_docker_swarm.SwarmRunLauncher):
    """A service a run; see the module's docstring.

    Configuration as dagster-docker-swarm's, of which `mounts` also take `read_only` and `tmpfs_mode`, and:

        limits        cpus, memory and pids that a run may take where its tags say nothing
        reservations  cpus and memory that have to be free on a machine for it, likewise
        stop_seconds  what a cancelled run gets to end
    """

    def __init__(
        self,
        *arguments: Any,
        limits: Mapping[str, Any] | None = None,
        reservations: Mapping[str, Any] | None = None,
        stop_seconds: int = 30,
        **settings: Any,
    ) -> None:
        # dagster-docker-swarm removes services of finished runs at once, in every process that has an instance.
        settings["cleanup_interval"] = 0
        super().__init__(*arguments, **settings)
        self.limits, self.reservations = _amounts(limits), _amounts(reservations)
        if limits and limits.get("pids"):
            self.limits["Pids"] = int(limits["pids"])
        self.stop_seconds = stop_seconds
        self._before = dagster_docker.DockerRunLauncher(container_kwargs={"stop_timeout": stop_seconds})

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """dagster-docker-swarm's settings and ours."""
        return {
            **SWARM_CONFIG_SCHEMA,
            "limits": Field({**_AMOUNTS, "pids": Field(IntSource, is_required=False)}, is_required=False),
            "reservations": Field(_AMOUNTS, is_required=False),
            "stop_seconds": Field(IntSource, is_required=False, default_value=30),
            "mounts": Field([Permissive()], is_required=False),
        }

    def register_instance(self, instance: Any) -> None:
        """Share the instance with the launcher of before."""
        super().register_instance(instance)
        self._before.register_instance(instance)

    def check(self) -> None:
        """Refuse settings that docker-py would see at the first launch only, and fail every run.

        Raises:
            ValueError, TypeError: with docker-py's words.
        """
        known: Any = vars(docker.models.services)["_get_create_service_kwargs"]  # what `services.create` calls first
        known(
            "create", {"image": "image", "mounts": list(map(_mount, self.mounts or [])), **(self.service_kwargs or {})}
        )

    # --- launch ---

    def _launch_service_with_command(
        self, run: DagsterRun, docker_image: str, command: list[str], container_context: Any
    ) -> None:
        client: Any = self._get_client()
        image, home, note = self._image(client, docker_image)
        try:
            wish = Wish.of(run.tags)
            if home or wish != Wish():
                wish.check(client.api.nodes(), run.tags, home)
        except UnlaunchableError as error:
            self._refuse(run, str(error))
            return
        places = [str(TAKES_RUNS), *map(str, wish.conditions), *([str(home)] if home else [])]
        name = service_name(run.run_id)
        # Before the service is there: its worker writes its own copy of the run, and a tag that comes then is lost.
        self._instance.add_run_tags(run.run_id, {SERVICE_TAG: name, DOCKER_IMAGE_TAG: docker_image})
        self._instance.report_engine_event(
            message=f"Launching run as service {name} with image {image}{note}", dagster_run=run, cls=self.__class__
        )
        labels = {"dataops.dagster_gce": "run", "dagster/run_id": run.run_id, "dagster/job_name": run.job_name}
        client.services.create(
            image=image,
            name=name,
            args=command,
            env=[f"{key}={value}" for key, value in self._environment(run, container_context).items()],
            labels=labels,
            container_labels=labels,
            mounts=[_mount(each) for each in container_context.mounts],
            networks=list(container_context.networks),
            mode=ServiceMode("replicated", replicas=1),
            endpoint_spec=EndpointSpec(mode="dnsrr"),
            restart_policy=RestartPolicy(condition="none"),
            constraints=places,
            resources=self._resources(wish),
            stop_grace_period=self.stop_seconds * 10**9,
            cap_drop=["ALL"],
            privileges={"NoNewPrivileges": True},
            **container_context.service_kwargs,
        )

    def resume_run(self, context: ResumeRunContext) -> None:
        """Start the run's process again; the service of the process before goes first, since it has the name."""
        service = self._get_service(context.dagster_run)
        if service is not None:
            service.remove()
        super().resume_run(context)

    def _refuse(self, run: DagsterRun, reason: str) -> None:
        """End a run that cannot be launched as it is asked for; to ask again would help nobody."""
        self._instance.add_run_tags(run.run_id, {MAX_RETRIES_TAG: "0"})
        self._instance.report_run_failed(run, reason)

    def _environment(self, run: DagsterRun, container_context: Any) -> dict[str, str]:
        """As the Docker launcher's: what dagster.yaml names, then what the release says of itself."""
        origin = run.job_code_origin.repository_origin if run.job_code_origin else None
        release = ((origin and origin.container_context) or {}).get("docker") or {}
        found = dict(map(parse_env_var, [*container_context.env_vars, *(release.get("env_vars") or [])]))
        return {**found, "DAGSTER_RUN_JOB_NAME": run.job_name}

    def _image(self, client: Any, name: str) -> tuple[str, Condition | None, str]:
        """The image as every machine can pull it; else by its id, with the one machine that has it, and why."""
        if "@sha256:" in name:
            return name, None, ""
        found = client.images.get(name).attrs
        for digest in sorted(found.get("RepoDigests") or []):
            if digest.split("@")[0] != LOCAL_REPOSITORY:
                return digest, None, ""
        here = Condition("id", True, str(client.info()["Swarm"]["NodeID"]))
        return str(found["Id"]), here, ", on the main machine only: the image was built there, no registry has it"

    def _resources(self, wish: Wish) -> dict[str, Any]:
        asked = {key: value for key, value in (("NanoCPUs", wish.cpus), ("MemoryBytes", wish.memory)) if value}
        return {"Limits": {**self.limits, **asked}, "Reservations": {**self.reservations, **asked}}

    # --- the rest of its life ---

    def _get_service(self, run: DagsterRun) -> Any:
        """The run's service, None if there is none. An engine that does not answer is an error, and no answer."""
        # By label: the proxy asks for ids, and the filter by name takes beginnings of names.
        found = self._get_client().services.list(filters={"label": f"dagster/run_id={run.run_id}"})
        return next((each for each in found if each.name == service_name(run.run_id)), None)

    def _look(self, run: DagsterRun) -> tuple[WorkerStatus, str]:
        service = self._get_service(run)
        if service is None:
            return WorkerStatus.NOT_FOUND, f"there is no service {service_name(run.run_id)}"
        task = newest(service.tasks())
        if task is None:
            return WorkerStatus.NOT_FOUND, f"the service {service.name} has no task"
        node = None
        if task.get("NodeID"):
            try:
                node = service.client.api.inspect_node(task["NodeID"])
            except docker.errors.NotFound:
                node = None
        return verdict(task, node)

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process goes on."""
        if not is_service(run) and run.tags.get(DOCKER_CONTAINER_ID_TAG):
            before: CheckRunHealthResult = self._before.check_run_worker_health(run)
            return before
        status, text = self._look(run)
        return CheckRunHealthResult(status, msg=text)

    def get_run_worker_debug_info(self, run: DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """Why the run has not begun, or does not end, for the message with which it is failed."""
        if not is_service(run):
            return None
        status, text = self._look(run)
        # Of what failed the check has told the reason.
        return text if status in (WorkerStatus.RUNNING, WorkerStatus.NOT_FOUND) or include_container_logs else None

    def terminate(self, run_id: str) -> bool:
        """Cancel a run: its process gets SIGTERM, wherever it is."""
        run = self._instance.get_run_by_id(run_id)
        if run and not run.is_finished and not is_service(run) and run.tags.get(DOCKER_CONTAINER_ID_TAG):
            return bool(self._before.terminate(run_id))  # type: ignore[no-untyped-call] # Dagster has no types here
        return super().terminate(run_id)


class DockerRunLauncher(dagster_docker.DockerRunLauncher):
    """dagster-docker's, which also sees to the end of runs that were launched as services."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._before = SwarmRunLauncher()

    def register_instance(self, instance: Any) -> None:
        """Share the instance with the launcher of before."""
        super().register_instance(instance)
        self._before.register_instance(instance)

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process goes on."""
        if is_service(run):
            return self._before.check_run_worker_health(run)
        own: CheckRunHealthResult = super().check_run_worker_health(run)
        return own

    def get_run_worker_debug_info(self, run: DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """Why the run has not begun, or does not end."""
        if is_service(run):
            return self._before.get_run_worker_debug_info(run, include_container_logs)
        return super().get_run_worker_debug_info(run, include_container_logs)

    def terminate(self, run_id: str) -> bool:
        """Cancel a run."""
        run = self._instance.get_run_by_id(run_id)
        if run and is_service(run):
            return self._before.terminate(run_id)
        return bool(super().terminate(run_id))  # type: ignore[no-untyped-call] # Dagster has no types here


def _amounts(found: Mapping[str, Any] | None) -> dict[str, int]:
    """CPUs and memory as the engine's API has them; ValueError names what is wrong."""
    amounts = {}
    try:
        if found and found.get("cpus"):
            amounts["NanoCPUs"] = nano_cpus("cpus", str(found["cpus"]))
        if found and found.get("memory"):
            amounts["MemoryBytes"] = memory_bytes("memory", str(found["memory"]))
    except TagError as error:
        raise ValueError(str(error)) from error
    return amounts


def _mount(found: Mapping[str, Any]) -> Mount:
    """docker-py's form of a mount in dagster.yaml."""
    known = {"type", "source", "target", "read_only", "tmpfs_mode", "tmpfs_size", "driver_config"}
    odd = sorted(set(found) - known)
    if odd:
        raise ValueError(f"mounts: found {odd[0]!r}; expected one of {', '.join(sorted(known))}")
    return Mount(**{"source": None, **found})
