"""Bad input to site.yml: one clear error before anything is touched, and what ran before still runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import ROOT, Machine, long_form

# Runs come and go by themselves, and timers note what they see; the containers of the stack and of the releases stay.
CONTAINERS = "docker ps --all --no-trunc --format '{{.ID}} {{.Names}}' | grep -E ' (docker_)?dagster' | sort"
FINGERPRINT = (
    f"{CONTAINERS}; docker network ls --quiet --no-trunc | sort; "
    "docker volume ls --quiet | sort; find /opt/dagster /etc/docker -type f ! -path '/opt/dagster/state/*' "
    "! -name '*.lock' ! -name deploys.jsonl "
    "-exec sha256sum {} + | sort; readlink /opt/dagster/releases/current"
)
# As the containers have it.
PASSWORD = "cat /opt/dagster/dagster_home/database/password"


def long(*values: Any) -> Any:
    """Parameters of the long form; the unit tests of the validation have them all."""
    return pytest.param(*values, marks=long_form)


@pytest.fixture(scope="module")
def stack(machine: Machine) -> Machine:
    """A machine on which site.yml has run, with a password that every layer has to carry unharmed."""
    password = r"""p$a#s"s' \w`ö!$${x}%=;&|"""
    machine.play("site.yml", dagster_postgres_password=password).ok()
    running = machine.ssh(PASSWORD)
    assert running == password
    return machine


@pytest.fixture
def untouched(stack: Machine) -> Iterator[Machine]:
    """Fails when the test has changed anything on the machine, or when Dagster does not serve any more."""
    before = stack.ssh(FINGERPRINT)
    yield stack
    assert stack.ssh(FINGERPRINT) == before
    assert [location.loaded for location in stack.locations().values()] == [True]


@pytest.mark.parametrize(
    ("variable", "value", "found"),
    [
        ("dagster_postgres_user", "user", "reserved"),
        long("dagster_postgres_db", "my-db", "my-db"),
        ("dagster_postgres_password", "line\nbreak", "line"),
        long("dagster_webserver_port", 70000, "70000"),
        long("dagster_image", "dagster_daemon_webserver", "tag"),
        ("dagster_core_image", "registry.lab:5000/docker_dagster_core:latest", "latest"),
        ("dagster_run_launcher", "kubernetes", "kubernetes"),
        long("dagster_max_concurrent_runs", 0, "0"),
        long("docker_engine_source", "snap", "snap"),
        ("dagster_root", "opt/dagster", "opt/dagster"),
    ],
)
def test_a_value_that_cannot_work_is_named(untouched: Machine, variable: str, value: Any, found: str) -> None:
    played = untouched.play("site.yml", **{variable: value}).refused("found", "expected", found)
    # Roles have names of their own for what the collection's variable sets.
    assert variable in played.output or variable.removeprefix("dagster_") in played.output, played.output[-3000:]
    assert "Bring Dagster up" not in played.output, "an error of the input must come before the machine is asked"


def test_every_mistake_is_reported_at_once(untouched: Machine) -> None:
    untouched.play(
        "site.yml", dagster_run_launcher="kubernetes", dagster_postgres_user="select", dagster_webserver_port="http",
        docker_engine_source="snap",
    ).refused("kubernetes", "select", "http", "snap")  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [
        long("this is no JSON", ["JSON"]),
        (
            json.dumps({"type": "authorized_user", "client_id": "x", "refresh_token": "canary-secret"}),
            ["a user's own credential"],
        ),
        long(json.dumps({"type": "service_account", "project_id": "other"}), ["private_key"]),
    ],
)
def test_a_file_that_is_no_service_account_key(
    untouched: Machine, tmp_path: Path, content: str, words: list[str]
) -> None:
    key = tmp_path / "key.json"
    key.write_text(content)
    played = untouched.play(
        "site.yml", "--diff", "-vvv", dagster_service_account_mode="key", dagster_home_service_account=str(key)
    ).refused("dagster_home_service_account", *words)
    assert "canary-secret" not in played.output


def test_overrides_that_dagster_refuses(untouched: Machine) -> None:
    untouched.play(
        "site.yml", dagster_home_dagster_yaml_overrides={"run_queue": {"max_concurrent_runs": 3}}
    ).refused("dagster.yaml")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        long(
            "syntax error", "import dagster\n\ndefs = dagster.Definitions(\n", ["SyntaxError", "__init__.py", "line 3"]
        ),
        long("no Definitions", "answer = 42\n", ["Definitions"]),
        ("missing import", "import nowhere_to_be_found\n", ["nowhere_to_be_found", "__init__.py", "line 1"]),
    ],
)
def test_user_code_that_does_not_load(stack: Machine, tmp_path: Path, name: str, code: str, words: list[str]) -> None:
    project = tmp_path / "project"
    for folder in ("files", "requirements"):
        shutil.copytree(ROOT / folder, project / folder, ignore=shutil.ignore_patterns("secrets"))
    (project / "dagster_core").mkdir(parents=True)
    (project / "dagster_core" / "__init__.py").write_text(code)
    serving = stack.ssh("readlink /opt/dagster/releases/current")
    before = stack.ssh(CONTAINERS)
    stack.play("site.yml", dagster_project_dir=str(project), dagster_core_update=True).refused(*words)
    assert stack.ssh("readlink /opt/dagster/releases/current") == serving
    assert stack.ssh(CONTAINERS) == before
    run = stack.launch("platform_check")
    assert stack.wait_for_run(run, "SUCCESS", "FAILURE") == "SUCCESS"


def test_a_canary_in_every_secret_shows_up_nowhere(stack: Machine) -> None:
    played = stack.play("site.yml", "-vvv", "--diff").ok()
    password = stack.ssh(PASSWORD)
    assert password not in played.output
    assert json.dumps(password)[1:-1] not in played.output
