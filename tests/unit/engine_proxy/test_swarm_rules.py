"""What is let through of Swarm's API and what is not, without an engine."""

from __future__ import annotations

import json
from typing import Any

import docker.types
import pytest

from .conftest import engine_proxy

SETTINGS: dict[str, Any] = {
    "network": "dagster-network",
    "swarm_network": "dagster-swarm",
    "user": "10001:10001",
    "images": ["docker_dagster_core"],
    "binds": ["dagster-storage:/opt/dagster/storage:rw", "/opt/database:/opt/dagster/dagster_home/database:ro"],
    "pids_limit": 1000,
}
CONFIG = engine_proxy.Config.from_json(json.dumps(SETTINGS))
IMAGE = "sha256:" + "a" * 64
NAME = "dagster-run-0f9a3c1e-2b7d-4f6a-9c3e-5d1b2a3c4d5e"
STORAGE = {"Type": "volume", "Source": "dagster-storage", "Target": "/opt/dagster/storage"}
DATABASE = {
    "Type": "bind", "Source": "/opt/database", "Target": "/opt/dagster/dagster_home/database", "ReadOnly": True,
}  # fmt: skip


def body(task: dict[str, Any] | None = None, container: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "Name": NAME,
        "TaskTemplate": {"ContainerSpec": {"Image": IMAGE, **(container or {})}, **(task or {})},
        **more,
    }


def test_every_run_gets_the_limits_that_it_did_not_ask_for() -> None:
    assert engine_proxy.rebuild_service(body(), CONFIG) == {
        "Name": NAME,
        "Labels": {"dataops.dagster_gce": "run"},
        "Mode": {"Replicated": {"Replicas": 1}},
        "EndpointSpec": {"Mode": "dnsrr"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": IMAGE,
                "User": "10001:10001",
                "Labels": {"dataops.dagster_gce": "run"},
                "CapabilityDrop": ["ALL"],
                "Privileges": {"NoNewPrivileges": True},
            },
            "Networks": [{"Target": "dagster-swarm"}],
            "RestartPolicy": {"Condition": "none"},
            "Resources": {"Limits": {"Pids": 1000}},
        },
    }


def test_what_the_launcher_asks_for_is_kept() -> None:
    container = {
        "Args": ["dagster", "api"],
        "Env": ["A=b"],
        "Init": True,
        "ReadOnly": True,
        "StopGracePeriod": 30 * 10**9,
        "Labels": {"dagster/run_id": "x", "dataops.dagster_gce": "run"},
        "Mounts": [STORAGE, DATABASE, {"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": {"Mode": 0o1777}}],
    }
    task = {
        "Placement": {"Constraints": ["node.id==abc", "node.labels.gpu == true", "node.hostname!=w-1"]},
        "Resources": {
            "Limits": {"NanoCPUs": 10**9, "MemoryBytes": 1 << 30, "Pids": 512},
            "Reservations": {"NanoCPUs": 10**8, "MemoryBytes": 1 << 28},
        },
        "RestartPolicy": {"Condition": "none", "Delay": 0, "MaxAttempts": 0, "Window": 0},
        "Networks": [{"Target": "dagster-swarm"}],
    }
    mode = dict(docker.types.ServiceMode("replicated", replicas=1))  # in docker-py's own spelling
    made = engine_proxy.rebuild_service(body(task, container, Mode=mode), CONFIG)
    for key in ("Args", "Env", "Init", "ReadOnly", "StopGracePeriod", "Labels", "Mounts"):
        assert made["TaskTemplate"]["ContainerSpec"][key] == container[key]
    for key in ("Placement", "Resources", "Networks"):
        assert made["TaskTemplate"][key] == task[key]


