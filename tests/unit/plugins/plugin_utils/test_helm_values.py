"""The values of Dagster's Helm chart.

The chart's values.schema.json is in no package of a registry, so the keys that may be written stand here as a list,
from helm/dagster/values.yaml and helm/dagster/schema/schema/charts of github.com/dagster-io/dagster
(chart 1.13). `*` is a key that the user or the machine names.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.plugin_utils import helm_values

CHART = """\
global.postgresqlSecretName
generatePostgresqlPasswordSecret
postgresql.enabled
postgresql.postgresqlHost
postgresql.postgresqlUsername
postgresql.postgresqlDatabase
postgresql.postgresqlParams.*
postgresql.service.port
dagster-user-deployments.enabled
dagster-user-deployments.enableSubchart
dagster-user-deployments.deployments.name
dagster-user-deployments.deployments.image.repository
dagster-user-deployments.deployments.image.tag
dagster-user-deployments.deployments.image.digest
dagster-user-deployments.deployments.image.pullPolicy
dagster-user-deployments.deployments.port
dagster-user-deployments.deployments.dagsterApiGrpcArgs
dagster-user-deployments.deployments.codeServerArgs
dagster-user-deployments.deployments.env.name
dagster-user-deployments.deployments.env.value
dagster-user-deployments.deployments.envSecrets.name
dagster-user-deployments.deployments.includeConfigInLaunchedRuns.enabled
dagsterWebserver.image.repository
dagsterWebserver.image.tag
dagsterWebserver.image.digest
dagsterWebserver.image.pullPolicy
dagsterWebserver.workspace.enabled
dagsterWebserver.workspace.servers.host
dagsterWebserver.workspace.servers.port
dagsterWebserver.workspace.servers.name
dagsterWebserver.workspace.servers.ssl
dagsterDaemon.enabled
dagsterDaemon.image.repository
dagsterDaemon.image.tag
dagsterDaemon.image.digest
dagsterDaemon.image.pullPolicy
dagsterDaemon.runCoordinator.enabled
dagsterDaemon.runCoordinator.type
dagsterDaemon.runCoordinator.config.queuedRunCoordinator.maxConcurrentRuns
dagsterDaemon.runCoordinator.config.queuedRunCoordinator.tagConcurrencyLimits.key
dagsterDaemon.runCoordinator.config.queuedRunCoordinator.tagConcurrencyLimits.value
dagsterDaemon.runCoordinator.config.queuedRunCoordinator.tagConcurrencyLimits.value.applyLimitPerUniqueValue
dagsterDaemon.runCoordinator.config.queuedRunCoordinator.tagConcurrencyLimits.limit
dagsterDaemon.runCoordinator.config.queuedRunCoordinator.dequeueIntervalSeconds
dagsterDaemon.runCoordinator.config.queuedRunCoordinator.dequeueUseThreads
dagsterDaemon.runCoordinator.config.queuedRunCoordinator.dequeueNumWorkers
dagsterDaemon.runMonitoring.enabled
dagsterDaemon.runMonitoring.startTimeoutSeconds
dagsterDaemon.runMonitoring.cancelTimeoutSeconds
dagsterDaemon.runMonitoring.maxRuntimeSeconds
dagsterDaemon.runMonitoring.maxResumeRunAttempts
dagsterDaemon.runMonitoring.pollIntervalSeconds
dagsterDaemon.runMonitoring.freeSlotsAfterRunEndSeconds
dagsterDaemon.runRetries.enabled
dagsterDaemon.runRetries.maxRetries
dagsterDaemon.runRetries.retryOnAssetOrOpFailure
dagsterDaemon.schedules.useThreads
dagsterDaemon.schedules.numWorkers
dagsterDaemon.schedules.numSubmitWorkers
dagsterDaemon.sensors.useThreads
dagsterDaemon.sensors.numWorkers
dagsterDaemon.sensors.numSubmitWorkers
runLauncher.type
runLauncher.config.k8sRunLauncher.imagePullPolicy
runLauncher.config.k8sRunLauncher.resources.limits.cpu
runLauncher.config.k8sRunLauncher.resources.limits.memory
runLauncher.config.k8sRunLauncher.resources.requests.cpu
runLauncher.config.k8sRunLauncher.resources.requests.memory
computeLogManager.type
computeLogManager.config.gcsComputeLogManager.bucket
computeLogManager.config.gcsComputeLogManager.prefix
computeLogManager.config.gcsComputeLogManager.jsonCredentialsEnvvar
computeLogManager.config.gcsComputeLogManager.uploadInterval
computeLogManager.config.gcsComputeLogManager.showUrlOnly
computeLogManager.config.customComputeLogManager.module
computeLogManager.config.customComputeLogManager.class
computeLogManager.config.customComputeLogManager.config.*
retention.enabled
retention.schedule.purgeAfterDays
retention.sensor.purgeAfterDays
retention.sensor.purgeAfterDays.skipped
retention.sensor.purgeAfterDays.started
retention.sensor.purgeAfterDays.success
retention.sensor.purgeAfterDays.failure
retention.autoMaterialize.purgeAfterDays
telemetry.enabled
pythonLogs.pythonLogLevel
pythonLogs.managedPythonLoggers
pythonLogs.dagsterHandlerConfig.*
concurrency.enabled
concurrency.pools.defaultLimit
concurrency.pools.granularity
concurrency.pools.opGranularityRunBuffer
additionalInstanceConfig.*
""".splitlines()

FACTS: dict[str, Any] = {
    "location": "dagster_core",
    "final": False,
    "queue_limit": 5,
    "database": {"major": 17, "user": "dagster", "name": "dagster", "size": 1, "in_flight": 0, "waiting": 0},
    "workspace": [
        {"grpc_server": {"host": "docker_dagster_core_1", "port": 4000, "location_name": "dagster_core"}},
        {"grpc_server": {"host": "10.0.0.7", "port": 4001, "location_name": "other", "ssl": True}},
    ],
    "core": {
        "release": "20261130T092610-898cfd0f3cbe",
        "git_sha": "abc",
        "image": {"id": f"sha256:{'8' * 64}", "digest": "", "platform": "linux/amd64"},
        "words": ["dagster", "api", "grpc", "-h", "0.0.0.0", "-p", "4000", "-m", "dagster_core"],
        "memory": 2 << 30,
        "packages": {"dagster": "1.13.27", "dagster-postgres": "0.29.27", "dagster-k8s": "", "dagster-gcp": ""},
        "settings": {"GCP_PROJECT": "a-project", "FLAVOUR": "sweet"},
        "secret_names": ["API_TOKEN"],
    },
    "webserver": {
        "id": f"sha256:{'b' * 64}",
        "digest": "",
        "packages": {"dagster": "1.13.27", "dagster-postgres": "0.29.27", "dagster-k8s": "", "dagster-gcp": ""},
    },
    "files": {"logs": 3, "logs_bytes": 900, "others": 2, "others_bytes": 5_000_000},
}
INSTANCE: dict[str, Any] = {
    "storage": {"postgres": {"postgres_db": {"hostname": "dagster-postgres", "port": 5432, "password": ""}}},
    "local_artifact_storage": {"module": "dagster.core.storage.root", "class": "LocalArtifactStorage"},
    "compute_logs": {"module": "dagster.core.storage.local_compute_log_manager", "class": "LocalComputeLogManager"},
    "scheduler": {"module": "dagster.core.scheduler", "class": "DagsterDaemonScheduler"},
    "concurrency": {
        "runs": {
            "max_concurrent_runs": 0,
            "tag_concurrency_limits": [
                {"key": "team", "value": {"applyLimitPerUniqueValue": True}, "limit": 2},
                {"key": "heavy", "value": "yes", "limit": 1},
                {"key": "any", "limit": 9},
            ],
        },
        "pools": {"default_limit": 1, "granularity": "run"},
    },
    "run_launcher": {
        "module": "dagster_docker",
        "class": "DockerRunLauncher",
        "config": {"container_kwargs": {"mem_limit": "2g", "nano_cpus": 1_500_000_000}},
    },
    "run_monitoring": {
        "enabled": True,
        "start_timeout_seconds": 180,
        "cancel_timeout_seconds": 180,
        "max_runtime_seconds": 86400,
        "max_resume_run_attempts": 0,
        "poll_interval_seconds": 15,
        "free_slots_after_run_end_seconds": 300,
    },
    "run_retries": {"enabled": True, "max_retries": 1, "retry_on_asset_or_op_failure": False},
    "retention": {
        "schedule": {"purge_after_days": 90},
        "sensor": {"purge_after_days": {"skipped": 7, "started": 30, "success": 30, "failure": 90}},
    },
    "schedules": {"use_threads": True, "num_workers": 4},
    "sensors": {"use_threads": True, "num_workers": 4, "num_submit_workers": 2},
    "backfills": {"use_threads": True, "num_workers": 2},
    "telemetry": {"enabled": False},
    "python_logs": {"python_log_level": "INFO", "managed_python_loggers": ["mine"]},
}


def made(
    facts: dict[str, Any] | None = None,
    instance: dict[str, Any] | None = None,
    registry: str = "r.dev/p/d",
    webserver: str = "",
) -> dict[str, Any]:
    return helm_values.values({**FACTS, **(facts or {})}, {**INSTANCE, **(instance or {})}, registry, webserver)


def paths(given: Any, at: str = "") -> Iterator[str]:
    """Every leaf of the values by its path; a list's elements stand for the list."""
    if isinstance(given, dict) and given:
        for key, each in given.items():
            yield from paths(each, f"{at}.{key}".lstrip("."))
    elif isinstance(given, list) and any(isinstance(each, dict) for each in given):
        for each in given:
            yield from paths(each, at)
    else:
        yield at


