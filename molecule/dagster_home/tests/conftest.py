"""The role, as the tests call it: the real ansible-playbook against the scenario's machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.scenario import Role, role_of

SCENARIO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def role(tmp_path_factory: pytest.TempPathFactory) -> Role:
    """Run the role with extra variables; positional arguments go to ansible-playbook."""
    return role_of(SCENARIO, tmp_path_factory.mktemp("variables"))


@pytest.fixture(scope="session")
def service_account() -> dict[str, str]:
    """A key as Google hands it out, made here."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return {
        "type": "service_account",
        "project_id": "a-project",
        "private_key_id": "c4n4ry-id",
        "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "client_email": "dagster@a-project.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
