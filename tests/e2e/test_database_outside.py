"""PostgreSQL on another machine, with TLS: an instance moves there with its history, and is kept well there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from lab import machine as lab_machine
from lab.google.drivers.container import archive
from tests.certificates import Certificate, certificate
from tests.e2e.harness import Machine, long_form, wait
from tests.webserver import LOST

pytestmark = long_form
LOAD: dict[str, Any] = {"dagster_core_dir": "tests/fixtures/dagster_core_load"}
NAME = "dagster-gce-lab-database-outside"
# Beyond those that the lab's engine gives away: it is the same after a stop.
ADDRESS = "10.128.2.77"
PASSWORD = "first s3cret: of $the database"
# The owner of nothing but his database, as Cloud SQL's users are.
ROLE = (f"CREATE ROLE dagster LOGIN CREATEDB PASSWORD '{PASSWORD}'", "CREATE DATABASE dagster OWNER dagster")
START = """chown postgres /tls/key.pem && chmod 600 /tls/key.pem && exec docker-entrypoint.sh postgres -c ssl=on
 -c ssl_cert_file=/tls/chain.pem -c ssl_key_file=/tls/key.pem -c ssl_min_protocol_version=TLSv1.2"""


@dataclass
class Outside:
    """The other machine's PostgreSQL."""

    container: Container
    certificate: Certificate

    @property
    def variables(self) -> dict[str, Any]:
        """What the inventory says of it."""
        return {
            **LOAD, "dagster_postgres_host": ADDRESS, "dagster_postgres_sslmode": "verify-ca",
            "dagster_postgres_ca": self.certificate.authority, "dagster_postgres_password": PASSWORD,
        }  # fmt: skip

    def sql(self, statement: str, database: str = "dagster") -> str:
        """Ask it as its own administrator."""
        code, said = self.container.exec_run(["psql", "-U", "postgres", "-d", database, "-AtXc", statement])
        assert isinstance(said, bytes)
        assert code == 0, said
        return said.decode().strip()


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    client = docker.from_env()
    for left in client.containers.list(all=True, filters={"name": f"^{NAME}$"}):
        left.remove(force=True, v=True)
    made = certificate("database.example")
    network = str(lab_machine.network(client).name)
    container = client.containers.create(
        "postgres:17", entrypoint=["sh", "-c", START.replace("\n", "")], name=NAME,
        network=network, environment={"POSTGRES_PASSWORD": "of the administrator"},
        networking_config={network: client.api.create_endpoint_config(ipv4_address=ADDRESS)},
    )  # fmt: skip
    container.put_archive("/", archive({"/tls/chain.pem": made.chain, "/tls/key.pem": made.key}))
    container.start()
    found = Outside(container, made)
    # Over TCP: while the image makes its database, a server answers on the socket only.
    wait(lambda: container.exec_run(["pg_isready", "-h", "127.0.0.1"]).exit_code == 0, 60, "PostgreSQL", container.logs)
    for statement in ROLE:
        found.sql(statement, "postgres")
    yield found
    container.remove(force=True, v=True)


@pytest.fixture(scope="module")
def before(machine: Machine) -> list[str]:
    """Runs that the machine's own database has."""
    machine.play("site.yml", **LOAD).ok()
    runs = [machine.launch("quick"), machine.launch("raises")]
    for run in runs:
        machine.wait_for_run(run, "SUCCESS", "FAILURE")
    return runs


@pytest.fixture(scope="module")
def moved(machine: Machine, outside: Outside, before: list[str]) -> Outside:
    """The three commands of docs/scale.md."""
    machine.play("playbooks/backup.yml").ok()
    machine.play("site.yml", dagster_postgres_leave_volume=True, **outside.variables).ok()
    machine.play("playbooks/restore.yml", dagster_restore_backup="latest", dagster_restore_confirm=True).ok()
    return outside


def succeeds(machine: Machine) -> str:
    run = machine.launch("quick")
    assert machine.wait_for_run(run, "SUCCESS", "FAILURE") == "SUCCESS"
    return run


