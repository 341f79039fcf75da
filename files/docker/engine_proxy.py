#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A strict filter between Dagster's run launcher and the Docker engine.

Whoever may talk to the engine is root on the machine, so the webserver and the daemon talk to this instead. It knows
the few calls that the launchers make (dagster_docker's and, for Swarm, dagster_gce_launcher.py), and nothing a client
sends reaches the engine as it was sent: paths are matched whole, and the body of a create request is parsed and written
anew from the keys that stand below. (Go, in which the engine is written, matches JSON keys without regard to case and
takes the last of duplicates; a filter over the text cannot win against that.)

Configuration: the environment variable ENGINE_PROXY_CONFIG, a JSON object.

  network     the network that a run is on; it can be on no other
  user        uid:gid that a run has; never root
  images      repositories whose images a run may use
  binds       mounts (source:target:mode) that a run may have
  pull        repositories that may be pulled from (default: none)
  swarm_network  the overlay network of a run that is a service of Swarm (default: none, and no call of Swarm's passes)
  registry_auth  a socket that tells the login to a registry, with which other machines pull a service's image
                 (roles/dagster_swarm/files/registry_auth.py; default: none, and they pull without)
  pids_limit  most processes of one run (default: 4096)
  socket      the engine's socket (default: /var/run/docker.sock)
  listen      address and port (default: 0.0.0.0:2375)

`engine_proxy.py --check` asks the running proxy whether the engine answers, and is the container's health check.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import re
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LABEL = "dataops.dagster_gce"
LABEL_VALUE = "run"
# ExecuteRunArgs is one argument; Linux takes 128 KiB for one and the environment comes on top.
MAX_BODY = 1 << 20
MAX_REPLY = 16 << 20
MAX_CONNECTIONS = 32
# Seconds for a client to send its whole request, for the engine to answer, and between two pieces of a pull.
CLIENT_SECONDS = 20.0
ENGINE_SECONDS = 60.0
LOGIN_SECONDS = 30.0
MAX_LOGIN = 1 << 16
PULL_SECONDS = 600.0
MAX_STOP_SECONDS = 3600
# How often, and how many times in a row, the engine's socket may refuse before the proxy gives up (see `watch`).
WATCH_SECONDS = 5.0
WATCH_FAILURES = 3

# Always this one to Swarm: the engine drops what a client's older version does not know, no-new-privileges among it.
_SWARM_VERSION = "/v1.44"
_VERSION = r"(?:/v1\.[0-9]{1,3})?"
_CONTAINER = r"(?P<container>[0-9a-f]{12,64})"
_SWARM_ID = r"[0-9a-z]{25}"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = rf"(?:[A-Za-z0-9.-]+(?::[0-9]{{1,5}})?/)?{_COMPONENT}(?:/{_COMPONENT})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}"
_IMAGE = re.compile(rf"(?P<repository>{_REPOSITORY})(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?")
_TMPFS_OPTION = "(?:size=[0-9]+[kmgKMG]?|mode=[0-7]{3,4}|uid=[0-9]+|gid=[0-9]+|noexec|nosuid|nodev|rw)"
_IMAGE_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}")


class Refusal(Exception):
    """A request that the proxy does not pass on; the message goes to the client and the log."""

    def __init__(self, message: str, status: int = 403) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Config:
    """What a run may be; see the module's docstring."""

    network: str
    user: str
    images: frozenset[str]
    binds: frozenset[str]
    pull: frozenset[str] = frozenset()
    swarm_network: str = ""
    registry_auth: str = ""
    pids_limit: int = 4096
    socket: str = "/var/run/docker.sock"
    listen: str = "0.0.0.0:2375"

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Read the configuration.

        Raises:
            ValueError: names the key, what was found and what was expected.
        """
        try:
            found = strict_json(text.encode())
        except Refusal as refusal:
            raise ValueError(f"ENGINE_PROXY_CONFIG: {refusal}") from refusal
        if not isinstance(found, dict):
            raise ValueError(f"ENGINE_PROXY_CONFIG: found {_kind(found)}; expected a JSON object")
        lists = {"images", "binds", "pull"}
        known = {"network", "swarm_network", "registry_auth", "user", "pids_limit", "socket", "listen"} | lists
        for key in found.keys() - known:
            raise ValueError(f"ENGINE_PROXY_CONFIG: found the key {key!r}; expected one of {', '.join(sorted(known))}")
        for key in ("network", "user", "images", "binds"):
            if key not in found:
                raise ValueError(f"ENGINE_PROXY_CONFIG: {key}: found nothing; expected a value")
        for key, value in found.items():
            if key in lists:
                right = isinstance(value, list) and all(isinstance(item, str) and item for item in value)
                expected = "a list of strings"
            elif key == "pids_limit":
                right, expected = _is_integer(value) and value > 0, "a positive number"
            else:
                right, expected = isinstance(value, str) and value != "", "a string"
            if not right:
                raise ValueError(f"ENGINE_PROXY_CONFIG: {key}: found {value!r}; expected {expected}")
        if not re.fullmatch(r"[1-9][0-9]{0,9}:[1-9][0-9]{0,9}", found["user"]):
            raise ValueError(f"ENGINE_PROXY_CONFIG: user: found {found['user']!r}; expected uid:gid, neither of them 0")
        for key in ("images", "pull"):
            for item in found.get(key, []):
                if not re.fullmatch(_REPOSITORY, item):
                    raise ValueError(
                        f"ENGINE_PROXY_CONFIG: {key}: found {item!r}; expected a repository without tag or digest"
                    )
        for item in found["binds"]:
            if not re.fullmatch(r"[^:]+:/[^:]*:(ro|rw)", item):
                raise ValueError(f"ENGINE_PROXY_CONFIG: binds: found {item!r}; expected source:/target:ro or :rw")
        settings: dict[str, Any] = {key: frozenset(value) if key in lists else value for key, value in found.items()}
        return cls(**settings)


# --- JSON ---------------------------------------------------------------------------------------------------------


def strict_json(data: bytes) -> Any:
    """Parse JSON as its standard has it: UTF-8, no duplicate keys, no NaN.

    Raises:
        Refusal: with status 400.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            raise ValueError("a key stands there twice")
        return found

    def constant(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"the body is not plain JSON: {error}", 400) from error


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_empty(value: object) -> bool:
    """What stands for "not set": the engine's default applies when it is left out."""
    return value is None or value is False or value == "" or value == 0 or value == [] or value == {}


# --- The body of POST /containers/create ----------------------------------------------------------------------------

Check = Callable[[str, Any, Config], Any]


def _boolean(path: str, value: Any, config: Config) -> bool:
    if not isinstance(value, bool):
        raise Refusal(f"{path}: found {_kind(value)}; expected a boolean", 400)
    return value


def _between(least: int, most: int) -> Check:
    def check(path: str, value: Any, config: Config) -> int:
        if not _is_integer(value) or not least <= value <= most:
            raise Refusal(f"{path}: found {str(value)[:40]}; expected a number from {least} to {most}")
        return int(value)

    return check


def _one_of(*allowed: str) -> Check:
    def check(path: str, value: Any, config: Config) -> str:
        if value not in allowed:
            raise Refusal(f"{path}: found {str(value)[:80]!r}; allowed is {' or '.join(map(repr, allowed))}")
        return str(value)

    return check


def _strings(path: str, value: Any, config: Config) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) and "\0" not in item for item in value):
        raise Refusal(f"{path}: expected a list of strings", 400)
    return list(value)


