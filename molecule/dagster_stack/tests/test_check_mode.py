"""What `--check` foretells is what happens then."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest

from tests.scenario import Role, inspect

SERVICES = ("dagster-postgres", "dagster-webserver", "dagster-daemon", "dagster-engine-proxy")
UP = r"TASK \[dataops.dagster_gce.dagster_stack : Up \| Run docker compose up\] \**\n(\w+): \[machine\]"
PREDICTED = "docker compose up would start or replace the containers of the services that"


def identifiers(host: Any) -> dict[str, str]:
    return {name: str(inspect(host, name)["Id"]) for name in SERVICES}


def new(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in SERVICES if before[name] != after[name]}


def changed(done: subprocess.CompletedProcess[str]) -> int:
    assert done.returncode == 0, done.stdout
    found = re.search(r"changed=(\d+)", done.stdout)
    assert found, done.stdout
    return int(found[1])


def test_nothing_is_foretold_where_nothing_changes(role: Role) -> None:
    foretold = role("--check", "--diff")
    assert changed(foretold) == 0, foretold.stdout
    # Asked for, not left out.
    assert re.search(UP, foretold.stdout), foretold.stdout


@pytest.mark.parametrize(
    ("variables", "words", "replaced"),
    [
        (
            {"dagster_home_run_max_seconds": 4711},
            ["+ dataops.dagster_gce.dagster-yaml:", f"{PREDICTED} the difference above names"],
            {"dagster-webserver", "dagster-daemon"},
        ),
        (
            {"dagster_home_gcp_location": "EU"},
            ["+GCP_LOCATION=(changed, hidden)", f"{PREDICTED} read what changes in .env"],
            {"dagster-daemon"},
        ),
    ],
    ids=["dagster.yaml", ".env"],
)
def test_containers_that_will_be_replaced_are_foretold(
    host: Any, role: Role, variables: dict[str, Any], words: list[str], replaced: set[str]
) -> None:
    before = identifiers(host)
    foretold = role("--check", "--diff", **variables)
    # The file, what follows from it in the compose file if anything does, and the prediction itself.
    assert changed(foretold) >= 2, foretold.stdout
    said = " ".join(foretold.stdout.split())
    assert [each for each in words if each not in said] == [], foretold.stdout
    assert identifiers(host) == before
    try:
        assert changed(role(**variables)) >= 2
        assert new(before, identifiers(host)) == replaced
    finally:
        assert changed(role()) >= 2
