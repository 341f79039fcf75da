# SPDX-License-Identifier: Apache-2.0
"""Asks Dagster itself whether it accepts a dagster.yaml or a workspace.yaml.

This file's source runs inside the image that will read the configuration (``python3 -c``, the request as JSON on
standard input, the answer as JSON on standard output), so it imports nothing of the collection and Dagster only late.
Nothing is connected to: classes that would open a database are checked by their own config schema.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

# Constructed for real, since they need no connection and check more than their schema says.
CONSTRUCTED = {
    ("dagster_docker", "DockerRunLauncher"),
    ("dagster_gce_launcher", "DockerRunLauncher"),
    ("dagster_gce_launcher", "SwarmRunLauncher"),
    ("dagster", "DefaultRunLauncher"),
    ("dagster", "QueuedRunCoordinator"),
    ("dagster._core.run_coordinator", "QueuedRunCoordinator"),
    ("dagster.core.run_coordinator", "QueuedRunCoordinator"),
}
STORAGES = ("run_storage_data", "event_storage_data", "schedule_storage_data")


def check(kind: str, text: str) -> list[str]:
    """Dagster's objections to ``text`` as ``kind`` (instance or workspace); empty where it accepts it."""
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "dagster.yaml" if kind == "instance" else "workspace.yaml")
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.environ["DAGSTER_HOME"] = folder
    # {env: NAME} is resolved by some checks. The values stay out of here, so any text that is also a number does.
    for name in _environment_names(_load(text)):
        os.environ.setdefault(name, "1")
    return _check_instance(folder) if kind == "instance" else _check_workspace(path)


def _load(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


def _environment_names(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("env"), str):
            yield node["env"]
        for value in node.values():
            yield from _environment_names(value)
    elif isinstance(node, list):
        for value in node:
            yield from _environment_names(value)


def _check_workspace(path: str) -> list[str]:
    from dagster._core.workspace.load import location_origins_from_yaml_paths

    try:
        location_origins_from_yaml_paths([path])
    except Exception as error:
        return _messages("workspace.yaml", error)
    return []


def _check_instance(folder: str) -> list[str]:
    from dagster._core.instance.ref import InstanceRef

    try:
        ref = InstanceRef.from_dir(folder)
    except Exception as error:
        return _messages("dagster.yaml", error)
    problems: list[str] = []
    made: dict[str, Any] = {}
    for field, data in ref._asdict().items():
        if not hasattr(data, "class_name") or field == "custom_instance_class_data":
            continue
        # With `storage:` Dagster derives the other three from it: one mistake would be told four times.
        if field in STORAGES and ref.storage_data and ref.storage_data.class_name != "CompositeStorage":
            continue
        part = field.removesuffix("_data").replace("event_storage", "event_log_storage")
        try:
            made[part] = _check_class(data)
        except Exception as error:
            problems += _messages(part, error)
    return problems or _check_settings(ref, made)


def _check_class(data: Any) -> Any:
    """Check one ``module/class/config`` block; returns the object where it can be made without a connection."""
    import importlib

    from dagster._config import resolve_to_config_type, validate_config
    from dagster._core.errors import DagsterInvalidConfigError

    try:
        klass = getattr(importlib.import_module(data.module_name), data.class_name)
    except ImportError as error:
        raise ValueError(f"module {data.module_name}: cannot be imported in this image ({error})") from error
    except AttributeError as error:
        raise ValueError(f"module {data.module_name} has no class {data.class_name}") from error
    result = validate_config(resolve_to_config_type(klass.config_type()), data.config_dict)
    if not result.success:
        raise DagsterInvalidConfigError(f"config of {data.class_name}", result.errors, data.config_dict)
    if (data.module_name, data.class_name) not in CONSTRUCTED:
        return None
    made = data.rehydrate()
    if data.class_name == "DockerRunLauncher":
        _check_container_kwargs(dict(made.container_kwargs))
    if data.class_name == "SwarmRunLauncher":
        made.check()
    return made


def _check_container_kwargs(kwargs: dict[str, Any]) -> None:
    """docker-py sees these at the first launch only: a misspelt name would fail every run."""
    try:
        from docker.models import containers
    except ImportError:
        return
    check = getattr(containers, "_create_container_args", None)  # what `containers.create` itself calls first
    if check is None:
        return
    kwargs.pop("stop_timeout", None)
    labels = kwargs.pop("labels", {})
    if not isinstance(labels, dict | list):
        raise ValueError(f"container_kwargs.labels: found {type(labels).__name__}; expected a mapping or a list")
    try:
        check({"image": "image", "command": None, "detach": True, "version": "1.44", **kwargs})
    except Exception as error:
        raise ValueError(f"container_kwargs: {error}") from error


def _check_settings(ref: Any, made: dict[str, Any]) -> list[str]:
    """What only an instance checks: run monitoring against the launcher, the queue against `concurrency`."""
    try:
        from dagster import DagsterError, DagsterInstance
        from dagster._check import CheckError
        from dagster._core.instance.types import InstanceType
        from dagster._core.run_coordinator import DefaultRunCoordinator
        from dagster._core.storage.event_log import InMemoryEventLogStorage
        from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
        from dagster._core.storage.root import TemporaryLocalArtifactStorage
        from dagster._core.storage.runs import InMemoryRunStorage
    except ImportError:
        # Another version of Dagster keeps them elsewhere; its own start says the rest.
        return []
    launcher = made.get("run_launcher")
    if launcher is None:
        return []
    try:
        instance = DagsterInstance(
            instance_type=InstanceType.EPHEMERAL,
            local_artifact_storage=TemporaryLocalArtifactStorage(),
            run_storage=InMemoryRunStorage(),
            event_storage=InMemoryEventLogStorage(),
            compute_log_manager=NoOpComputeLogManager(),
            run_coordinator=made.get("run_coordinator") or DefaultRunCoordinator(),
            run_launcher=launcher,
            settings=ref.settings,
        )
        instance.get_concurrency_config()
    except (DagsterError, CheckError) as error:
        return _messages("dagster.yaml", error)
    except (TypeError, AttributeError):
        # As above: not an objection to the configuration.
        return []
    return []


def _messages(part: str, error: Exception) -> list[str]:
    """Dagster's words without the list of everything that it would have taken."""
    errors = getattr(error, "errors", None)
    texts = [each.message for each in errors] if errors else [str(error)]
    return [f"{part}: {_shortened(text)}" for text in texts]


def _shortened(text: str, limit: int = 400) -> str:
    # "… Expected: '{ …the whole schema… }'" is pages long and says less than the path before it.
    for marker in ('. Expected: "{', ". Expected: '{"):
        text = text.split(marker)[0]
    text = " ".join(text.split())
    return text if len(text) <= limit else text[:limit] + "…"


def main() -> None:
    """Answer the one request on standard input."""
    request = json.load(sys.stdin)
    try:
        import dagster
    except ImportError as error:
        print(json.dumps({"error": f"the image holds no Dagster ({error})"}))
        return
    print(json.dumps({"problems": check(request["kind"], request["text"]), "dagster": dagster.__version__}))


if __name__ == "__main__":
    main()