def _string_map(path: str, value: Any, config: Config) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise Refusal(f"{path}: expected an object of strings", 400)
    return dict(value)


def _user(path: str, value: Any, config: Config) -> str:
    _one_of(config.user, config.user.split(":", 1)[0])(path, value, config)
    return config.user


def _labels(path: str, value: Any, config: Config) -> dict[str, str]:
    labels = _string_map(path, value, config)
    for key, text in labels.items():
        # Compose and the collection find their containers by label: a run must not pass for one of them.
        ours = key == LABEL or key.startswith(f"{LABEL}.")
        if key.lower().startswith("com.docker.") or (ours and (key, text) != (LABEL, LABEL_VALUE)):
            raise Refusal(f"{path}: {key[:80]!r} is not a run's to set")
    return labels


def _network_mode(path: str, value: Any, config: Config) -> str:
    _one_of(config.network)(path, value, config)
    return config.network


def _binds(path: str, value: Any, config: Config) -> list[str]:
    clean = []
    for bind in _strings(path, value, config):
        whole = bind if bind.count(":") == 2 else f"{bind}:rw"
        if whole not in config.binds:
            allowed = ", ".join(sorted(config.binds)) or "none"
            raise Refusal(f"{path}: {bind[:200]!r} is not allowed; allowed are {allowed}")
        clean.append(whole)
    return clean


def _security_opt(path: str, value: Any, config: Config) -> list[str]:
    options = _strings(path, value, config)
    for option in options:
        _one_of("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true")(path, option, config)
    return options


def _tmpfs(path: str, value: Any, config: Config) -> dict[str, str]:
    mounts = _string_map(path, value, config)
    for target, options in mounts.items():
        if not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", target) or ".." in target:
            raise Refusal(f"{path}: {target[:80]!r} is not a plain absolute path")
        if not re.fullmatch(rf"({_TMPFS_OPTION}(,{_TMPFS_OPTION})*)?", options):
            raise Refusal(f"{path}: options {options[:80]!r} are not allowed")
    return mounts


def _log_options(path: str, value: Any, config: Config) -> dict[str, str]:
    options = _string_map(path, value, config)
    for key in options:
        _one_of("max-size", "max-file", "compress")(path, key, config)
    return options


def _log_config(path: str, value: Any, config: Config) -> dict[str, Any]:
    # Other drivers open connections from the machine.
    return _rebuild(path, value, config, {"Type": _one_of("json-file", "local"), "Config": _log_options})


def _restart_policy(path: str, value: Any, config: Config) -> dict[str, Any]:
    # A run that starts again by itself would run twice; Dagster retries runs.
    return _rebuild(path, value, config, {"Name": _one_of("no")})


_AMOUNT = _between(1, 1 << 53)

HOST_CONFIG: dict[str, Check] = {
    "AutoRemove": _boolean,
    "Binds": _binds,
    "CapDrop": _strings,
    "CgroupnsMode": _one_of("private"),
    "CpuPeriod": _AMOUNT,
    "CpuQuota": _AMOUNT,
    "CpuShares": _AMOUNT,
    "Init": _boolean,
    "IpcMode": _one_of("private", "none"),
    "LogConfig": _log_config,
    "Memory": _AMOUNT,
    "MemoryReservation": _AMOUNT,
    "MemorySwap": _between(-1, 1 << 53),
    "NanoCpus": _AMOUNT,
    "NetworkMode": _network_mode,
    "OomScoreAdj": _between(0, 1000),
    "PidsLimit": _AMOUNT,
    "ReadonlyRootfs": _boolean,
    "RestartPolicy": _restart_policy,
    "SecurityOpt": _security_opt,
    "ShmSize": _AMOUNT,
    "Tmpfs": _tmpfs,
}


def _host_config(path: str, value: Any, config: Config) -> dict[str, Any]:
    return _rebuild(path, value, config, HOST_CONFIG)


def _networking_config(path: str, value: Any, config: Config) -> None:
    """Only says which network again; aliases would let a run answer for dagster-postgres."""
    if isinstance(value, dict) and set(value) == {"EndpointsConfig"}:
        value = value["EndpointsConfig"]
    # docker-py leaves out EndpointsConfig; the engine ignores that form.
    if not isinstance(value, dict) or any(name != config.network for name in value):
        raise Refusal(f"{path}: allowed is the network {config.network!r} only")
    for name, endpoint in value.items():
        if endpoint is not None:
            _rebuild(f"{path}.{name}", endpoint, config, {})


def _volumes(path: str, value: Any, config: Config) -> None:
    """docker-py repeats the targets of the binds here; anonymous volumes are not allowed."""
    targets = {bind.split(":")[1] for bind in config.binds}
    if not isinstance(value, dict) or not set(value) <= targets:
        raise Refusal(f"{path}: allowed are the targets of the configured binds only")


def _ignored(path: str, value: Any, config: Config) -> None:
    """A setting without a meaning for a container that nobody attaches to."""


