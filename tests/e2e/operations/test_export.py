"""The export for Dagster's Helm chart: refused where it would not do, and a history that Dagster opens elsewhere."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.harness import Machine, long_form, wait

pytestmark = long_form
REGISTRY = "europe-west1-docker.pkg.dev/a-project/dagster"
PASSWORD = "another-database"
MOVED = "/root/moved"
STACK = "docker ps --filter label=dataops.dagster_gce=stack --format '{{.Names}} {{.ID}}' | sort"
# What Dagster itself says of the instance that it finds in DAGSTER_HOME.
LOOK = """
import json, dagster
from dagster import DagsterInstance
with DagsterInstance.get() as instance:
    runs = instance.get_runs()
    states = instance.all_instigator_state()
    print(json.dumps({
        "runs": {run.run_id: run.status.value for run in runs},
        "events": {run.run_id: len(instance.all_logs(run.run_id)) for run in runs},
        "ticks": {
            state.name: [state.status.value, len(instance.get_ticks(state.instigator_origin_id, state.selector_id))]
            for state in states
        },
        "limit": instance.get_concurrency_config().run_queue_config.max_concurrent_runs,
        "max_runtime": instance.run_monitoring_max_runtime_seconds,
        "retries": instance.run_retries_max_retries,
    }, sort_keys=True))
"""
SCHEDULE = """query { workspaceOrError { ... on Workspace { locationEntries { name loadStatus } } }
  scheduleOrError(scheduleSelector: {repositoryName: "__repository__", repositoryLocationName: "dagster_core",
    scheduleName: "every_minute"}) { ... on Schedule { scheduleState { status ticks { timestamp } } } } }"""
FORCE = """mutation ($id: String!) { terminateRun(runId: $id, terminatePolicy: MARK_AS_CANCELED_IMMEDIATELY) {
  __typename } }"""
ASK = """
import json, sys, urllib.request
body = json.dumps({"query": sys.stdin.read()}).encode()
request = urllib.request.Request("http://127.0.0.1:3000/graphql", body, {"Content-Type": "application/json"})
print(urllib.request.urlopen(request, timeout=20).read().decode())
"""


@dataclass
class Exported:
    """What the last export holds, and what the machine said when it was taken."""

    folder: Path
    before: dict[str, Any]
    ticks: list[float]

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    @property
    def values(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load(self.text("values.yaml"))
        return found


def asked(machine: Machine, container: str) -> dict[str, Any]:
    """What the webserver in a container says of the schedule."""
    said = machine.ssh(f"docker exec -i {container} python -c '{ASK}' <<'E'\n{SCHEDULE}\nE")
    found: dict[str, Any] = json.loads(said)["data"]
    return found


def ticks(found: dict[str, Any]) -> list[float]:
    return sorted(each["timestamp"] for each in found["scheduleOrError"]["scheduleState"]["ticks"])


def start_again(machine: Machine) -> None:
    machine.ssh("docker start dagster-webserver dagster-daemon; dagster-gce resume", check=False)
    wait(machine.serves, 90, "the webserver")


def let_runs_end(machine: Machine) -> None:
    """Wait until no run is in flight; one that the daemon was about to start when it was stopped is ended by force."""
    sql = "SELECT run_id FROM runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED', 'QUEUED')"

    def in_flight() -> list[str]:
        return machine.ssh(f'docker exec dagster-postgres psql -U dagster -Atc "{sql}"').split()

    try:
        wait(lambda: not in_flight(), 20, "no run in flight", in_flight)
    except AssertionError:
        for run in in_flight():
            machine.graphql(FORCE, id=run)
        wait(lambda: not in_flight(), 20, "no run in flight", in_flight)


@pytest.fixture(scope="module")
def exported(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A history of runs and ticks, the machine stopped as README.md says, and the export to move with."""
    folder = tmp_path_factory.mktemp("export") / "here"
    machine.wait_for_run(machine.launch("quick"), "SUCCESS")
    machine.wait_for_run(machine.launch("raises"), "FAILURE")
    machine.switch_ticks(True)
    wait(lambda: len(ticks(asked(machine, "dagster-webserver"))) > 0, 130, "a tick of the schedule")
    try:
        machine.ssh("dagster-gce pause 'moves to Kubernetes'; docker stop dagster-daemon")
        let_runs_end(machine)
        before = json.loads(machine.ssh(f"docker exec -i dagster-webserver python - <<'E'\n{LOOK}E"))
        seen = ticks(asked(machine, "dagster-webserver"))
        machine.ssh("docker stop dagster-webserver")
        machine.play(
            "playbooks/export_helm.yml", dagster_export_dir=str(folder), dagster_export_registry=REGISTRY,
            dagster_export_final=True,
        ).ok()  # fmt: skip
    finally:
        start_again(machine)
        machine.switch_ticks(False)
    return Exported(folder, before, seen)