ATTACKS: list[tuple[str, dict[str, Any]]] = [
    ("container", {"Command": ["/bin/sh"]}),
    ("container", {"User": "0"}),
    ("container", {"Groups": ["0"]}),
    ("container", {"CapabilityAdd": ["SYS_ADMIN"]}),
    ("container", {"capabilityadd": ["SYS_ADMIN"]}),
    ("container", {"Privileges": {"Seccomp": {"Mode": "unconfined"}}}),
    ("container", {"Privileges": {"AppArmor": {"Mode": "disabled"}}}),
    ("container", {"Privileges": {"CredentialSpec": {"File": "x"}}}),
    ("container", {"Privileges": {"SELinuxContext": {"Disable": True}}}),
    ("container", {"Secrets": [{"SecretID": "x", "SecretName": "x", "File": {"Name": "x"}}]}),
    ("container", {"Configs": [{"ConfigID": "x", "ConfigName": "x"}]}),
    ("container", {"Sysctls": {"net.ipv4.ip_forward": "1"}}),
    ("container", {"Hosts": ["1.2.3.4 dagster-postgres"]}),
    ("container", {"Hostname": "dagster-postgres"}),
    ("container", {"DNSConfig": {"Nameservers": ["1.2.3.4"]}}),
    ("container", {"Healthcheck": {"Test": ["CMD", "x"]}}),
    ("container", {"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 1}]}),
    ("container", {"TTY": True}),
    ("container", {"Labels": {"com.docker.swarm.service.id": "x"}}),
    ("container", {"Labels": {"dataops.dagster_gce": "stack"}}),
    ("container", {"Image": "docker_dagster_core:1"}),
    ("container", {"Image": "docker_dagster_core:1@sha256:abc"}),
    ("container", {"Image": ["x"]}),
    ("container", {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}]}),
    ("container", {"Mounts": [{"Type": "bind", "Source": "/var/run/docker.sock", "Target": "/var/run/docker.sock"}]}),
    ("container", {"Mounts": [{**DATABASE, "ReadOnly": False}]}),
    ("container", {"Mounts": [{**DATABASE, "readonly": "false"}]}),
    ("container", {"Mounts": [{**DATABASE, "Target": "/etc"}]}),
    ("container", {"Mounts": [{**DATABASE, "BindOptions": {"Propagation": "rshared"}}]}),
    ("container", {"Mounts": [{**DATABASE, "Type": "volume"}]}),
    ("container", {"Mounts": [{**STORAGE, "Source": "dagster-postgres"}]}),
    ("container", {"Mounts": [{**STORAGE, "VolumeOptions": {"DriverConfig": {"Options": {"device": "/"}}}}]}),
    ("container", {"Mounts": [{"Type": "cluster", "Source": "x", "Target": "/x"}]}),
    ("container", {"Mounts": [{"Type": "npipe", "Source": "x", "Target": "/x"}]}),
    ("container", {"Mounts": [{"Type": "tmpfs", "Target": "/../etc"}]}),
    ("container", {"Mounts": [{"Type": "tmpfs", "Target": "/x", "Source": "/"}]}),
    ("container", {"Mounts": [{"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"Options": [["exec"]]}}]}),
    ("container", {"Mounts": {"Type": "bind"}}),
    ("task", {"Runtime": "plugin"}),
    ("task", {"PluginSpec": {"Remote": "x"}}),
    ("task", {"NetworkAttachmentSpec": {"ContainerID": "x"}}),
    ("task", {"Networks": [{"Target": "dagster-network"}]}),
    ("task", {"Networks": [{"Target": "dagster-swarm", "Aliases": ["dagster-postgres"]}]}),
    ("task", {"Networks": [{"Target": "dagster-swarm"}, {"Target": "ingress"}]}),
    ("task", {"Networks": [{"Target": "dagster-swarm", "DriverOpts": {"x": "y"}}]}),
    ("task", {"RestartPolicy": {"Condition": "any"}}),
    ("task", {"Placement": {"Constraints": ["engine.labels.x==y"]}}),
    ("task", {"Placement": {"Constraints": ["node.id==a\nnode.id==b"]}}),
    ("task", {"Placement": {"Preferences": [{"Spread": {"SpreadDescriptor": "node.id"}}]}}),
    ("task", {"Resources": {"Limits": {"Pids": -1}}}),
    ("task", {"Resources": {"Reservations": {"GenericResources": [{}]}}}),
    ("task", {"LogDriver": {"Name": "syslog"}}),
    ("task", {"LogDriver": {"Name": "json-file", "Options": {"env": "A"}}}),
    ("task", {"ForceUpdate": 1}),
    ("service", {"Name": "dagster-postgres"}),
    ("service", {"Name": "dagster-run-"}),
    ("service", {"Name": f"{NAME}-{NAME}"}),
    ("service", {"name": "dagster-postgres"}),
    ("service", {"Labels": {"com.docker.stack.namespace": "x"}}),
    ("service", {"Mode": {"Global": {"x": 1}}}),
    ("service", {"Mode": {"Replicated": {"Replicas": 2}}}),
    ("service", {"Mode": {"ReplicatedJob": {"MaxConcurrent": 5}}}),
    ("service", {"EndpointSpec": {"Mode": "vip"}}),
    ("service", {"EndpointSpec": {"Mode": "dnsrr", "Ports": [{"TargetPort": 80, "PublishedPort": 80}]}}),
    ("service", {"Networks": [{"Target": "ingress"}]}),
    ("service", {"UpdateConfig": {"Parallelism": 1}}),
    ("service", {"TaskTemplate": "x"}),
]


@pytest.mark.parametrize(("where", "more"), ATTACKS, ids=[json.dumps(more)[:60] for _, more in ATTACKS])
def test_a_body_beyond_the_list_is_refused(where: str, more: dict[str, Any]) -> None:
    asked = {**body(), **more} if where == "service" else body(**{where: more})
    with pytest.raises(engine_proxy.Refusal):
        engine_proxy.rebuild_service(asked, CONFIG)


@pytest.mark.parametrize("missing", ["Name", "Image"])
def test_a_body_needs_a_name_and_an_image(missing: str) -> None:
    asked = body()
    asked.pop(missing, None)
    asked["TaskTemplate"]["ContainerSpec"].pop(missing, None)
    with pytest.raises(engine_proxy.Refusal, match=missing):
        engine_proxy.rebuild_service(asked, CONFIG)


def test_a_run_cannot_have_more_processes_than_configured() -> None:
    made = engine_proxy.rebuild_service(body({"Resources": {"Limits": {"Pids": 10**6}}}), CONFIG)
    assert made["TaskTemplate"]["Resources"]["Limits"]["Pids"] == 1000


SERVICE = "g6f0d7rj6ioxw1b3o1mvkyjcz"


@pytest.mark.parametrize(
    "request_line",
    [
        f"GET /v1.45/services/{SERVICE}",
        f"DELETE /services/{SERVICE}",
        "GET /v1.45/nodes",
        f"GET /v1.45/nodes/{SERVICE}",
        f"GET /v1.45/tasks/{SERVICE}",
        "GET /v1.45/info",
    ],
)
def test_what_the_launcher_calls_is_known(request_line: str) -> None:
    assert engine_proxy.route(*request_line.split())


@pytest.mark.parametrize(
    "request_line",
    [
        f"POST /v1.45/services/{SERVICE}/update?version=1",
        "GET /v1.45/services/dagster-postgres",
        f"DELETE /v1.45/nodes/{SERVICE}",
        f"POST /v1.45/nodes/{SERVICE}/update",
        "GET /v1.45/swarm",
        "GET /v1.45/swarm/unlockkey",
        "POST /v1.45/swarm/leave",
        "POST /v1.45/swarm/join",
        "POST /v1.45/swarm/update?version=1",
        "GET /v1.45/secrets",
        "POST /v1.45/secrets/create",
        "GET /v1.45/configs",
        f"GET /v1.45/tasks/{SERVICE}/logs",
        "GET /v1.45/networks",
        "POST /v1.45/networks/create",
        "DELETE /v1.45/containers/0123456789ab",
        "GET /v1.45/system/df",
    ],
)
def test_what_it_does_not_call_is_not(request_line: str) -> None:
    with pytest.raises(engine_proxy.Refusal):
        engine_proxy.route(*request_line.split())


def test_a_machine_is_shown_without_what_nobody_needs() -> None:
    found = {
        "ID": "x",
        "Spec": {"Role": "worker", "Availability": "active", "Labels": {"gpu": "true"}, "Name": "n"},
        "Description": {
            "Hostname": "w-1",
            "Resources": {"NanoCPUs": 1},
            "TLSInfo": {"TrustRoot": "certificate"},
            "Engine": {"Plugins": []},
        },
        "Status": {"State": "ready", "Addr": "10.0.0.2"},
        "ManagerStatus": {"Addr": "10.0.0.1:2377"},
    }
    assert engine_proxy._shown(found, engine_proxy._NODE) == {
        "ID": "x",
        "Spec": {"Role": "worker", "Availability": "active", "Labels": {"gpu": "true"}},
        "Description": {"Hostname": "w-1", "Resources": {"NanoCPUs": 1}},
        "Status": {"State": "ready"},
    }


def test_the_environment_of_services_and_tasks_is_not_shown() -> None:
    secret = {"ContainerSpec": {"Env": ["PASSWORD=canary"], "Image": "i"}}
    shown = [
        engine_proxy._without_environment({"Spec": {"TaskTemplate": dict(secret)}, "PreviousSpec": {"x": ["canary"]}}),
        engine_proxy._without_environment({"Spec": {"ContainerSpec": {"Env": ["canary"]}}, "ServiceID": "s"}),
    ]
    assert "canary" not in json.dumps(shown)


@pytest.mark.parametrize(
    "filters",
    ['{"name": ["x"]}', '{"label": "x"}', '{"label": [1]}', "[]", '{"label": ["a"], "label": ["b"]}', '{"label"', ""],
)
def test_other_filters_are_refused(filters: str) -> None:
    if not filters:
        assert engine_proxy._filter({}, "label") == []
        return
    with pytest.raises(engine_proxy.Refusal):
        engine_proxy._filter({"filters": filters}, "label")
