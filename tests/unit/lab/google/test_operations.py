"""Operations, requests that come twice, and faults: what an unreliable world looks like."""

from __future__ import annotations

import time
from typing import Any

import pytest
import requests

from lab.google import Google, Refusal

BASE = "https://compute.googleapis.com/compute/v1/projects/example-project"
NETWORKS = f"{BASE}/global/networks"
P = {"project": "example-project"}
ID = "11111111-1111-1111-1111-111111111111"
NETWORK = {"name": "n", "autoCreateSubnetworks": False}


@pytest.fixture
def client(google: Google) -> requests.Session:
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {google.token()}"
    return session


def insert(client: requests.Session, body: dict[str, Any] | None = None, query: str = "") -> requests.Response:
    return client.post(f"{NETWORKS}{query}", json=body or NETWORK)


def state(client: requests.Session, operation: dict[str, Any], verb: str = "wait") -> str:
    if verb == "wait":
        return str(client.post(f"{operation['selfLink']}/wait").json()["status"])
    return str(client.get(operation["selfLink"]).json()["status"])


def test_an_operation_takes_as_many_looks_as_asked(google: Google, client: requests.Session) -> None:
    google.operation_polls, google.operation_seconds = 3, 60
    operation = insert(client).json()
    assert operation["status"] == "PENDING"
    assert [state(client, operation) for _ in range(3)] == ["RUNNING", "RUNNING", "DONE"]
    done = client.get(operation["selfLink"]).json()
    assert (done["progress"], "endTime" in done, done["operationType"]) == (100, True, "insert")


def test_an_operation_is_done_when_its_time_is_up(google: Google, client: requests.Session) -> None:
    google.operation_polls, google.operation_seconds = 100, 0.05
    operation = insert(client).json()
    time.sleep(0.06)
    assert state(client, operation, "get") == "DONE"


def test_what_is_being_made_cannot_be_used(google: Google, client: requests.Session) -> None:
    google.operation_seconds = 60
    operation = insert(client).json()
    body = {"name": "s", "network": "global/networks/n", "ipCidrRange": "10.0.0.0/24"}
    url = f"{BASE}/regions/europe-west1/subnetworks"
    refused = client.post(url, json=body)
    assert (refused.status_code, refused.json()["error"]["errors"][0]["reason"]) == (400, "resourceNotReady")
    assert state(client, operation) == "DONE"
    assert client.post(url, json=body).status_code == 200


def test_the_same_request_id_is_the_same_operation(google: Google, client: requests.Session) -> None:
    first, second = (insert(client, query=f"?requestId={ID}").json() for _ in range(2))
    assert first["name"] == second["name"]
    other = client.post(f"{BASE}/global/firewalls?requestId={ID}", json={"name": "f", "allowed": []})
    assert other.status_code == 400
    assert insert(client).status_code == 409


def test_a_lost_answer(google: Google, client: requests.Session) -> None:
    google.fail("compute.networks.insert", kind="after")
    with pytest.raises(requests.ConnectionError):
        insert(client, query=f"?requestId={ID}")
    assert google.thing("projects/example-project/global/networks/n") is not None
    assert insert(client, query=f"?requestId={ID}").status_code == 200


def test_a_dropped_connection(google: Google, client: requests.Session) -> None:
    google.fail("compute.networks.insert", kind="drop")
    with pytest.raises(requests.ConnectionError):
        insert(client)
    assert google.thing("projects/example-project/global/networks/n") is None
    assert insert(client).status_code == 200


def test_refusals_before_and_after(google: Google, client: requests.Session) -> None:
    google.fail("compute.networks.insert", 503, times=2, headers={"Retry-After": "1"})
    answers = [insert(client) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert answers[0].headers["Retry-After"] == "1"
    google.fail("compute.networks.insert", 500, kind="answer")
    assert insert(client, {**NETWORK, "name": "m"}).status_code == 500
    assert google.thing("projects/example-project/global/networks/m") is not None


def test_an_operation_that_ends_in_an_error_did_nothing(google: Google, client: requests.Session) -> None:
    google.fail("compute.networks.insert", 403, "QUOTA_EXCEEDED", "Quota 'NETWORKS' exceeded.", kind="operation")
    operation = insert(client).json()
    assert "error" not in operation
    assert state(client, operation) == "DONE"
    done = client.get(operation["selfLink"]).json()
    assert done["error"]["errors"] == [{"code": "QUOTA_EXCEEDED", "message": "Quota 'NETWORKS' exceeded."}]
    assert (done["httpErrorStatusCode"], done["httpErrorMessage"]) == (403, "PERMISSION DENIED")
    assert google.thing("projects/example-project/global/networks/n") is None


def test_an_operation_that_never_ends(google: Google, client: requests.Session) -> None:
    google.operation_seconds = 0.0
    google.fail("compute.networks.insert", kind="stuck")
    operation = insert(client).json()
    assert [state(client, operation) for _ in range(2)] == ["RUNNING", "RUNNING"]


def test_somebody_else_is_quicker(google: Google, client: requests.Session) -> None:
    google.before("compute.networks.insert", lambda _: google.call("compute.networks.insert", P, NETWORK) and None)
    refused = insert(client)
    assert (refused.status_code, refused.json()["error"]["errors"][0]["reason"]) == (409, "alreadyExists")


def test_real_work_runs_beside(google: Google) -> None:
    """As a machine's boot: the operation is done when the work is, and carries its error."""
    import threading

    go = threading.Event()
    made: list[dict[str, Any]] = []

    def work() -> None:
        go.wait(10)
        raise Refusal(400, "It does not boot.", "BOOT_FAILED")

    def begin(call: Any) -> None:
        made.append(google.operations.start(call, "projects/example-project/global/networks/n", "insert", work=work))

    google.before("compute.networks.list", begin)
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {google.token()}"
    assert session.get(NETWORKS).status_code == 200
    assert session.get(made[0]["selfLink"]).json()["status"] == "RUNNING"
    threading.Timer(0.05, go.set).start()
    done = session.post(f"{made[0]['selfLink']}/wait").json()
    assert (done["status"], done["error"]["errors"][0]["code"]) == ("DONE", "BOOT_FAILED")


def test_old_operations_are_forgotten(google: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.google.operations.KEPT", 3)
    for name in "abcdef":
        google.call("compute.networks.insert", {**P, "requestId": ID.replace("1", name)}, {"name": name})
    items = google.call("compute.globalOperations.list", P)["items"]
    assert sorted(item["targetLink"][-1] for item in items) == ["c", "d", "e", "f"]
    assert len(google.state.note("request ids")) == 4


def test_old_tokens_are_forgotten(google: Google) -> None:
    worthless = google.token(seconds=-100000)
    expired = google.token(seconds=-10)
    fresh = google.token()
    assert worthless not in google.state.note("tokens")
    assert {expired, fresh} == set(google.state.note("tokens"))
