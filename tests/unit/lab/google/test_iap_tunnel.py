"""IAP's tunnel: who may open one, what it leads to, what it carries.

The client is the library websockets, without TLS: it reads and writes in two threads, which no TLS connection of
Python's survives for long. gcloud comes over TLS (tests/e2e/judges).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from lab.google import Google, websocket
from lab.google.iap_tunnel import PIECE, lets_in

PLACE = {"project": "example-project", "zone": "europe-west3-c"}
TARGET = {**PLACE, "instance": "vm", "interface": "nic0", "port": "22"}
PATH = "projects/example-project/zones/europe-west3-c/instances/vm"
NETWORK = "https://www.googleapis.com/compute/v1/projects/example-project/global/networks/net"
BOOT = {
    "boot": True,
    "autoDelete": True,
    "initializeParams": {"sourceImage": "projects/debian-cloud/global/images/family/debian-13"},
}
ACCESSOR = "roles/iap.tunnelResourceAccessor"


class Echo:
    """A TCP server that gives back what it gets and closes at the word ``end``."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    def stop(self) -> None:
        """Listen no more; closing alone would not end the wait for a connection."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                while (data := connection.recv(65536)) and data != b"end":
                    connection.sendall(data)


@pytest.fixture
def echo(google: Google) -> Iterator[Echo]:
    """An instance that IAP may reach, with the echo server at its port 22."""
    server = Echo()
    project, region = {"project": "example-project"}, {"project": "example-project", "region": "europe-west3"}
    subnetwork = {"name": "sub", "network": "global/networks/net", "ipCidrRange": "10.20.0.0/29"}
    machine = {
        "name": "vm",
        "machineType": "zones/europe-west3-c/machineTypes/e2-small",
        "disks": [BOOT],
        "networkInterfaces": [{"subnetwork": "regions/europe-west3/subnetworks/sub"}],
        "tags": {"items": ["dagster"]},
    }
    google.call("compute.networks.insert", project, {"name": "net", "autoCreateSubnetworks": False})
    google.call("compute.subnetworks.insert", region, subnetwork)
    google.call("compute.instances.insert", PLACE, machine)
    google.call("compute.firewalls.insert", project, firewall())
    google.state.note("ports")[f"{PATH}:22"] = list(server.listener.getsockname())
    yield server
    server.stop()


def firewall(**fields: Any) -> dict[str, Any]:
    return {
        "name": "ssh",
        "network": "projects/example-project/global/networks/net",
        "allowed": [{"IPProtocol": "tcp", "ports": ["22"]}],
        "sourceRanges": ["35.235.240.0/20"],
        "targetTags": ["dagster"],
        **fields,
    }


@contextlib.contextmanager
def tunnel(
    google: Google, token: str | None = None, path: str = "connect", **target: str
) -> Iterator[ClientConnection]:
    with connect(
        f"ws://tunnel.cloudproxy.app/v4/{path}?{urlencode({**TARGET, **target})}",
        subprotocols=[Subprotocol("relay.tunnel.cloudproxy.app")],
        additional_headers={"Authorization": f"Bearer {token or google.token()}"},
        sock=socket.create_connection(("127.0.0.1", google.port), 10),
        proxy=None,
        compression=None,
    ) as client:
        yield client


def message(client: ClientConnection) -> tuple[int, bytes]:
    """The next message: its tag and what it holds."""
    got = client.recv(timeout=10)
    assert isinstance(got, bytes)
    return int.from_bytes(got[:2]), got[2:]


def say(client: ClientConnection, data: bytes) -> None:
    client.send(struct.pack(">HI", 4, len(data)) + data)


@contextlib.contextmanager
def opened(google: Google, token: str | None = None) -> Iterator[ClientConnection]:
    with tunnel(google, token) as client:
        tag, sid = message(client)
        assert tag == 1
        assert int.from_bytes(sid[:4]) == len(sid) - 4 > 0
        yield client


def closed(client: ClientConnection) -> tuple[int, str]:
    """The code and the reason with which the tunnel ends."""
    with contextlib.suppress(ConnectionClosed):
        while client.recv(timeout=10):
            pass
    assert client.close_code is not None
    return client.close_code, client.close_reason or ""


def refused(google: Google, token: str | None = None, **given: str) -> tuple[int, str]:
    """The same, where it ends before it has begun."""
    with tunnel(google, token, **given) as client:
        return closed(client)


def test_it_carries_bytes_both_ways(google: Google, echo: Echo) -> None:
    with opened(google) as client:
        say(client, b"hello")
        assert message(client) == (4, struct.pack(">I", 5) + b"hello")
        client.send(struct.pack(">HQ", 7, 5))
        assert client.ping().wait(10)
        say(client, b"end")
        assert closed(client) == (4010, "destination read failed")
    assert google.tunnels == [TARGET]


def test_much_in_both_directions_arrives_in_order_and_is_acknowledged(google: Google, echo: Echo) -> None:
    sent = os.urandom(100 * PIECE)
    with opened(google) as client:

        def fill() -> None:
            for start in range(0, len(sent), PIECE):
                say(client, sent[start : start + PIECE])

        writer = threading.Thread(target=fill, daemon=True)
        writer.start()
        received, confirmed = b"", 0
        while len(received) < len(sent) or confirmed < len(sent):
            tag, held = message(client)
            if tag == 7:
                confirmed = int.from_bytes(held)
                continue
            assert int.from_bytes(held[:4]) == len(held) - 4 <= PIECE
            received += held[4:]
        writer.join(10)
    assert received == sent
    assert confirmed == len(sent)


@pytest.mark.parametrize(
    ("given", "end"),
    [
        (struct.pack(">HI", 4, 9) + b"short", (4013, "invalid data")),
        (struct.pack(">HI", 4, PIECE + 1) + bytes(PIECE + 1), (4013, "invalid data")),
        (struct.pack(">HQ", 7, 1000), (4006, "invalid ack")),
        (b"\xff\xff", (4008, "invalid tag")),
        ("text", (4007, "invalid websocket opcode")),
    ],
)
def test_what_is_no_message_ends_it(google: Google, echo: Echo, given: bytes | str, end: tuple[int, str]) -> None:
    with opened(google) as client:
        client.send(given)
        assert closed(client) == end


def test_a_message_in_several_frames_is_one(google: Google, echo: Echo) -> None:
    with opened(google) as client:
        client.send([struct.pack(">HI", 4, 5), b"he", b"llo"])
        assert message(client)[1][4:] == b"hello"


def test_without_the_permission_nobody_comes_in(google: Google, echo: Echo) -> None:
    stranger = google.token("ada@example.com")
    assert refused(google, stranger) == (4033, "not authorized")
    where = {"resource": "projects/example-project/iap_tunnel/zones/europe-west3-c/instances/vm"}
    google.call(
        "iap.setIamPolicy",
        where,
        {"policy": {"bindings": [{"role": ACCESSOR, "members": ["user:ada@example.com"]}]}},
    )
    with opened(google, stranger):
        pass
    google.revoke("iap.tunnelInstances.accessViaIAP")
    assert refused(google) == (4033, "not authorized")


def test_a_token_that_is_worth_nothing_gets_no_websocket(google: Google, echo: Echo) -> None:
    for token in ("nonsense", google.token(scopes=["https://www.googleapis.com/auth/compute"])):
        with pytest.raises(InvalidStatus) as caught, tunnel(google, token):
            pass
        assert caught.value.response.status_code == 401


@pytest.mark.parametrize(("target", "status"), [({"port": ""}, 400), ({"port": "ssh"}, 400), ({"path": "other"}, 404)])
def test_a_request_that_lacks_something_is_refused(
    google: Google, echo: Echo, target: dict[str, str], status: int
) -> None:
    with pytest.raises(InvalidStatus) as caught, tunnel(google, **target):
        pass
    assert caught.value.response.status_code == status


def test_an_instance_that_is_not_there_or_off_is_not_found(google: Google, echo: Echo) -> None:
    lost = (4047, "Failed to lookup instance")
    assert refused(google, instance="other") == lost
    assert refused(google, interface="nic1") == lost
    google.call("compute.instances.stop", {**PLACE, "instance": "vm"})
    assert refused(google) == lost


def test_a_port_that_is_shut_and_one_behind_the_firewall(google: Google, echo: Echo) -> None:
    failed = (4003, "failed to connect to backend")
    assert refused(google, port="3000") == failed
    rule = {"project": "example-project", "firewall": "ssh"}
    google.call("compute.firewalls.patch", rule, {"name": "ssh", "sourceRanges": ["10.0.0.0/8"]})
    assert refused(google) == failed
    google.call("compute.firewalls.patch", rule, {"name": "ssh", "sourceRanges": ["0.0.0.0/0"]})
    with opened(google):
        pass
    echo.stop()
    assert refused(google) == failed


def test_a_tunnel_is_not_taken_up_again(google: Google, echo: Echo) -> None:
    assert refused(google, path="reconnect", sid="lab", ack="0") == (4001, "sid unknown")


ALLOW = {**firewall(), "network": NETWORK, "direction": "INGRESS", "priority": 1000}
DENY = {name: value for name, value in ALLOW.items() if name != "allowed"} | {"denied": [{"IPProtocol": "all"}]}
INSTANCE = {"tags": {"items": ["dagster"]}, "serviceAccounts": [{"email": "a@example.com"}]}


@pytest.mark.parametrize(
    ("rules", "open_"),
    [
        ([], False),
        ([ALLOW], True),
        ([{**ALLOW, "disabled": True}], False),
        ([{**ALLOW, "direction": "EGRESS"}], False),
        ([{**ALLOW, "network": f"{NETWORK}-2"}], False),
        ([{**ALLOW, "targetTags": ["other"]}], False),
        ([{**ALLOW, "targetServiceAccounts": ["b@example.com"]}], False),
        ([{**ALLOW, "targetServiceAccounts": ["a@example.com"]}], True),
        ([{**ALLOW, "sourceRanges": ["35.235.240.0/24"]}], False),
        ([{**ALLOW, "sourceRanges": ["::/0"]}], False),
        ([{**ALLOW, "allowed": [{"IPProtocol": "udp"}]}], False),
        ([{**ALLOW, "allowed": [{"IPProtocol": "tcp", "ports": ["80", "20-22"]}]}], True),
        ([{**ALLOW, "allowed": [{"IPProtocol": "all"}]}], True),
        ([ALLOW, DENY], False),
        ([ALLOW, {**DENY, "priority": 1001}], True),
        ([ALLOW, {**DENY, "sourceRanges": ["35.235.255.0/24"]}], False),
        ([ALLOW, {**DENY, "sourceRanges": ["10.0.0.0/8"]}], True),
    ],
)
def test_which_rules_let_iap_in(rules: list[dict[str, Any]], open_: bool) -> None:
    assert lets_in(rules, INSTANCE, NETWORK, 22) is open_


def test_a_frame_without_a_mask_is_a_mistake() -> None:
    with pytest.raises(websocket.ProtocolError, match="not masked"):
        list(websocket.Reader().messages(websocket.frame(websocket.BINARY, b"x")))
