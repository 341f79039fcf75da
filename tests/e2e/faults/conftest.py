"""One machine for the tests of faults, with small limits of memory; each test leaves it healthy.

``E2E_FAULTS`` says how often each fault is done (default 1; the long form is 20).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.faults import health, power
from tests.e2e.harness import LONG, ROOT, Machine, new_or_given, wait

TIMES = int(os.environ.get("E2E_FAULTS") or (20 if LONG else 1))
USER_CODE = "build/fixtures/dagster_core_faults"
VARIABLES: dict[str, Any] = {
    "dagster_core_dir": USER_CODE,
    "dagster_core_memory": "500m",
    "dagster_home_run_memory": "500m",
    "dagster_home_run_pids": 128,
    # A second try may be hit by the next fault, which comes seconds later here.
    "dagster_home_run_retries": 3,
    # The tests launch runs themselves.
    "dagster_core_environment": {"LOAD_SENSOR_RUN_EVERY": "0"},
}


def user_code() -> None:
    """Jobs that do harm, beside the load fixture."""
    fixtures, folder = ROOT / "tests" / "fixtures", ROOT / USER_CODE
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(fixtures / "dagster_core_faults" / "__init__.py", folder / "__init__.py")
    shutil.copyfile(fixtures / "dagster_core_load" / "__init__.py", folder / "load.py")


@pytest.fixture(scope="session")
def installed() -> Iterator[Machine]:
    """``E2E_MACHINE=NAME`` takes a machine that is there, and leaves it there."""
    with new_or_given("e2e-faults", power.give_disk) as found:
        user_code()
        found.play("site.yml", **VARIABLES).ok()
        found.switch_ticks(True)
        yield found


@pytest.fixture
def machine(installed: Machine) -> Iterator[Machine]:
    """Healthy before and after."""
    wait(
        lambda: not health.problems(installed),
        120,
        "a healthy machine",
        lambda: health.problems(installed),
    )
    yield installed
    wait(
        lambda: not health.problems(installed),
        120,
        "a healthy machine",
        lambda: health.problems(installed),
    )
