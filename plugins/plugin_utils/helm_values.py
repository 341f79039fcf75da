# SPDX-License-Identifier: Apache-2.0
"""``values.yaml`` for Dagster's Helm chart, made of what a machine runs.

Every key is one of the chart's own (https://github.com/dagster-io/dagster/tree/master/helm/dagster, whose schema stands
in ``schema/schema/charts``). Only what differs from the chart's defaults, or must not change with them, is written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

POSTGRES_SECRET = "dagster-postgresql-secret"  # noqa: S105 - its name
ENVIRONMENT_SECRET = "dagster-core-environment"  # noqa: S105 - its name
# No host has such a name (RFC 2606): an install without the real one fails, and says at what.
POSTGRES_HOST = "change-me.postgres.invalid"
OWN_POSTGRES = "dagster-postgres"
# The chart's own image of webserver and daemon; it has dagster-k8s, dagster-gcp and dagster-postgres.
CHART_IMAGE = "docker.io/dagster/dagster-celery-k8s"
_GCS = "GCSComputeLogManager"
_LOCAL = "LocalComputeLogManager"

# What becomes values of their own below, or has no meaning in a cluster; everything else is handed on as it is.
_HANDLED = {
    "storage", "run_storage", "event_log_storage", "schedule_storage", "local_artifact_storage", "compute_logs",
    "scheduler", "concurrency", "run_queue", "run_coordinator", "run_launcher", "run_monitoring", "run_retries",
    "retention", "schedules", "sensors", "telemetry", "python_logs",
}  # fmt: skip

_MONITORING = {
    "enabled": "enabled", "start_timeout_seconds": "startTimeoutSeconds",
    "cancel_timeout_seconds": "cancelTimeoutSeconds", "max_runtime_seconds": "maxRuntimeSeconds",
    "max_resume_run_attempts": "maxResumeRunAttempts", "poll_interval_seconds": "pollIntervalSeconds",
    "free_slots_after_run_end_seconds": "freeSlotsAfterRunEndSeconds",
}  # fmt: skip
_RETRIES = {
    "enabled": "enabled", "max_retries": "maxRetries", "retry_on_asset_or_op_failure": "retryOnAssetOrOpFailure",
}  # fmt: skip
_THREADS = {"use_threads": "useThreads", "num_workers": "numWorkers", "num_submit_workers": "numSubmitWorkers"}
_RETENTION = {"schedule": "schedule", "sensor": "sensor", "auto_materialize": "autoMaterialize"}
_LOGS = {
    "python_log_level": "pythonLogLevel", "managed_python_loggers": "managedPythonLoggers",
    "dagster_handler_config": "dagsterHandlerConfig",
}  # fmt: skip
_COMPUTE_LOGS = {
    "bucket": "bucket", "prefix": "prefix", "json_credentials_envvar": "jsonCredentialsEnvvar",
    "upload_interval": "uploadInterval", "show_url_only": "showUrlOnly",
}  # fmt: skip
_POOLS = {
    "default_limit": "defaultLimit", "granularity": "granularity",
    "op_granularity_run_buffer": "opGranularityRunBuffer",
}  # fmt: skip
_QUEUE = {
    "dequeue_interval_seconds": "dequeueIntervalSeconds", "dequeue_use_threads": "dequeueUseThreads",
    "dequeue_num_workers": "dequeueNumWorkers",
}  # fmt: skip


class HelmError(Exception):
    """What the machine runs cannot be said in the chart's values; the text says what was found and expected."""


