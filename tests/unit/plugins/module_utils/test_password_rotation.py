"""What stands in the statement in place of the password."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import password_rotation

# The example of RFC 7677.
SALT = "W22ZaJ0SNY7soEsUEjb6gQ=="
NONCE = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SPOKEN = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={NONCE},s={SALT},i=4096,c=biws,r={NONCE}"
SIGNATURE = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
PROOF = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="


def test_the_verifier_is_what_scram_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "token_bytes", lambda _: base64.b64decode(SALT))
    found = re.fullmatch(r"SCRAM-SHA-256\$4096:(.*)\$(.*):(.*)", password_rotation.scram("pencil"))
    assert found
    salt, stored, server = (base64.b64decode(each) for each in found.groups())
    assert salt == base64.b64decode(SALT)
    assert base64.b64encode(hmac.digest(server, SPOKEN.encode(), "sha256")).decode() == SIGNATURE
    # What a client that knows the password proves.
    signed = hmac.digest(stored, SPOKEN.encode(), "sha256")
    key = bytes(one ^ other for one, other in zip(signed, base64.b64decode(PROOF), strict=True))
    assert hashlib.sha256(key).digest() == stored


def test_no_two_are_the_same_and_none_holds_the_password() -> None:
    first, second = password_rotation.scram("canary"), password_rotation.scram("canary")
    assert first != second
    assert "canary" not in first
