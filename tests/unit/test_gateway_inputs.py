"""Inputs of the gateway that cannot work: site.yml names each before it touches a machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.certificates import certificate
from tests.unit.test_site_inputs import run

GOOD = certificate("dagster.test")
GATEWAY = {
    "dagster_gateway_enabled": True,
    "dagster_gateway_name": "dagster.test",
    "dagster_gateway_certificate": GOOD.chain,
    "dagster_gateway_certificate_key": GOOD.key,
    "dagster_gateway_users": {"ada": "canary-horse-battery"},
}

# Sets of mistakes, and what is said of them.
BAD: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "not even a name": (
        {"dagster_gateway_name": "https://dagster.test", "dagster_gateway_certificate": "dagster.pem"}
        | {"dagster_gateway_certificate_key": "key.pem", "dagster_gateway_users": {}},
        (
            "dagster_gateway_name: found 'https://dagster.test'; expected a host name",
            "dagster_gateway_certificate: found a text that is not PEM (lookup('ansible.builtin.file', …) reads",
            "dagster_gateway_certificate_key: found a text that is not PEM (hidden)",
            "dagster_gateway_users: found an empty mapping; expected a mapping of at least one user",
        ),
    ),
    "of something else": (
        {"dagster_gateway_name": "other.test", "dagster_gateway_certificate_key": certificate("dagster.test").key}
        | {"dagster_gateway_users": {"ada": ""}, "dagster_gateway_read_only_users": ["bob"]},
        (
            "dagster_gateway_certificate: found a certificate for dagster.test; expected one for other.test",
            "dagster_gateway_certificate_key: found the key of another certificate",
            "dagster_gateway_users: found an empty password for user 1",
            "dagster_gateway_read_only_port: found the number 0; expected a port from 1 to 65535 "
            "(dagster_gateway_read_only_users and dagster_gateway_editors need dagster_read_only_webserver",
        ),
    ),
    "too late": (
        {"dagster_gateway_certificate": certificate("dagster.test", days=-1).chain}
        | {"dagster_gateway_users": {"ada": "canary"}, "dagster_gateway_port": 0, "dagster_gateway_max_body": "much"},
        (
            "dagster_gateway_certificate: found a certificate that expired at",
            "dagster_gateway_users: found a password of 6 bytes for user 1",
            "dagster_gateway_port: found the number 0",
            "dagster_gateway_max_body: found 'much'",
        ),
    ),
    "from Google": (
        {"dagster_gateway_authentication": "iap", "dagster_gateway_iap_audience": "backend"}
        | {"dagster_gateway_certificate_from": "acme", "dagster_gateway_acme_directory": "http://ca.test"},
        (
            "dagster_gateway_iap_audience: found 'backend'; expected an audience",
            "dagster_gateway_acme_directory: found 'http://ca.test'; expected a URL that starts with https://",
        ),
    ),
    "no proxy": (
        {"dagster_gateway_authentication": "oidc", "dagster_gateway_certificate_from": "luck"},
        (
            "dagster_gateway_oidc_url: found an empty text",
            "dagster_gateway_certificate_from: found 'luck'; expected one of own, acme",
        ),
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_each_mistake_is_named(what: str, tmp_path: Path, ansible_environment: dict[str, str]) -> None:
    mistakes, expected = BAD[what]
    output = run("site.yml", tmp_path, ansible_environment, GATEWAY | mistakes)

    assert "UNREACHABLE" not in output
    missing = [words for words in expected if words not in output]
    assert not missing, output
    assert "canary" not in output
    assert "PRIVATE KEY" not in output


def test_without_a_gateway_nothing_of_it_has_to_be_right(tmp_path: Path, ansible_environment: dict[str, str]) -> None:
    output = run(
        "site.yml", tmp_path, ansible_environment, {"dagster_gateway_name": "x y", "dagster_webserver_port": 0}
    )

    assert "dagster_webserver_port" in output
    assert "dagster_gateway_name" not in output
