#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""What the role dagster_stack has to know about the machine, in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dagster_stack_info
short_description: What the stack's compose file depends on, and why a service failed
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: dataops.dagster_gce.attributes.reads
description:
  - Reads checksums of files, the group of the engine's socket, who listens on a port, and the state of a Compose
    project's containers.
  - Needs the standard library and the C(docker) command. Without an engine it reports C(engine=false) and does not
    fail.
options:
  files:
    description: Files whose SHA-256 is wanted.
    type: list
    elements: path
    default: []
  socket:
    description: The engine's socket, whose group is wanted.
    type: path
    default: /var/run/docker.sock
  port:
    description: A TCP port of 127.0.0.1 to look at. V(0) looks at none.
    type: int
    default: 0
  root:
    description:
      - The folder in which everything lies, whose record tells which volume holds PostgreSQL's data. Its major version
        is reported. Without it, no volume is looked at.
    type: path
  volume:
    description: The volume to look at instead of the one that the record of O(root) names.
    type: str
    default: ''
  image:
    description:
      - The image that the webserver is to have. Where its container has another one, both are asked which Dagster they
        hold.
    type: str
    default: ''
  swarm_network:
    description: The overlay network of runs that are services of Docker Swarm. Empty looks at no swarm.
    type: str
    default: ''
    version_added: 1.1.0
  project:
    description: A Compose project whose containers are to be described.
    type: str
    default: ''
  log_lines:
    description: Last log lines of each container of O(project) that is at fault.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: Look at the machine
  dataops.dagster_gce.dagster_stack_info:
    files: [/opt/dagster/dagster_home/dagster.yaml]
    port: 3000

- name: Why did it not become healthy?
  dataops.dagster_gce.dagster_stack_info:
    project: dagster
  register: fault
"""

RETURN = r"""
engine:
  description: Whether a Docker engine answers.
  type: bool
  returned: always
files:
  description: SHA-256 of each file of O(files); empty where there is no such file.
  type: dict
  returned: always
socket_gid:
  description: The group of O(socket); null where there is no such socket.
  type: int
  returned: always
port_user:
  description: What listens on O(port) and is no container of the stack; empty when the port is free or ours.
  type: str
  returned: always
foreign:
  description: The Compose project to which a C(dagster-postgres) belongs that is not ours; empty where there is none.
  type: str
  returned: always
postgres_volume:
  description: The volume of PostgreSQL's data.
  type: str
  returned: always
postgres_major:
  description: The major version of PostgreSQL that made the data in that volume; empty where there is no data yet.
  type: str
  returned: always
other_dagster:
  description: >-
    C(found), the version of Dagster in the webserver's container, and C(image), that of O(image); empty where they
    are the same, or where container or image is not there.
  type: dict
  returned: always
swarm_network:
  description:
    - The id of the network O(swarm_network); empty where the engine has none. A swarm that is made anew has another.
  type: str
  returned: always
swarm_problem:
  description: Why runs cannot be launched as services of Docker Swarm; empty if they can, or O(swarm_network) is.
  type: str
  returned: always
containers:
  description: >-
    Containers of O(project), with C(name), C(service), C(state), C(health), C(exit_code), C(oom_killed), C(restarts),
    C(error), C(probe), C(logs).
  type: list
  elements: dict
  returned: always
summary:
  description: Sentences that name each container at fault, what its health check said and its last log lines.
  type: str
  returned: always
"""

import errno
import hashlib
import json
import os
import re
import socket
import stat
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    connections,
    docker_cli,
    postgres_volume,
    swarm,
    upgrade_image,
)


def sha256(path: str) -> str:
    """The file's SHA-256 in hex, empty where there is no file."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return digest.hexdigest()