def values(facts: Mapping[str, Any], instance: Mapping[str, Any], registry: str, webserver: str) -> dict[str, Any]:
    """The values.

    Args:
        facts: what the module dagster_export tells of the machine.
        instance: the machine's dagster.yaml.
        registry: where images will be pushed that have no registry yet.
        webserver: the image of webserver and daemon that was asked for; empty: the machine's, or the chart's.

    Raises:
        HelmError: the release has a command that the chart has no words for.
    """
    image = webserver_image(facts, webserver)
    monitoring = _renamed(instance.get("run_monitoring", {}), _MONITORING)
    # The chart leaves zero out, which is never.
    if not monitoring.get("maxRuntimeSeconds"):
        monitoring.pop("maxRuntimeSeconds", None)
    found: dict[str, Any] = {
        "global": {"postgresqlSecretName": POSTGRES_SECRET},
        "generatePostgresqlPasswordSecret": False,
        "postgresql": _postgresql(facts, instance),
        "dagster-user-deployments": {
            "enabled": True,
            "enableSubchart": True,
            "deployments": [_deployment(facts, registry)],
        },
        "dagsterWebserver": {"image": image, "workspace": {"enabled": True, "servers": servers(facts)}},
        "dagsterDaemon": {
            "enabled": True,
            "image": dict(image),
            "runCoordinator": {
                "enabled": True,
                "type": "QueuedRunCoordinator",
                "config": {"queuedRunCoordinator": _queue(instance, facts.get("queue_limit"))},
            },
            "runMonitoring": monitoring,
            "runRetries": _renamed(instance.get("run_retries", {}), _RETRIES),
            "schedules": _renamed(instance.get("schedules", {}), _THREADS),
            "sensors": _renamed(instance.get("sensors", {}), _THREADS),
        },
        "runLauncher": _run_launcher(instance),
        "computeLogManager": _compute_logs(instance.get("compute_logs", {})),
        "retention": {"enabled": True, **_retention(instance.get("retention", {}))},
        "telemetry": {"enabled": bool(instance.get("telemetry", {}).get("enabled", True))},
        "pythonLogs": _renamed(instance.get("python_logs", {}), _LOGS),
        "concurrency": _pools(instance),
        "additionalInstanceConfig": {
            name: redacted(each) for name, each in instance.items() if name not in _HANDLED and each is not None
        },
    }
    return {name: each for name, each in found.items() if each != {}}


def _renamed(given: Any, names: Mapping[str, str]) -> dict[str, Any]:
    return {new: given[old] for old, new in names.items() if isinstance(given, Mapping) and given.get(old) is not None}


def deployment_name(location: str) -> str:
    """The name of the code location as Kubernetes takes it: a service is called so, and may have no underscore."""
    return re.sub(r"[^a-z0-9-]+", "-", location.lower()).strip("-")[:63] or "user-code"


