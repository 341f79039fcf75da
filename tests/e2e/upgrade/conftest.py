"""One machine for every test of upgrades; the order of the tests is the order of the file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.harness import ROOT, Machine, new_or_given
from tests.e2e.upgrade.old import OldMachine


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """A machine of the lab. ``E2E_MACHINE=NAME`` takes one that is there, with the images of an earlier test run."""
    subprocess.run([sys.executable, "-m", "lab", "image", "postgres:13"], cwd=ROOT, check=True)
    with new_or_given("e2e-upgrade") as found:
        yield found


@pytest.fixture(scope="session")
def old(machine: Machine) -> OldMachine:
    """The article's stack: an old Dagster on PostgreSQL 13, with history. The first tests take it over."""
    found = OldMachine(machine)
    found.make_images()
    found.wipe()
    found.install_article()
    # The playbook pulls it; the tests that kill an upgrade half-way run without the playbook.
    machine.ssh("docker pull --quiet postgres:17", timeout=300)
    found.send_plugins()
    return found