def of_the_chart(path: str) -> bool:
    return path in CHART or any(each.endswith(".*") and path.startswith(each[:-1]) for each in CHART)


GCS = {"module": "dagster_gcp.gcs.compute_log_manager", "class": "GCSComputeLogManager", "config": {"bucket": "logs"}}
S3 = {"module": "dagster_aws.s3", "class": "S3ComputeLogManager", "config": {"bucket": "b", "secret_key": "hidden"}}


@pytest.mark.parametrize("logs", [INSTANCE["compute_logs"], GCS, S3])
def test_every_key_is_one_of_the_charts(logs: dict[str, Any]) -> None:
    assert [each for each in paths(made(instance={"compute_logs": logs})) if not of_the_chart(each)] == []


def test_the_database_is_elsewhere_and_its_password_in_a_secret() -> None:
    found = made()
    assert found["postgresql"]["enabled"] is False
    assert found["postgresql"]["postgresqlHost"].endswith(".invalid")
    assert found["generatePostgresqlPasswordSecret"] is False
    assert found["global"] == {"postgresqlSecretName": "dagster-postgresql-secret"}
    assert "postgresqlPassword" not in found["postgresql"]


def test_a_database_that_is_outside_already_keeps_its_address() -> None:
    given = {"hostname": "10.20.0.3", "port": 6432, "params": {"sslmode": "verify-ca", "passfile": "/x"}}
    found = made(instance={"storage": {"postgres": {"postgres_db": given}}})["postgresql"]
    assert (found["postgresqlHost"], found["service"]["port"]) == ("10.20.0.3", 6432)
    assert found["postgresqlParams"] == {"sslmode": "require"}


