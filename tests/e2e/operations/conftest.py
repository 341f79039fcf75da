"""One machine for every test of what looks after the machine: each leaves it healthy for the next one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.harness import Machine, with_load_fixture
from tests.e2e.operations.backup_bucket import Vault, vault


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """A machine with the stack and the load fixture as its first release (``E2E_MACHINE``: one that is there)."""
    with with_load_fixture("operations") as found:
        yield found


@pytest.fixture(scope="module")
def there() -> Iterator[Vault]:
    """A bucket of the lab's Google for backups."""
    with vault() as found:
        yield found
