"""site.yml tells every mistake in one list, before it touches a machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MISTAKES = {
    "docker_engine_source": "podman",
    "docker_engine_daemon_overrides": "{{ nowhere_set }}",
    "dagster_run_launcher": "celery",
    "dagster_max_concurrent_runs": 0,
    "dagster_webserver_port": 70000,
    "dagster_postgres_user": "user",
    "dagster_postgres_db": "my-db",
    "dagster_postgres_password": "CANARY\nCANARY",
    "dagster_postgres_host": "https://10.0.0.1",
    "dagster_postgres_sslmode": "on",
    "dagster_postgres_ca": "no PEM",
    "dagster_stack_postgres_image": "postgres:latest",
    "dagster_home_service_account_mode": "key",
    "dagster_home_service_account": '{"type": "authorized_user", "refresh_token": "CANARY"}',
}
# What is said: a variable of the whole collection is named beside the role's own.
EXPECTED = (
    "docker_engine_source: found 'podman'",
    "docker_engine_daemon_overrides: found a template that needs something undefined: 'nowhere_set' is undefined",
    "(from dagster_run_launcher): found 'celery'",
    "(from dagster_max_concurrent_runs): found the number 0",
    "(from dagster_webserver_port): found the number 70000",
    "(from dagster_postgres_user): found 'user' (a reserved word of SQL)",
    "(from dagster_postgres_db): found 'my-db'",
    "(from dagster_postgres_password): found a text with a line end in it",
    "(from dagster_postgres_host): found 'https://10.0.0.1'",
    "(from dagster_postgres_sslmode): found 'on'",
    "(from dagster_postgres_ca): found",
    "dagster_stack_postgres_image: found 'postgres:latest' (latest is another image every week)",
    "dagster_home_service_account: found a user's own credential",
)


OUTSIDE = (
    "postgres_host (from dagster_postgres_host): found 'https://10.0.0.1'; expected the name or the address of one "
    "machine, without scheme and port",
    "postgres_port (from dagster_postgres_port): found the number 0; expected a port from 1 to 65535",
    "postgres_sslmode (from dagster_postgres_sslmode): found 'on'; expected one of disable, prefer, require, "
    "verify-ca, verify-full",
    "postgres_ca (from dagster_postgres_ca): found a text that is not PEM",
)


# The same with a machine that site.yml is to make at Google.
CLOUD_MISTAKES = {
    "gce_provision": True,
    "gcp_project": "Example Project",
    "dagster_environment": "Prod",
    "gce_zone": "europe-west3",
    "gce_auth": "key.json",
    "gce_ssh_via": "vpn",
    "gce_network_cidr": "10.20.0.1/24",
    "gce_network_mtu": 9000,
    "gce_network_ssh_sources": [],
    "gce_instance_machine_type": "large",
    "gce_instance_data_disk": "Data_1",
    "gce_instance_data_disk_gb": 5,
    "gce_instance_snapshot_time": 14400,  # what YAML makes of 04:00 without quotes
    "gce_instance_external_address": "yes",
    "gce_instance_login": "password",
    "gce_instance_ssh_user": "Ada Lovelace",
    "gce_instance_metadata": "startup-script",
    "gce_instance_deletion_protection": "maybe",
    "gce_project_services": "compute.googleapis.com",
    "gce_project_repository_keep": -1,
}
CLOUD_EXPECTED = (
    "gce_project_id (from gcp_project): found 'Example Project'; expected a name that Google takes",
    "gce_project_environment (from dagster_environment): found 'Prod'",
    "gce_instance_zone (from gce_zone): found 'europe-west3'",
    "gce_project_auth (from gce_auth): found a text (hidden); expected a mapping",
    "gce_instance_ssh_via (from gce_ssh_via): found 'vpn'; expected one of iap, external, internal, bastion",
    "gce_network_cidr: found '10.20.0.1/24' (the range that holds this address is 10.20.0.0/24)",
    "gce_network_mtu: found the number 9000",
    "gce_network_ssh_sources: found an empty list",
    "gce_instance_machine_type: found 'large'",
    "gce_instance_data_disk: found 'Data_1'",
    "gce_instance_data_disk_gb: found the number 5; expected a whole number from 10 to 65536",
    "gce_instance_snapshot_time: found the number 14400; expected a full hour such as 04:00, in quotes",
    "gce_instance_external_address: found 'yes'; expected one of none, ephemeral, static",
    "gce_instance_login: found 'password'",
    "gce_instance_ssh_user: found 'Ada Lovelace'",
    "gce_instance_metadata: found 'startup-script'; expected a mapping",
    "gce_instance_deletion_protection: found 'maybe'",
    "gce_project_services: found 'compute.googleapis.com'; expected a list",
    "gce_project_repository_keep: found the number -1",
)


def run(playbook: str, tmp_path: Path, environment: dict[str, str], variables: dict[str, object]) -> str:
    """Run a playbook against a host that does not exist; a connection to it would show."""
    (tmp_path / "hosts.yml").write_text("dagster: {hosts: {nowhere.invalid: {ansible_connection: ssh}}}\n")
    (tmp_path / "vars.json").write_text(json.dumps(variables))
    command = ["ansible-playbook", "-i", str(tmp_path / "hosts.yml"), "-e", f"@{tmp_path / 'vars.json'}", playbook]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_site_tells_all_mistakes_at_once(tmp_path: Path, ansible_environment: dict[str, str]) -> None:
    output = run("site.yml", tmp_path, ansible_environment, MISTAKES)

    assert "UNREACHABLE" not in output
    report = output[output.index("inputs are wrong:") :]
    missing = [line for line in EXPECTED if line not in report]
    assert not missing, output
    assert "CANARY" not in output


@pytest.mark.parametrize("role", ["dagster_home", "dagster_stack"])
def test_a_role_alone_refuses_a_database_outside(
    role: str, tmp_path: Path, ansible_environment: dict[str, str]
) -> None:
    include = {"name": f"dataops.dagster_gce.{role}", "tasks_from": "validate"}
    play = {"hosts": "dagster", "gather_facts": False, "tasks": [{"ansible.builtin.include_role": include}]}
    (tmp_path / "role.yml").write_text(json.dumps([play]))
    mistakes = {name: value for name, value in MISTAKES.items() if name.startswith("dagster_postgres_")}
    output = run(str(tmp_path / "role.yml"), tmp_path, ansible_environment, {**mistakes, "dagster_postgres_port": 0})
    missing = [line for line in OUTSIDE if f"{role}_{line}" not in output]
    assert not missing, output


@pytest.mark.parametrize("mistake", ["dagster_stack_postgres_image", "docker_engine_source"])
def test_one_mistake_is_enough(mistake: str, tmp_path: Path, ansible_environment: dict[str, str]) -> None:
    output = run("site.yml", tmp_path, ansible_environment, {mistake: MISTAKES[mistake]})
    assert "UNREACHABLE" not in output
    assert "1 input is wrong" in output


@pytest.mark.parametrize("playbook", ["site.yml", "playbooks/provision.yml", "playbooks/destroy.yml"])
def test_what_google_would_refuse_is_told_before_google_is_asked(
    playbook: str, tmp_path: Path, ansible_environment: dict[str, str]
) -> None:
    # Nobody listens there: a call would be an error of its own.
    environment = {**ansible_environment, "HTTPS_PROXY": "http://127.0.0.1:9"}
    output = run(playbook, tmp_path, environment, CLOUD_MISTAKES)
    report = output[output.index("inputs are wrong:") :]
    missing = [line for line in CLOUD_EXPECTED if line not in report]
    assert not missing, output
    assert "127.0.0.1:9" not in output
    # The host's own name is the one mistake more; what follows from another one is not told.
    assert f"{len(CLOUD_EXPECTED) + 1} inputs are wrong" in output


def test_nothing_but_project_environment_and_zone_has_to_be_said(
    tmp_path: Path, ansible_environment: dict[str, str]
) -> None:
    output = run(
        "playbooks/provision.yml", tmp_path, ansible_environment, {"gce_provision": True, "gce_instance_name": "x"}
    )
    assert "4 inputs are wrong" in output, output
    assert "gce_project_id: found an empty text; expected a name that Google takes" in output
    for hint in ("set gcp_project", "set dagster_environment", "set gce_zone"):
        assert hint in output


def test_a_zone_has_to_be_in_the_region(tmp_path: Path, ansible_environment: dict[str, str]) -> None:
    given = {"gce_provision": True, "gcp_project": "example-prod", "dagster_environment": "prod"}
    places = {"gce_zone": "europe-west3-c", "gce_region": "us-central1", "gce_instance_name": "dagster-prod"}
    output = run("playbooks/provision.yml", tmp_path, ansible_environment, {**given, **places})
    assert "1 input is wrong" in output
    assert "found 'europe-west3-c'; expected a zone of the region us-central1, such as us-central1-c" in output
