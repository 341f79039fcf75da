"""gcloud's tunnel through IAP: the way on which `gce_ssh_via: iap` sends SSH."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.e2e.cloud import Cloud
from tests.e2e.judges.gcloud import Gcloud

TUNNEL = "compute start-iap-tunnel dagster-e2e 22 --listen-on-stdin --verbosity=warning"


@pytest.fixture
def port(cloud: Cloud) -> Iterator[socket.socket]:
    """A server behind port 22 of the machine that gives back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(65536):
                    connection.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        where = f"{cloud.path('instances', cloud.host)}:22"
        cloud.google.state.note("ports")[where] = list(listener.getsockname())
        yield listener


def test_bytes_go_through_and_come_back(cloud: Cloud, port: socket.socket, gcloud: Gcloud) -> None:
    sent = os.urandom(200_000)
    with subprocess.Popen(
        ["gcloud", *TUNNEL.split()], env=gcloud.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as tunnel:  # fmt: skip
        assert tunnel.stdin
        assert tunnel.stdout
        stopper = threading.Timer(60, tunnel.kill)
        stopper.start()
        tunnel.stdin.write(sent)
        tunnel.stdin.flush()
        assert tunnel.stdout.read(len(sent)) == sent
        tunnel.stdin.close()
        assert tunnel.wait(60) == 0
        stopper.cancel()
    asked = cloud.google.tunnels[-1]
    assert asked["instance"] == cloud.host
    assert asked["port"] == "22"


def test_what_google_refuses_is_understood(cloud: Cloud, gcloud: Gcloud) -> None:
    def says() -> str:
        return gcloud.call(TUNNEL).stderr

    cloud.google.revoke("iap.tunnelInstances.accessViaIAP")
    assert "Error while connecting [4033: 'not authorized']" in says()
    cloud.google.grant("iap.tunnelInstances.accessViaIAP")
    # Nobody listens.
    assert "[4003: 'failed to connect to backend']. (Failed to connect to port 22)" in says()
    cloud.behind_our_back("compute.instances.stop")
    assert "[4047: 'Failed to lookup instance']" in says()