def test_locations_keep_their_names_under_a_host_that_kubernetes_takes() -> None:
    """Schedules, sensors and ticks belong to the location's name."""
    found = made()
    (deployment,) = found["dagster-user-deployments"]["deployments"]
    assert deployment["name"] == "dagster-core"
    assert found["dagsterWebserver"]["workspace"] == {
        "enabled": True,
        "servers": [
            {"host": "dagster-core", "port": 4000, "name": "dagster_core"},
            {"host": "10.0.0.7", "port": 4001, "name": "other", "ssl": True},
        ],
    }


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["dagster", "api", "grpc", "-h", "0.0.0.0", "-p", "4000", "-m", "x"],
            {"port": 4000, "dagsterApiGrpcArgs": ["-m", "x"]},
        ),
        (
            ["/opt/venv/bin/dagster", "api", "grpc", "--port=4100", "-f", "a.py"],
            {"port": 4100, "dagsterApiGrpcArgs": ["-f", "a.py"]},
        ),
        (
            ["tini", "--", "dagster", "code-server", "start", "--host", "::", "-m", "x"],
            {"port": 4000, "codeServerArgs": ["-m", "x"]},
        ),
    ],
)  # fmt: skip
def test_the_command_is_said_in_the_charts_words(words: list[str], expected: dict[str, Any]) -> None:
    assert helm_values.command(words) == expected


