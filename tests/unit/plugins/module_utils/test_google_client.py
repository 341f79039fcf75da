"""The client against the lab's Google: faults on the way, and what the user reads when they do not go away."""

from __future__ import annotations

import http.server
import threading
import time
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_client
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_client import Client
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError
from lab.google import Google

NETWORKS = "projects/example-project/global/networks"


def client(**options: Any) -> Client:
    return Client({"project": "example-project", **options})


def make(client: Client, name: str = "n") -> dict[str, Any]:
    return client.change(
        "compute",
        "POST",
        NETWORKS,
        body={"name": name, "autoCreateSubnetworks": False},
        what=f"create the network {name}",
    )


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_passes_is_tried_again(google: Google, status: int) -> None:
    google.fail("compute.networks.get", status, times=3)
    assert client().get("compute", f"{NETWORKS}/n") is None
    assert google.calls == ["compute.networks.get"] * 4


def test_a_pause_that_google_asks_for_is_made(google: Google) -> None:
    google.fail("compute.networks.get", 429, headers={"Retry-After": "1"})
    started = time.monotonic()
    client().get("compute", f"{NETWORKS}/n")
    assert 1.0 <= time.monotonic() - started < 3.0


def test_what_does_not_pass_is_told(google: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(google_client, "RETRY_SECONDS", 0.2)
    monkeypatch.setattr(google_client, "PAUSES", (0.05,))
    google.fail("compute.networks.get", 503, "backendError", "Try later", times=1000)
    with pytest.raises(GoogleError) as caught:
        client().get("compute", f"{NETWORKS}/n")
    assert str(caught.value).startswith(f"read {NETWORKS}/n: HTTP 503 backendError: Try later. Tried ")
    assert caught.value.attempts >= 3


def test_an_error_of_the_user_is_not_tried_again(google: Google) -> None:
    google.fail("compute.networks.get", 400, "invalid", "no", times=5)
    with pytest.raises(GoogleError):
        client().get("compute", f"{NETWORKS}/n")
    assert google.calls == ["compute.networks.get"]


@pytest.mark.parametrize("kind", ["drop", "after", "answer"])
def test_an_insert_whose_answer_is_lost_is_one_insert(google: Google, kind: str) -> None:
    google.fail("compute.networks.insert", 503, kind=kind, times=2)
    make(client())
    inserts = [request for request in google.requests if request.method == "compute.networks.insert"]
    assert len(inserts) == 3
    assert len({request.query["requestId"] for request in inserts}) == 1
    assert google.thing(f"{NETWORKS}/n") is not None


def test_two_changes_have_two_request_ids(google: Google) -> None:
    both = client()
    make(both, "a")
    make(both, "b")
    ids = [request.query["requestId"] for request in google.requests if request.method == "compute.networks.insert"]
    assert len(set(ids)) == 2


def test_the_connection_drops_while_it_waits(google: Google) -> None:
    google.operation_polls = 4
    google.fail("compute.globalOperations.wait", kind="drop", times=2)
    assert make(client())["status"] == "DONE"


def test_a_line_that_stays_broken_longer_than_one_call_is_tried(
    google: Google, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google_client, "RETRY_SECONDS", 0.0)
    google.operation_polls = 2
    google.fail("compute.globalOperations.wait", kind="drop", times=5)
    assert make(client())["status"] == "DONE"


class Page(http.server.BaseHTTPRequestHandler):
    """What a web server or a proxy answers that knows nothing of Google's API."""

    def do_GET(self) -> None:
        self.send_error(404, "Not Found")

    def log_message(self, *_: Any) -> None:
        pass


def test_a_web_page_is_not_google_saying_that_nothing_is_there(google: Google) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        wrong = client(auth_kind="accesstoken", access_token="x", api_endpoints={"compute": endpoint})
        with pytest.raises(GoogleError, match="HTTP 404"):
            wrong.get("compute", f"{NETWORKS}/n")
        server.shutdown()


def test_one_token_for_any_number_of_calls(google: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = 0
    token = google.token

    def counted(*args: Any, **options: Any) -> str:
        nonlocal tokens
        tokens += 1
        return token(*args, **options)

    monkeypatch.setattr(google, "token", counted)
    one = client()
    for _ in range(5):
        one.get("compute", f"{NETWORKS}/n")
    assert tokens == 1


def test_a_token_that_expires_in_between_is_renewed(google: Google) -> None:
    one = client()
    one.get("compute", f"{NETWORKS}/n")
    google.expire_tokens()
    assert one.get("compute", f"{NETWORKS}/n") is None


def test_an_operation_that_ends_in_an_error(google: Google) -> None:
    google.fail(
        "compute.networks.insert",
        reason="QUOTA_EXCEEDED",
        message="Quota 'NETWORKS' exceeded.  Limit: 5.0 globally.",
        kind="operation",
    )
    with pytest.raises(GoogleError) as caught:
        make(client())
    assert caught.value.reason == "QUOTA_EXCEEDED"
    assert "create the network n" in str(caught.value)
    assert "quota NETWORKS (globally) is at its limit of 5.0" in str(caught.value)
    assert "iam-admin/quotas?project=example-project" in str(caught.value)


def test_an_operation_that_does_not_end(google: Google) -> None:
    google.fail("compute.networks.insert", kind="stuck")
    with pytest.raises(GoogleError) as caught:
        make(client(timeout=1))
    assert caught.value.reason == "TIMEOUT"
    assert "not at its end after 1 s" in str(caught.value)
    assert "larger timeout" in str(caught.value)


def test_a_missing_permission(google: Google) -> None:
    google.revoke("compute.networks.create")
    with pytest.raises(GoogleError) as caught:
        make(client())
    text = str(caught.value)
    assert caught.value.code == 403
    assert "compute.networks.create, which roles/compute.networkAdmin has" in text
    assert (
        "gcloud projects add-iam-policy-binding example-project --member=MEMBER --role=roles/compute.networkAdmin"
        in text
    )


def test_a_service_account_is_named_in_the_command(google: Google) -> None:
    import json

    email = "robot@example-project.iam.gserviceaccount.com"
    key = json.dumps(google.service_account_key(email))
    google.revoke("compute.networks.get", email=email)
    with pytest.raises(GoogleError) as caught:
        client(auth_kind="serviceaccount", service_account_contents=key).get("compute", f"{NETWORKS}/n")
    assert f"--member=serviceAccount:{email} --role=roles/compute.networkAdmin" in str(caught.value)


def test_an_api_that_is_not_enabled(google: Google) -> None:
    google.seed_project("bare-project", services=[])
    with pytest.raises(GoogleError) as caught:
        client(project="bare-project").get("compute", "projects/bare-project/global/networks/n")
    assert "gcloud services enable compute.googleapis.com --project=bare-project" in str(caught.value)


def test_a_project_that_does_not_exist(google: Google) -> None:
    with pytest.raises(GoogleError) as caught:
        client(project="no-such-project").get("compute", "projects/no-such-project/global/networks/n")
    assert "no-such-project" in str(caught.value)
    assert caught.value.advice


def test_an_organisation_policy(google: Google) -> None:
    google.fail(
        "compute.networks.insert",
        412,
        "conditionNotMet",
        "Constraint constraints/compute.skipDefaultNetworkCreation violated for project 1.",
    )
    with pytest.raises(GoogleError) as caught:
        make(client())
    assert caught.value.is_conflict is False
    assert "policy constraints/compute.skipDefaultNetworkCreation forbids it" in str(caught.value)


def test_nothing_listens(google: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(GoogleError) as caught:
        client(auth_kind="accesstoken", access_token=google.token()).get("compute", f"{NETWORKS}/n")
    assert time.monotonic() - started < 5
    assert "no answer from compute.googleapis.com" in str(caught.value)
    assert "HTTPS_PROXY" in str(caught.value)
    assert "0x" not in str(caught.value)


def test_no_token_since_nothing_listens(google: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(GoogleError) as caught:
        client().get("compute", f"{NETWORKS}/n")
    assert "HTTPS_PROXY" in str(caught.value)


def test_a_certificate_that_nobody_trusts(google: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    import certifi

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    with pytest.raises(GoogleError) as caught:
        client(auth_kind="accesstoken", access_token=google.token()).get("compute", f"{NETWORKS}/n")
    assert "certificate of compute.googleapis.com is not trusted" in str(caught.value)
    assert "REQUESTS_CA_BUNDLE" in str(caught.value)


def test_lists_are_read_page_by_page(google: Google) -> None:
    one = client()
    for name in ("a", "b", "c"):
        make(one, name)
    found = one.pages("compute", NETWORKS, query={"maxResults": 1})
    assert sorted(network["name"] for network in found) == ["a", "b", "c"]


def test_where_the_apis_are() -> None:
    token = {"auth_kind": "accesstoken", "access_token": "x"}
    psc = "https://compute-psc.p.googleapis.com"
    assert client(**token).url("compute", "p") == "https://compute.googleapis.com/compute/v1/p"
    assert client(**token).url("iam", "p") == "https://iam.googleapis.com/v1/p"
    assert client(**token, universe_domain="example.goog").url("iam", "p") == "https://iam.example.goog/v1/p"
    assert client(**token, api_endpoints={"compute": psc}).url("compute", "p") == f"{psc}/compute/v1/p"
    assert client(**token, api_endpoints={"compute": f"{psc}/x/v1/"}).url("compute", "p") == f"{psc}/x/v1/p"
    with pytest.raises(GoogleError, match=r"api_endpoints: found 'compte'; expected one of compute, iam"):
        client(**token, api_endpoints={"compte": psc})
    local = "http://127.0.0.1:8555"
    assert client(**token, api_endpoints={"compute": local}).url("compute", "p") == f"{local}/compute/v1/p"
    for wrong in ("psc", "http://compute-psc.p.googleapis.com", "https://", "ftp://127.0.0.1"):
        with pytest.raises(GoogleError, match=r"api_endpoints.compute: found .*; expected an https URL"):
            client(**token, api_endpoints={"compute": wrong})
