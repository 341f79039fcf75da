"""One machine for every test of redeploys: each leaves a release that serves, which is all the next one needs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.harness import Machine, with_load_fixture
from tests.e2e.redeploy.user_code import UserCode


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """A machine with the stack and the load fixture as its first release (``E2E_MACHINE``: one that is there)."""
    with with_load_fixture("e2e-redeploy") as found:
        yield found


@pytest.fixture(scope="session")
def user_code(machine: Machine) -> UserCode:
    """Images of user code, good and broken ones, and what to do with them."""
    return UserCode(machine)
