"""Machines of the group dagster_workers: who is in which play, and what is refused before any is reached."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOST: dict[str, Any] = {"ansible_connection": "ssh"}


def played(tmp_path: Path, environment: dict[str, str], *arguments: str, workers: bool = True, **variables: Any) -> str:
    """What ansible-playbook prints for an inventory whose machines cannot be reached."""
    groups: dict[str, Any] = {"dagster": {"hosts": {"main.invalid": HOST}}, "all": {"vars": variables}}
    if workers:
        groups["dagster_workers"] = {"hosts": {"worker.invalid": HOST}}
    (tmp_path / "hosts.yml").write_text(json.dumps(groups))
    command = ["ansible-playbook", "-i", str(tmp_path / "hosts.yml"), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_workers_want_the_launcher_that_uses_them(tmp_path: Path, ansible_environment: dict[str, str]) -> None:
    output = played(tmp_path, ansible_environment, "site.yml", dagster_run_launcher="docker")
    assert "dagster_run_launcher: found 'docker'; expected one of swarm" in " ".join(output.split())
    assert "UNREACHABLE" not in output


def test_mistakes_of_a_worker_are_told_with_those_of_the_main_machine(
    tmp_path: Path, ansible_environment: dict[str, str]
) -> None:
    given: dict[str, Any] = {
        "dagster_run_launcher": "swarm",
        "dagster_storage_path": "shared",
        "dagster_worker_labels": "fast",
        "dagster_swarm_address_pool": "10.0.0.1/16",
    }
    output = " ".join(played(tmp_path, ansible_environment, "site.yml", **given).split())
    for words in (
        "dagster_worker_storage_path (from dagster_storage_path): found 'shared'; expected an absolute path",
        "dagster_worker_labels: found 'fast'; expected a mapping",
        "dagster_swarm_address_pool: found '10.0.0.1/16' (the range that holds this address is 10.0.0.0/16)",
    ):
        assert words in output
    assert "UNREACHABLE" not in output


@pytest.mark.parametrize("workers", [True, False])
@pytest.mark.parametrize(
    "playbook", ["site.yml", "playbooks/provision.yml", "playbooks/destroy.yml", "playbooks/rotate_secrets.yml"]
)
def test_an_inventory_without_workers_is_as_before(
    tmp_path: Path, ansible_environment: dict[str, str], playbook: str, workers: bool
) -> None:
    output = played(tmp_path, ansible_environment, playbook, "--list-hosts", workers=workers)
    assert ("worker.invalid" in output) is workers
    assert "main.invalid" in output
    assert "WARNING" not in output
