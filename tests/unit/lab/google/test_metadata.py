"""The metadata server: what each machine sees of itself."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from lab.google import Google
from lab.google.metadata import MetadataServer, dashed
from lab.google.metadata_source import StateSource

ZONE = "europe-west3-c"
PLACE = {"project": "example-project", "zone": ZONE}
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
EMAIL = "dagster-vm@example-project.iam.gserviceaccount.com"
GOOGLE = {"Metadata-Flavor": "Google"}


class Metadata:
    """The server, asked as the machine whose address this computer's is made to be."""

    def __init__(self, google: Google) -> None:
        self.google = google
        self.server = MetadataServer(Local(google)).start()
        self.session = requests.Session()
        self.session.trust_env = False

    def get(self, path: str, headers: dict[str, str] | None = None, **query: str) -> requests.Response:
        url = f"http://{self.server.address}/computeMetadata/v1/{path}"
        return self.session.get(
            url, headers=GOOGLE if headers is None else headers, params=query, timeout=20, allow_redirects=False
        )

    def put(self, path: str, text: str) -> int:
        url = f"http://{self.server.address}/computeMetadata/v1/{path}"
        return self.session.put(url, data=text, headers=GOOGLE, timeout=20).status_code


class Local(StateSource):
    """Whoever asks from this computer is the one machine that there is."""

    def instance_at(self, address: str) -> dict[str, object] | None:
        assert address == "127.0.0.1"
        return super().instance_at("10.128.0.2")


@pytest.fixture
def metadata(google: Google) -> Iterator[Metadata]:
    project = {"project": "example-project"}
    google.call("compute.networks.insert", project, {"name": "net", "autoCreateSubnetworks": False})
    google.call(
        "compute.subnetworks.insert",
        {**project, "region": "europe-west3"},
        {"name": "sub", "network": "global/networks/net", "ipCidrRange": "10.128.0.0/20"},
    )
    account = {"accountId": "dagster-vm"}
    google.call("iam.projects.serviceAccounts.create", {"name": "projects/example-project"}, account)
    google.call(
        "compute.instances.insert",
        PLACE,
        {
            "name": "vm",
            "machineType": f"zones/{ZONE}/machineTypes/e2-small",
            "disks": [{"boot": True, "initializeParams": {}}],
            "networkInterfaces": [{"subnetwork": "regions/europe-west3/subnetworks/sub"}],
            "metadata": {"items": [{"key": "ssh-keys", "value": "ada:ssh-ed25519 AAAA ada"}]},
            "serviceAccounts": [{"email": EMAIL, "scopes": [SCOPE]}],
            "tags": {"items": ["dagster"]},
        },
    )
    found = Metadata(google)
    yield found
    found.server.stop()


def set_metadata(google: Google, **items: str) -> None:
    """Replace the instance's metadata."""
    vm = {**PLACE, "instance": "vm"}
    seen = google.call("compute.instances.get", vm)["metadata"]["fingerprint"]
    given = [{"key": key.replace("_", "-"), "value": value} for key, value in items.items()]
    google.call("compute.instances.setMetadata", vm, {"fingerprint": seen, "items": given})


@pytest.mark.parametrize("headers", [{}, {"Metadata-Flavor": "other"}, {**GOOGLE, "X-Forwarded-For": "10.0.0.1"}])
def test_only_who_says_so_is_answered(metadata: Metadata, headers: dict[str, str]) -> None:
    answer = metadata.get("instance/service-accounts/default/token", headers=headers)
    assert answer.status_code == 403
    assert "ya29" not in answer.text


def test_an_address_that_no_machine_has(google: Google) -> None:
    server = MetadataServer(StateSource(google)).start()
    try:
        answer = requests.get(f"http://{server.address}/computeMetadata/v1/", headers=GOOGLE, timeout=5)
        assert answer.status_code == 403
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("", "instance/\noslogin/\nproject/\n"),
        ("instance/name", "vm"),
        ("instance/zone", "projects/100000000001/zones/europe-west3-c"),
        ("instance/machine-type", "projects/100000000001/machineTypes/e2-small"),
        ("instance/hostname", "vm.europe-west3-c.c.example-project.internal"),
        ("instance/tags", '["dagster"]'),
        ("instance/attributes/ssh-keys", "ada:ssh-ed25519 AAAA ada"),
        ("instance/network-interfaces/0/ip", "10.128.0.2"),
        ("instance/service-accounts/", f"{EMAIL}/\ndefault/\n"),
        ("instance/service-accounts/default/email", EMAIL),
        ("instance/service-accounts/default/scopes", f"{SCOPE}\n"),
        ("project/project-id", "example-project"),
        ("project/numeric-project-id", "100000000001"),
        ("instance//name", "vm"),
    ],
)
def test_paths(metadata: Metadata, path: str, text: str) -> None:
    answer = metadata.get(path)
    assert (answer.status_code, answer.text) == (200, text)
    assert answer.headers["Metadata-Flavor"] == "Google"