def test_a_database_of_its_own_is_not_left_behind_unasked(
    machine: Machine, outside: Outside, before: list[str]
) -> None:
    machine.play("site.yml", **outside.variables).refused(
        "dagster_stack_postgres_host: found", "the volume dagster-postgres", "dagster_postgres_leave_volume"
    )
    assert machine.run_status(before[0]) == "SUCCESS"
    assert outside.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == "0"


def test_without_a_password_nothing_is_touched(machine: Machine, outside: Outside) -> None:
    machine.play("site.yml", **{**outside.variables, "dagster_postgres_password": ""}).refused(
        "(from dagster_postgres_password): found", "so no password can be made for it"
    )


def test_the_history_is_there(machine: Machine, moved: Outside, before: list[str]) -> None:
    assert [machine.run_status(run) for run in before] == ["SUCCESS", "FAILURE"]
    run = succeeds(machine)
    assert moved.sql(f"SELECT status FROM runs WHERE run_id = '{run}'") == "SUCCESS"
    # Dagster's connections are encrypted, and none goes to another server.
    used = moved.sql("SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'dagster'")
    assert used == "t"
    mounts = machine.ssh("docker inspect -f '{{range .Mounts}}{{.Type}} {{end}}' dagster-postgres").split()
    assert sorted(mounts) == ["bind", "tmpfs"]
    assert "dagster-postgres" in machine.ssh("docker volume ls -q").split()


def test_a_second_run_changes_nothing(machine: Machine, moved: Outside) -> None:
    assert machine.play("site.yml", dagster_postgres_leave_volume=True, **moved.variables).ok().changed == 0


def test_a_backup_of_it_can_be_restored(machine: Machine, moved: Outside) -> None:
    run = succeeds(machine)
    machine.play("playbooks/backup.yml").ok()
    machine.play("playbooks/restore_drill.yml").ok()
    assert machine.run_status(run) == "SUCCESS"


def test_what_keeps_the_machine_well_works_on_it(machine: Machine, moved: Outside) -> None:
    machine.play("playbooks/upkeep.yml").ok()
    assert "all is well" in machine.ssh("dagster-gce watch --wait", check=False)


def test_a_new_password(machine: Machine, moved: Outside) -> None:
    new = {**moved.variables, "dagster_postgres_password": "second"}
    machine.play("playbooks/rotate_secrets.yml", **new).ok()
    succeeds(machine)
    assert machine.play("site.yml", dagster_postgres_leave_volume=True, **new).ok().changed == 0
    # One that somebody has changed there.
    moved.sql(f"ALTER ROLE dagster PASSWORD '{PASSWORD}'")
    machine.play("site.yml", dagster_postgres_leave_volume=True, **moved.variables).ok()
    succeeds(machine)


def test_while_it_is_away_it_is_said_and_then_all_goes_on(machine: Machine, moved: Outside) -> None:
    moved.container.stop(timeout=10)
    health = "docker inspect -f '{{.State.Health.Status}}' dagster-postgres"
    wait(lambda: machine.ssh(health).strip() == "unhealthy", 90, "dagster-postgres unhealthy")
    time.sleep(5)
    moved.container.start()
    wait(lambda: machine.ssh(health).strip() == "healthy", 60, "dagster-postgres healthy")
    runs: list[str] = []

    def launched() -> bool:
        # The first answers may be that a connection of the pool is gone.
        try:
            runs.append(machine.launch("quick"))
        except LOST:
            return False
        return True

    wait(launched, 60, "that a run is launched")
    assert machine.wait_for_run(runs[0], "SUCCESS", "FAILURE") == "SUCCESS"


def test_an_upgrade_is_refused_and_says_how(machine: Machine, moved: Outside) -> None:
    machine.play("playbooks/upgrade.yml", **moved.variables).refused(
        "dagster_postgres_host: found", "expected PostgreSQL in the stack", "docs/upgrade.md"
    )