CREATE: dict[str, Check] = {
    "AttachStderr": _ignored,
    "AttachStdout": _ignored,
    "Cmd": _strings,
    "Env": _strings,
    "HostConfig": _host_config,
    "Image": lambda path, value, config: image_allowed(value, config),
    "Labels": _labels,
    "NetworkingConfig": _networking_config,
    "StopTimeout": _between(0, MAX_STOP_SECONDS),
    "User": _user,
    "Volumes": _volumes,
}


def _rebuild(path: str, value: Any, config: Config, checks: Mapping[str, Check]) -> dict[str, Any]:
    """A new dict of the keys in ``checks`` whose values pass; empty values are left out, other keys are refused."""
    if not isinstance(value, dict):
        raise Refusal(f"{path}: found {_kind(value)}; expected an object", 400)
    clean: dict[str, Any] = {}
    for key, item in value.items():
        if _is_empty(item):
            continue
        check = checks.get(key)
        if check is None:
            raise Refusal(f"{path}.{key[:80]} is not allowed")
        passed = check(f"{path}.{key}", item, config)
        if passed is not None:
            clean[key] = passed
    return clean


def image_allowed(reference: Any, config: Config, repositories: frozenset[str] | None = None) -> str:
    """The reference, when its repository is one of the allowed (default: ``images``) and it has a tag or digest.

    An image id is returned as it is: `Engine.image_id_allowed` has to look at what the id stands for.
    """
    allowed = config.images if repositories is None else repositories
    if not isinstance(reference, str) or len(reference) > 512:
        raise Refusal("Image: expected a reference")
    if _IMAGE_ID.fullmatch(reference):
        return reference
    match = _IMAGE.fullmatch(reference)
    if not match or match["repository"] not in allowed:
        expected = ", ".join(sorted(allowed)) or "none"
        raise Refusal(f"image {reference[:200]!r} is not allowed; allowed are images of {expected}")
    if not match["tag"] and not match["digest"]:
        raise Refusal(f"image {reference[:200]!r} has neither tag nor digest")
    return reference


def rebuild_create(body: Any, config: Config) -> dict[str, Any]:
    """The body that goes to the engine: what was asked for and is allowed, and what every run has.

    Raises:
        Refusal: names the first key that is not allowed.
    """
    clean = _rebuild("body", body, config, CREATE)
    if "Image" not in clean:
        raise Refusal("body.Image is missing", 400)
    host = clean.setdefault("HostConfig", {})
    clean["User"] = config.user
    clean["Labels"] = {**clean.get("Labels", {}), LABEL: LABEL_VALUE}
    clean["NetworkingConfig"] = {"EndpointsConfig": {config.network: {}}}
    host["NetworkMode"] = config.network
    host["CapDrop"] = ["ALL"]
    host["SecurityOpt"] = ["no-new-privileges=true"]
    host["PidsLimit"] = min(host.get("PidsLimit", config.pids_limit), config.pids_limit)
    return clean


# --- The body of POST /services/create: a run on whichever machine has room -------------------------------------------


def _service_name(path: str, value: Any, config: Config) -> str:
    # A service's name is an address on the network: a run must not answer for dagster-postgres.
    if not isinstance(value, str) or not re.fullmatch(r"dagster-run-[0-9a-f]{8}[0-9a-f-]{0,28}", value):
        raise Refusal(f"{path}: found {str(value)[:80]!r}; expected dagster-run-<run id>")
    return value


def _service_image(path: str, value: Any, config: Config) -> str:
    """An id, or a name with a digest: what cannot move. `Engine.image_of_ours` looks at what it stands for."""
    found = value if isinstance(value, str) and len(value) <= 512 else ""
    match = _IMAGE.fullmatch(found)
    if not re.fullmatch(_DIGEST, found) and not (match and match["digest"]):
        raise Refusal(f"{path}: found {str(value)[:200]!r}; expected an image's id or name@sha256:<digest>")
    return found


def _targets(path: str, value: Any, config: Config) -> None:
    """Which network: `rebuild_service` says it again, and no alias."""
    for target in value if isinstance(value, list) else [value]:
        clean = _rebuild(path, target, config, {"Target": _one_of(config.swarm_network)})
        if clean != {"Target": config.swarm_network}:
            raise Refusal(f"{path}: allowed is the network {config.swarm_network!r} only")


def _mounts(path: str, value: Any, config: Config) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise Refusal(f"{path}: found {_kind(value)}; expected a list", 400)
    clean = []
    for number, item in enumerate(value):
        where = f"{path}[{number}]"
        mount = _rebuild(where, item, config, MOUNT)
        kind, source, target = (mount.get(key, "") for key in ("Type", "Source", "Target"))
        if kind == "tmpfs":
            if source or not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", target) or ".." in target:
                raise Refusal(f"{where}: expected no source, and a plain absolute path as target")
        else:
            bind = f"{source}:{target}:{'ro' if mount.get('ReadOnly') else 'rw'}"
            absolute = source.startswith("/")
            if bind not in config.binds or kind != ("bind" if absolute else "volume") or "TmpfsOptions" in mount:
                allowed = ", ".join(sorted(config.binds)) or "none"
                raise Refusal(f"{where}: {kind} {bind[:200]!r} is not allowed; allowed are {allowed}")
        clean.append(mount)
    return clean


def _text(path: str, value: Any, config: Config) -> str:
    if not isinstance(value, str) or "\0" in value or len(value) > 4096:
        raise Refusal(f"{path}: expected a text", 400)
    return value


def _tmpfs_options(path: str, value: Any, config: Config) -> dict[str, Any]:
    return _rebuild(path, value, config, {"Mode": _between(0, 0o1777), "SizeBytes": _AMOUNT})


MOUNT: dict[str, Check] = {
    "Type": _one_of("bind", "volume", "tmpfs"),
    "Source": _text,
    "Target": _text,
    "ReadOnly": _boolean,
    "TmpfsOptions": _tmpfs_options,
}


def _privileges(path: str, value: Any, config: Config) -> None:
    """Nothing but the one privilege less that `rebuild_service` takes anyway."""
    _rebuild(path, value, config, {"NoNewPrivileges": _boolean})


_CONSTRAINT = re.compile(
    r"node\.(?:id|hostname|role|platform\.(?:os|arch)|labels\.[A-Za-z0-9][A-Za-z0-9._-]{0,62}) ?(?:==|!=) ?"
    r"[A-Za-z0-9][A-Za-z0-9._/-]{0,252}"
)