def test_folders_and_what_is_not_there(metadata: Metadata) -> None:
    assert metadata.get("instance/nothing").status_code == 404
    moved = metadata.get("instance")
    assert (moved.status_code, moved.headers["Location"].endswith("/computeMetadata/v1/instance/")) == (301, True)


def test_all_at_once(metadata: Metadata) -> None:
    found = metadata.get("", recursive="true", alt="json").json()
    assert found["instance"]["attributes"] == {"ssh-keys": "ada:ssh-ed25519 AAAA ada"}
    assert found["instance"]["networkInterfaces"][0]["ip"] == "10.128.0.2"
    assert found["instance"]["serviceAccounts"]["default"]["email"] == EMAIL
    assert found["project"]["projectId"] == "example-project"
    text = metadata.get("project/", recursive="true", alt="text").text
    assert "project-id example-project\n" in text


def test_a_change_wakes_who_waits(metadata: Metadata, google: Google) -> None:
    first = metadata.get("instance/attributes/", recursive="true", wait_for_change="true", last_etag="NONE")
    assert first.json() == {"ssh-keys": "ada:ssh-ed25519 AAAA ada"}
    threading.Timer(0.3, set_metadata, [google], {"ssh_keys": "eve:ssh-ed25519 BBBB eve"}).start()
    known: dict[str, Any] = {"wait_for_change": "true", "last_etag": first.headers["ETag"], "recursive": "true"}
    start = time.monotonic()
    second = metadata.get("instance/attributes/", timeout_sec="15", **known)
    assert second.json() == {"ssh-keys": "eve:ssh-ed25519 BBBB eve"}
    assert 0.2 < time.monotonic() - start < 5


def test_without_a_change_the_wait_ends(metadata: Metadata) -> None:
    first = metadata.get("instance/", recursive="true")
    known: dict[str, Any] = {"wait_for_change": "true", "last_etag": first.headers["ETag"], "recursive": "true"}
    assert metadata.get("instance/", timeout_sec="1", **known).json() == first.json()


def test_the_token_is_the_service_accounts(metadata: Metadata, google: Google) -> None:
    token = metadata.get("instance/service-accounts/default/token").json()
    assert token["token_type"] == "Bearer"
    assert 3500 < token["expires_in"] <= 3600
    known = google.state.note("tokens")[token["access_token"]]
    assert (known["email"], known["scopes"]) == (EMAIL, [SCOPE])
    assert metadata.get(f"instance/service-accounts/{EMAIL}/token").json()["access_token"] == token["access_token"]
    assert metadata.get("instance/service-accounts/other/token").status_code == 404
    google.expire_tokens()
    assert metadata.get("instance/service-accounts/default/token").json()["access_token"] != token["access_token"]


def test_guest_attributes_only_where_they_are_on(metadata: Metadata, google: Google) -> None:
    assert metadata.put("instance/guest-attributes/hostkeys/ssh-ed25519", "AAAA") == 403
    set_metadata(google, enable_guest_attributes="TRUE")
    assert metadata.put("instance/guest-attributes/hostkeys/ssh-ed25519", "AAAA") == 200
    assert metadata.put("instance/guest-attributes/hostkeys", "AAAA") == 400
    assert metadata.get("instance/guest-attributes/hostkeys/ssh-ed25519").text == "AAAA"
    found = google.call(
        "compute.instances.getGuestAttributes", {**PLACE, "instance": "vm", "queryPath": "hostkeys/ssh-ed25519"}
    )
    assert found["queryValue"]["items"] == [{"namespace": "hostkeys", "key": "ssh-ed25519", "value": "AAAA"}]


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::"])
def test_it_listens_on_one_address(google: Google, host: str) -> None:
    with pytest.raises(ValueError, match="expected one of the lab's network"):
        MetadataServer(StateSource(google), host)


def test_a_waiting_machine_does_not_keep_the_server(metadata: Metadata) -> None:
    with socket.create_connection(("127.0.0.1", metadata.server.port)) as waiting:
        waiting.sendall(
            b"GET /computeMetadata/v1/instance/?recursive=true&wait_for_change=true HTTP/1.1\r\n"
            b"Host: x\r\nMetadata-Flavor: Google\r\n\r\n"
        )
        time.sleep(0.3)
        start = time.monotonic()
        metadata.server.stop()
        assert time.monotonic() - start < 3


@pytest.mark.parametrize(
    ("key", "path"),
    [("networkInterfaces", "network-interfaces"), ("ip", "ip"), ("numericProjectId", "numeric-project-id")],
)
def test_spelling(key: str, path: str) -> None:
    assert dashed(key) == path
