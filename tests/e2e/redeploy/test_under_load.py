"""Deploys in a row under load, with both run launchers: nothing fails, nothing is lost, no tick is missed or doubled.

``E2E_DEPLOYS`` says how many (default 2 a launcher; the long form has 20).
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.e2e.harness import LONG, Machine, long_form
from tests.e2e.redeploy.load_with_ticks import LoadWithTicks
from tests.e2e.redeploy.user_code import UserCode
from tests.webserver import FINISHED

DEPLOYS = int(os.environ.get("E2E_DEPLOYS") or (20 if LONG else 2))
FIXTURE: dict[str, Any] = {"dagster_core_dir": "tests/fixtures/dagster_core_load"}


@pytest.mark.parametrize("launcher", ["docker", pytest.param("default", marks=long_form)])
def test_deploys_under_load_lose_nothing(machine: Machine, user_code: UserCode, launcher: str) -> None:
    machine.play("site.yml", dagster_run_launcher=launcher, **FIXTURE).ok()
    others = user_code.containers()
    # Other images than the other launcher's: a release of the same image that still runs would be used again.
    first = {"docker": 200, "default": 300}[launcher]
    images = [user_code.good(first + number) for number in range(DEPLOYS)]
    with LoadWithTicks(machine) as load:
        for number, image in enumerate(images):
            if number % 4 == 2:
                load.keep_one_in_flight()
            user_code.deploy(image, dagster_run_launcher=launcher, dagster_core_keep_releases=DEPLOYS + 3).ok()
    assert user_code.containers() == others
    lost = load.lost_runs()
    figures = f"{load.queries} queries, {len(load.launched)} launches, {len(load.long)} long runs"
    figures += f" in {load.ended - load.started:.0f} s"
    print(f"{launcher}: {DEPLOYS} deploys, {figures}")
    assert load.failed_queries == [], figures
    assert load.failed_launches == [], figures
    assert lost == {}, figures
    assert len(set(load.hosts)) == DEPLOYS + 1, load.hosts
    assert load.schedule_problems() == []
    assert load.sensor_problems() == []
    user_code.consistent()


def test_a_run_in_the_release_before_can_still_be_cancelled(machine: Machine, user_code: UserCode) -> None:
    """With the default launcher a run lives in the release's container; a deploy leaves it there, reachable."""
    machine.play("site.yml", dagster_run_launcher="default", **FIXTURE).ok()
    user_code.deploy(user_code.good(250), dagster_run_launcher="default").ok()
    first = user_code.served().release
    run = machine.launch("sleepy", {"ops": {"sleep": {"config": {"seconds": 600}}}})
    machine.wait_for_run(run, "STARTED")
    for number in (251, 252, 253):
        user_code.deploy(user_code.good(number), dagster_run_launcher="default").ok()
    # The daemon may have launched it from an older release than the webserver served.
    assert machine.run_status(run) == "STARTED"
    assert len(user_code.releases()) >= 3, (first, user_code.releases())
    machine.terminate(run)
    assert machine.wait_for_run(run, "CANCELED", "FAILURE", "SUCCESS") == "CANCELED"


@long_form
def test_a_deploy_that_drops_a_job_and_a_schedule_harms_neither_runs_nor_ticks(
    machine: Machine, user_code: UserCode
) -> None:
    machine.play("site.yml", **FIXTURE).ok()
    user_code.deploy(user_code.good(260)).ok()
    machine.switch_ticks(True)
    run = machine.launch("sleepy", {"ops": {"sleep": {"config": {"seconds": 20}}}})
    machine.wait_for_run(run, "STARTED")
    source = (
        "import dagster as dg\n@dg.op\ndef a() -> None: ...\n@dg.job\ndef quick() -> None:\n    a()\n"
        "@dg.job\ndef platform_check() -> None:\n    a()\ndefs = dg.Definitions(jobs=[quick, platform_check])\n"
    )
    user_code.deploy(user_code.broken("fewer", source), dagster_core_wait_for_daemon=True).ok()
    assert machine.wait_for_run(run, *FINISHED) == "SUCCESS"
    assert machine.wait_for_run(machine.launch("quick"), "SUCCESS", "FAILURE") == "SUCCESS"
    # Back again: the schedule is on as it was.
    user_code.deploy(user_code.good(261)).ok()
    query = """query ($selector: InstigationSelector!) { instigationStateOrError(instigationSelector: $selector) {
        ... on InstigationState { status } } }"""
    selector = {"repositoryName": "__repository__", "repositoryLocationName": "dagster_core", "name": "every_minute"}
    assert machine.graphql(query, selector=selector)["instigationStateOrError"]["status"] == "RUNNING"
    machine.switch_ticks(False)