def test_another_command_is_refused() -> None:
    with pytest.raises(helm_values.HelmError, match=r"found 'python serve.py'; expected `dagster api grpc"):
        helm_values.command(["python", "serve.py"])


def test_settings_are_values_and_secrets_a_name() -> None:
    (deployment,) = made()["dagster-user-deployments"]["deployments"]
    assert deployment["env"] == [
        {"name": "GCP_PROJECT", "value": "a-project"},
        {"name": "FLAVOUR", "value": "sweet"},
    ]
    assert deployment["envSecrets"] == [{"name": "dagster-core-environment"}]


def test_the_image_is_a_digest_or_the_releases_own_tag() -> None:
    digest = f"europe-west1-docker.pkg.dev/p/d/core@sha256:{'1' * 64}"
    facts = copy.deepcopy(FACTS)
    facts["core"]["image"]["digest"] = digest
    assert helm_values.core_image(facts, "") == {
        "repository": "europe-west1-docker.pkg.dev/p/d/core", "digest": f"sha256:{'1' * 64}",
        "pullPolicy": "IfNotPresent",
    }  # fmt: skip
    assert helm_values.core_image(FACTS, "localhost:5000/d/")["repository"] == "localhost:5000/d/docker_dagster_core"
    assert helm_values.core_image(FACTS, "r.dev/p")["tag"] == FACTS["core"]["release"]


def test_webserver_and_daemon_are_the_machines_only_where_they_know_kubernetes() -> None:
    digest = f"r.dev/p/web@sha256:{'2' * 64}"
    facts = copy.deepcopy(FACTS)
    facts["webserver"]["digest"] = digest
    assert helm_values.webserver_image(facts, "")["repository"] == helm_values.CHART_IMAGE
    assert helm_values.webserver_image(facts, "")["tag"] == "1.13.27"
    facts["webserver"]["packages"]["dagster-k8s"] = "0.29.27"
    assert helm_values.webserver_image(facts, "")["digest"] == f"sha256:{'2' * 64}"
    assert helm_values.webserver_image(facts, "r.dev/x:7") == {
        "repository": "r.dev/x", "tag": "7", "pullPolicy": "IfNotPresent",
    }  # fmt: skip


def test_the_queue_is_as_it_was_before_a_pause() -> None:
    queue = made()["dagsterDaemon"]["runCoordinator"]["config"]["queuedRunCoordinator"]
    assert queue["maxConcurrentRuns"] == 5
    assert queue["tagConcurrencyLimits"] == [
        {"key": "team", "value": {"applyLimitPerUniqueValue": True}, "limit": 2},
        {"key": "heavy", "value": "yes", "limit": 1},
        {"key": "any", "limit": 9},
    ]


