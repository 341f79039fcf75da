"""Releases with records on a real file system, for the tests of what a deployment decides."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    code_server,
    deployment,
    releases,
)

IDENTITY = "sha256:" + "ab" * 32


def name(day: int) -> str:
    """The release of that day of January."""
    return f"202601{day:02}T000000-abababababab"


def task_in(folder: Path) -> deployment.Deployment:
    """A deployment whose files lie in the folder."""
    return deployment.Deployment(deployment.Options(root=str(folder)), code_server.Settings())


def save(task: deployment.Deployment, day: int, *served: float, state: str = releases.LIVE) -> releases.Release:
    """Write the record of a release that got its traffic at these moments."""
    found = releases.Release(name(day), IDENTITY, state=state, served=list(served))
    task.store.save(found)
    return found
