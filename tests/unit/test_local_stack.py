"""The stack to develop on is made of what the roles put on a machine, and is in step with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = ["docker-compose-local.yml", "files/local/dagster_home/dagster.yaml", "files/local/dagster_home/workspace.yaml"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files as `make local-stack` would write them now."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "files/local/dagster_home").mkdir(parents=True)
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "-i", "localhost,", "files/local/generate.yml", "-e", f"local_stack_dir={folder}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("file", FILES)
def test_what_is_in_the_repository_is_what_the_roles_make(made: Path, file: str) -> None:
    assert (ROOT / file).read_text() == (made / file).read_text(), "run: make local-stack"


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / FILES[0]).read_text())["services"]
    return found


def test_it_has_the_articles_four_containers() -> None:
    assert set(services()) == {"dagster-postgres", "docker_dagster_core", "dagster-webserver", "dagster-daemon"}


def test_nothing_is_published_beyond_this_computer() -> None:
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_postgresql_and_its_settings_are_the_machines() -> None:
    """What a query does there it does here."""
    defaults = yaml.safe_load((ROOT / "roles/dagster_stack/defaults/main.yml").read_text())
    assert services()["dagster-postgres"]["image"] == defaults["dagster_stack_postgres_image"]