def _constraints(path: str, value: Any, config: Config) -> list[str]:
    for text in _strings(path, value, config):
        if not _CONSTRAINT.fullmatch(text):
            raise Refusal(f"{path}: found {text[:200]!r}; expected node.<what>==<value>, or !=")
    return list(value)


def _placement(path: str, value: Any, config: Config) -> dict[str, Any]:
    return _rebuild(path, value, config, {"Constraints": _constraints})


def _resources(path: str, value: Any, config: Config) -> dict[str, Any]:
    amounts: dict[str, Check] = {"NanoCPUs": _AMOUNT, "MemoryBytes": _AMOUNT}
    kinds: dict[str, Check] = {
        "Limits": lambda where, found, config: _rebuild(where, found, config, {**amounts, "Pids": _AMOUNT}),
        "Reservations": lambda where, found, config: _rebuild(where, found, config, amounts),
    }
    return _rebuild(path, value, config, kinds)


def _replicated(path: str, value: Any, config: Config) -> None:
    once: dict[str, Check] = {"Replicas": _between(1, 1)}

    def replicas(where: str, found: Any, config: Config) -> dict[str, Any]:
        return _rebuild(where, found, config, once)

    # docker-py writes it small; the engine takes keys in any case.
    _rebuild(path, value, config, {"Replicated": replicas, "replicated": replicas})


def _endpoint(path: str, value: Any, config: Config) -> None:
    _rebuild(path, value, config, {"Mode": _one_of("dnsrr")})


CONTAINER_SPEC: dict[str, Check] = {
    "Args": _strings,
    "CapabilityDrop": _strings,
    "Env": _strings,
    "Image": _service_image,
    "Init": _boolean,
    "Labels": _labels,
    "Mounts": _mounts,
    "Privileges": _privileges,
    "ReadOnly": _boolean,
    "StopGracePeriod": _between(0, MAX_STOP_SECONDS * 10**9),
    "User": _user,
}


def _container_spec(path: str, value: Any, config: Config) -> dict[str, Any]:
    return _rebuild(path, value, config, CONTAINER_SPEC)


TASK_TEMPLATE: dict[str, Check] = {
    "ContainerSpec": _container_spec,
    "LogDriver": lambda path, value, config: _rebuild(
        path, value, config, {"Name": _one_of("json-file", "local"), "Options": _log_options}
    ),
    "Networks": _targets,
    "Placement": _placement,
    "Resources": _resources,
    # A run that starts again by itself would run twice; Dagster retries runs.
    "RestartPolicy": lambda path, value, config: _rebuild(path, value, config, {"Condition": _one_of("none")}),
}


def _task_template(path: str, value: Any, config: Config) -> dict[str, Any]:
    return _rebuild(path, value, config, TASK_TEMPLATE)


SERVICE: dict[str, Check] = {
    "EndpointSpec": _endpoint,
    "Labels": _labels,
    "Mode": _replicated,
    "Name": _service_name,
    "TaskTemplate": _task_template,
}


def rebuild_service(body: Any, config: Config) -> dict[str, Any]:
    """The body of a service that goes to the engine, as `rebuild_create` makes a container's.

    Raises:
        Refusal: names the first key that is not allowed.
    """
    clean = _rebuild("body", body, config, SERVICE)
    task = clean.setdefault("TaskTemplate", {})
    container = task.setdefault("ContainerSpec", {})
    for key, where in (("Name", clean), ("Image", container)):
        if key not in where:
            raise Refusal(f"body: {key} is missing", 400)
    clean["Labels"] = {**clean.get("Labels", {}), LABEL: LABEL_VALUE}
    clean["Mode"] = {"Replicated": {"Replicas": 1}}
    # A virtual address would need IPVS in the kernel, and nobody asks a run for anything.
    clean["EndpointSpec"] = {"Mode": "dnsrr"}
    container["User"] = config.user
    # The containers' labels too: by these a machine finds the runs that it has.
    container["Labels"] = {**container.get("Labels", {}), LABEL: LABEL_VALUE}
    container["CapabilityDrop"] = ["ALL"]
    container["Privileges"] = {"NoNewPrivileges": True}
    task["Networks"] = [{"Target": config.swarm_network}]
    task["RestartPolicy"] = {"Condition": "none"}
    limits = task.setdefault("Resources", {}).setdefault("Limits", {})
    limits["Pids"] = min(limits.get("Pids", config.pids_limit), config.pids_limit)
    return clean


# What is shown of a machine: where there is room, and nothing of its certificates or plugins.
_NODE: dict[str, Any] = {
    "ID": None,
    "Spec": {"Role": None, "Availability": None, "Labels": None},
    "Description": {"Hostname": None, "Resources": None, "Platform": None},
    "Status": {"State": None, "Message": None},
}


def _shown(found: Any, keys: Mapping[str, Any] | None) -> Any:
    """Of what the engine says, the keys in ``keys``."""
    if keys is None or not isinstance(found, dict):
        return found
    return {key: _shown(found[key], below) for key, below in keys.items() if key in found}


def _without_environment(found: dict[str, Any]) -> dict[str, Any]:
    """A service or a task without its environment: as a container's, it may hold passwords."""
    found.pop("PreviousSpec", None)
    specification = found.get("Spec") or {}
    for template in (specification, specification.get("TaskTemplate") or {}):
        (template.get("ContainerSpec") or {}).pop("Env", None)
    return found


# --- The registry ---------------------------------------------------------------------------------------------------


def registry_login(path: str, image: str) -> str:
    """The header X-Registry-Auth for an image, as the machine itself would log in; empty where it has no login.

    A service may have its image on the machine, or pull it without: what fails here is logged, and no reason to stop.
    """
    match = _IMAGE.fullmatch(image)
    if not path or not match or _IMAGE_ID.fullmatch(image):
        return ""
    first, slash, _ = match["repository"].partition("/")
    host = first if slash and (re.search(r"[.:]", first) or first == "localhost") else "docker.io"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(LOGIN_SECONDS)
            connection.connect(path)
            connection.sendall(f"{host}\n".encode())
            with connection.makefile("rb") as answer:
                found = strict_json(answer.read(MAX_LOGIN))
    except (OSError, Refusal) as error:
        print(_printable(f"no login for {host}: {error}"), flush=True)
        return ""
    return base64.urlsafe_b64encode(json.dumps(found).encode()).decode() if found else ""


