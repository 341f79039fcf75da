"""The gateway's other logins and certificates, and its end: what test_gateway.py has begun."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.browser.gateway import EDITOR, FILES, NAME, READER, Gateway, login
from tests.certificates import certificate
from tests.e2e.harness import Machine, long_form, wait

AUDIENCE = "/projects/123/global/backendServices/456"
HEADER = "X-Goog-IAP-JWT-Assertion"
PLACE = "/run/gateway-test"
KEYS_PORT, PROXY_PORT, AUTHORITY_PORT = 8097, 8098, 14000
# Three answers of oauth2-proxy's: who is there, nobody, and where to log in. Itself it is no package of Debian's.
PROXY = """
import http.server
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        user = (self.headers.get("Cookie") or "").partition("_oauth2_proxy=")[2]
        path = self.path.partition("?")[0]
        self.send_response({"/oauth2/auth": 202 if user else 401, "/oauth2/start": 200}.get(path, 404))
        if user:
            self.send_header("X-Auth-Request-Email", user)
        self.send_header("Content-Length", "0")
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Answers).serve_forever()
"""
MUTATION = "mutation { reloadWorkspace { __typename } }"
REFUSED = {"reloadWorkspace": {"__typename": "UnauthorizedError"}}


@pytest.fixture(scope="module", autouse=True)
def place(machine: Machine, gateway: Gateway) -> Iterator[str]:
    """A folder on the machine, and the end of what runs from it."""
    machine.ssh(f"mkdir -p {PLACE}")
    yield PLACE
    # Docker has /etc/hosts mounted, so it cannot be replaced.
    hosts = 'hosts=$(grep -v acme-test /etc/hosts); echo "$hosts" >/etc/hosts'
    machine.ssh(f"systemctl stop 'gateway-test-*'; rm -rf {PLACE}; {hosts}")


def put(machine: Machine, name: str, text: str) -> str:
    """A file in that folder."""
    machine.ssh(f"cat >{PLACE}/{name} <<'GATEWAY_TEST'\n{text}\nGATEWAY_TEST")
    return f"{PLACE}/{name}"


def run(machine: Machine, name: str, command: str) -> None:
    """Run a command in the background of the machine."""
    machine.ssh(f"systemd-run --quiet --collect --unit=gateway-test-{name} {command}")


def mutate(gateway: Gateway, headers: dict[str, str]) -> Any:
    """What comes of a change."""
    body = json.dumps({"query": MUTATION}).encode()
    answer = gateway.ask("/graphql", "POST", {"Content-Type": "application/json", **headers}, body)
    assert answer.status == 200, answer
    return answer.json["data"]


def test_googles_proxy_lets_in_by_its_signature_alone(gateway: Gateway, machine: Machine) -> None:
    key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    public = {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())), "kid": "one"}
    put(machine, "keys.json", json.dumps({"keys": [public]}))
    run(machine, "keys", f"python3 -m http.server --bind 127.0.0.1 --directory {PLACE} {KEYS_PORT}")
    played = gateway.role(
        dagster_gateway_authentication="iap",
        dagster_gateway_iap_audience=AUDIENCE,
        dagster_gateway_iap_keys_url=f"http://127.0.0.1:{KEYS_PORT}/keys.json",
        dagster_gateway_read_only_users=["bob@example.com"],
    )
    played.ok()

    def header(email: str, signer: ec.EllipticCurvePrivateKey = key, **changes: Any) -> dict[str, str]:
        now = int(time.time())
        claims = {
            "iss": "https://cloud.google.com/iap", "aud": AUDIENCE, "iat": now, "exp": now + 600, "sub": "1",
            "email": email,
        }  # fmt: skip
        return {HEADER: jwt.encode(claims | changes, signer, "ES256", {"kid": "one"})}

    good = header("ada@example.com")
    assert gateway.ask("/server_info", headers=good).status == 200
    assert mutate(gateway, good)["reloadWorkspace"]["__typename"] == "Workspace"
    # Mail addresses do not differ by case.
    assert mutate(gateway, header("Bob@Example.com")) == REFUSED
    for headers in (
        {},
        login(EDITOR),
        {"X-Goog-Authenticated-User-Email": "accounts.google.com:ada@example.com"},
        header("ada@example.com", other),
        header("ada@example.com", aud="/projects/123/global/backendServices/457"),
        {HEADER: jwt.encode({"email": "ada@example.com"}, "", "none", {"kid": "one"})},
        {"x_goog_iap_jwt_assertion": good[HEADER]},
    ):
        for path in ("/server_info", "/graphql", "/-/gateway/health/../../server_info"):
            answer = gateway.ask(path, headers=headers)
            # GraphQL by GET is refused to everybody, before anybody is asked who it is.
            assert answer.status == (405 if path == "/graphql" else 403), (headers, answer)
    # The load balancer's health check says no name, and learns nothing.
    loose = ssl.create_default_context()
    loose.check_hostname, loose.verify_mode = False, ssl.CERT_NONE
    with gateway.connect(gateway.address, loose) as connection:
        connection.sendall(b"GET /-/gateway/health HTTP/1.1\r\nHost: 10.0.0.1\r\nConnection: close\r\n\r\n")
        said = connection.recv(65536)
        while piece := connection.recv(65536):
            said += piece
    assert said.startswith(b"HTTP/1.1 200 ")
    assert said.endswith(b"\r\n\r\nok\n")
    assert gateway.ask("/server_info", headers={**good, "Host": "10.0.0.1"}).status == 421


@long_form
def test_an_openid_connect_proxy_decides(gateway: Gateway, machine: Machine) -> None:
    """Against a stand-in that gives oauth2-proxy's answers."""
    program = put(machine, "proxy.py", PROXY.replace("PORT", str(PROXY_PORT)))
    run(machine, "proxy", f"python3 {program}")
    gateway.role(
        dagster_gateway_authentication="oidc",
        dagster_gateway_oidc_url=f"http://127.0.0.1:{PROXY_PORT}",
        dagster_gateway_editors=["ada@example.com"],
        dagster_gateway_read_only_users=[],
    ).ok()
    assert "gateway" not in machine.ssh("ls /etc/systemd/system/dagster-gce-*")
    for path in ("/runs", "/server_info", "//oauth2/../server_info", "/oauth2/%2e%2e/server_info"):
        answer = gateway.ask(path, headers={"X-Auth-Request-Email": "ada@example.com"})
        assert (answer.status, answer.body.count(b"version")) == (302, 0)
        assert answer.headers["location"].startswith(f"https://{NAME}/oauth2/start?rd=")
    assert gateway.ask("/oauth2/start").status == 200
    assert gateway.ask("/oauth2/auth").status == 404
    ada, eve = ({"Cookie": f"_oauth2_proxy={user}@example.com"} for user in ("ada", "eve"))
    assert gateway.ask("/server_info", headers=ada).status == 200
    assert mutate(gateway, ada)["reloadWorkspace"]["__typename"] == "Workspace"
    assert mutate(gateway, eve) == REFUSED
    assert gateway.ask("/server_info", headers=ada).headers["strict-transport-security"]
    machine.ssh("systemctl stop gateway-test-proxy")
    assert gateway.ask("/server_info", headers=ada).status == 500