@pytest.mark.parametrize(
    "form",
    [
        {"run_queue": {"max_concurrent_runs": 7, "dequeue_interval_seconds": 2}},
        {"run_coordinator": {"config": {"max_concurrent_runs": 7, "dequeue_interval_seconds": 2}}},
    ],
)  # fmt: skip
def test_older_forms_of_the_queue_are_read_too(form: dict[str, Any]) -> None:
    found = made({"queue_limit": None}, {"concurrency": {}, **form})
    queue = found["dagsterDaemon"]["runCoordinator"]["config"]["queuedRunCoordinator"]
    assert queue == {"maxConcurrentRuns": 7, "dequeueIntervalSeconds": 2}
    assert "concurrency" not in found


def test_monitoring_retries_and_retention_go_on_as_they_were() -> None:
    found = made()
    assert found["dagsterDaemon"]["runMonitoring"]["maxRuntimeSeconds"] == 86400
    assert found["dagsterDaemon"]["runMonitoring"]["maxResumeRunAttempts"] == 0
    assert found["dagsterDaemon"]["runRetries"]["maxRetries"] == 1
    assert found["retention"]["sensor"]["purgeAfterDays"]["skipped"] == 7
    assert found["telemetry"] == {"enabled": False}
    # 0 is never, which the chart says by leaving it out.
    never = made(instance={"run_monitoring": {"enabled": True, "max_runtime_seconds": 0}})
    assert never["dagsterDaemon"]["runMonitoring"] == {"enabled": True}


@pytest.mark.parametrize(
    ("launcher", "expected"),
    [
        (INSTANCE["run_launcher"], {"limits": {"cpu": "1500m", "memory": "2Gi"}}),
        (
            {"config": {"limits": {"memory": "512m", "pids": 512}, "reservations": {"cpus": "0.5", "memory": "256m"}}},
            {"limits": {"memory": "512Mi"}, "requests": {"cpu": "0.5", "memory": "256Mi"}},
        ),
        ({"module": "dagster", "class": "DefaultRunLauncher"}, None),
    ],
)
def test_what_a_run_may_take_is_the_same(launcher: dict[str, Any], expected: dict[str, Any] | None) -> None:
    found = made(instance={"run_launcher": launcher})["runLauncher"]
    assert found["type"] == "K8sRunLauncher"
    assert found["config"]["k8sRunLauncher"].get("resources") == expected


@pytest.mark.parametrize(
    ("size", "expected"), [("2g", "2Gi"), ("1.5g", "1.5Gi"), ("512MB", "512Mi"), (1024, "1024"), ("", "")]
)
def test_sizes_are_spelled_as_kubernetes_does(size: object, expected: str) -> None:
    assert helm_values.quantity(size) == expected


def test_compute_logs_go_to_the_bucket_and_never_to_a_pods_disk() -> None:
    assert made()["computeLogManager"] == {"type": "NoOpComputeLogManager"}
    found = made(instance={"compute_logs": GCS})["computeLogManager"]
    assert found == {"type": "GCSComputeLogManager", "config": {"gcsComputeLogManager": {"bucket": "logs"}}}
    config = made(instance={"compute_logs": S3})["computeLogManager"]["config"]["customComputeLogManager"]
    assert config["class"] == "S3ComputeLogManager"
    assert config["config"] == {"bucket": "b", "secret_key": helm_values.LEFT_OUT}


def test_what_the_chart_has_no_word_for_is_handed_on() -> None:
    assert made()["additionalInstanceConfig"] == {"backfills": {"use_threads": True, "num_workers": 2}}


def test_texts_under_names_of_secrets_are_left_out() -> None:
    given = {
        "password": "x", "token": {"env": "TOKEN"}, "json_credentials_envvar": "GOOGLE", "list": [{"api_key": "y"}],
        "empty_password": "", "number": 3,
    }  # fmt: skip
    assert helm_values.redacted(given) == {
        **given, "password": helm_values.LEFT_OUT, "list": [{"api_key": helm_values.LEFT_OUT}],
    }  # fmt: skip