# --- The engine -----------------------------------------------------------------------------------------------------


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass(frozen=True)
class Reply:
    """The engine's answer, read to its end."""

    status: int
    body: bytes
    content_type: str = "application/json"


class Engine:
    """The few calls on the engine's socket, a connection each: the engine may restart between two."""

    def __init__(self, path: str) -> None:
        self._path = path

    def open(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        seconds: float = ENGINE_SECONDS,
        login: str = "",
    ) -> tuple[_UnixConnection, http.client.HTTPResponse]:
        """Send a request; the caller reads the answer and closes the connection.

        ``login`` is for the registry of the image that the request names.

        Raises:
            Refusal: the engine does not answer (503) or not in time (504).
        """
        connection = _UnixConnection(self._path, seconds)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            if login:
                headers["X-Registry-Auth"] = login
            connection.request(method, target, body=body, headers=headers)
            return connection, connection.getresponse()
        except TimeoutError as error:
            connection.close()
            raise Refusal(f"the Docker engine did not answer within {seconds:g} s", 504) from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Refusal(f"the Docker engine does not answer: {error}", 503) from error

    def call(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        seconds: float = ENGINE_SECONDS,
        login: str = "",
    ) -> Reply:
        """Send a request and read the whole answer."""
        connection, response = self.open(method, target, body, seconds, login)
        try:
            data = response.read(MAX_REPLY + 1)
        except TimeoutError as error:
            raise Refusal(f"the Docker engine did not finish its answer within {seconds:g} s", 504) from error
        except (OSError, http.client.HTTPException) as error:
            raise Refusal(f"the Docker engine broke off: {error}", 503) from error
        finally:
            connection.close()
        if len(data) > MAX_REPLY:
            raise Refusal("the Docker engine's answer is too large", 502)
        return Reply(response.status, data, response.headers.get("Content-Type", "application/json"))

    def ask(self, target: str) -> Any:
        """What the engine answers to a GET, taken apart.

        Raises:
            Refusal: with the engine's own words where it refuses (404, 503: it is no manager of a swarm).
        """
        reply = self.call("GET", target)
        if reply.status == 200:
            return json.loads(reply.body)
        said = reply.body.decode(errors="replace").strip()
        with contextlib.suppress(ValueError, KeyError, TypeError):
            said = str(json.loads(said)["message"])
        raise Refusal(f"the Docker engine says: {said[:500]}", reply.status)

    def swarm(self, path: str) -> Any:
        """The same of one of Swarm's questions."""
        return self.ask(f"{_SWARM_VERSION}{path}")

    def own_container(self, prefix: str, identifier: str) -> tuple[str, dict[str, Any]]:
        """The full id and description of a container that the proxy made.

        The action then goes to the full id, so that a container which is *named* like an id cannot stand in.

        Raises:
            Refusal: there is none (404), or it is not a run's (403).
        """
        found = self.ask(f"{prefix}/containers/{identifier}/json")
        if (found["Config"].get("Labels") or {}).get(LABEL) != LABEL_VALUE:
            raise Refusal(f"container {identifier[:12]} is not a run of ours")
        return str(found["Id"]), found

    def own_service(self, identifier: str) -> dict[str, Any]:
        """A service that the proxy made, without its environment.

        Raises:
            Refusal: there is none (404), or it is not a run's (403).
        """
        found = self.swarm(f"/services/{identifier}")
        if (found["Spec"].get("Labels") or {}).get(LABEL) != LABEL_VALUE:
            raise Refusal(f"service {identifier[:12]} is not a run of ours")
        return _without_environment(found)

    def image_id_allowed(self, prefix: str, reference: str, config: Config) -> None:
        """Refuse an image id that carries no tag or digest of an allowed repository."""
        if _IMAGE_ID.fullmatch(reference):
            self.image_of_ours(prefix, reference, config)

    def image_of_ours(self, prefix: str, reference: str, config: Config) -> None:
        """Refuse an image that carries no tag or digest of an allowed repository, whatever it is asked for by."""
        found = self.ask(f"{prefix}/images/{reference}/json")
        for name in [*(found.get("RepoTags") or []), *(found.get("RepoDigests") or [])]:
            match = _IMAGE.fullmatch(name)
            if match and match["repository"] in config.images:
                return
        raise Refusal(f"image {reference[:200]} has no tag of an allowed repository")


# --- The server -----------------------------------------------------------------------------------------------------


