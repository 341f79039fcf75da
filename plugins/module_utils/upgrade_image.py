# SPDX-License-Identifier: Apache-2.0
"""What an image holds: Dagster's versions and the newest schema it knows, or PostgreSQL's major version."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli

# Runs in the image; imports nothing of Dagster's, which would take seconds.
_LOOK = """
import importlib.metadata as metadata, importlib.util as util, json, os
from alembic.config import Config
from alembic.script import ScriptDirectory
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
folder = list(util.find_spec("dagster").submodule_search_locations)[0]
config = Config()
config.set_main_option("script_location", os.path.join(folder, "_core/storage/alembic"))
scripts = ScriptDirectory.from_config(config)
print(json.dumps({
    "dagster": version("dagster"), "webserver": version("dagster-webserver"), "postgres": version("dagster-postgres"),
    "revision": ",".join(sorted(scripts.get_heads())),
    "revisions": [each.revision for each in scripts.walk_revisions()],
}))
"""


class ImageError(Exception):
    """The image is not what it should be."""


@dataclass(frozen=True)
class Dagster:
    """The Dagster of an image.

    Attributes:
        revision: the newest schema that it knows; ``revisions`` all of them.
    """

    reference: str
    id: str
    dagster: str
    webserver: str
    postgres: str
    revision: str
    revisions: tuple[str, ...] = field(default=(), repr=False)

    def facts(self) -> dict[str, Any]:
        """For the journal."""
        return {key: value for key, value in asdict(self).items() if key != "revisions"}


def dagster(reference: str) -> Dagster:
    """Look into an image of the webserver and the daemon.

    Raises:
        ImageError: it is not on the machine, or has no Dagster that starts.
    """
    found = docker_cli.inspect("image", reference)
    if found is None:
        raise ImageError(f"the image {reference} is not on this machine")
    try:
        done = docker_cli.run(
            ["run", *docker_cli.CONFINED, "--entrypoint", "python3", str(found["Id"]), "-I", "-c", _LOOK]
        )
        answer = json.loads(done.stdout)
    except (docker_cli.DockerError, ValueError) as error:
        raise ImageError(f"the image {reference} cannot tell which Dagster it has: {error}") from error
    if not answer["dagster"] or not answer["webserver"] or not answer["postgres"]:
        raise ImageError(
            f"the image {reference}: found dagster {answer['dagster'] or 'none'}, dagster-webserver"
            f" {answer['webserver'] or 'none'}, dagster-postgres {answer['postgres'] or 'none'}; expected all three"
        )
    answer["revisions"] = tuple(answer["revisions"])
    return Dagster(reference=reference, id=str(found["Id"]), **answer)


def postgres_major(reference: str) -> str:
    """The major version of an image of PostgreSQL.

    Raises:
        ImageError: it is not on the machine, or no PostgreSQL.
    """
    found = docker_cli.inspect("image", reference)
    if found is None:
        raise ImageError(f"the image {reference} is not on this machine")
    variables = dict(each.split("=", 1) for each in (found["Config"].get("Env") or ()) if "=" in each)
    if re.fullmatch(r"\d+", variables.get("PG_MAJOR", "")):
        return str(variables["PG_MAJOR"])
    done = docker_cli.run(
        ["run", *docker_cli.CONFINED, "--entrypoint", "postgres", reference, "--version"], check=False
    )
    match = re.search(r"PostgreSQL\) (\d+)", done.stdout)
    if not match:
        raise ImageError(f"the image {reference} is no PostgreSQL: {docker_cli.last_lines(done.stderr, 3)}")
    return match[1]
