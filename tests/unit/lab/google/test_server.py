"""The server: what it does with requests whatever the method."""

from __future__ import annotations

import socket
import ssl

import pytest
import requests
from google.auth import default
from google.auth.transport.requests import AuthorizedSession

from lab.google import Google
from lab.google.state import fingerprint

NETWORKS = "https://compute.googleapis.com/compute/v1/projects/example-project/global/networks"


def session() -> AuthorizedSession:
    credentials, _ = default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    return AuthorizedSession(credentials)


def test_an_unmodified_client_comes_here(google: Google) -> None:
    client = session()
    started = client.post(NETWORKS, json={"name": "n", "autoCreateSubnetworks": False})
    assert started.json()["status"] == "RUNNING"
    assert client.post(started.json()["selfLink"] + "/wait").json()["status"] == "DONE"
    assert client.get(f"{NETWORKS}/n").json()["mtu"] == 1460
    assert google.calls == ["compute.networks.insert", "compute.globalOperations.wait", "compute.networks.get"]


def test_other_hosts_are_refused(google: Google) -> None:
    with pytest.raises(requests.exceptions.ProxyError, match="502"):
        requests.get("https://example.com/", timeout=5)


def test_tls_without_connect_is_spoken_on_the_same_port(google: Google) -> None:
    context = ssl.create_default_context(cafile=str(google.authority))
    with (
        socket.create_connection(("127.0.0.1", google.port), 5) as raw,
        context.wrap_socket(raw, server_hostname="compute.googleapis.com") as secure,
    ):
        for _ in range(2):  # the connection stays
            secure.sendall(b"GET /compute/v1/projects/p HTTP/1.1\r\nHost: compute.googleapis.com\r\n\r\n")
            assert secure.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_classic_errors_and_new_ones(google: Google) -> None:
    classic = session().get(f"{NETWORKS}/none").json()["error"]
    message = "The resource 'projects/example-project/global/networks/none' was not found"
    assert classic == {
        "code": 404,
        "message": message,
        "errors": [{"message": message, "domain": "global", "reason": "notFound"}],
    }
    url = "https://secretmanager.googleapis.com/v1/projects/example-project/secrets/none"
    new = session().get(url).json()["error"]
    assert (new["code"], new["status"]) == (404, "NOT_FOUND")
    assert "errors" not in new


@pytest.mark.parametrize(
    ("body", "violation"),
    [
        ({"name": "n", "colour": "red"}, "unknown resource.colour"),
        ({"name": "n", "id": "1"}, "read-only resource.id"),
    ],
)
def test_a_client_that_breaks_the_rules_fails_its_test(google: Google, body: dict[str, str], violation: str) -> None:
    assert session().post(NETWORKS, json=body).status_code == 400
    assert violation in google.violations.pop()
    assert google.thing("projects/example-project/global/networks/n") is None


def test_a_bad_value_is_refused_without_that(google: Google) -> None:
    answer = session().post(NETWORKS, json={"name": "BAD NAME"})
    assert answer.status_code == 400
    expected = "Invalid value for field 'resource.name': 'BAD NAME'. Must be a match of regex '"
    assert answer.json()["error"]["message"].startswith(expected)


def test_what_nobody_answers_fails_the_test(google: Google) -> None:
    url = "https://compute.googleapis.com/compute/v1/projects/example-project/global/backendServices"
    assert session().get(url).status_code == 501
    assert "no handler for compute.backendServices.list" in google.violations.pop()
    assert session().get("https://compute.googleapis.com/compute/v1/nonsense").status_code == 404
    assert "/compute/v1/nonsense" in google.violations.pop()


def test_an_answer_of_ours_that_does_not_fit_fails_the_test(google: Google) -> None:
    session().post(NETWORKS, json={"name": "n"})
    network = google.state.get("compute/projects/example-project/global/networks/n")
    assert network is not None
    network["mtu"] = "1460"
    session().get(f"{NETWORKS}/n")
    assert "compute.networks.get answered: type mtu" in google.violations.pop()