class _DeadlineReader(io.RawIOBase):
    """A socket whose reads end at one point in time, so that a client cannot send a byte now and then for ever."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


Query = dict[str, str]


class Handler(BaseHTTPRequestHandler):
    """One request of a client. The connection is closed after it, so nothing can hide behind a request."""

    protocol_version = "HTTP/1.1"
    server: Server
    rbufsize = 0

    def setup(self) -> None:
        """Put a deadline on all reads of the request."""
        super().setup()
        self.rfile = io.BufferedReader(_DeadlineReader(self.connection, CLIENT_SECONDS))
        self._started = time.monotonic()

    # The base class calls do_<method> and answers 501 where there is none.
    def do_GET(self) -> None:
        """Serve GET."""
        self._serve()

    def do_HEAD(self) -> None:
        """Serve HEAD."""
        self._serve()

    def do_POST(self) -> None:
        """Serve POST."""
        self._serve()

    def do_DELETE(self) -> None:
        """Serve DELETE."""
        self._serve()

    def handle_expect_100(self) -> bool:
        """Refuse: bodies are small, a client can send them at once."""
        self.send_error(417, "Expect is not supported")
        return False

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer as the engine does, so that docker-py shows the reason."""
        text = message or self.responses.get(code, ("error", ""))[0]
        self._log("refuse", code, text)
        self._answer(Reply(code, json.dumps({"message": f"engine proxy: {text}"}).encode()))

    def version_string(self) -> str:
        """Keep Python's version to ourselves."""
        return "dagster-engine-proxy"

    def log_message(self, format: str, *args: Any) -> None:
        """The base class reports timeouts here; `_log` reports requests."""
        print(f"error {_printable(format % args)}", flush=True)

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Do nothing: `_log` has more to say."""

    def _serve(self) -> None:
        self.close_connection = True
        try:
            method, target = self._check_head()
            # Before anything is refused: to close with bytes unread would reset the connection and lose the answer.
            body = self._read_body(method)
            action, arguments, query = route(method, target)
            action(self, query=query, body=body, **arguments)
        except Refusal as refusal:
            self.send_error(refusal.status, str(refusal))
        except (TimeoutError, ConnectionError) as error:
            self._log("refuse", 408, f"the client went away: {error}")

    def _check_head(self) -> tuple[str, str]:
        words = self.requestline.split(" ")
        if len(words) != 3 or self.request_version != "HTTP/1.1":
            raise Refusal("expected an HTTP/1.1 request", 400)
        if self.headers.defects or any(name != name.strip() for name in self.headers):
            raise Refusal("malformed headers", 400)
        if "Transfer-Encoding" in self.headers:
            raise Refusal("Transfer-Encoding is not supported; send Content-Length", 411)
        if "Upgrade" in self.headers or "upgrade" in self.headers.get("Connection", "").lower():
            raise Refusal("a connection cannot be upgraded: attach and exec are not allowed")
        return words[0], words[1]

    def _read_body(self, method: str) -> bytes:
        lengths = self.headers.get_all("Content-Length") or ["0"]
        if len(lengths) != 1 or not (lengths[0].isascii() and lengths[0].isdigit()) or len(lengths[0]) > 10:
            raise Refusal("malformed Content-Length", 400)
        length = int(lengths[0])
        if length > MAX_BODY:
            raise Refusal(f"the body has {length} bytes; allowed are {MAX_BODY}", 413)
        if length and method != "POST":
            raise Refusal(f"{method} with a body", 400)
        data = self.rfile.read(length)
        if len(data) != length:
            raise Refusal("the body is shorter than Content-Length", 400)
        return data

    def _answer(self, reply: Reply) -> None:
        self.close_connection = True
        # Also to a request that claimed to be HTTP/0.9, to which the base class would send no status line.
        self.request_version = self.protocol_version
        try:
            self.send_response_only(reply.status)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Content-Length", str(len(reply.body)))
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD" and reply.status != 304:
                self.wfile.write(reply.body)
        except OSError as error:
            self.log_message("the client went away: %s", error)

    def _pass(self, reply: Reply, note: str = "") -> None:
        self._log("allow", reply.status, note)
        self._answer(reply)

    def _log(self, decision: str, status: int, note: str) -> None:
        took = int((time.monotonic() - self._started) * 1000)
        path = (getattr(self, "path", "") or "").split("?", 1)[0]
        method = getattr(self, "command", "") or "-"
        line = f"{decision} {status} {method} {path[:200]} {took}ms from {self.client_address[0]} {note}"
        print(_printable(line.rstrip()), flush=True)

    # --- What is allowed ---

    def ping(self, query: Query, body: bytes) -> None:
        """GET or HEAD /_ping; not logged, since the health check asks every few seconds."""
        _only(query)
        self._answer(self.server.engine.call("GET", "/_ping"))

    def engine_version(self, query: Query, body: bytes) -> None:
        """GET /version: docker-py asks it for the API version to speak."""
        _only(query)
        self._pass(self.server.engine.call("GET", "/version"))

    def create(self, prefix: str, query: Query, body: bytes) -> None:
        """POST /containers/create. A name is not for a run to choose: it is an address on the network."""
        _only(query)
        if self.headers.get_content_type() != "application/json":
            raise Refusal("expected Content-Type: application/json", 415)
        config, engine = self.server.config, self.server.engine
        clean = rebuild_create(strict_json(body), config)
        engine.image_id_allowed(prefix, clean["Image"], config)
        reply = engine.call("POST", f"{prefix}/containers/create", json.dumps(clean).encode())
        note = f"image={clean['Image']}"
        if reply.status == 201:
            note += f" container={json.loads(reply.body)['Id'][:12]}"
        self._pass(reply, note)

    def inspect(self, prefix: str, container: str, query: Query, body: bytes) -> None:
        """GET /containers/ID/json, without the environment: it holds the database's password."""
        _only(query)
        _, found = self.server.engine.own_container(prefix, container)
        found["Config"].pop("Env", None)
        self._pass(Reply(200, json.dumps(found).encode()))

    def start(self, prefix: str, container: str, query: Query, body: bytes) -> None:
        """POST /containers/ID/start."""
        _only(query)
        if body.strip() not in (b"", b"{}", b"null"):
            raise Refusal("start takes no body")
        identifier, _ = self.server.engine.own_container(prefix, container)
        self._pass(self.server.engine.call("POST", f"{prefix}/containers/{identifier}/start"))

    def stop(self, prefix: str, container: str, query: Query, body: bytes) -> None:
        """POST /containers/ID/stop: the engine answers when the container has stopped."""
        _only(query, "t")
        seconds = query.get("t", "")
        if seconds and (not re.fullmatch(r"[0-9]{1,4}", seconds) or int(seconds) > MAX_STOP_SECONDS):
            raise Refusal(f"t: found {seconds[:20]!r}; expected seconds from 0 to {MAX_STOP_SECONDS}", 400)
        identifier, found = self.server.engine.own_container(prefix, container)
        patience = int(seconds) if seconds else int(found["Config"].get("StopTimeout") or 10)
        target = f"{prefix}/containers/{identifier}/stop" + (f"?t={int(seconds)}" if seconds else "")
        self._pass(self.server.engine.call("POST", target, seconds=ENGINE_SECONDS + patience))

    def inspect_image(self, prefix: str, image: str, query: Query, body: bytes) -> None:
        """GET /images/REFERENCE/json: docker-py asks after a pull."""
        _only(query)
        config, engine = self.server.config, self.server.engine
        reference = image_allowed(image.replace("%40", "@"), config, config.images | config.pull)
        engine.image_id_allowed(prefix, reference, config)
        self._pass(engine.call("GET", f"{prefix}/images/{reference}/json"))

    def swarm_info(self, query: Query, body: bytes) -> None:
        """GET /info, of which only the engine's part in the swarm is told."""
        _only(query)
        self._need_swarm()
        found = self.server.engine.swarm("/info")
        self._show(_shown(found, {"Swarm": {"NodeID": None, "LocalNodeState": None, "ControlAvailable": None}}))

    def create_service(self, query: Query, body: bytes) -> None:
        """POST /services/create."""
        _only(query)
        self._need_swarm()
        if self.headers.get_content_type() != "application/json":
            raise Refusal("expected Content-Type: application/json", 415)
        config, engine = self.server.config, self.server.engine
        clean = rebuild_service(strict_json(body), config)
        image = clean["TaskTemplate"]["ContainerSpec"]["Image"]
        engine.image_of_ours("", image, config)
        login = registry_login(config.registry_auth, image)
        reply = engine.call("POST", f"{_SWARM_VERSION}/services/create", json.dumps(clean).encode(), login=login)
        self._pass(reply, f"image={image} service={clean['Name']}")

    def list_services(self, query: Query, body: bytes) -> None:
        """GET /services: those of ours, by their labels if asked for."""
        _only(query, "filters")
        self._need_swarm()
        labels = [*_filter(query, "label"), f"{LABEL}={LABEL_VALUE}"]
        target = "/services?" + urllib.parse.urlencode({"filters": json.dumps({"label": labels})})
        found = self.server.engine.swarm(target)
        ours = [each for each in found if (each["Spec"].get("Labels") or {}).get(LABEL) == LABEL_VALUE]
        self._show([_without_environment(each) for each in ours])

    def inspect_service(self, service: str, query: Query, body: bytes) -> None:
        """GET /services/ID."""
        _only(query)
        self._need_swarm()
        self._show(self.server.engine.own_service(service))

    def remove_service(self, service: str, query: Query, body: bytes) -> None:
        """DELETE /services/ID: its container gets a SIGTERM, wherever it is."""
        _only(query)
        self._need_swarm()
        found = self.server.engine.own_service(service)
        self._pass(self.server.engine.call("DELETE", f"{_SWARM_VERSION}/services/{found['ID']}"))

    def service_logs(self, service: str, query: Query, body: bytes) -> None:
        """GET /services/ID/logs: the last lines, without following."""
        wanted = {key: value for key, value in query.items() if value.lower() not in ("", "0", "false", "none")}
        _only(wanted, "stdout", "stderr", "timestamps", "tail")
        self._need_swarm()
        if not re.fullmatch(r"[0-9]{1,4}", wanted.get("tail", "")):
            raise Refusal("tail: expected a number of lines", 400)
        found = self.server.engine.own_service(service)
        asked = {key: value if key == "tail" else "1" for key, value in wanted.items()}
        target = f"{_SWARM_VERSION}/services/{found['ID']}/logs?{urllib.parse.urlencode(asked)}"
        self._pass(self.server.engine.call("GET", target))

    def list_tasks(self, query: Query, body: bytes) -> None:
        """GET /tasks of one service of ours."""
        _only(query, "filters")
        self._need_swarm()
        services = _filter(query, "service")
        if len(services) != 1 or not re.fullmatch(_SWARM_ID, services[0]):
            raise Refusal("filters: expected one service, by its id", 400)
        self.server.engine.own_service(services[0])
        target = "/tasks?" + urllib.parse.urlencode({"filters": json.dumps({"service": services})})
        found = self.server.engine.swarm(target)
        self._show([_without_environment(each) for each in found if each["ServiceID"] == services[0]])

    def inspect_task(self, task: str, query: Query, body: bytes) -> None:
        """GET /tasks/ID."""
        _only(query)
        self._need_swarm()
        found = self.server.engine.swarm(f"/tasks/{task}")
        if not found.get("ServiceID"):
            raise Refusal(f"task {task[:12]} belongs to no run of ours")
        self.server.engine.own_service(str(found["ServiceID"]))
        self._show(_without_environment(found))

    def list_nodes(self, query: Query, body: bytes) -> None:
        """GET /nodes: which machines there are, and their room."""
        _only(query)
        self._need_swarm()
        self._show([_shown(each, _NODE) for each in self.server.engine.swarm("/nodes")])

    def inspect_node(self, node: str, query: Query, body: bytes) -> None:
        """GET /nodes/ID."""
        _only(query)
        self._need_swarm()
        self._show(_shown(self.server.engine.swarm(f"/nodes/{node}"), _NODE))

    def _need_swarm(self) -> None:
        if not self.server.config.swarm_network:
            raise Refusal(f"{self.command} {self.path[:200]} is not allowed: no network of a swarm is configured")

    def _show(self, found: Any) -> None:
        self._pass(Reply(200, json.dumps(found).encode()))

    def pull(self, prefix: str, query: Query, body: bytes) -> None:
        """POST /images/create: the launcher pulls an image that is not there."""
        _only(query, "fromImage", "tag", "platform")
        name, tag = query.get("fromImage", ""), query.get("tag", "")
        if body or query.get("platform"):
            raise Refusal("only fromImage and tag are allowed")
        reference = f"{name}@{tag}" if re.fullmatch(_DIGEST, tag) else f"{name}:{tag}"
        config = self.server.config
        if not re.fullmatch(_REPOSITORY, name) or name not in config.pull:
            raise Refusal(f"{reference[:200]!r} is not here and must not be pulled by a run: deploy the release again")
        image_allowed(reference, config, config.pull)
        target = f"{prefix}/images/create?{urllib.parse.urlencode({'fromImage': name, 'tag': tag})}"
        connection, response = self.server.engine.open("POST", target, seconds=PULL_SECONDS)
        try:
            self._log("allow", response.status, f"pull {reference}")
            self.send_response_only(response.status)
            self.send_header("Content-Type", response.headers.get("Content-Type", "application/json"))
            self.send_header("Connection", "close")
            self.end_headers()
            for piece in _pieces(response):
                self.wfile.write(piece)
        finally:
            connection.close()


