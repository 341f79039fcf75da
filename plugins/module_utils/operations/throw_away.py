# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL as the stack runs it, that nobody else reaches, for as long as a proof or a recovery takes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import backup_files, config, jobs
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_settings import Settings

USER = "dagster"
# Nothing of it has to survive.
SPEED = ("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "autovacuum=off", "-c", "max_connections=10")
_ROOM = 200 << 20


@contextlib.contextmanager
def container(
    name: str, label: str, memory: str, user: str, database: str, command: Sequence[str], entrypoint: str = ""
) -> Iterator[None]:
    """A container without network and capabilities; it and its data are gone after the block."""
    remove(name)
    arguments = [
        "run", "--detach", "--init", "--name", name, "--label", f"dataops.dagster_gce={label}", "--network", "none",
        "--user", "postgres", "--cap-drop", "ALL", "--security-opt", "no-new-privileges=true", "--pids-limit", "128",
        "--memory", memory, "--memory-swap", memory, "--cpu-shares", "128",
        "--env", f"POSTGRES_USER={user}", "--env", f"POSTGRES_DB={database}",
        "--env", "POSTGRES_HOST_AUTH_METHOD=trust", "--log-driver", "json-file", "--log-opt", "max-size=1m",
        *(["--entrypoint", entrypoint] if entrypoint else []), image(), *command,
    ]  # fmt: skip
    try:
        docker_cli.run(arguments, timeout=120)
        yield
    finally:
        remove(name)


def remove(name: str) -> None:
    """Remove what is left of it; nothing is fine."""
    docker_cli.run(["rm", "--force", "--volumes", name], check=False, timeout=120)


def image() -> str:
    """PostgreSQL as the stack runs it."""
    name = config.stack().postgres_container
    found = docker_cli.inspect("container", name)
    if found is None:
        raise jobs.JobError(f"found no container {name}, whose image this takes; expected the stack: run site.yml")
    return str(found["Image"])


def require_room(settings: Settings, size: int, what: str) -> None:
    """Its data is in Docker's folder, where the real database is, too."""
    folder = docker_cli.run(["info", "--format", "{{.DockerRootDir}}"]).stdout.strip() or "/var/lib/docker"
    if os.path.isdir(folder):
        floor = backup_files.floor_of(folder, settings.min_free_bytes, settings.min_free_percent)
        backup_files.require_room(folder, floor, what, size + _ROOM)


def answers(name: str, user: str) -> bool:
    """Whether PostgreSQL takes connections in it."""
    # Over TCP: while the data folder is being made, a server answers on the Unix socket only.
    return docker_cli.run(["exec", name, "pg_isready", "-h", "127.0.0.1", "-U", user], check=False).ok
