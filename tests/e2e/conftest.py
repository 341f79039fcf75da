"""Machines for the end-to-end tests, one a test file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.harness import Machine, new_or_given


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A new machine, named after the test file; removed when the file is through."""
    name = "e2e-" + request.module.__name__.rsplit("test_", 1)[1].replace("_", "-")
    with new_or_given(name) as found:
        yield found
