# SPDX-License-Identifier: Apache-2.0
"""An image brought from its registry, and what is said where that fails."""

from __future__ import annotations

from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.image_reference import Reference

# What engines and registries say, and what it means to the reader; the first that matches wins.
CAUSES = (
    (
        ("docker-credential-gce-metadata:",),
        "the machine has no login to {registry}; its credential helper says why in the first line",
    ),
    (
        ("artifactregistry.repositories.downloadartifacts",),
        "the machine's service account may not read it (or there is no such repository): it needs "
        "roles/artifactregistry.reader on the repository",
    ),
    (("no space left on device",), "no space left on the machine: `docker image prune` frees some, or grow the disk"),
    (
        ("no matching manifest", "does not match the specified platform"),
        "wrong architecture: the image is not built for {platform}",
    ),
    (("toomanyrequests", "rate limit"), "the registry {registry} limits the rate; log in, or use a mirror"),
    (
        ("pull access denied", "repository does not exist"),
        "not found, or not readable without login: check the name, then the machine's login to {registry}",
    ),
    (
        ("unauthorized", "authentication required", "no basic auth credentials", "access forbidden",
         "permission_denied", "denied:", "403 forbidden"),
        "unauthorised: the machine has no login to {registry} that may read it",
    ),
    (
        ("manifest unknown", "manifest for", "not found", "name unknown"),
        "not found: {registry} has no such image or tag",
    ),
    (
        ("no such host", "dial tcp", "i/o timeout", "connection refused", "connection reset", "network is unreachable",
         "tls handshake", "context deadline exceeded", "x509", "server gave http response", "temporary failure",
         "awaiting headers"),
        "no connection to the registry {registry}: check the machine's network, DNS and certificates",
    ),
)  # fmt: skip


class PullError(Exception):
    """The image could not be had; the message says why, and what Docker said."""


def cause_of(said: str, registry: str, platform: str) -> str:
    """What went wrong, in one sentence; empty where the output is none of the known."""
    lowered = said.lower()
    for needles, cause in CAUSES:
        if any(needle in lowered for needle in needles):
            return cause.format(registry=registry, platform=platform)
    return ""


def settles(found: dict[str, Any] | None, parts: Reference, policy: str) -> bool:
    """Whether the image that the machine has is the one, without asking the registry."""
    return found is not None and bool(parts.digest or policy == docker_cli.MISSING)


def fetch(requested: str, parts: Reference, before: dict[str, Any] | None, timeout: float) -> dict[str, Any]:
    """Pull the image; returns what ``docker image inspect`` shows then.

    Args:
        requested: the reference.
        parts: the same, taken apart.
        before: the image that has this name now.
        timeout: seconds that it may take.

    Raises:
        PullError: the registry does not give it, or it is built for another kind of machine.
        docker_cli.DockerError
    """
    result = docker_cli.run(["pull", "--quiet", requested], timeout=timeout, check=False)
    if not result.ok:
        said = docker_cli.last_lines(result.stderr, 5)
        cause = cause_of(said, parts.registry, docker_cli.own_platform()) or "see what Docker said"
        hint = "\nThe machine has an image of this name; `pull: missing` would take it." if before else ""
        raise PullError(f"cannot pull {requested} from {parts.registry}: {cause}.\nDocker said: {said}{hint}")
    after = docker_cli.inspect("image", requested)
    if after is None:
        raise PullError(f"{requested} was pulled and is not there; another program may have removed it")
    if problem := docker_cli.platform_problem(after):
        raise PullError(f"{requested}: wrong architecture: {problem}")
    return after
