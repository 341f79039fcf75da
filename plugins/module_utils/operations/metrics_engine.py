# SPDX-License-Identifier: Apache-2.0
"""Samples from the engine: containers and images."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator

from ansible_collections.dataops.dagster_gce.plugins.module_utils import code_server, docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import capacity, config, health
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.jobs import Metric
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.metrics_sample import metric


def engine() -> list[Metric]:
    """Containers and images.

    Raises:
        docker_cli.DockerError: the engine does not answer.
    """
    found = health.services(config.stack().root)
    ids = docker_cli.run(["ps", "-aq", "--no-trunc", "--filter", f"label={code_server.LABEL}=release"]).stdout.split()
    listed = docker_cli.run(["ps", "-a", "--filter", f"label={code_server.LABEL}=run", "--format", "{{.State}}"])
    images = docker_cli.run(["images", "-aq", "--no-trunc"]).stdout.split()
    samples: list[Metric] = []
    for each in [*found, *health.inspect_ids(ids)]:
        samples += _container(each)
    runs = Counter(listed.stdout.split())
    for state in sorted({"running", "exited", *runs}):
        samples.append(metric("run_containers", runs[state], "Containers of runs, by state.", state=state))
    samples += _swarm()
    samples.append(metric("images", len(set(images)), "Images on the machine."))
    return samples


def _swarm() -> Iterator[Metric]:
    """The swarm's machines with their room and their runs, and the runs that wait; nothing without a swarm."""
    found = capacity.look()
    if found is None:
        return
    for each in found.machines:
        name = each.name
        yield metric("machine_ready", each.takes_runs, "Whether the machine of the swarm takes runs.", machine=name)
        yield metric("machine_up", each.state == "ready", "Whether the machine answers its manager.", machine=name)
        yield metric("machine_cpus", each.cpus, "CPUs of the machine.", machine=name)
        text = "CPUs that runs on the machine have reserved."
        yield metric("machine_cpus_reserved", round(each.cpus_reserved, 3), text, machine=name)
        yield metric("machine_memory_bytes", each.memory, "Memory of the machine.", machine=name)
        text = "Memory that runs on the machine have reserved."
        yield metric("machine_memory_reserved_bytes", each.memory_reserved, text, machine=name)
        yield metric("machine_runs", len(each.runs), "Runs that the machine has.", machine=name)
    text = "Runs that wait for a machine with room, or are being started."
    yield metric("services_waiting", len(found.waiting), text)
    longest = max((each.seconds for each in found.waiting), default=0.0)
    yield metric("services_waiting_seconds", round(longest, 1), "How long the first of them has waited.")


def _container(found: health.Service) -> Iterator[Metric]:
    name = found.name
    yield metric("container_up", found.running, "Whether the container runs.", container=name)
    if found.health:
        text = "Whether its health check passes; absent where it has none."
        yield metric("container_healthy", found.health == "healthy", text, container=name)
    text = "How often the engine has restarted it."
    yield metric("container_restarts_total", found.restarts, text, container=name)
    used = memory_of(found.pid) if found.pid else None
    if used is not None:
        yield metric("container_memory_bytes", used, "Memory that it uses, caches left out.", container=name)
    if found.memory_limit:
        yield metric("container_memory_limit_bytes", found.memory_limit, "Memory that it may use.", container=name)
    with contextlib.suppress(ValueError):
        started = code_server.instant(found.started)
        if found.running and started > 0:
            yield metric("container_start_time_seconds", started, "When it was last started.", container=name)


def memory_of(pid: int, root: str = "/") -> int | None:
    """Memory of the process's cgroup (version 2, or 1), without what the kernel can drop at once; None if unknown.

    ``docker stats`` would take two seconds for the same.
    """
    try:
        with open(os.path.join(root, f"proc/{pid}/cgroup"), encoding="ascii", errors="replace") as stream:
            groups = [line.rstrip("\n").split(":", 2) for line in stream]
    except OSError:
        return None
    for number, controllers, group in groups:
        if number == "0" and not controllers:
            folder, used, dropped = "sys/fs/cgroup", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            folder, used, dropped = "sys/fs/cgroup/memory", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        path = os.path.join(root, folder, group.lstrip("/"))
        with contextlib.suppress(OSError, ValueError):
            with open(os.path.join(path, used), encoding="ascii") as stream:
                total = int(stream.read())
            with open(os.path.join(path, "memory.stat"), encoding="ascii") as stream:
                stat = dict(line.split() for line in stream)
            return max(0, total - int(stat.get(dropped, 0)))
    return None
