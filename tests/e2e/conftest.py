"""Machines for the end-to-end tests, one a test file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.harness import Machine


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A new machine, named after the test file; removed when the file is through."""
    found = Machine("e2e-" + request.module.__name__.rsplit("test_", 1)[1].replace("_", "-")).start()
    yield found
    found.remove()
