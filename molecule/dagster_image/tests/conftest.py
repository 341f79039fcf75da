"""The role, as the tests call it: the real ansible-playbook against the scenario's machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenario import Role, role_of

SCENARIO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def role(tmp_path_factory: pytest.TempPathFactory) -> Role:
    """Run the role with extra variables; positional arguments go to ansible-playbook."""
    return role_of(SCENARIO, tmp_path_factory.mktemp("variables"))