def _pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while piece := response.read1(1 << 16):
        yield piece


def _only(query: Query, *allowed: str) -> None:
    for key, value in query.items():
        if key not in allowed and value:
            raise Refusal(f"the parameter {key[:40]!r} is not allowed")


def _filter(query: Query, key: str) -> list[str]:
    """The values of the one filter ``key``, which is all that ``filters`` may hold."""
    found = strict_json(query["filters"].encode()) if query.get("filters") else {}
    if not isinstance(found, dict) or not set(found) <= {key}:
        raise Refusal(f"filters: allowed is {key!r} only")
    values = found.get(key, [])
    if not isinstance(values, list) or not all(isinstance(each, str) and len(each) < 300 for each in values):
        raise Refusal("filters: expected lists of strings", 400)
    return list(values)


def _printable(text: str) -> str:
    """A client must not be able to write a line of its own into the log."""
    return "".join(char if char.isprintable() else "?" for char in text)


Action = Callable[..., None]
_IMAGE_PATH = r"(?P<image>[A-Za-z0-9._:/-]+(?:(?:@|%40)[a-z0-9:]+)?)"
# docker-py writes the @ before a digest as %40; no other escape is taken.
_ROUTES: list[tuple[str, str, Action]] = [
    ("GET", "/_ping", Handler.ping),
    ("HEAD", "/_ping", Handler.ping),
    ("GET", f"{_VERSION}/version", Handler.engine_version),
    ("POST", f"(?P<prefix>{_VERSION})/containers/create", Handler.create),
    ("GET", f"(?P<prefix>{_VERSION})/containers/{_CONTAINER}/json", Handler.inspect),
    ("POST", f"(?P<prefix>{_VERSION})/containers/{_CONTAINER}/start", Handler.start),
    ("POST", f"(?P<prefix>{_VERSION})/containers/{_CONTAINER}/stop", Handler.stop),
    ("GET", f"(?P<prefix>{_VERSION})/images/{_IMAGE_PATH}/json", Handler.inspect_image),
    ("POST", f"(?P<prefix>{_VERSION})/images/create", Handler.pull),
    ("GET", f"{_VERSION}/info", Handler.swarm_info),
    ("POST", f"{_VERSION}/services/create", Handler.create_service),
    ("GET", f"{_VERSION}/services", Handler.list_services),
    ("GET", f"{_VERSION}/services/(?P<service>{_SWARM_ID})", Handler.inspect_service),
    ("DELETE", f"{_VERSION}/services/(?P<service>{_SWARM_ID})", Handler.remove_service),
    ("GET", f"{_VERSION}/services/(?P<service>{_SWARM_ID})/logs", Handler.service_logs),
    ("GET", f"{_VERSION}/tasks", Handler.list_tasks),
    ("GET", f"{_VERSION}/tasks/(?P<task>{_SWARM_ID})", Handler.inspect_task),
    ("GET", f"{_VERSION}/nodes", Handler.list_nodes),
    ("GET", f"{_VERSION}/nodes/(?P<node>{_SWARM_ID})", Handler.inspect_node),
]
ROUTES = [(method, re.compile(pattern), action) for method, pattern, action in _ROUTES]


