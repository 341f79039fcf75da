"""The lab's Google for unit tests: one server a session, a fresh state a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.google import Google

PROJECT = "example-project"
# The methods that plugins called, over all tests; see test_coverage.py.
called: set[str] = set()


@pytest.fixture(scope="session")
def google_server() -> Iterator[Google]:
    """The server itself; tests take ``google``."""
    server = Google().start()
    yield server
    server.stop()


@pytest.fixture
def google(google_server: Google, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    """A Google of one's own: ``example-project`` with every API enabled, and the environment that leads there.

    Application default credentials are the project's owner's. The test fails if a request or an answer did not fit
    Google's documents; a test of such a thing clears ``google.violations`` itself.
    """
    google_server.reset()
    google_server.registry = ""
    google_server.seed_project(PROJECT)
    for name, value in google_server.environment().items():
        monkeypatch.setenv(name, value)
    yield google_server
    if "plugins" in request.path.parts:
        called.update(google_server.seen)
    assert google_server.violations == []
