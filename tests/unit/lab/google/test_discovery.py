"""Google's documents as judges: routes, and every rule that a request or an answer can break."""

from __future__ import annotations

from typing import Any

import pytest

from lab.google import discovery, schemas

COMPUTE = "compute.googleapis.com"


@pytest.mark.parametrize(
    ("host", "http", "path", "method", "values"),
    [
        (
            COMPUTE,
            "POST",
            "/compute/v1/projects/p/zones/z/instances/i/setLabels",
            "compute.instances.setLabels",
            {"project": "p", "zone": "z", "instance": "i"},
        ),
        ("www.googleapis.com", "GET", "/compute/v1/projects/p", "compute.projects.get", {"project": "p"}),
        (
            "iam.googleapis.com",
            "POST",
            "/v1/projects/p/serviceAccounts/a@b.c:setIamPolicy",
            "iam.projects.serviceAccounts.setIamPolicy",
            {"resource": "projects/p/serviceAccounts/a@b.c"},
        ),
        (
            "iap.googleapis.com",
            "POST",
            "/v1/projects/1/iap_tunnel/zones/z/instances/i:getIamPolicy",
            "iap.getIamPolicy",
            {"resource": "projects/1/iap_tunnel/zones/z/instances/i"},
        ),
        (
            "cloudresourcemanager.googleapis.com",
            "GET",
            "/v3/projects/p",
            "cloudresourcemanager.v3.projects.get",
            {"name": "projects/p"},
        ),
        (
            "cloudresourcemanager.googleapis.com",
            "GET",
            "/v1/projects/p",
            "cloudresourcemanager.v1.projects.get",
            {"projectId": "p"},
        ),
        (
            "serviceusage.googleapis.com",
            "POST",
            "/v1/projects/p/services:batchEnable",
            "serviceusage.services.batchEnable",
            {"parent": "projects/p"},
        ),
        (
            "compute.googleapis.com",
            "GET",
            "/compute/v1/projects/p/global/networks/a%20b",
            "compute.networks.get",
            {"project": "p", "network": "a b"},
        ),
    ],
)
def test_a_request_is_one_method(host: str, http: str, path: str, method: str, values: dict[str, str]) -> None:
    found = discovery.find(host, http, path)
    assert found is not None
    assert (found[1].key, found[2]) == (method, values)


@pytest.mark.parametrize(
    ("host", "http", "path"),
    [
        (COMPUTE, "POST", "/compute/v1/projects/p/zones/z/instances/i/updateShieldedInstanceConfig"),  # a PATCH
        (COMPUTE, "GET", "/compute/v1/projects/p/global/networks/"),
        (COMPUTE, "GET", "/v1/projects/p"),
        ("storage.googleapis.com", "GET", "/storage/v1/c"),
        ("iam.googleapis.com", "GET", "/compute/v1/projects/p"),
    ],
)
def test_what_google_does_not_have(host: str, http: str, path: str) -> None:
    assert discovery.find(host, http, path) is None


def problems(method: str, body: Any, *, answer: bool = False) -> list[tuple[str, str]]:
    document, found = discovery.method(method)
    check = document.check_response if answer else document.check_request
    return [(problem.rule, problem.field) for problem in check(found, body)]


LOGS = {"name": "s", "logConfig": {"flowSampling": "x"}}
SUBNETWORK = {"name": "s", "network": "global/networks/n", "ipCidrRange": "10.0.0.0/24"}


