# SPDX-License-Identifier: Apache-2.0
"""``dagster instance migrate`` in a container of its own, against the stack's database or a server of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli, upgrade_postgres
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_database import Server
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_plan import POSTGRES, UpgradeError

NETWORK = "dagster-network"
# Only the storage: the machine's dagster.yaml may be of another version than the image.
_INSTANCE = """
import os, sys
folder = "/tmp/home"
os.makedirs(folder)
with open(os.path.join(folder, "dagster.yaml"), "w") as stream:
    stream.write('''storage:
  postgres:
    postgres_db:
      hostname: dagster-postgres
      port: 5432
      username: {env: POSTGRES_USER}
      password: {env: POSTGRES_PASSWORD}
      db_name: {env: POSTGRES_DB}
telemetry: {enabled: false}
''')
os.environ["DAGSTER_HOME"] = folder
os.execvp("dagster", ["dagster", "instance", "migrate"])
"""


def run(image: str, variables: Mapping[str, str], log: str) -> None:
    """Migrate the database POSTGRES_DB of whatever is called dagster-postgres.

    Args:
        image: whose Dagster migrates.
        variables: POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB.
        log: file to which its output is added.

    Raises:
        UpgradeError: it failed.
    """
    confined = ("--read-only", "--tmpfs", "/tmp:mode=1777", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    done = docker_cli.run(
        ["run", "--rm", "--network", NETWORK, *confined, "--pull", "never", "--label", "dataops.dagster_gce=upgrade",
         *(part for name in variables for part in ("-e", name)), "--entrypoint", "python3", image, "-c", _INSTANCE],
        env=variables,
        timeout=6 * 3600,
        check=False,
    )  # fmt: skip
    with open(log, "a", encoding="utf-8") as stream:
        stream.write(done.stdout + done.stderr)
    if not done.ok:
        raise UpgradeError(
            f"`dagster instance migrate` failed ({done.returncode}): {docker_cli.last_lines(done.stderr, 12)}"
        )


@contextlib.contextmanager
def server(image: str, volume: str) -> Iterator[None]:
    """A PostgreSQL on a volume, under the stack's name, while the stack's own is away."""
    name = upgrade_postgres.NEW
    docker_cli.run(["rm", "--force", name], check=False)
    docker_cli.run(
        ["run", "--detach", "--name", name, "--network", NETWORK, "--network-alias", POSTGRES, "--user", "postgres",
         "--tmpfs", "/var/run/postgresql:mode=1777", "--stop-timeout", "120", "--volume",
         f"{volume}:/var/lib/postgresql/data", image],
        timeout=180,
    )  # fmt: skip
    try:
        Server(name, "postgres").wait(180)
        yield
    finally:
        docker_cli.run(["stop", "--time", "120", name], check=False, timeout=180)
        docker_cli.run(["rm", "--force", name], check=False)
