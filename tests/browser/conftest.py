"""A real browser in front of a real machine's UI, through the SSH tunnel that the article advises.

Chromium comes from the distribution. Screenshots of each test are in build/browser/.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from lab.shell import apt_install, run
from tests.browser.gateway import FILES, Gateway
from tests.e2e.harness import ROOT, Machine, with_load_fixture
from tests.e2e.redeploy.user_code import UserCode
from tests.webserver import PATIENCE

SHOTS = ROOT / "build" / "browser"
SIZE = {"width": 1400, "height": 900}


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """A machine with the stack and the load fixture as its first release (``E2E_MACHINE``: one that is there)."""
    with with_load_fixture("browser") as found:
        yield found


@pytest.fixture(scope="session")
def user_code(machine: Machine) -> UserCode:
    """Images to release."""
    return UserCode(machine)


@pytest.fixture(scope="session")
def gateway(machine: Machine) -> Iterator[Gateway]:
    """The gateway, made by `site.yml`; gone afterwards, if the last test has not seen to it."""
    found = Gateway(machine)
    bare = machine.ssh(FILES)
    checked = found.role("--check", "--diff").ok()
    assert checked.changed > 0
    assert bare == machine.ssh(FILES), "check mode has changed the machine"
    played = machine.play("site.yml", "-v", "--diff", **found.variables).ok()
    for output in (checked.output, played.output):
        assert "canary" not in output
        assert found.certificate.key.splitlines()[1] not in output
    yield found
    if "gateway" in machine.ssh(FILES):
        machine.play("site.yml").ok()


def chromium() -> str:
    """The browser's program, installed if there is none."""
    for attempt in range(2):
        for name in ("chromium", "chromium-browser", "google-chrome"):
            if found := shutil.which(name):
                return found
        if attempt == 0 and os.geteuid() == 0 and shutil.which("apt-get"):
            run("apt-get", "update", "--quiet", timeout=300)
            apt_install(["chromium"])
    raise AssertionError("found no Chromium on PATH; expected one, for example from: apt-get install chromium")


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    """What drives the browsers, of which there may be several."""
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """Chromium without a window. Its sandbox needs what containers and CI do not give; only our own UI is opened."""
    opened = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
    yield opened
    opened.close()


class Tab:
    """A page of the UI, what went wrong in it, and how often it was loaded."""

    def __init__(self, page: Page, address: str, name: str) -> None:
        self.page, self.address, self.name = page, address, name
        self.errors: list[str] = []
        self.loads = 0
        self.sockets: list[str] = []
        self.shots = 0
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("load", lambda _: setattr(self, "loads", self.loads + 1))
        page.on("websocket", lambda socket: self.sockets.append(socket.url))

    def open(self, path: str) -> None:
        """Load a page of the UI."""
        self.page.goto(self.address + path, wait_until="load")

    def see(self, text: str | re.Pattern[str], seconds: float = 60) -> None:
        """Wait until a text is on the screen, ``seconds`` (times PATIENCE) at most."""
        try:
            self.page.get_by_text(text).first.wait_for(timeout=seconds * 1000 * PATIENCE)
        except Exception:
            self.shoot("not-seen")
            raise

    def click(self, button: str) -> None:
        """Press the button of this name."""
        self.page.get_by_role("button", name=button).first.click(timeout=60_000 * PATIENCE)

    def shoot(self, what: str) -> None:
        """Keep a screenshot."""
        self.shots += 1
        self.page.screenshot(path=SHOTS / f"{self.name}-{self.shots}-{what}.png")


@pytest.fixture
def tab(browser: Browser, machine: Machine, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """A tab of its own for each test."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    context = browser.new_context(viewport=SIZE)
    opened = Tab(context.new_page(), machine.address(), request.node.name.removeprefix("test_"))
    yield opened
    opened.shoot("end")
    context.close()


@pytest.fixture(scope="session", autouse=True)
def folder() -> Path:
    """Screenshots of the last session go."""
    shutil.rmtree(SHOTS, ignore_errors=True)
    return SHOTS
