"""What is let through and what is not, without an engine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import engine_proxy

CONFIG = engine_proxy.Config.from_json(
    json.dumps(
        {
            "network": "dagster-network",
            "user": "10001:10001",
            "images": ["docker_dagster_core", "europe-docker.pkg.dev/p/r/core"],
            "binds": ["dagster-storage:/opt/dagster/storage:rw", "/k.json:/opt/k.json:ro"],
            "pids_limit": 1000,
        }
    )
)
DIGEST = "sha256:" + "a" * 64


def body(**more: Any) -> dict[str, Any]:
    host = {"NetworkMode": "dagster-network", **more.pop("HostConfig", {})}
    return {"Image": "docker_dagster_core:1", "HostConfig": host, **more}


def test_every_run_gets_the_limits_that_it_did_not_ask_for() -> None:
    made = engine_proxy.rebuild_create({"Image": "docker_dagster_core:1"}, CONFIG)
    assert made == {
        "Image": "docker_dagster_core:1",
        "User": "10001:10001",
        "Labels": {"dataops.dagster_gce": "run"},
        "NetworkingConfig": {"EndpointsConfig": {"dagster-network": {}}},
        "HostConfig": {
            "NetworkMode": "dagster-network",
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges=true"],
            "PidsLimit": 1000,
        },
    }


def test_what_the_launcher_asks_for_is_kept() -> None:
    host = {
        "Memory": 2147483648,
        "NanoCpus": 10**9,
        "PidsLimit": 512,
        "Init": True,
        "ReadonlyRootfs": True,
        "Tmpfs": {"/tmp": "size=64m,mode=1777"},
        "Binds": ["dagster-storage:/opt/dagster/storage", "/k.json:/opt/k.json:ro"],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}},
        "RestartPolicy": {"Name": "no"},
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
    }
    asked = body(
        Cmd=["dagster", "api"],
        Env=["A=b"],
        Labels={"dagster/run_id": "x", "dataops.dagster_gce": "run"},
        StopTimeout=60,
        Volumes={"/opt/dagster/storage": {}},
        NetworkingConfig={"dagster-network": None},
        HostConfig=host,
    )
    made = engine_proxy.rebuild_create(asked, CONFIG)
    assert made["Cmd"] == ["dagster", "api"]
    assert made["Env"] == ["A=b"]
    assert made["StopTimeout"] == 60
    assert made["HostConfig"]["Binds"] == ["dagster-storage:/opt/dagster/storage:rw", "/k.json:/opt/k.json:ro"]
    for key in ("Memory", "NanoCpus", "PidsLimit", "Init", "ReadonlyRootfs", "Tmpfs", "LogConfig", "RestartPolicy"):
        assert made["HostConfig"][key] == host[key]
    assert "Volumes" not in made


HOST_ATTACKS: list[dict[str, Any]] = [
    {"Privileged": True},
    {"privileged": True},
    {"PRIVILEGED": True},
    {"Priv\u0131leged": True},
    {"\u212aernelMemory": 1},
    {"CapAdd": ["SYS_ADMIN"]},
    {"capadd": ["ALL"]},
    {"PidMode": "host"},
    {"PidMode": "container:dagster-postgres"},
    {"IpcMode": "host"},
    {"IpcMode": "container:dagster-postgres"},
    {"UTSMode": "host"},
    {"UsernsMode": "host"},
    {"CgroupnsMode": "host"},
    {"CgroupParent": "/"},
    {"Cgroup": "container:x"},
    {"Devices": [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda", "CgroupPermissions": "rwm"}]},
    {"DeviceRequests": [{"Count": -1}]},
    {"DeviceCgroupRules": ["a *:* rwm"]},
    {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}]},
    {"VolumesFrom": ["dagster-postgres"]},
    {"VolumeDriver": "x"},
    {"Links": ["dagster-postgres:x"]},
    {"Runtime": "x"},
    {"Sysctls": {"net.ipv4.ip_forward": "1"}},
    {"GroupAdd": ["0"]},
    {"ExtraHosts": ["dagster-postgres:1.2.3.4"]},
    {"Dns": ["1.2.3.4"]},
    {"PortBindings": {"80/tcp": [{"HostPort": "80"}]}},
    {"PublishAllPorts": True},
    {"OomKillDisable": True},
    {"OomScoreAdj": -1000},
    {"ContainerIDFile": "/etc/x"},
    {"StorageOpt": {"size": "1t"}},
    {"SecurityOpt": ["seccomp=unconfined"]},
    {"SecurityOpt": ["no-new-privileges:true", "apparmor=unconfined"]},
    {"SecurityOpt": ["no-new-privileges:false"]},
    {"SecurityOpt": ["systempaths=unconfined"]},
    {"NetworkMode": "host"},
    {"NetworkMode": "dagster-engine"},
    {"NetworkMode": "container:dagster-engine-proxy"},
    {"NetworkMode": "Dagster-Network"},
    {"Binds": ["/:/host"]},
    {"Binds": ["/var/run/docker.sock:/var/run/docker.sock"]},
    {"Binds": ["dagster-postgres:/var/lib/postgresql/data"]},
    {"Binds": ["dagster-storage:/opt/dagster/storage:ro,rshared"]},
    {"Binds": ["/k.json:/opt/k.json:rw"]},
    {"Binds": ["/k.json:/opt/k.json"]},
    {"Binds": ["dagster-storage:/etc:rw"]},
    {"Binds": ["./dagster-storage:/opt/dagster/storage:rw"]},
    {"LogConfig": {"Type": "syslog", "Config": {"syslog-address": "tcp://1.2.3.4"}}},
    {"LogConfig": {"Type": "json-file", "Config": {"env": "POSTGRES_PASSWORD"}}},
    {"RestartPolicy": {"Name": "always"}},
    {"Tmpfs": {"/opt/../etc": ""}},
    {"Tmpfs": {"/tmp": "exec,suid,dev"}},
    {"Memory": "1"},
    {"Memory": True},
    {"PidsLimit": -1},
    {"Annotations": {"run.oci.keep_original_groups": "1"}},
]


@pytest.mark.parametrize("host", HOST_ATTACKS, ids=lambda host: json.dumps(host)[:60])
def test_a_host_config_beyond_the_list_is_refused(host: dict[str, Any]) -> None:
    with pytest.raises(engine_proxy.Refusal) as refusal:
        engine_proxy.rebuild_create(body(HostConfig=host), CONFIG)
    assert "HostConfig" in str(refusal.value)


ATTACKS: list[dict[str, Any]] = [
    {"hostconfig": {"Privileged": True}},
    {"HOSTCONFIG": {"Privileged": True}},
    {"HostConfig ": {"Privileged": True}},
    {"User": "0"},
    {"User": "root"},
    {"User": "10001:0"},
    {"Entrypoint": ["/bin/sh"]},
    {"Hostname": "dagster-postgres"},
    {"Domainname": "x"},
    {"MacAddress": "02:42:ac:11:00:02"},
    {"ExposedPorts": {"80/tcp": {}}},
    {"Healthcheck": {"Test": ["CMD", "x"]}},
    {"OnBuild": ["x"]},
    {"Shell": ["x"]},
    {"Volumes": {"/data": {}}},
    {"Tty": True},
    {"Labels": {"com.docker.compose.project": "dagster"}},
    {"Labels": {"COM.docker.compose.service": "x"}},
    {"Labels": {"dataops.dagster_gce": "stack"}},
    {"Labels": {"dataops.dagster_gce.release": "x"}},
    {"NetworkingConfig": {"EndpointsConfig": {"dagster-engine": {}}}},
    {"NetworkingConfig": {"EndpointsConfig": {"dagster-network": {"Aliases": ["dagster-postgres"]}}}},
    {"NetworkingConfig": {"dagster-network": {"IPAMConfig": {"IPv4Address": "172.18.0.2"}}}},
    {"NetworkingConfig": {"EndpointsConfig": {"dagster-network": {}}, "endpointsconfig": {"bridge": {}}}},
    {"StopTimeout": -1},
    {"Cmd": "sh -c x"},
    {"Env": [1]},
]


@pytest.mark.parametrize("more", ATTACKS, ids=lambda more: json.dumps(more)[:60])
def test_a_body_beyond_the_list_is_refused(more: dict[str, Any]) -> None:
    asked = {**body(), **more}
    with pytest.raises(engine_proxy.Refusal):
        engine_proxy.rebuild_create(asked, CONFIG)


@pytest.mark.parametrize("empty", [None, False, "", 0, [], {}])
def test_an_empty_setting_is_left_out(empty: object) -> None:
    """docker-py writes defaults such as `"Tty": false`; MaskedPaths [] would uncover /proc if it were passed on."""
    made = engine_proxy.rebuild_create(body(HostConfig={"Privileged": empty, "MaskedPaths": empty}), CONFIG)
    assert set(made["HostConfig"]) == {"NetworkMode", "CapDrop", "SecurityOpt", "PidsLimit"}


def test_a_run_cannot_have_more_processes_than_configured() -> None:
    made = engine_proxy.rebuild_create(body(HostConfig={"PidsLimit": 10**6}), CONFIG)
    assert made["HostConfig"]["PidsLimit"] == 1000


@pytest.mark.parametrize(
    "image",
    [
        "docker_dagster_core:1",
        f"docker_dagster_core@{DIGEST}",
        f"docker_dagster_core:1@{DIGEST}",
        "europe-docker.pkg.dev/p/r/core:2026",
        DIGEST,
    ],
)
def test_images_of_the_configured_repositories(image: str) -> None:
    assert engine_proxy.image_allowed(image, CONFIG) == image


@pytest.mark.parametrize(
    "image",
    [
        "docker_dagster_core",
        "postgres:17",
        "evil/docker_dagster_core:1",
        "docker_dagster_core/evil:1",
        "docker_dagster_core:1/../evil",
        "europe-docker.pkg.dev/p/r/core2:1",
        "europe-docker.pkg.dev:443/p/r/core:1",
        "Docker_dagster_core:1",
        "docker_dagster_core:1\n",
        "docker_dagster_core:1?x=y",
        "docker_dagster_core@sha256:abc",
        "aaaaaaaaaaaa",
        "",
        None,
        ["docker_dagster_core:1"],
        "a" * 600,
    ],
)
def test_other_images(image: object) -> None:
    with pytest.raises(engine_proxy.Refusal):
        engine_proxy.image_allowed(image, CONFIG)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"a": {"b": 1, "\\u0062": 2}}',
        '{"a": NaN}',
        '{"a": 1}x',
        "\xff",
        "",
        "[" * 200000,
        "{'a': 1}",
    ],
)
def test_what_is_no_plain_json_is_refused(text: str) -> None:
    with pytest.raises(engine_proxy.Refusal) as refusal:
        engine_proxy.strict_json(text.encode("latin-1"))
    assert refusal.value.status == 400


CONTAINER = "a" * 64


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", f"/v1.45/containers/{CONTAINER}/logs"),
        ("GET", f"/v1.45/containers/{CONTAINER}/archive?path=/etc"),
        ("GET", f"/v1.45/containers/{CONTAINER}/top"),
        ("POST", f"/v1.45/containers/{CONTAINER}/exec"),
        ("POST", f"/v1.45/containers/{CONTAINER}/attach"),
        ("POST", f"/v1.45/containers/{CONTAINER}/kill"),
        ("POST", f"/v1.45/containers/{CONTAINER}/update"),
        ("POST", f"/v1.45/containers/{CONTAINER}/rename?name=x"),
        ("DELETE", f"/v1.45/containers/{CONTAINER}"),
        ("PUT", f"/v1.45/containers/{CONTAINER}/archive"),
        ("GET", "/v1.45/containers/json"),
        ("GET", "/v1.45/containers/dagster-postgres/json"),
        ("POST", "/v1.45/containers/dagster-postgres/stop"),
        ("POST", f"/v1.45/containers/{CONTAINER}/start/"),
        ("POST", f"/v1.45/containers//{CONTAINER}/start"),
        ("POST", f"/v1.45/containers/{CONTAINER}/../{CONTAINER}/start"),
        ("POST", f"/v1.45/containers/{CONTAINER}%2fstart"),
        ("POST", "/v1.45/containers/%63reate"),
        ("POST", "/v1.45/Containers/create"),
        ("POST", "/v1.45//containers/create"),
        ("POST", "//containers/create"),
        ("POST", "http://docker/v1.45/containers/create"),
        ("POST", "/v1.45/containers/create#x"),
        ("POST", "/v1.45/containers/create;x"),
        ("POST", "/v1.45/containers/create?name=a&name=b"),
        ("POST", "/v1.45/containers/create?name"),
        ("GET", "/v1.45/containers/create"),
        ("POST", "/v1.45/build"),
        ("POST", "/v1.45/images/load"),
        ("POST", "/v1.45/commit"),
        ("GET", "/v1.45/images/json"),
        ("GET", "/v1.45/images/a/../../info"),
        ("GET", "/v1.45/images/docker_dagster_core%3A1/json"),
        ("GET", "/v1.45/info/x"),
        ("GET", "/v1.45/events"),
        ("POST", "/v1.45/networks/create"),
        ("POST", "/v1.45/volumes/create"),
        ("POST", "/v1.45/swarm/init"),
        ("POST", "/v1.45/auth"),
        ("POST", "/session"),
        ("POST", "/grpc"),
    ],
)
def test_other_calls_are_refused(method: str, target: str) -> None:
    with pytest.raises(engine_proxy.Refusal):
        engine_proxy.route(method, target)


@pytest.mark.parametrize(
    ("method", "target", "arguments"),
    [
        ("GET", "/_ping", {}),
        ("GET", "/version", {}),
        ("POST", "/v1.45/containers/create", {"prefix": "/v1.45"}),
        ("GET", f"/v1.45/containers/{CONTAINER}/json", {"prefix": "/v1.45", "container": CONTAINER}),
        ("POST", f"/v1.45/containers/{CONTAINER}/start", {"prefix": "/v1.45", "container": CONTAINER}),
        ("POST", f"/v1.45/containers/{CONTAINER}/stop?t=5", {"prefix": "/v1.45", "container": CONTAINER}),
        (
            "GET",
            f"/v1.45/images/reg.example:5000/a/b%40{DIGEST}/json",
            {"prefix": "/v1.45", "image": f"reg.example:5000/a/b%40{DIGEST}"},
        ),
    ],
)
def test_the_launchers_calls_have_a_route(method: str, target: str, arguments: dict[str, str]) -> None:
    assert engine_proxy.route(method, target)[1] == arguments


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"user": "0:0"}, "user"),
        ({"user": "10001:0"}, "user"),
        ({"user": "dagster"}, "user"),
        ({"images": "docker_dagster_core"}, "images"),
        ({"images": ["docker_dagster_core:1"]}, "images"),
        ({"images": ["*"]}, "images"),
        ({"binds": ["/"]}, "binds"),
        ({"pids_limit": 0}, "pids_limit"),
        ({"network": None}, "network"),
        ({"privileged": True}, "privileged"),
    ],
)
def test_a_wrong_configuration_names_its_key(change: dict[str, Any], named: str) -> None:
    settings = {"network": "n", "user": "1:1", "images": ["a"], "binds": [], **change}
    with pytest.raises(ValueError, match=f"{named}.*found.*expected|found the key '{named}'"):
        engine_proxy.Config.from_json(json.dumps(settings))


def test_a_missing_configuration() -> None:
    with pytest.raises(ValueError, match="ENGINE_PROXY_CONFIG"):
        engine_proxy.Config.from_json("")
