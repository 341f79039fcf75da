# SPDX-License-Identifier: Apache-2.0
"""Whether the run launcher may be exchanged now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import code_server

_DEFAULT = "DefaultRunLauncher"
_DOCKER = ("dagster_docker", "DockerRunLauncher")


def launcher(document: Mapping[str, Any]) -> str:
    """The launcher's class in dagster.yaml; Dagster's own default where it names none."""
    block = document.get("run_launcher")
    return str(block.get("class", _DEFAULT)) if isinstance(block, Mapping) else _DEFAULT


def with_swarm(document: dict[str, Any]) -> dict[str, Any]:
    """The document with a Docker launcher that knows runs that were launched as services.

    Dagster's own would find no container of theirs and have them failed, though they go on.
    """
    block = document.get("run_launcher")
    if not isinstance(block, Mapping) or (block.get("module"), block.get("class")) != _DOCKER:
        return document
    return {**document, "run_launcher": {**block, "module": "dagster_gce_launcher"}}


def refusal(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Why the launcher may not change from the one document to the other; empty if it may.

    Runs of Dagster's default launcher live in the code servers and have no container of their own. Any other launcher
    is asked by run monitoring for theirs, and fails them for having none while their processes go on.

    Raises:
        docker_cli.DockerError: the containers cannot be asked.
    """
    if launcher(before) != _DEFAULT or launcher(after) == _DEFAULT:
        return ""
    runs = sum(code_server.workers(each.name) or 0 for each in code_server.containers() if each.running)
    if not runs:
        return ""
    return (
        f"dagster_run_launcher: found {runs} run{'s' if runs > 1 else ''} inside the code containers; expected none"
        f" while the launcher changes from {launcher(before)} to {launcher(after)}, since run monitoring would fail"
        " them although they go on: wait for them or cancel them, and run the play again"
    )
