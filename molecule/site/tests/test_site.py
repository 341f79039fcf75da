"""After site.yml: the article's containers, ports, files and flows, and a Dagster that works."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host

from tests.scenario import Role, inspect

ARTICLE = ("dagster-postgres", "dagster-webserver", "dagster-daemon")


def graphql(host: Host, query: str) -> dict[str, Any]:
    """Ask the webserver from the machine itself."""
    body = json.dumps({"query": query})
    answer = host.run(
        "curl --fail --silent --header 'Content-Type: application/json' --data %s http://127.0.0.1:3000/graphql", body
    )
    assert answer.rc == 0, answer.stderr
    data: dict[str, Any] = json.loads(answer.stdout)["data"]
    return data


def code_container(host: Host) -> str:
    """The container of the release that serves."""
    release = host.check_output("basename $(readlink /opt/dagster/releases/current)")
    return f"docker_dagster_core_{release}"


@pytest.mark.parametrize("name", ARTICLE)
def test_the_articles_containers_are_healthy(host: Host, name: str) -> None:
    assert inspect(host, name)["State"]["Health"]["Status"] == "healthy"


def test_the_user_code_serves_from_a_container_of_its_own(host: Host) -> None:
    found = inspect(host, code_container(host))
    assert found["State"]["Running"]
    assert "dagster-network" in found["NetworkSettings"]["Networks"]


def test_every_required_daemon_is_healthy(host: Host) -> None:
    health = graphql(host, "{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }")
    statuses = health["instance"]["daemonHealth"]["allDaemonStatuses"]
    assert {"SCHEDULER", "SENSOR", "QUEUED_RUN_COORDINATOR"} <= {each["daemonType"] for each in statuses}
    assert [each for each in statuses if each["required"] and not each["healthy"]] == []


def test_the_location_has_the_articles_name_and_serves_the_release(host: Host) -> None:
    query = """{ workspaceOrError { ... on Workspace { locationEntries {
        name loadStatus displayMetadata { key value } locationOrLoadError { __typename } } } } }"""
    (entry,) = graphql(host, query)["workspaceOrError"]["locationEntries"]
    assert (entry["name"], entry["loadStatus"]) == ("dagster_core", "LOADED")
    assert entry["locationOrLoadError"]["__typename"] == "RepositoryLocation"
    metadata = {item["key"]: item["value"] for item in entry["displayMetadata"]}
    assert metadata["host"] == code_container(host)
    assert metadata["port"] == "4000"


def test_the_proof_left_a_run_that_succeeded(host: Host) -> None:
    query = '{ runsOrError(filter: {pipelineName: "platform_check"}) { ... on Runs { results { status } } } }'
    statuses = [run["status"] for run in graphql(host, query)["runsOrError"]["results"]]
    assert statuses == ["SUCCESS"], "one run by the first converge, none by the second"


def test_the_articles_environment_reaches_the_user_code(host: Host) -> None:
    found = inspect(host, code_container(host))
    environment = dict(entry.split("=", 1) for entry in found["Config"]["Env"])
    assert {"POSTGRES_USER", "POSTGRES_DB", "DAGSTER_CURRENT_IMAGE"} <= environment.keys()
    image = environment["DAGSTER_CURRENT_IMAGE"]
    assert json.loads(host.check_output("docker image inspect %s", image))[0]["Id"] == found["Image"]


def test_the_articles_queue_limit_and_telemetry_hold(host: Host) -> None:
    query = "{ instance { runQueueConfig { maxConcurrentRuns } info } }"
    instance = graphql(host, query)["instance"]
    assert instance["runQueueConfig"]["maxConcurrentRuns"] == 5
    assert "DockerRunLauncher" in instance["info"]
    assert "enabled: false" in host.file("/opt/dagster/dagster_home/dagster.yaml").content_string.split("telemetry:")[1]


def test_only_ssh_is_open_to_others(host: Host) -> None:
    listening = host.check_output("ss --listening --tcp --numeric --no-header | awk '{print $4}'").split()
    open_to_others = {entry for entry in listening if not entry.startswith(("127.", "[::1]"))}
    assert open_to_others == {"0.0.0.0:22", "[::]:22"}, listening
    assert "127.0.0.1:3000" in listening


@pytest.mark.parametrize(
    ("path", "mode", "owner"),
    [
        ("/opt/dagster/.env", 0o600, "root"),
        ("/opt/dagster/docker-compose-GCE.yml", 0o644, "root"),
        ("/opt/dagster/dagster_home/dagster.yaml", 0o644, "root"),
        ("/opt/dagster/dagster_home/workspace.yaml", 0o644, "root"),
        ("/opt/dagster/deploys.jsonl", 0o640, "root"),
    ],
)
def test_files_belong_to_root_and_secrets_are_closed(host: Host, path: str, mode: int, owner: str) -> None:
    file = host.file(path)
    assert (file.mode, file.user) == (mode, owner)


# sudo logs command lines, so the password must not be in this one either: it goes from file to file.
PASSWORD = "sed -nE \"s/^POSTGRES_PASSWORD='?([^']*)'?$/\\1/p\" /opt/dagster/.env >/run/canary"
ELSEWHERE = "grep -rlFf /run/canary /opt/dagster /etc /var/log /tmp /root /home 2>/dev/null"
INSPECTED = "(docker inspect $(docker ps -aq); docker image inspect $(docker image ls -q)) | grep -cFf /run/canary"


def test_the_password_is_nowhere_but_where_it_has_to_be(host: Host) -> None:
    assert len(host.check_output(f"{PASSWORD}; cat /run/canary")) >= 24
    folder = "/opt/dagster/dagster_home/database"
    assert sorted(host.run(ELSEWHERE).stdout.split()) == ["/opt/dagster/.env", f"{folder}/password", f"{folder}/pgpass"]
    assert host.run(INSPECTED).stdout.strip() == "0"
    assert host.run("rm /run/canary").rc == 0


def test_the_audit_log_has_one_release(host: Host) -> None:
    lines = host.file("/opt/dagster/deploys.jsonl").content_string.splitlines()
    (entry,) = [json.loads(line) for line in lines]
    assert (entry["operation"], entry["result"], entry["runs_in_flight_before"]) == ("deploy", "ok", 0)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "changed=0"),
        ({"dagster_home_run_max_seconds": 4711}, "the services that the difference above names"),
        ({"gcp_location": "EU"}, "the services that read what changes in .env"),
    ],
    ids=["nothing", "dagster.yaml", ".env"],
)
def test_check_mode_tells_what_would_be_replaced(site: Role, variables: dict[str, Any], words: str) -> None:
    done = site("--check", "--diff", **variables)
    assert done.returncode == 0, done.stdout
    said = " ".join(done.stdout.split())
    assert words in said, done.stdout
    assert ("docker compose up would start or replace" in said) is bool(variables)
