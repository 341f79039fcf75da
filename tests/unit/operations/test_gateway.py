"""Who may in: the service that nginx asks, over its real socket, with real hashes and real signatures."""

from __future__ import annotations

import base64
import hmac
import http.client
import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    gateway,
    gateway_basic,
    gateway_iap,
    gateway_place,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.gateway_answer import Answer
from tests.certificates import certificate

ROOT = Path(__file__).resolve().parents[3]
AUDIENCE = "/projects/123/global/backendServices/456"
PASSWORD = "correct horse battery"
HASHES = {"ada": bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


# --- users and passwords ---


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def users(clock: Clock) -> gateway_basic.Basic:
    return gateway_basic.Basic(HASHES, "Dagster", clock)


def test_the_right_password_lets_in(users: gateway_basic.Basic) -> None:
    found = users.judge(basic("ada", PASSWORD), "192.0.2.1")
    assert (found.status, found.headers) == (204, {"X-Gateway-User": "ada"})


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Bearer abc",
        "Basic " + base64.b64encode(b"no colon").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
        "Basic " + base64.b64encode(b"ada:with\0nul").decode(),
        basic("ada", "")["Authorization"],
        basic("ada", "wrong horse battery")["Authorization"],
        basic("ada", PASSWORD + "x" * 72)["Authorization"],
        basic("ADA", PASSWORD)["Authorization"],
        basic("nobody", PASSWORD)["Authorization"],
        basic("", "")["Authorization"],
    ],
)
def test_everything_else_does_not(users: gateway_basic.Basic, header: str) -> None:
    found = users.judge({"Authorization": header}, "192.0.2.1")
    assert (found.status, found.headers["WWW-Authenticate"]) == (401, 'Basic realm="Dagster", charset="UTF-8"')