def socket_group(path: str) -> int | None:
    """The numeric group of a socket, None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_gid if stat.S_ISSOCK(found.st_mode) else None


def port_is_free(port: int) -> bool:
    """Whether 127.0.0.1:port can be bound; the kernel also counts listeners on all addresses and dual-stack ones."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without it, connections in TIME_WAIT of a stopped webserver look like a listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def listener(port: int) -> str:
    """Name and id of the process that listens on a port, as far as /proc tells."""
    found = connections.of_process(os.getpid())
    inodes = {f"socket:[{each.inode}]" for each in found if each.listening and each.local[1] == port}
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            for descriptor in os.listdir(f"/proc/{process}/fd"):
                if os.readlink(f"/proc/{process}/fd/{descriptor}") in inodes:
                    with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as file:
                        return f"{file.read().strip()} (process {process})"
        except OSError:
            continue
    return "another program"


def port_user(port: int, engine: bool) -> str:
    """What holds the port, empty when it is free or held by a container of the stack."""
    if port == 0 or port_is_free(port):
        return ""
    if engine:
        form = '{{.Names}}\t{{.Label "dataops.dagster_gce"}}\t{{.Ports}}'
        for line in docker_cli.run(["ps", "--no-trunc", "--format", form]).stdout.splitlines():
            name, part, ports = line.split("\t", 2)
            if re.search(rf"(^|[ ,:]){port}->", ports):
                return "" if part == "stack" else f"container {name}"
    return listener(port)


