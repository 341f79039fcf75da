"""gcp_oslogin_key: a key comes, is made good for longer, and goes; others stay."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from ansible_collections.dataops.dagster_gce.plugins.modules import gcp_oslogin_key
from lab.google import Google
from lab.google.server import OWNER
from tests.unit.plugins.modules.google_modules import PROJECT, Run, Task


def public_key() -> str:
    key = Ed25519PrivateKey.generate().public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


KEY = public_key()


class Profiles(Task):
    """The module on a stand-in whose keys are compared, too."""

    def stored(self) -> dict[str, Any]:
        return copy.deepcopy(dict(self.google.state.note("ssh keys")))

    @property
    def keys(self) -> list[dict[str, Any]]:
        """The owner's."""
        return list(self.stored().get(OWNER, {}).values())


@pytest.fixture
def login(google: Google, run_module: Run, monkeypatch: pytest.MonkeyPatch) -> Profiles:
    # The expiry is a moment from now: two runs of a test have to mean the same.
    monkeypatch.setattr(gcp_oslogin_key, "now", lambda: 1_795_000_000.0)
    return Profiles(run_module, gcp_oslogin_key.main, google, key=f"{KEY} me@here", user=OWNER)


def test_from_nothing_and_back(login: Profiles) -> None:
    made = login.changes()
    assert made["username"]
    assert len(made["fingerprint"]) == 64
    assert made["expires"] == ""
    # The comment is not the key.
    login.unchanged(key=KEY)
    login.changes(key=KEY, state="absent")
    assert login.keys == []


def test_other_keys_stay(login: Profiles) -> None:
    other = public_key()
    login.run(key=other)
    login.changes()
    login.changes(state="absent")
    assert [entry["key"] for entry in login.keys] == [other]


def test_a_key_for_an_hour(google: Google, login: Profiles, monkeypatch: pytest.MonkeyPatch) -> None:
    made = login.changes(expires_in="1h")
    assert login.keys[0]["expirationTimeUsec"] == str(1_795_003_600_000_000)
    assert made["expires"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_795_003_600))
    monkeypatch.setattr(gcp_oslogin_key, "now", lambda: 1_795_001_700.0)
    login.unchanged(expires_in="1h")
    monkeypatch.setattr(gcp_oslogin_key, "now", lambda: 1_795_001_900.0)
    login.changes(expires_in="1h")
    assert login.keys[0]["expirationTimeUsec"] == str(1_795_005_500_000_000)
    assert len(login.keys) == 1


def test_a_key_without_an_end(login: Profiles) -> None:
    login.run(expires_in="1h")
    login.changes()
    assert "expirationTimeUsec" not in login.keys[0]
    # One that has no end gets one, if that is asked for.
    login.changes(expires_in="1d")


def test_the_callers_own_profile(google: Google, login: Profiles) -> None:
    robot = f"robot@{PROJECT}.iam.gserviceaccount.com"
    key = json.dumps(google.service_account_key(robot))
    google.calls.clear()
    made = login.run(user=None, auth_kind="serviceaccount", service_account_contents=key)
    assert made["username"].startswith("sa_")
    assert list(login.stored()) == [robot]
    assert "user: found nothing, and the credentials do not say whose they are" in login.refused(user=None)


def test_a_persons_credentials_tell_whose_they_are(
    google: Google, login: Profiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As newer versions of gcloud write them."""
    path = Path(google.environment()["GOOGLE_APPLICATION_CREDENTIALS"])
    content = {**json.loads(path.read_text()), "account": OWNER}
    (tmp_path / "credentials.json").write_text(json.dumps(content))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "credentials.json"))
    login.changes(user=None)
    assert len(login.keys) == 1


def test_somebody_elses_profile(login: Profiles) -> None:
    assert "HTTP 403" in login.refused(user="somebody@example.com")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "ssh-ed25519"}, "key: found a text that is no public SSH key"),
        ({"key": "ssh-rsa " + KEY.split()[1]}, "key: found a text that is no public SSH key"),
        ({"expires_in": "1 hour"}, "expires_in: found '1 hour'; expected"),
        ({"user": "me"}, "user: found 'me'; expected the account's address"),
    ],
)
def test_bad_input_makes_no_call(google: Google, login: Profiles, options: dict[str, Any], message: str) -> None:
    assert message in login.refused(**options)
    assert google.calls == []


def test_a_private_key_is_not_repeated(login: Profiles, run_module: Run) -> None:
    private = Ed25519PrivateKey.generate()
    text = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    failed = run_module(gcp_oslogin_key.main, project=PROJECT, user=OWNER, key=text)
    assert failed["msg"].startswith("key: found a private key; expected the public one")
    assert text.splitlines()[1] not in failed["msg"]