@long_form
def test_an_authority_gives_the_certificate(gateway: Gateway, machine: Machine) -> None:
    """Pebble, the ACME server that Let's Encrypt's own tests use, asks the name's port 80 for the proof."""
    machine.ssh("DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends pebble", timeout=300)
    own = certificate("authority.acme-test")
    settings = {
        "listenAddress": f"127.0.0.1:{AUTHORITY_PORT}", "managementListenAddress": "127.0.0.1:15000",
        "certificate": put(machine, "authority.pem", own.chain), "privateKey": put(machine, "authority.key", own.key),
        "httpPort": 80, "tlsPort": 443, "ocspResponderURL": "", "externalAccountBindingRequired": False,
    }  # fmt: skip
    put(machine, "pebble.json", json.dumps({"pebble": settings}))
    machine.ssh(f"echo 127.0.0.1 authority.acme-test {NAME} >>/etc/hosts")
    run(machine, "authority", f"--setenv=PEBBLE_VA_NOSLEEP=1 /usr/bin/pebble -config {PLACE}/pebble.json")
    variables = {
        "dagster_gateway_certificate_from": "acme",
        "dagster_gateway_certificate": "",
        "dagster_gateway_certificate_key": "",
        "dagster_gateway_acme_directory": f"https://authority.acme-test:{AUTHORITY_PORT}/dir",
        "dagster_gateway_acme_mail": "ops@example.com",
        "dagster_gateway_acme_ca_file": put(machine, "root.pem", own.authority),
    }
    gateway.role(**variables).ok()
    loose = ssl.create_default_context()
    loose.check_hostname, loose.verify_mode = False, ssl.CERT_NONE

    def serial() -> bytes:
        with gateway.connect(context=loose) as connection:
            return connection.getpeercert(binary_form=True) or b""

    first = serial()
    assert "Pebble" in machine.ssh("openssl x509 -noout -issuer -in /etc/letsencrypt/live/dagster-gateway/cert.pem")
    assert machine.ssh("ls /etc/dagster-gce/gateway").split() == ["login", "state"]
    assert gateway.role(**variables).ok().changed == 0
    # What the timer does a month before the end.
    assert f"REQUESTS_CA_BUNDLE={PLACE}/root.pem" in machine.ssh(
        "systemctl show certbot.service --property=Environment"
    )
    assert machine.ssh("systemctl is-active certbot.timer").strip() == "active"
    renew = "certbot renew --quiet --force-renewal --no-random-sleep-on-renew"
    machine.ssh(f"REQUESTS_CA_BUNDLE={PLACE}/root.pem {renew}", timeout=300)
    wait(lambda: serial() != first, 60, "the renewed certificate")
    gateway.role().ok()
    assert machine.ssh("ls -A /etc/letsencrypt/live 2>/dev/null | grep -v README || true") == ""
    assert gateway.ask("/server_info", user=EDITOR).status == 200
    assert gateway.ask("/server_info", user=READER).status == 200


def test_switched_off_it_leaves_nothing(gateway: Gateway, machine: Machine) -> None:
    played = machine.play("site.yml", "--diff").ok()
    assert played.changed > 0
    assert machine.ssh(FILES) == ""
    assert machine.ssh("docker ps -aq --filter name=read-only") == ""
    listening = {line.split()[3].rpartition(":")[2] for line in machine.ssh("ss -Hlnt").splitlines()}
    assert not listening & {"80", "443", "3001"}
    assert machine.ssh("systemctl is-enabled nginx || true").strip() == "disabled"
    assert "443" not in machine.ssh("nft list chain inet dagster_gce input")
