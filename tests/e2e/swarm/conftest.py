"""One cluster for all tests here."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.e2e.harness import LONG
from tests.e2e.swarm.cluster import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A main machine and its workers, set up; ``E2E_MACHINE=NAME`` takes one that is there."""
    there = os.environ.get("E2E_MACHINE")
    found = Cluster(there or "e2e-swarm", 4 if LONG else 2)
    if not there:
        found.start()
    try:
        found.set_up().ok()
        yield found
    finally:
        if not there:
            found.remove()