@pytest.mark.parametrize(
    ("method", "body", "rule", "field"),
    [
        ("compute.networks.insert", {"name": "n", "colour": "red"}, "unknown", "resource.colour"),
        ("compute.networks.insert", {"name": "n", "routingConfig": {"a": 1}}, "unknown", "resource.routingConfig.a"),
        ("compute.networks.insert", {"name": "n", "id": "1"}, "read-only", "resource.id"),
        ("compute.networks.insert", {"name": "n", "selfLink": "x"}, "read-only", "resource.selfLink"),
        (
            "compute.networks.insert",
            {"name": "n", "autoCreateSubnetworks": "no"},
            "type",
            "resource.autoCreateSubnetworks",
        ),
        ("compute.networks.insert", {"name": "n", "mtu": "many"}, "type", "resource.mtu"),
        ("compute.networks.insert", {"name": "n", "mtu": True}, "type", "resource.mtu"),
        ("compute.networks.insert", {"name": "n", "mtu": 2**31}, "format", "resource.mtu"),
        ("compute.networks.insert", {"name": ["n"]}, "type", "resource.name"),
        ("compute.networks.insert", {"name": "N"}, "pattern", "resource.name"),
        ("compute.networks.insert", {}, "required", "resource.name"),
        ("compute.networks.insert", {"name": None}, "required", "resource.name"),
        ("compute.subnetworks.insert", {**SUBNETWORK, "ipCidrRange": ""}, "required", "resource.ipCidrRange"),
        ("compute.subnetworks.insert", {**SUBNETWORK, "stackType": "IPV9"}, "enum", "resource.stackType"),
        ("compute.subnetworks.insert", {**SUBNETWORK, "fingerprint": "!"}, "format", "resource.fingerprint"),
        ("compute.subnetworks.insert", LOGS, "type", "resource.logConfig.flowSampling"),
        ("compute.firewalls.insert", {"name": "f", "allowed": {}}, "type", "resource.allowed"),
        ("compute.firewalls.insert", {"name": "f", "allowed": [{"port": 1}]}, "unknown", "resource.allowed[0].port"),
        ("compute.networks.insert", [], "type", "resource"),
        ("compute.networks.delete", {"a": 1}, "unknown", ""),
        ("secretmanager.projects.secrets.create", {"replication": {"automatic": {}}, "ttl": "x"}, "format", "ttl"),
        ("secretmanager.projects.secrets.create", {"replication": {}, "expireTime": "soon"}, "format", "expireTime"),
        ("secretmanager.projects.secrets.create", {"labels": {"a": 1}}, "type", "labels.a"),
    ],
)
def test_what_is_wrong_with_a_request(method: str, body: Any, rule: str, field: str) -> None:
    assert (rule, field) in problems(method, body)


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("compute.networks.insert", {"name": "n", "mtu": "1500", "description": None}),  # an integer as text is taken
        ("compute.disks.insert", {"name": "d", "sizeGb": 10}),  # and text as an integer
        ("compute.instances.setLabels", {"labels": {"any": "thing"}, "labelFingerprint": "42WmSpB8rSM="}),
        ("compute.networks.delete", None),
    ],
)
def test_what_is_right_about_a_request(method: str, body: Any) -> None:
    assert problems(method, body) == []


@pytest.mark.parametrize(
    ("method", "body", "rule", "field"),
    [
        ("compute.disks.get", {"sizeGb": 10}, "type", "sizeGb"),
        ("compute.networks.get", {"mtu": "1460"}, "type", "mtu"),
        ("compute.networks.get", {"colour": "red"}, "unknown", "colour"),
        ("compute.networks.get", {"name": None}, "type", "name"),
        ("compute.networks.list", {"items": [{"name": ""}]}, "pattern", "items[0].name"),
        ("iam.projects.serviceAccounts.delete", {"name": "x"}, "unknown", "name"),
        ("secretmanager.projects.secrets.get", {"createTime": "now"}, "format", "createTime"),
    ],
)
def test_what_is_wrong_with_an_answer(method: str, body: Any, rule: str, field: str) -> None:
    assert (rule, field) in problems(method, body, answer=True)


def test_read_only_fields_are_for_answers() -> None:
    assert problems("compute.networks.get", {"id": "1", "selfLink": "x", "mtu": 1460}, answer=True) == []


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        ({"nonsense": ["1"]}, "unknown"),
        ({"project": ["p"]}, "unknown"),
        ({"requestId": ["1"]}, "format"),
        ({"requestId": ["00000000-0000-0000-0000-000000000000"]}, "format"),
        ({"requestId": ["11111111-1111-1111-1111-111111111111"] * 2}, "type"),
        ({"prettyPrint": ["perhaps"]}, "type"),
    ],
)
def test_what_is_wrong_with_a_query(query: dict[str, list[str]], rule: str) -> None:
    document, method = discovery.method("compute.networks.insert")
    assert rule in [problem.rule for problem in document.check_query(method, query)]


def test_a_query_may_be_required() -> None:
    document, method = discovery.method("artifactregistry.projects.locations.repositories.create")
    assert [problem.rule for problem in document.check_query(method, {})] == []
    # The document says "Required." in words only; required.json says it, so that a repository has a name.
    document, method = discovery.method("compute.instances.setDiskAutoDelete")
    assert {problem.field for problem in document.check_query(method, {})} == {"autoDelete", "deviceName"}


def test_a_path_must_match() -> None:
    document, method = discovery.method("compute.networks.get")
    found = document.check_path(method, {"project": "p", "network": "Not A Name"})
    assert [problem.rule for problem in found] == ["pattern"]


def test_our_own_table_names_real_methods_and_fields() -> None:
    for name, fields in schemas.REQUIRED.items():
        document, method = discovery.method(name)
        assert method.request is not None
        schema = document.schemas[method.request]
        assert set(fields) <= set(schema["properties"]), name
