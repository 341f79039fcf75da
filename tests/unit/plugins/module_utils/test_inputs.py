"""The rules, one table of good and bad values each."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from ansible_collections.dataops.dagster_gce.plugins.module_utils import inputs
from ansible_collections.dataops.dagster_gce.plugins.module_utils.inputs_postgres import QUOTED_WORDS
from tests.certificates import certificate

DIGEST = "sha256:" + "0123456789abcdef" * 4

CERTIFICATE, OTHER = certificate("dagster.test", "*.dagster.test"), certificate("other.test")
EXPIRED = certificate("dagster.test", days=-1)
LOCKED = ec.generate_private_key(ec.SECP256R1()).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"locked")
)

GOOD: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "absolute_path": ({}, ["/opt/dagster", "/a b/ü", "/opt//dagster/"]),
    "boolean": ({}, [True, False, "true", "No", "1"]),
    "certificate": ({"name": "ui.dagster.test"}, [CERTIFICATE.chain, CERTIFICATE.chain.replace("\n", "\r\n")]),
    "cidr": ({"longest": 29}, ["10.20.0.0/24", "0.0.0.0/0", "10.0.0.8/29"]),
    "choice": ({"choices": ["docker", "distro", 13]}, ["docker", 13]),
    "dotenv_value": ({}, ["x", "a$b#c'\"d\\ e", " ", "pässwörd", "{{ not }}", "\t"]),
    "duration_seconds": ({"max": 600}, [0, "0", 600]),
    "google_name": ({"shortest": 2, "longest": 8}, ["ab", "a-1", "dagster1"]),
    "host_name": ({}, ["dagster.example.com", "a.b", "xn--bcher-kva.example", "1.example", "a" * 63 + ".test"]),
    "image_reference": (
        {},
        [
            "postgres:17",
            "registry.lab:5000/team/core:1.4",
            "localhost:5000/core:v1",
            "[::1]:5000/core:v1",
            f"postgres@{DIGEST}",
            f"europe-docker.pkg.dev/project/repo/core:latest@{DIGEST}",
            "a/b_c/d__e/f-g.h:" + "t" * 128,
        ],
    ),
    "list": ({"elements": "text", "pattern": "[a-z]+"}, [[], ["a"]]),
    "mapping": ({}, [{}, {"a": 1}]),
    "nonempty": ({}, ["x", 0, False, [0], {"a": None}]),
    "passwords": ({}, [{"ada": "correct horse battery"}, {"a.b+c@d.test": "x" * 8 + "ünïc", "bob": "0123456789ab"}]),
    "port": ({}, [1, 65535, "3000"]),
    "positive_integer": ({"max": 10}, [1, "10"]),
    "postgres_host": ({}, ["10.20.0.3", "fd00::3", "database.example.com", "sql"]),
    "postgres_identifier": ({}, ["dagster", "_x1", "a" * 63, "name", "data"]),
    "postgres_sslmode": ({}, ["disable", "prefer", "require", "verify-ca", "verify-full"]),
    "private_key": ({"certificate": CERTIFICATE.chain}, [CERTIFICATE.key]),
    "regex": ({"pattern": "[a-z]+"}, ["abc"]),
    "size": ({"min": "64m", "max": "2g"}, ["64m", "2048MB", "1.5GiB", "2g", 67108864]),
    "uid": ({}, [0, 10001, "10001"]),
    "url": ({}, ["http://registry.lab:5000", "https://u:p@example.com/x?y#z"]),
}

BAD: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "absolute_path": ({}, ["", "opt", "/", "//", "/opt/../etc", "/opt\n", "/a\0", "/opt ", "~/x", 1, None, ["/a"]]),
    "boolean": ({}, ["maybe", 1, 0, [], "truee", " true"]),
    "cidr": (
        {"longest": 29},
        ["10.20.0.1/24", "10.20.0.0", "10.20.0.0/30", "10.20.0.0/255.255.255.0", "10.20/16", "fd00::/64", 10, None, ""],
    ),
    "certificate": (
        {"name": "dagster.test"},
        [
            *(
                "",
                "dagster.pem",
                "/etc/ssl/dagster.pem",
                "-----BEGIN CERTIFICATE-----\nCANARY\n-----END CERTIFICATE-----",
            ),
            *(OTHER.chain, EXPIRED.chain, certificate("dagster.test", days=-29).chain, CERTIFICATE.key),
            *(CERTIFICATE.key + CERTIFICATE.chain, CERTIFICATE.chain + OTHER.chain, CERTIFICATE.authority),
            *(1, None, ["a"], b"x"),
        ],
    ),
    "choice": ({"choices": ["docker", "distro"]}, ["Docker", "", True, None, ["docker"], "docker "]),
    "dotenv_value": ({}, ["a\nb", "a\rb", "a\0b", 123, True, 1.5, ["a"], {"a": 1}, "\ud800", "", None]),
    "duration_seconds": ({"max": 600}, [-1, 601, 1.5, "5s", True]),
    "google_name": (
        {"shortest": 2, "longest": 8},
        ["a", "dagster12", "Dagster", "1a", "a-", "-a", "a_b", "a.b", "ab\n", "é1", "", None, 12, ["ab"]],
    ),
    "host_name": (
        {},
        [
            *(
                "",
                "dagster",
                "https://dagster.test",
                "dagster.test:443",
                "dagster.test/",
                "a..b",
                ".a.b",
                "a.b.",
                "-a.b",
            ),
            *(
                "a-.b",
                "a_b.test",
                "Dagster.Test",
                "*.dagster.test",
                "192.0.2.1",
                "::1",
                "a b.test",
                "a.test\n",
                "bücher.test",
            ),
            *("a" * 64 + ".test", "a." * 127 + "bc", "x;y.test", 1, None, ["a.b"]),
        ],
    ),
    "image_reference": (
        {},
        [
            "postgres",
            "postgres:latest",
            "registry.lab:5000/core",
            "Postgres:17",
            "registry.lab/Team/core:1",
            "postgres:17 ",
            "https://registry.lab/core:1",
            "core:",
            "core:" + "t" * 129,
            "core:-1",
            "core@sha256:abc",
            "core@sha256:" + "g" * 64,
            "core@sha256:" + "A" * 64,
            "core@sha512:" + "a" * 64,
            f"postgres:17@{DIGEST}0",
            DIGEST,
            DIGEST.removeprefix("sha256:"),
            "a//b:1",
            "/b:1",
            "a..b:1",
            "-a:1",
            "a:1:2",
            "a" * 256 + ":1",
            ":1",
            "@" + DIGEST,
            "core:1\n",
            "cöre:1",
            17,
            ["a:1"],
        ],
    ),
    "list": (
        {"elements": "text", "nonempty": True, "pattern": "[a-z]+"},
        [[], "a", {"a": 1}, [1], [None], None, ["A"]],
    ),
    "mapping": ({"nonempty": True}, [{}, [], "a: 1", None]),
    "nonempty": ({}, ["", " ", "\n", [], {}, None]),
    "passwords": (
        {},
        [
            *({}, [], "ada: x", None, {"": "correct horse battery"}, {"a b": "correct horse battery"}),
            *({"ada": ""}, {"ada": " " * 20}, {"ada": "short"}, {"ada": "elevenchars"}, {"ada": "aaaaaaaaaaaaaaaa"}),
            *({"ada": None}, {"ada": 123456789012}, {"ada": "line\nbreak in it"}, {"ada": "x\0y correct horse"}),
            *({"ada": "0123456789" * 8}, {"lovelace": "my-Lovelace-123"}, {"a:b": "correct horse battery"}),
            *({"ada": "correct horse battery", "bob": "weak"}, {"a\r\nb": "correct horse battery"}),
        ],
    ),
    "port": ({}, [0, 65536, "-1", "80/tcp", "", True, 80.0, "٣", "1" * 30]),
    "positive_integer": ({"max": 10}, [0, 11, "1.0", " 1", "1e3", True, None, []]),
    "postgres_host": (
        {},
        ["", "https://10.20.0.3", "/run/postgresql", "a,b", "a b", "-a", "a.", "a\n", True, None, []],
    ),
    "postgres_identifier": (
        {},
        [
            "",
            "1a",
            "Dagster",
            "a-b",
            "a b",
            "a" * 64,
            "user",
            "select",
            "pg_dagster",
            "public",
            "template1",
            "a$b",
            "ä",
            5,
            "a\n",
        ],
    ),
    "postgres_sslmode": ({}, ["", "allow", "on", "VERIFY-CA", "require ", True, None, ["require"]]),
    "private_key": (
        {"certificate": CERTIFICATE.chain},
        [
            *("", "key.pem", OTHER.key, CERTIFICATE.chain, LOCKED.decode(), CERTIFICATE.key.replace("M", "N", 1)),
            *("-----BEGIN PRIVATE KEY-----\nCANARY\n-----END PRIVATE KEY-----", None, 1, ["a"]),
        ],
    ),
    "regex": ({"pattern": "[a-z]+"}, ["abc\n", "1", None, True]),
    "size": (
        {"min": "64m", "max": "2g"},
        ["63m", "3g", "m", "", "-1m", "64 mb b", "1" * 400, True, None, "٦٤m", [], "0x40m"],
    ),
    "uid": ({"min": 1}, [0, -1, 2**31, "root", "", True]),
    "url": (
        {},
        ["", "ftp://a", "http://", "//a", "a.b", "http://a b", "http://a:99999", "http://[::1", "http://a\n", 1, None],
    ),
}


@pytest.mark.parametrize(("rule", "options", "value"), [(r, o, v) for r, (o, values) in GOOD.items() for v in values])
def test_good_value_passes(rule: str, options: dict[str, Any], value: Any) -> None:
    assert inputs.check("role_x", value, {"rule": rule, **options}) is None


@pytest.mark.parametrize(("rule", "options", "value"), [(r, o, v) for r, (o, values) in BAD.items() for v in values])
def test_bad_value_gives_one_line(rule: str, options: dict[str, Any], value: Any) -> None:
    line = inputs.check("role_x", value, {"rule": rule, **options})

    assert line is not None
    assert line.startswith("role_x: found ")
    assert "; expected " in line
    assert "\n" not in line
    assert len(line) < 400


def test_every_rule_has_good_and_bad_values() -> None:
    assert set(inputs.RULES) - {"service_account"} == set(GOOD) == set(BAD)


@pytest.mark.parametrize("rule", sorted(set(BAD) - {"nonempty", "choice"}))
@pytest.mark.parametrize("value", ["CANARY-7f3a\n", {"CANARY-7f3a": "CANARY-7f3a"}, ["CANARY-7f3a\n"]])
def test_secret_is_never_repeated(rule: str, value: Any) -> None:
    options, _values = BAD[rule]
    line = inputs.check("role_x", value, {"rule": rule, "secret": True, **options})
    assert "CANARY" not in (line or "")


def test_password_in_a_url_is_never_repeated() -> None:
    assert "CANARY" not in str(inputs.check("role_x", "ftp://user:CANARY@example.com", {"rule": "url"}))


@pytest.mark.parametrize("rule", sorted(inputs.RULES))
@pytest.mark.parametrize("value", [None, "", 1, 1.5, True, [], {}, "x", object(), b"x", float("nan"), ("a",), {1: 2}])
def test_no_rule_raises(rule: str, value: Any) -> None:
    must = {"choices": ["a"], "pattern": "a"}
    spec = {"rule": rule, **{name: must[name] for name in inputs.RULES[rule][1]}}
    inputs.check("role_x", value, spec)
    inputs.expectation(spec)


@pytest.mark.parametrize("rule", sorted(set(inputs.RULES) - {"choice", "regex"}))
def test_what_is_not_required_may_be_empty(rule: str) -> None:
    assert inputs.check("role_x", "", {"rule": rule, "required": False}) is None
    assert inputs.check("role_x", None, {"rule": rule, "required": False}) is None
    assert inputs.check("role_x", "", {"rule": rule}) is not None


def test_hint_stands_at_the_end() -> None:
    line = inputs.check("role_x", 0, {"rule": "port", "hint": "any free port"})
    assert line == "role_x: found the number 0; expected a port from 1 to 65535 (any free port)"


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ({"rule": "prot"}, "unknown rule"),
        ({"rule": "choice"}, "needs the option choices"),
        ({"rule": "port", "maximum": 5}, "unknown option 'maximum'"),
        ({}, "a mapping with the key rule"),
        ("port", "a mapping with the key rule"),
        ({"rule": ["port"]}, "a mapping with the key rule"),
    ],
)
def test_mistake_of_the_roles_author_is_named(spec: Any, part: str) -> None:
    assert any(part in line for line in inputs.mistakes_of_the_check("role_x", spec))


def test_reserved_words_are_postgresqls() -> None:
    assert len(QUOTED_WORDS) == 78 + 23 + 63  # reserved, reserved but for functions and types, names of columns
    assert {"user", "select", "between", "authorization", "json_table", "system_user"} <= QUOTED_WORDS
    assert not {"name", "data", "password", "dagster", "database"} & QUOTED_WORDS


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("1k", 1024), ("1KiB", 1024), ("1.5 gb", 1610612736), ("1kk", None)]
)
def test_size_in_bytes(text: str, size: int | None) -> None:
    assert inputs.size_in_bytes(text) == size


RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: Any = RSA_KEY, password: bytes = b"") -> str:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode())


def service_account_key(**changes: Any) -> dict[str, Any]:
    key = {
        "type": "service_account",
        "project_id": "weather-prod",
        "private_key_id": "0" * 40,
        "private_key": pem(),
        "client_email": "dagster@weather-prod.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    return {name: value for name, value in {**key, **changes}.items() if value is not None}


def check_key(value: Any, project: str = "weather-prod") -> str | None:
    return inputs.check("role_sa", value, {"rule": "service_account", "project": project})


def test_a_real_key_passes() -> None:
    assert check_key(service_account_key()) is None
    assert check_key(json.dumps(service_account_key())) is None
    assert check_key(json.dumps(service_account_key()), project="") is None


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("", "an empty text"),
        ("not json", "not JSON"),
        (json.dumps(service_account_key())[:-20], "not JSON (line 1"),
        ("[]", "a list, not an object"),
        ("null", "a NoneType, not an object"),
        ("{}", "without the field type"),
        ({"type": "authorized_user", "refresh_token": "CANARY"}, "a user's own credential"),
        ({"type": "external_account", "audience": "CANARY"}, "workload identity federation"),
        ({"type": "CANARY"}, "an unknown type"),
        ({"type": ["CANARY"]}, "an unknown type"),
        ({"installed": {"client_secret": "CANARY"}}, "an OAuth client secret"),
        (service_account_key(private_key=None, token_uri=" "), "a key without private_key, token_uri"),
        (service_account_key(private_key=7), "a key without private_key"),
        (
            service_account_key(project_id="other"),
            "a key of the project 'other'; expected a key of the project 'weather-prod'",
        ),
        (service_account_key(client_email="nobody"), "a client_email that is not an address"),
        (service_account_key(token_uri="oauth2"), "a token_uri that is not a URL"),
        (service_account_key(private_key="CANARY"), "cannot be read"),
        (service_account_key(private_key=pem()[:-200] + "\n-----END PRIVATE KEY-----\n"), "cannot be read"),
        (service_account_key(private_key=pem().replace("\n", "\\n")), "escaped twice"),
        (service_account_key(private_key=pem(password=b"CANARY")), "cannot be read"),
        (service_account_key(private_key=pem(ec.generate_private_key(ec.SECP256R1()))), "not an RSA key"),
        (5, "a number (hidden)"),
    ],
)
def test_a_key_that_is_none_is_named_and_not_repeated(value: Any, part: str) -> None:
    line = check_key(value)

    assert line is not None
    assert part in line
    assert "CANARY" not in line
    assert "PRIVATE KEY" not in line


def test_a_mistake_is_told_once() -> None:
    first = "a_zone (from gce_zone): found 'x'; expected a zone"
    alone = "c_port: found 0; expected a port"
    lines = [
        first,
        "b_zone (from gce_zone): found 'x'; expected a zone",
        "b_place (from b_zone, b_other): found 'x-1'; expected a place",
        alone,
        "d_port: found 0; expected a port",
        "a_name: found an empty text; expected a name (set name)",
        "b_name: found an empty text; expected a name (set name)",
        "e_zone (from gce_zone): found 'x'; expected a region",
    ]
    assert inputs.condensed(lines) == [first, *lines[3:6], lines[7]]
    assert inputs.condensed([]) == []