def test_a_token_is_needed(google: Google) -> None:
    missing = requests.get(NETWORKS, timeout=5)
    assert (missing.status_code, "WWW-Authenticate" in missing.headers) == (401, True)
    worthless = requests.get(NETWORKS, headers={"Authorization": "Bearer nonsense"}, timeout=5)
    assert worthless.status_code == 401
    assert "invalid authentication credentials" in worthless.json()["error"]["message"]


def test_a_client_gets_a_new_token_when_the_old_one_expires(google: Google) -> None:
    client = session()
    client.get(NETWORKS)
    google.expire_tokens()
    assert client.get(NETWORKS).status_code == 200
    assert [request.status for request in google.requests] == [200, 401, 200]


def test_a_project_that_is_not_there(google: Google) -> None:
    answer = session().get(NETWORKS.replace("example-project", "none-such"))
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        404,
        "The resource 'projects/none-such' was not found",
    )
    url = "https://cloudresourcemanager.googleapis.com/v1/projects/none-such"
    assert session().get(url).json()["error"]["message"] == "The caller does not have permission"


def test_a_permission_that_was_taken(google: Google) -> None:
    google.revoke("compute.networks.create")
    answer = session().post(NETWORKS, json={"name": "n"})
    expected = "Required 'compute.networks.create' permission for 'projects/example-project/global/networks'"
    assert (answer.status_code, answer.json()["error"]["message"]) == (403, expected)
    google.grant("compute.networks.create")
    assert session().post(NETWORKS, json={"name": "n"}).status_code == 200


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("name=a", ["a"]),
        ("name!=a", ["b", "c"]),
        ('labels.env="prod"', ["a", "b"]),
        ("labels.env=prod AND labels.team=x", ["a"]),
        ("(labels.env = prod) (labels.team = x)", ["a"]),
        ("labels.team:*", ["a", "c"]),
        ("NOT labels.team:*", ["b"]),
        ("labels.env=prod OR name=c", ["a", "b", "c"]),
        ('name eq "a|b"', ["a", "b"]),
        ("name =", None),
        ("name=a)", None),
    ],
)
def test_filters(google: Google, expression: str, names: list[str] | None) -> None:
    where = {"project": "example-project", "region": "europe-west1"}
    for name, labels in (("a", {"env": "prod", "team": "x"}), ("b", {"env": "prod"}), ("c", {"team": "y"})):
        google.call("compute.addresses.insert", where, {"name": name})
        body = {"labels": labels, "labelFingerprint": fingerprint({})}
        google.call("compute.addresses.setLabels", {**where, "resource": name}, body)
    url = "https://compute.googleapis.com/compute/v1/projects/example-project/regions/europe-west1/addresses"
    answer = session().get(url, params={"filter": expression})
    if names is None:
        assert answer.status_code == 400
    else:
        assert [item["name"] for item in answer.json()["items"]] == names


def test_pages(google: Google) -> None:
    for name in "abc":
        google.call("compute.networks.insert", {"project": "example-project"}, {"name": name})
    first = session().get(NETWORKS, params={"maxResults": "2"}).json()
    assert [item["name"] for item in first["items"]] == ["a", "b"]
    second = session().get(NETWORKS, params={"maxResults": "2", "pageToken": first["nextPageToken"]}).json()
    assert ([item["name"] for item in second["items"]], "nextPageToken" in second) == (["c"], False)
    empty = session().get(NETWORKS.replace("networks", "firewalls")).json()
    assert "items" not in empty


def test_read_only_fields_of_googles_own_clients_are_ignored(google: Google) -> None:
    client = session()
    google.call(
        "compute.networks.insert", {"project": "example-project"}, {"name": "n", "autoCreateSubnetworks": False}
    )
    network = client.get(f"{NETWORKS}/n").json()
    body = {**network, "id": "1", "mtu": 1500}
    told = {"User-Agent": "google-cloud-sdk gcloud/528.0.0"}
    assert client.patch(f"{NETWORKS}/n", json=body, headers=told).status_code == 200
    changed = google.thing("projects/example-project/global/networks/n") or {}
    assert (changed["mtu"], changed["id"]) == (1500, network["id"])
    assert client.patch(f"{NETWORKS}/n", json=body).status_code == 400
    assert "read-only" in google.violations[0]
    google.violations.clear()
    google.strict = False
    assert client.patch(f"{NETWORKS}/n", json=body).status_code == 200