def test_bad_input_is_said_before_anything_is_touched(machine: Machine, tmp_path: Path) -> None:
    folder, file = tmp_path / "export", tmp_path / "file"
    file.write_text("")
    before = machine.ssh(STACK)
    given: dict[str, Any] = {"dagster_export_dir": str(folder), "dagster_export_registry": REGISTRY}
    play = "playbooks/export_helm.yml"
    machine.play(play, **{**given, "dagster_export_registry": ""}).refused(
        "has no digest of a registry, since it was built on this machine", "dagster_export_registry"
    )
    machine.play(play, **{**given, "dagster_export_dir": str(file / "below")}).refused(
        "dagster_export_dir: found", "is no folder; expected a folder on the controller that you may write to"
    )
    machine.play(play, **{**given, "dagster_export_registry": "https://x"}).refused("dagster_export_registry: found")
    machine.play(play, **given, dagster_export_final=True).refused(
        "found dagster-daemon running, which goes on writing", "found dagster-webserver running"
    )
    machine.ssh("mv /opt/dagster/releases/current /root/current")
    try:
        machine.play(play, **given).refused("no release serves on this machine; expected one that does")
    finally:
        machine.ssh("mv /root/current /opt/dagster/releases/current")
    assert not folder.exists()
    assert machine.ssh("ls -d /opt/dagster/export", check=False) == ""
    assert machine.ssh(STACK) == before


def test_check_mode_shows_the_values_and_takes_no_dump(machine: Machine, tmp_path: Path) -> None:
    given: dict[str, Any] = {"dagster_export_dir": str(tmp_path / "export"), "dagster_export_registry": REGISTRY}
    played = machine.play("playbooks/export_helm.yml", "--check", "--diff", **given).ok()
    assert "+generatePostgresqlPasswordSecret: false" in played.output
    assert not (tmp_path / "export").exists()


def test_the_export_is_whole_and_holds_no_secret(machine: Machine, exported: Exported) -> None:
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=exported.folder, check=True)
    assert exported.folder.stat().st_mode & 0o777 == 0o700
    assert (exported.folder / "database.dump").stat().st_mode & 0o777 == 0o600
    password = machine.ssh("cat /opt/dagster/dagster_home/database/password").strip()
    assert password
    for path in exported.folder.iterdir():
        assert password.encode() not in path.read_bytes(), path.name
    manifest = json.loads(exported.text("export.json"))
    assert manifest["database"]["tables"]["runs"] == len(exported.before["runs"])
    assert manifest["images"]["core"]["repository"] == f"{REGISTRY}/docker_dagster_core"
    assert manifest["release"]["image"]["id"] in exported.text("README.md")
    assert machine.ssh("ls -d /opt/dagster/export", check=False) == ""


def instance_of(values: dict[str, Any]) -> dict[str, Any]:
    """The dagster.yaml that the chart's configmap-instance.yaml makes of the values."""
    given, daemon = values["postgresql"], values["dagsterDaemon"]
    database = {
        "postgres_db": {
            "username": given["postgresqlUsername"], "password": {"env": "DAGSTER_PG_PASSWORD"},
            "hostname": given["postgresqlHost"], "db_name": given["postgresqlDatabase"],
            "port": given["service"]["port"], "params": given["postgresqlParams"],
        }
    }  # fmt: skip
    queue = daemon["runCoordinator"]["config"]["queuedRunCoordinator"]
    monitoring, retries = daemon["runMonitoring"], daemon["runRetries"]
    return {
        "scheduler": {"module": "dagster.core.scheduler", "class": "DagsterDaemonScheduler"},
        "schedule_storage": {
            "module": "dagster_postgres.schedule_storage", "class": "PostgresScheduleStorage", "config": database,
        },
        "run_storage": {"module": "dagster_postgres.run_storage", "class": "PostgresRunStorage", "config": database},
        "event_log_storage": {
            "module": "dagster_postgres.event_log", "class": "PostgresEventLogStorage", "config": database,
        },
        "run_coordinator": {
            "module": "dagster.core.run_coordinator", "class": "QueuedRunCoordinator",
            "config": {"max_concurrent_runs": queue["maxConcurrentRuns"]},
        },
        "compute_logs": {
            "module": "dagster._core.storage.noop_compute_log_manager", "class": values["computeLogManager"]["type"],
        },
        "run_monitoring": {
            "enabled": monitoring["enabled"], "start_timeout_seconds": monitoring["startTimeoutSeconds"],
            "max_runtime_seconds": monitoring["maxRuntimeSeconds"],
            "max_resume_run_attempts": monitoring["maxResumeRunAttempts"],
            "poll_interval_seconds": monitoring["pollIntervalSeconds"],
        },
        "run_retries": {"enabled": retries["enabled"], "max_retries": retries["maxRetries"]},
        "telemetry": values["telemetry"],
        "retention": {"schedule": {"purge_after_days": values["retention"]["schedule"]["purgeAfterDays"]}},
        **values["additionalInstanceConfig"],
    }  # fmt: skip