def postgres_major(volume: str) -> str:
    """What PostgreSQL wrote into PG_VERSION when it made its data, empty where there is none."""
    found = docker_cli.inspect("volume", volume)
    if found is None:
        return ""
    try:
        with open(os.path.join(found["Mountpoint"], "PG_VERSION"), encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def other_dagster(image: str) -> dict[str, str]:
    """The version of Dagster that the webserver's container has and that of ``image``, where they differ.

    Raises:
        ImageError: one of the two has no Dagster that starts.
    """
    container, wanted = docker_cli.inspect("container", "dagster-webserver"), docker_cli.inspect("image", image)
    if container is None or wanted is None or container["Image"] == wanted["Id"]:
        return {}
    found, new = (upgrade_image.dagster(each).dagster for each in (str(container["Image"]), image))
    return {"found": found, "image": new} if found != new else {}


def foreign() -> str:
    """Whose the container dagster-postgres is, if it is not ours."""
    found = docker_cli.inspect("container", "dagster-postgres")
    labels = (found["Config"]["Labels"] or {}) if found else {}
    if found is None or labels.get("dataops.dagster_gce"):
        return ""
    project = labels.get("com.docker.compose.project", "no Compose project")
    return f"{project} ({labels.get('com.docker.compose.project.working_dir', 'started by hand')})"


def describe(inspected: dict[str, Any], log_lines: int) -> dict[str, Any]:
    """The facts of one container that matter when it failed; logs only where it is at fault."""
    state = inspected["State"]
    health = state.get("Health") or {}
    probes = health.get("Log") or []
    found: dict[str, Any] = {
        "name": inspected["Name"].lstrip("/"),
        "service": inspected["Config"]["Labels"].get("com.docker.compose.service", ""),
        "state": state["Status"],
        "health": health.get("Status", "none"),
        "exit_code": state["ExitCode"],
        "oom_killed": state["OOMKilled"],
        "restarts": inspected["RestartCount"],
        "error": state.get("Error", ""),
        "probe": probes[-1]["Output"].strip()[-600:] if probes else "",
        "logs": "",
    }
    # The state tells it only until the engine has started the container again.
    if at_fault(found) and found["restarts"] and not found["oom_killed"]:
        found["oom_killed"] = was_killed_for_memory(inspected["Id"])
    if at_fault(found) and log_lines:
        said = docker_cli.run(["logs", "--tail", str(log_lines), inspected["Id"]], check=False)
        found["logs"] = docker_cli.last_lines(said.stdout + said.stderr, log_lines)
    return found


def was_killed_for_memory(container: str) -> bool:
    """Whether the kernel has ended one of the container's lives within the last ten minutes."""
    filters = ["--filter", f"container={container}", "--filter", "event=oom"]
    # With a fraction: a duration is rounded to seconds, and the last second's events would be missed.
    until = f"{time.time():.6f}"
    done = docker_cli.run(["events", "--since", "10m", "--until", until, *filters], check=False)
    return bool(done.stdout.strip())


def at_fault(container: dict[str, Any]) -> bool:
    """A container that waits for another one (created) is not at fault itself unless the engine could not start it."""
    if container["state"] == "created":
        return bool(container["error"])
    if container["state"] != "running":
        return True
    # A healthy container may have been started again at some time in the past.
    return container["health"] in ("unhealthy", "starting") or (
        container["health"] == "none" and container["restarts"] > 0
    )


def summarize(containers: list[dict[str, Any]]) -> str:
    """One paragraph for each container at fault, the worst first."""
    faulty = [container for container in containers if at_fault(container)]
    if not faulty:
        return "No container of the project is at fault."
    paragraphs = []
    for container in sorted(faulty, key=lambda item: (item["state"] == "running", item["health"] == "starting")):
        about = f"{container['name']} is {container['state']}"
        if container["health"] != "none":
            about += f" and {container['health']}"
        if container["state"] != "running":
            about += f", exit code {container['exit_code']}"
        if container["oom_killed"]:
            about += ", killed because it reached its memory limit"
        if container["restarts"]:
            about += f", started again {container['restarts']} times"
        if container["error"]:
            about += f". The engine said: {container['error']}"
        if container["probe"]:
            about += f". Its health check said: {container['probe']}"
        if container["logs"]:
            about += f"\nIts last log lines:\n{container['logs']}"
        paragraphs.append(about)
    return "\n".join(paragraphs)


def project_containers(project: str, log_lines: int) -> list[dict[str, Any]]:
    """Every container of a Compose project, stopped ones too."""
    chosen = ["ps", "-aq", "--no-trunc", "--filter", f"label=com.docker.compose.project={project}"]
    ids = docker_cli.run(chosen).stdout.split()
    if not ids:
        return []
    found = docker_cli.run(["container", "inspect", *ids], check=False).stdout
    return sorted((describe(item, log_lines) for item in json.loads(found or "[]")), key=lambda item: str(item["name"]))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "path", "default": []},
            "socket": {"type": "path", "default": "/var/run/docker.sock"},
            "port": {"type": "int", "default": 0},
            "root": {"type": "path"},
            "volume": {"type": "str", "default": ""},
            "image": {"type": "str", "default": ""},
            "swarm_network": {"type": "str", "default": ""},
            "project": {"type": "str", "default": ""},
            "log_lines": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    try:
        docker_cli.run(["version", "--format", "{{.Server.Version}}"], timeout=30)
        engine = True
    except docker_cli.DockerError:
        engine = False
    try:
        containers = project_containers(wanted["project"], wanted["log_lines"]) if engine and wanted["project"] else []
        volume = wanted["volume"] or (postgres_volume.name(wanted["root"]) if wanted["root"] else "")
        network = wanted["swarm_network"]
        module.exit_json(
            changed=False,
            engine=engine,
            files={path: sha256(path) for path in wanted["files"]},
            socket_gid=socket_group(wanted["socket"]),
            port_user=port_user(wanted["port"], engine),
            foreign=foreign() if engine and wanted["root"] else "",
            postgres_volume=volume,
            postgres_major=postgres_major(volume) if engine and volume else "",
            other_dagster=other_dagster(wanted["image"]) if engine and wanted["image"] else {},
            swarm_network=swarm.network_id(network) if engine and network else "",
            swarm_problem=swarm.problem(network) if engine and network else "",
            containers=containers,
            summary=summarize(containers) if engine else "The Docker engine does not answer.",
        )
    except (docker_cli.DockerError, upgrade_image.ImageError, ValueError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
