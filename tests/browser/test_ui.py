"""What a data engineer sees: the code location, a run that is launched by hand, its events as they happen."""

from __future__ import annotations

import re

from tests.browser.conftest import Tab
from tests.e2e.harness import Machine
from tests.e2e.redeploy.user_code import UserCode
from tests.webserver import PATIENCE


def launch(tab: Tab, job: str) -> str:
    """Launch a job from its launchpad; returns the run's id. The page of the run is open then."""
    tab.open(f"/locations/dagster_core/jobs/{job}/playground")
    tab.click("Launch Run")
    tab.page.wait_for_url(re.compile(r"/runs/[0-9a-f-]{36}"), timeout=60_000 * PATIENCE)
    return tab.page.url.rpartition("/")[2].partition("?")[0]


def watch_a_run_over_two_releases(tab: Tab, machine: Machine, user_code: UserCode, image: str) -> None:
    """The run begins on one release, a deploy and a rollback pass, and the page is never loaded again."""
    run = launch(tab, "sleepy")
    loads = tab.loads
    tab.see("sleeping for", 120)
    tab.shoot("under-way")
    before = user_code.served().release
    user_code.deploy(image).ok()
    assert user_code.served().release != before
    assert machine.run_status(run) == "STARTED", "the run was to outlast the deploy"
    tab.see("Started", 5)
    user_code.rollback().ok()
    assert user_code.served().release == before
    tab.see(re.compile("^Success$"), 180)
    tab.see("RUN_SUCCESS")
    assert tab.loads == loads, "the page was loaded again"
    assert tab.sockets, "events came through no websocket"
    assert tab.errors == []


def test_the_page_of_locations_shows_what_serves(tab: Tab, user_code: UserCode) -> None:
    tab.open("/deployment/locations")
    tab.see("dagster_core")
    tab.see("Loaded")
    assert tab.errors == []


def test_a_runs_events_arrive_live_while_releases_change(tab: Tab, machine: Machine, user_code: UserCode) -> None:
    watch_a_run_over_two_releases(tab, machine, user_code, user_code.good(700))


def test_a_launch_right_after_a_deploy_succeeds(tab: Tab, machine: Machine, user_code: UserCode) -> None:
    """The launchpad stood open while the release behind it was replaced."""
    tab.open("/locations/dagster_core/jobs/quick/playground")
    tab.page.get_by_role("button", name="Launch Run").wait_for(timeout=60_000 * PATIENCE)
    user_code.deploy(user_code.good(701)).ok()
    tab.click("Launch Run")
    tab.page.wait_for_url(re.compile(r"/runs/[0-9a-f-]{36}"), timeout=60_000 * PATIENCE)
    tab.see("release v701", 120)
    tab.see(re.compile("^Success$"))
    assert tab.errors == []