def counted(users: gateway_basic.Basic, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The hashes that passwords are compared with from now on."""
    made: list[bytes] = []

    def check(word: bytes, hashed: bytes) -> bool:
        made.append(hashed)
        return bcrypt.checkpw(word, hashed)

    monkeypatch.setattr(users, "_check", check)
    return made


def test_a_hash_is_made_once_and_then_remembered_for_a_while(
    users: gateway_basic.Basic, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = counted(users, monkeypatch)
    for _ in range(5):
        assert users.judge(basic("ada", PASSWORD), "192.0.2.1").status == 204
    assert len(made) == 1
    clock.now += gateway_basic.REMEMBERED + 1
    assert users.judge(basic("ada", PASSWORD), "192.0.2.1").status == 204
    assert len(made) == 2


def test_an_unknown_user_costs_a_hash_too(users: gateway_basic.Basic, monkeypatch: pytest.MonkeyPatch) -> None:
    made = counted(users, monkeypatch)
    users.judge(basic("nobody", PASSWORD), "192.0.2.1")
    assert len(made) == 1
    assert made[0].split(b"$")[2] == HASHES["ada"].encode().split(b"$")[2]


def test_guesses_of_one_address_are_few_and_nobody_else_waits(users: gateway_basic.Basic, clock: Clock) -> None:
    assert users.judge(basic("ada", PASSWORD), "192.0.2.7").status == 204
    statuses = [users.judge(basic("ada", f"guess number {n}"), "192.0.2.7").status for n in range(12)]
    assert statuses == [401] * gateway_basic.GUESSES + [403] * 2
    # Who is in stays in, another address is not meant, and the wait ends.
    assert users.judge(basic("ada", PASSWORD), "192.0.2.7").status == 204
    assert users.judge(basic("ada", "wrong horse battery"), "192.0.2.8").status == 401
    clock.now += gateway_basic.WINDOW + 1
    assert users.judge(basic("ada", "wrong horse battery"), "192.0.2.7").status == 401


def test_the_log_names_no_password_and_no_unknown_user(
    users: gateway_basic.Basic, capsys: pytest.CaptureFixture[str]
) -> None:
    users.judge(basic("ada", "canary-password"), "192.0.2.1")
    users.judge(basic("canary-password", "x"), "192.0.2.1")
    said = capsys.readouterr().err
    assert said == (
        "refused ada from 192.0.2.1: wrong password\nrefused an unknown user from 192.0.2.1: wrong password\n"
    )


# --- Google's Identity-Aware Proxy ---


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def published(key: ec.EllipticCurvePrivateKey) -> Iterator[tuple[str, dict[str, Any]]]:
    """A server of public keys: its address, and what it does, to change."""
    found: dict[str, Any] = {"keys": {"keys": [jwk(key, "one")]}, "asked": 0, "status": 200}

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found["asked"] += 1
            body = json.dumps(found["keys"]).encode()
            self.send_response(found["status"])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/public_key-jwk", found
    server.shutdown()


def jwk(key: ec.EllipticCurvePrivateKey, identifier: str) -> dict[str, Any]:
    public: dict[str, Any] = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
    return {**public, "kid": identifier, "alg": "ES256", "use": "sig"}


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    made = {
        "iss": "https://cloud.google.com/iap", "aud": AUDIENCE, "iat": now, "exp": now + 600,
        "sub": "accounts.google.com:1", "email": "ada@example.com",
    } | changes  # fmt: skip
    return {name: value for name, value in made.items() if value is not None}


@pytest.fixture
def iap(published: tuple[str, dict[str, Any]], clock: Clock) -> gateway_iap.Iap:
    return gateway_iap.Iap(AUDIENCE, gateway_iap.Keys(published[0], clock))


def signed_with(secret: bytes) -> str:
    """A token with a symmetric signature; the library refuses to make this one."""
    parts = [{"alg": "HS256", "typ": "JWT", "kid": "one"}, claims()]
    text = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    signature = hmac.digest(secret, text.encode(), "sha256")
    return f"{text}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def asked(iap: gateway_iap.Iap, token: str | None) -> int:
    return iap.judge({} if token is None else {gateway_iap.HEADER: token}, "192.0.2.1").status


def test_googles_signature_lets_in(iap: gateway_iap.Iap, key: ec.EllipticCurvePrivateKey) -> None:
    token = jwt.encode(claims(), key, "ES256", {"kid": "one"})
    found = iap.judge({gateway_iap.HEADER: token}, "192.0.2.1")
    assert (found.status, found.headers) == (204, {"X-Gateway-User": "ada@example.com"})


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "/projects/123/global/backendServices/457"},
        {"aud": None},
        {"iss": "https://accounts.google.com"},
        {"iss": None},
        {"exp": int(time.time()) - 3600},
        {"exp": None},
        {"iat": int(time.time()) + 3600},
        {"iat": None},
        {"email": None},
        {"email": "ada\r\nX-Gateway-User: root"},
        {"email": ""},
    ],
    ids=str,
)
def test_another_claim_is_refused(
    iap: gateway_iap.Iap, key: ec.EllipticCurvePrivateKey, changes: dict[str, Any]
) -> None:
    assert asked(iap, jwt.encode(claims(**changes), key, "ES256", {"kid": "one"})) == 403


def test_what_google_did_not_sign_is_refused(iap: gateway_iap.Iap, key: ec.EllipticCurvePrivateKey) -> None:
    good = jwt.encode(claims(), key, "ES256", {"kid": "one"})
    head, body, signature = good.split(".")
    other = base64.urlsafe_b64encode(json.dumps(claims(email="eve@example.com")).encode()).decode().rstrip("=")
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    forged = {
        "no header": None,
        "empty": "",
        "no token": "abc",
        "another key": jwt.encode(claims(), ec.generate_private_key(ec.SECP256R1()), "ES256", {"kid": "one"}),
        "an unknown key": jwt.encode(claims(), key, "ES256", {"kid": "two"}),
        "no key's id": jwt.encode(claims(), key, "ES256"),
        "no algorithm": jwt.encode(claims(), "", "none", {"kid": "one"}),
        "RSA": jwt.encode(claims(), rsa.generate_private_key(65537, 2048), "RS256", {"kid": "one"}),
        "the public key as a password": signed_with(public),
        "other claims under the signature": f"{head}.{other}.{signature}",
        "no signature": f"{head}.{body}.",
    }
    assert {what: asked(iap, token) for what, token in forged.items()} == dict.fromkeys(forged, 403)
    assert asked(iap, good) == 204


def test_keys_are_asked_for_rarely_and_a_new_one_is_found(
    published: tuple[str, dict[str, Any]], iap: gateway_iap.Iap, key: ec.EllipticCurvePrivateKey, clock: Clock
) -> None:
    _, server = published
    good = jwt.encode(claims(), key, "ES256", {"kid": "one"})
    assert [asked(iap, good) for _ in range(5)] == [204] * 5
    unknown = jwt.encode(claims(), key, "ES256", {"kid": "two"})
    assert [asked(iap, unknown) for _ in range(5)] == [403] * 5
    assert server["asked"] == 1
    server["keys"] = {"keys": [jwk(key, "one"), jwk(key, "two")]}
    clock.now += gateway_iap.AGAIN_SECONDS + 1
    assert asked(iap, unknown) == 204
    assert server["asked"] == 2
    # Google is away: what is known goes on.
    server["status"] = 500
    clock.now += gateway_iap.KEYS_SECONDS + 1
    assert asked(iap, good) == 204
    assert server["asked"] == 3


def test_without_any_key_nobody_comes_in(key: ec.EllipticCurvePrivateKey) -> None:
    iap = gateway_iap.Iap(AUDIENCE, gateway_iap.Keys("http://127.0.0.1:9/"))
    assert asked(iap, jwt.encode(claims(), key, "ES256", {"kid": "one"})) == 403


# --- the service itself ---


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, as nginx speaks it."""

    def __init__(self, path: Path) -> None:
        super().__init__("gateway", timeout=10)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


COMMAND = "import sys; from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import command; "


def started(path: Path, settings: Any) -> subprocess.Popen[str]:
    """The service as systemd starts it."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{COMMAND}sys.exit(command.main(['gateway', '--socket', {str(path)!r}]))"],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT / ".collections")},
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(settings if isinstance(settings, str) else json.dumps(settings))
    process.stdin.close()
    return process


def test_the_service_answers_on_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "login.sock"
    process = started(path, {"authentication": "basic", "realm": "Dagster", "users": HASHES})
    try:
        deadline = time.monotonic() + 60
        while not path.exists():
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.1)
        found = []
        for headers in ({}, basic("ada", PASSWORD), basic("ada", "wrong horse battery")):
            connection = UnixConnection(path)
            connection.request("GET", "/anything", headers={**headers, "X-Real-IP": "192.0.2.1"})
            answer = connection.getresponse()
            found.append((answer.status, answer.getheader("X-Gateway-User"), answer.read()))
        assert found == [(401, None, b""), (204, "ada", b""), (401, None, b"")]
        assert path.stat().st_mode & 0o777 == 0o660
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("", "as dagster-gce-gateway.service has it"),
        ("[]", "found list"),
        ({"authentication": "none"}, "found authentication 'none'"),
        ({"authentication": "basic"}, "the gateway lacks"),
        ({"authentication": "iap", "iap": {}}, "the gateway lacks"),
    ],
)
def test_settings_that_cannot_be_meant_end_it(tmp_path: Path, settings: Any, words: str) -> None:
    process = started(tmp_path / "login.sock", settings)
    assert process.wait(60) == 2
    assert process.stderr is not None
    assert words in process.stderr.read()


def test_a_mistake_of_ours_lets_nobody_in(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def judge(self, headers: object, address: str) -> Answer:
            raise RuntimeError("secret")

    path = tmp_path / "login.sock"
    with gateway.Server(str(path), Broken()) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connection = UnixConnection(path)
        connection.request("GET", "/", headers=basic("ada", PASSWORD))
        assert connection.getresponse().status == 403
        server.shutdown()
    assert capfd.readouterr().err == "refused: RuntimeError while looking at a request\n"


# --- the certificate's end ---


@pytest.mark.parametrize(
    ("days", "severity", "words"),
    [
        (90, None, ""),
        (15, "warning", "the certificate of dagster.test ends in 15 days; put a new one into"),
        (3, "critical", "ends in 3 days"),
        (-2, "critical", "has ended 2 days ago"),
    ],
)
def test_a_certificate_that_ends_soon_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int, severity: str | None, words: str
) -> None:
    made = certificate("dagster.test", days=days)
    (tmp_path / "certificate.pem").write_text(made.chain)
    state = {"name": "dagster.test", "certificate": str(tmp_path / "certificate.pem"), "acme": False}
    (tmp_path / "state").write_text(json.dumps(state))
    monkeypatch.setattr(gateway_place, "STATE", str(tmp_path / "state"))
    found = gateway_place.of_certificate()
    assert [each.severity for each in found] == ([severity] if severity else [])
    assert all(words in each.text for each in found)


def test_without_a_gateway_there_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_place, "STATE", str(tmp_path / "none"))
    assert gateway_place.of_certificate() == []


def test_a_certificate_that_cannot_be_read_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").write_text(json.dumps({"name": "x", "certificate": str(tmp_path / "none")}))
    monkeypatch.setattr(gateway_place, "STATE", str(tmp_path / "state"))
    assert [each.name for each in gateway_place.of_certificate()] == ["certificate"]
