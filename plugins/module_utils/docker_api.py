# SPDX-License-Identifier: Apache-2.0
"""What the docker command would say, asked of the engine itself.

A docker command is a process of its own, 40 ms of a processor; the engine's answer takes 2 ms. A deploy asks often.
The errors are those of docker_cli. https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli, engine_api


def ask(
    method: str,
    path: str,
    *,
    query: Mapping[str, Any] | None = None,
    body: Mapping[str, Any] | None = None,
    timeout: float = 60,
) -> Any:
    """One call of the engine's API; returns its answer.

    Raises:
        docker_cli.DockerMissingError, docker_cli.DockerUnreachableError: there is no engine, or it does not answer.
        docker_cli.DockerError: it refuses.
    """
    try:
        return engine_api.Engine(timeout=timeout).call(method, path, body, query)
    except engine_api.EngineError as error:
        if error.status:
            raise docker_cli.DockerError(f"{method} {path}: {error}", docker_cli.Result(1, "", str(error))) from error
        if not os.path.exists(engine_api.SOCKET) and shutil.which(docker_cli.DOCKER) is None:
            raise docker_cli.DockerMissingError(docker_cli.NOT_INSTALLED) from error
        raise docker_cli.DockerUnreachableError(str(error)) from error


def containers(**filters: list[str]) -> list[dict[str, Any]]:
    """The containers that ``docker ps -a`` lists, by its filters."""
    found: list[dict[str, Any]] = ask("GET", "/containers/json", query={"all": True, "filters": filters})
    return found


def container(name: str) -> dict[str, Any] | None:
    """``docker container inspect NAME``; None if there is none."""
    try:
        found: dict[str, Any] = ask("GET", f"/containers/{engine_api.part(name)}/json")
    except docker_cli.DockerError as error:
        if docker_cli.not_found(error.result):
            return None
        raise
    return found


def processes(name: str, timeout: float = 20) -> list[str]:
    """The command line of each process in a container, as ``docker top NAME -eo args`` lists them.

    Raises:
        docker_cli.DockerError: also where it does not run.
    """
    shown = ask("GET", f"/containers/{engine_api.part(name)}/top", query={"ps_args": "-eo pid,args"}, timeout=timeout)
    return [str(row[-1]) for row in shown["Processes"]]
