"""A gateway in front of a machine's UI, and raw requests to it: nothing on the way to the wire tidies a path up."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.certificates import Certificate, certificate
from tests.e2e.harness import ROOT, Machine, Played

NAME = "dagster.test"
# What a gateway has on the machine.
FILES = "find /etc /usr/local /var/lib/dagster-gce -xdev -path '*gateway*' 2>/dev/null | sort"
# Seconds for an answer; a busy machine takes its time.
PATIENCE = 150
EDITOR, READER = "ada", "bob"
PASSWORDS = {EDITOR: "canary-horse-battery", READER: "canary-staple-battery"}


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Gateway:
    """The machine's gateway.

    Attributes:
        variables: what `site.yml` gets to make it.
    """

    machine: Machine
    certificate: Certificate = field(default_factory=lambda: certificate(NAME))
    address: str = ""
    variables: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Docker's bridges have addresses too; the machine's own is the one by which it goes out.
        route = json.loads(self.machine.ssh("ip -json route get 10.128.0.1"))
        self.address = route[0]["prefsrc"]
        self.variables = {
            "dagster_gateway_enabled": True,
            "dagster_gateway_name": NAME,
            "dagster_gateway_certificate": self.certificate.chain,
            "dagster_gateway_certificate_key": self.certificate.key,
            "dagster_gateway_users": PASSWORDS,
            "dagster_gateway_read_only_users": [READER],
            "dagster_read_only_webserver": True,
            # Three processes that import Dagster at once, on a machine that others use, too.
            "dagster_stack_wait_timeout": 600,
        }

    def role(self, *arguments: str, **variables: Any) -> Played:
        """Play the role alone, as a second run of `site.yml` would."""
        playbook = ROOT / "build" / "gateway.yml"
        playbook.parent.mkdir(exist_ok=True)
        roles = [f"dataops.dagster_gce.{name}" for name in ("dagster_command", "dagster_gateway")]
        playbook.write_text(
            yaml.safe_dump([{"hosts": "dagster", "become": True, "gather_facts": False, "roles": roles}])
        )
        return self.machine.play(str(playbook), *arguments, **(self.variables | variables))

    def trust(self) -> ssl.SSLContext:
        """A client's side that trusts the certificate's authority and nobody else."""
        return ssl.create_default_context(cadata=self.certificate.authority)

    def connect(self, name: str = NAME, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """A connection to the gateway's HTTPS port."""
        plain = socket.create_connection((self.address, 443), timeout=PATIENCE)
        return (context or self.trust()).wrap_socket(plain, server_hostname=name)

    def ask(
        self,
        path: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        user: str = "",
    ) -> Answer:
        """One request, with the path as it stands here; ``user`` logs in."""
        with self.connect() as connection:
            return _exchange(connection, path, method, {**(headers or {}), **(login(user) if user else {})}, body)

    def ask_plainly(self, path: str, method: str = "GET", port: int = 80, name: str = NAME) -> Answer:
        """The same without TLS."""
        with socket.create_connection((self.address, port), timeout=PATIENCE) as connection:
            return _exchange(connection, path, method, {"Host": name}, b"")

    def graphql(self, query: str, user: str, **variables: Any) -> Any:
        """Ask the webserver behind the gateway."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        answer = self.ask("/graphql", "POST", {"Content-Type": "application/json"}, body, user)
        assert answer.status == 200, answer
        assert "errors" not in answer.json, answer.json
        return answer.json["data"]

    def fingerprint(self) -> str:
        """By which a browser knows the one certificate that it shall not look further at (SPKI, SHA-256, base64)."""
        own = x509.load_pem_x509_certificates(self.certificate.chain.encode())[0]
        key = own.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(hashlib.sha256(key).digest()).decode()


def login(user: str) -> dict[str, str]:
    """The header of a login."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{PASSWORDS[user]}".encode()).decode()}


def _exchange(connection: socket.socket, path: str, method: str, headers: Mapping[str, str], body: bytes) -> Answer:
    head = {"Host": NAME, "Connection": "close", **({"Content-Length": str(len(body))} if body else {}), **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
    connection.sendall("\r\n".join(lines).encode("latin-1") + body)
    received = b""
    while b"\r\n\r\n" not in received and (piece := connection.recv(65536)):
        received += piece
    text, _, rest = received.partition(b"\r\n\r\n")
    first, *others = text.decode("latin-1").split("\r\n")
    found = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in others)}
    status = int(first.split()[1])
    # After a switch of protocols the connection stays open, and where a test asks for another one than `close`.
    length = 0 if status == 101 or method == "HEAD" else int(found.get("content-length", 1 << 40))
    while len(rest) < length and (piece := connection.recv(65536)):
        rest += piece
    return Answer(status, found, rest)
