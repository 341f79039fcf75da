"""Both images, built from the checkout, and a small stack of them on the engine of this machine.

Hardened as in production (read-only root, no capabilities, /tmp in memory), so that what needs more shows here.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.support import HARDENING, PREFIX, ROOT, SECRETS, Stack, dagster_yaml, docker, wait_for


@pytest.fixture(scope="session")
def images() -> Iterator[tuple[str, str]]:
    """Both images: the user code's, and webserver's and daemon's."""
    if not shutil.which("docker") or "Server Version" not in docker("info", check=False):
        pytest.skip("no Docker Engine answers here")
    built = []
    for name in ("dagster_core", "daemon_webserver"):
        tag = f"{PREFIX}:{name}"
        docker("build", "-q", "-f", str(ROOT / f"files/docker/dockerfile_{name}"), "-t", tag, str(ROOT))
        built.append(tag)
    yield built[0], built[1]
    docker("rmi", "-f", *built, check=False)


@pytest.fixture(scope="session")
def stack(images: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """PostgreSQL, user code, webserver and daemon, healthy."""
    home = tmp_path_factory.mktemp("dagster_home")
    workspace = {"grpc_server": {"host": "docker_dagster_core", "port": 4000, "location_name": "dagster_core"}}
    # JSON is YAML.
    (home / "dagster.yaml").write_text(json.dumps(dagster_yaml()))
    (home / "workspace.yaml").write_text(json.dumps({"load_from": [workspace]}))
    for folder in (home, *home.parents):
        if folder != Path("/tmp") and folder.is_relative_to("/tmp"):
            folder.chmod(0o755)
    stack = Stack(*images)
    docker("network", "create", PREFIX)
    common = ["--network", PREFIX, "-v", f"{PREFIX}:/opt/dagster/storage", *HARDENING, *SECRETS]
    server = [*common, "-v", f"{home}:/opt/dagster/dagster_home:ro"]
    try:
        postgres = os.environ.get("IMAGES_TEST_POSTGRES", "postgres:17")
        stack.run("postgres", "--network", PREFIX, "--network-alias", "dagster-postgres", *SECRETS, postgres)
        stack.run("core", *common, "--network-alias", "docker_dagster_core", stack.core_image)
        wait_for("PostgreSQL", lambda: stack.execute("postgres", "pg_isready", "-h", "127.0.0.1")[0] == 0)
        stack.run("webserver", *server, "-p", "127.0.0.1::3000", stack.server_image)
        stack.run("daemon", *server, stack.server_image, "dagster-daemon", "run")
        stack.url = "http://" + docker("port", stack.names["webserver"], "3000").splitlines()[0]
        wait_for("the webserver", stack.locations)
        wait_for("the daemons", lambda: all(stack.daemons().values()))
        yield stack
    finally:
        docker("rm", "-f", "-v", *stack.names.values(), check=False)
        docker("network", "rm", PREFIX, check=False)
        docker("volume", "rm", PREFIX, check=False)