def route(method: str, target: str) -> tuple[Action, dict[str, str], Query]:
    """The action for a request, its arguments and its query.

    Raises:
        Refusal: the request is none of the few.
    """
    path, _, search = target.partition("?")
    try:
        pairs = urllib.parse.parse_qsl(search, keep_blank_values=True, strict_parsing=True) if search else []
    except ValueError as error:
        raise Refusal("malformed query", 400) from error
    query = dict(pairs)
    if len(query) != len(pairs):
        raise Refusal("a query parameter stands there twice", 400)
    for known, pattern, action in ROUTES:
        match = pattern.fullmatch(path)
        if known == method and match:
            return action, {key: value for key, value in match.groupdict().items() if value is not None}, query
    raise Refusal(f"{method} {path[:200]} is not allowed")


class Server(ThreadingHTTPServer):
    """A thread for each connection, of which there are at most MAX_CONNECTIONS."""

    daemon_threads = True
    # The default of 5 would refuse connections when many runs are launched at once.
    request_queue_size = 128

    def __init__(self, config: Config) -> None:
        self.config = config
        self.engine = Engine(config.socket)
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        host, _, port = config.listen.rpartition(":")
        super().__init__((host, int(port)), Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread when one is free."""
        # Waiting here leaves further clients in the listen queue, where their own timeouts run.
        self._free.acquire()
        try:
            super().process_request(request, client_address)
        except Exception:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Give the thread back at the end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log one line instead of a stack trace."""
        kind, error, _ = sys.exc_info()
        name = kind.__name__ if kind else "error"
        print(f"error {_printable(f'{name}: {error}')} from {client_address[0]}", flush=True)


def reach(path: str) -> OSError | None:
    """Why the engine's socket cannot be connected to, None when it can."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(WATCH_SECONDS)
        try:
            probe.connect(path)
        except OSError as error:
            return error
    return None


def watch(path: str) -> None:
    """End the process when the socket keeps refusing.

    An engine that restarts may make its socket anew, while this container still has the old one mounted. Docker starts
    the container again, with the new one.
    """
    failures, error = 0, None
    while failures < WATCH_FAILURES:
        time.sleep(WATCH_SECONDS)
        error = reach(path)
        # A timeout is an engine under load; to leave would not help.
        failures = failures + 1 if error and not isinstance(error, TimeoutError) else 0
    print(
        f"error {path} refused {failures} times ({error}); leaving, to be started with the engine's new one", flush=True
    )
    os._exit(1)


def check(port: int = 2375) -> int:
    """The health check: 0 when the proxy and the engine behind it answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=8)
    try:
        connection.request("GET", "/_ping")
        response = connection.getresponse()
        said = response.read(500).decode("utf-8", "replace")
    except OSError as error:
        print(f"the proxy does not answer: {error}")
        return 1
    print(said)
    return 0 if response.status == 200 else 1


def main(arguments: Sequence[str]) -> int:
    """Serve until stopped; the result is the exit code."""
    try:
        config = Config.from_json(os.environ.get("ENGINE_PROXY_CONFIG", ""))
    except ValueError as error:
        print(f"error {error}", flush=True)
        return 2
    if arguments == ["--check"]:
        return check(int(config.listen.rpartition(":")[2]))
    obstacle = reach(config.socket)
    if obstacle:
        print(f"error {config.socket}: {obstacle}; uid {os.getuid()}, groups {os.getgroups()}", flush=True)
        return 1
    threading.Thread(target=watch, args=(config.socket,), daemon=True).start()
    with Server(config) as server:
        print(f"listening on {config.listen}; images {sorted(config.images)}, network {config.network}", flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(0)