def servers(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The code locations under the names that they have now.

    Schedules, sensors and their ticks belong to a location's name. The chart would call the location as the service,
    which cannot have an underscore, and all of them would begin anew.
    """
    found = []
    for entry in facts["workspace"]:
        server = entry.get("grpc_server") if isinstance(entry, Mapping) else None
        if not isinstance(server, Mapping):
            continue
        name = str(server.get("location_name") or server.get("host"))
        ours = name == facts["location"]
        host = deployment_name(name) if ours else str(server.get("host"))
        port = command(facts["core"]["words"])["port"] if ours else int(server.get("port") or 4000)
        found.append({"host": host, "port": port, "name": name, **({"ssl": True} if server.get("ssl") else {})})
    return found


def command(words: Sequence[str]) -> dict[str, Any]:
    """The release's command in the chart's words: ``port`` and either ``dagsterApiGrpcArgs`` or ``codeServerArgs``.

    Raises:
        HelmError: it is another program.
    """
    for key, start in (
        ("dagsterApiGrpcArgs", ("dagster", "api", "grpc")),
        ("codeServerArgs", ("dagster", "code-server", "start")),
    ):
        for place in range(len(words) - 2):
            if (os.path.basename(words[place]), *words[place + 1 : place + 3]) == start:
                return _arguments(key, words[place + 3 :])
    raise HelmError(
        f"the release's command: found {' '.join(words)!r}; expected `dagster api grpc …` or `dagster code-server start"
        " …`, which are what the Helm chart starts (dagster_core_command)"
    )


def _arguments(key: str, words: Sequence[str]) -> dict[str, Any]:
    """The chart names host and port itself."""
    port, kept, left = 4000, [], list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if name in ("-h", "--host", "-p", "--port"):
            value = value if equals else left.pop(0) if left else ""
            port = int(value) if name in ("-p", "--port") and value.isdigit() else port
        else:
            kept.append(word)
    return {"port": port, key: kept}


def split_image(reference: str) -> dict[str, Any]:
    """A reference as the chart has it: ``repository``, ``tag``, ``digest``."""
    name, _, digest = reference.partition("@")
    folder, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    image: dict[str, Any] = {"repository": folder + slash + last}
    if tag:
        image["tag"] = tag
    if digest:
        image["digest"] = digest
    return {**image, "pullPolicy": "IfNotPresent"}


def core_image(facts: Mapping[str, Any], registry: str) -> dict[str, Any]:
    """The release's image by digest; by a tag that is the release's name where it has yet to be pushed."""
    core = facts["core"]
    if core["image"]["digest"]:
        return split_image(core["image"]["digest"])
    return split_image(f"{registry.rstrip('/')}/docker_dagster_core:{core['release']}")


def webserver_image(facts: Mapping[str, Any], wanted: str) -> dict[str, Any]:
    """The image of webserver and daemon: the one asked for, the machine's if it can be one there, else the chart's."""
    there = facts["webserver"]
    if wanted:
        return split_image(wanted)
    if there["digest"] and there["packages"]["dagster-k8s"]:
        return split_image(there["digest"])
    return {"repository": CHART_IMAGE, "tag": there["packages"]["dagster"], "pullPolicy": "IfNotPresent"}


def _deployment(facts: Mapping[str, Any], registry: str) -> dict[str, Any]:
    core = facts["core"]
    return {
        "name": deployment_name(facts["location"]),
        "image": core_image(facts, registry),
        **command(core["words"]),
        "env": [{"name": name, "value": value} for name, value in core["settings"].items()],
        "envSecrets": [{"name": ENVIRONMENT_SECRET}] if core["secret_names"] else [],
        # Runs get the same variables and secrets.
        "includeConfigInLaunchedRuns": {"enabled": True},
    }


def _postgresql(facts: Mapping[str, Any], instance: Mapping[str, Any]) -> dict[str, Any]:
    given = instance.get("storage", {}).get("postgres", {}).get("postgres_db", {})
    host = given.get("hostname") if isinstance(given, Mapping) else None
    outside = isinstance(host, str) and host not in ("", OWN_POSTGRES)
    mode = given.get("params", {}).get("sslmode") if outside else None
    return {
        "enabled": False,
        "postgresqlHost": host if outside else POSTGRES_HOST,
        "postgresqlUsername": facts["database"]["user"],
        "postgresqlDatabase": facts["database"]["name"],
        # verify-ca and verify-full need a file that no container of the chart has by itself.
        "postgresqlParams": {"sslmode": mode if mode in ("disable", "prefer") else "require"},
        "service": {"port": int(given.get("port") or 5432) if outside else 5432},
    }


def _queue(instance: Mapping[str, Any], limit: int | None) -> dict[str, Any]:
    """The queue, in whichever of the three forms dagster.yaml has it."""
    runs = dict(instance.get("concurrency", {}).get("runs", {}) or {})
    older = dict(instance.get("run_queue", {}) or {})
    oldest = dict(instance.get("run_coordinator", {}).get("config", {}) or {})
    given = {**oldest, **older, **runs}
    found = _renamed(given, _QUEUE)
    number = given.get("max_concurrent_runs") if limit is None else limit
    if number is not None:
        found["maxConcurrentRuns"] = number
    limits = [_limit(each) for each in given.get("tag_concurrency_limits") or ()]
    return {**found, **({"tagConcurrencyLimits": limits} if limits else {})}


def _limit(given: Mapping[str, Any]) -> dict[str, Any]:
    value = given.get("value")
    if isinstance(value, Mapping):
        value = {"applyLimitPerUniqueValue": bool(value.get("applyLimitPerUniqueValue"))}
    return {"key": given["key"], **({} if value is None else {"value": value}), "limit": given["limit"]}


def _pools(instance: Mapping[str, Any]) -> dict[str, Any]:
    pools = _renamed(instance.get("concurrency", {}).get("pools", {}), _POOLS)
    return {"enabled": True, "pools": pools} if pools else {}


def _run_launcher(instance: Mapping[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {"imagePullPolicy": "IfNotPresent"}
    resources = run_resources(instance.get("run_launcher", {}).get("config", {}) or {})
    if resources:
        config["resources"] = resources
    return {"type": "K8sRunLauncher", "config": {"k8sRunLauncher": config}}


def run_resources(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a run may take and reserves, from the launchers `docker` (limits only) and `swarm`."""
    kwargs = given.get("container_kwargs") or {}
    limits = given.get("limits") or {}
    reserved = given.get("reservations") or {}
    nano = kwargs.get("nano_cpus")
    found = {
        "limits": {
            "cpu": str(limits["cpus"]) if limits.get("cpus") else f"{int(nano) // 10**6}m" if nano else "",
            "memory": quantity(limits.get("memory") or kwargs.get("mem_limit")),
        },
        "requests": {
            "cpu": str(reserved["cpus"]) if reserved.get("cpus") else "",
            "memory": quantity(reserved.get("memory")),
        },
    }
    kept = {kind: {name: value for name, value in each.items() if value} for kind, each in found.items()}
    return {kind: each for kind, each in kept.items() if each}


def quantity(size: Any) -> str:
    """A size of Docker's (``2g``, powers of 1024) as Kubernetes spells it (``2Gi``)."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)b?", str(size or "").strip().lower())
    if not match:
        return ""
    unit = {"": "", "b": "", "k": "Ki", "m": "Mi", "g": "Gi", "t": "Ti"}[match[2]]
    return match[1] + unit


def _compute_logs(given: Any) -> dict[str, Any]:
    """Where compute logs go; a pod's own disk ends with the pod, so local ones become none."""
    kind = str(given.get("class", _LOCAL)) if isinstance(given, Mapping) else _LOCAL
    if kind in (_LOCAL, "NoOpComputeLogManager"):
        return {"type": "NoOpComputeLogManager"}
    config = redacted(given.get("config") or {})
    if kind == _GCS:
        return {"type": _GCS, "config": {"gcsComputeLogManager": _renamed(config, _COMPUTE_LOGS)}}
    custom = {"module": str(given.get("module")), "class": kind, "config": config}
    return {"type": "CustomComputeLogManager", "config": {"customComputeLogManager": custom}}


def logs_are_local(instance: Mapping[str, Any]) -> bool:
    """Whether the machine keeps compute logs on its own disk."""
    return str(_compute_logs(instance.get("compute_logs", {}))["type"]) == "NoOpComputeLogManager"


def _retention(given: Any) -> dict[str, Any]:
    return {
        new: {"purgeAfterDays": given[old]["purge_after_days"]}
        for old, new in _RETENTION.items()
        if isinstance(given, Mapping) and "purge_after_days" in (given.get(old) or {})
    }


_SECRET = re.compile(r"pass(word|wd)?$|secret|token|credential|api_?key|private_?key|dsn$|webhook", re.IGNORECASE)
# Names of variables and files are none.
_NAMES_ONE = re.compile(r"_?(env|envvar|env_var|name|file|path)$", re.IGNORECASE)
LEFT_OUT = "LEFT-OUT"


def redacted(given: Any, name: str = "") -> Any:
    """The same without texts under names that secrets have; ``{env: NAME}`` is a name and stays."""
    if isinstance(given, Mapping):
        if set(given) == {"env"}:
            return dict(given)
        return {key: redacted(each, str(key)) for key, each in given.items()}
    if isinstance(given, list):
        return [redacted(each, name) for each in given]
    secret = _SECRET.search(name) and not _NAMES_ONE.search(name)
    return LEFT_OUT if secret and isinstance(given, str) and given else given