def workspace_of(values: dict[str, Any]) -> dict[str, Any]:
    """Its workspace.yaml."""
    servers = values["dagsterWebserver"]["workspace"]["servers"]
    return {
        "load_from": [
            {"grpc_server": {"host": each["host"], "port": each["port"], "location_name": each["name"]}}
            for each in servers
        ]
    }


@pytest.fixture
def moved(machine: Machine, exported: Exported) -> Iterator[dict[str, Any]]:
    """The dump restored by README.md's own command, on a network with the release under its service's name."""
    values = exported.values
    values["postgresql"] |= {"postgresqlHost": "moved-postgres", "postgresqlParams": {"sslmode": "disable"}}
    command = re.search(r"^\$ (docker run .*?database\.dump)$", exported.text("README.md"), re.MULTILINE | re.DOTALL)
    assert command
    restore = command[1].replace("change-me.postgres.invalid", "moved-postgres")
    restore = restore.replace("docker run", "docker run --network moved", 1)
    files = {path.name: path.read_bytes() for path in exported.folder.iterdir()}
    files["pgpass"] = f"moved-postgres:5432:dagster:dagster:{PASSWORD}\n".encode()
    files["home/dagster.yaml"] = yaml.safe_dump(instance_of(values)).encode()
    files["home/workspace.yaml"] = yaml.safe_dump(workspace_of(values)).encode()
    machine.send(MOVED, files)
    release = json.loads(exported.text("export.json"))["release"]["release"]
    try:
        machine.ssh(
            f"set -e; cd {MOVED}; chmod 600 pgpass; docker network create moved\n"
            "docker run --detach --name moved-postgres --network moved --env POSTGRES_USER=dagster"
            f" --env POSTGRES_PASSWORD={PASSWORD} --env POSTGRES_DB=dagster postgres:17\n"
            "until docker exec moved-postgres pg_isready -h 127.0.0.1 -U dagster -d dagster; do sleep 0.5; done\n"
            f"sha256sum --check SHA256SUMS\n{restore}\n"
            f"docker network connect --alias dagster-core moved docker_dagster_core_{release}\n"
            f"docker run --detach --name moved-webserver --network moved --env DAGSTER_PG_PASSWORD={PASSWORD}"
            f" --volume {MOVED}/home:/opt/dagster/dagster_home"
            " $(docker inspect --format '{{.Image}}' dagster-webserver)\n"
        )
        yield values
    finally:
        machine.ssh(
            "docker rm --force --volumes moved-webserver moved-postgres\n"
            f"docker network disconnect moved docker_dagster_core_{release}; docker network rm moved; rm -rf {MOVED}",
            check=False,
        )


def test_dagster_opens_it_with_all_its_history(machine: Machine, exported: Exported, moved: dict[str, Any]) -> None:
    found = json.loads(machine.ssh(f"docker exec -i moved-webserver python - <<'E'\n{LOOK}E"))
    assert found == exported.before
    assert len(found["runs"]) >= 2
    assert sum(found["events"].values()) > 20
    assert found["ticks"]["every_minute"][0] == "RUNNING"
    assert found["ticks"]["every_five_seconds"][1] > 0

    def schedule() -> dict[str, Any]:
        try:
            return asked(machine, "moved-webserver")
        except AssertionError:
            return {}

    wait(lambda: "workspaceOrError" in schedule(), 90, "the webserver of the restored instance")
    there = schedule()
    assert there["workspaceOrError"]["locationEntries"] == [{"name": "dagster_core", "loadStatus": "LOADED"}]
    # The host is another one and the history is the schedule's all the same: it goes by the location's name.
    assert moved["dagsterWebserver"]["workspace"]["servers"][0]["host"] == "dagster-core"
    assert there["scheduleOrError"]["scheduleState"]["status"] == "RUNNING"
    assert ticks(there) == exported.ticks
