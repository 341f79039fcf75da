"""Every command of README.md, docs/tutorial.md and docs/coming-from.md, and what the pages show of its output.

As a newcomer types them: the tutorial from its first block to its last but one, in a clone of this checkout; then the
move of a database in docs/coming-from.md; then README.md; then the tutorial's end, which removes it all. What is not
played is a test that is skipped, with the reason that the page gives. How a page gives it: tests/e2e/console.py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import docker
import pytest

from lab import demo
from lab import machine as lab_machine
from tests.e2e.console import Command, Ended, Shell, check, commands
from tests.e2e.harness import ROOT
from tests.webserver import Webserver

LOGS = ROOT / "build" / "tests" / "tutorial"
PAGES = ("README.md", "docs/tutorial.md", "docs/coming-from.md")
MACHINE = "dagster-gce-lab-google-dagster-lab"
# `make demo` installs a machine; every other command takes seconds. Other tests run beside it.
LONGEST_SECONDS = 1800
LAST = "make demo-down"
# What a terminal of a newcomer does not have.
OURS = re.compile(r"ANSIBLE_|PYTEST|PYTHON|VIRTUAL_ENV|JUNIT_DIR|E2E_|MOLECULE_|MAKE")


class Ui(Webserver):
    """The demo's."""

    def address(self) -> str:
        return "http://127.0.0.1:3000"

    def runs(self) -> list[tuple[str, str]]:
        """Job and status of every run, the newest first."""
        query = "{ runsOrError { ... on Runs { results { jobName status } } } }"
        return [(run["jobName"], run["status"]) for run in self.graphql(query)["runsOrError"]["results"]]


class Player:
    """Plays commands in one terminal."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.played: dict[str, Ended] = {}

    def play(self, wanted: Sequence[Command]) -> None:
        """Play those that are to be played, in order. Raises PageIsWrong at the first that is not as the page says."""
        for command in wanted:
            if not (command.skipped or command.elsewhere):
                ended = self.shell.run(command.text, LONGEST_SECONDS)
                print(f"{command.place}: `{command.name}`: {ended.seconds:.0f} s", flush=True)
                check(command, ended)
                self.played[command.name] = ended


def clone(folder: Path) -> None:
    """This checkout as a clone, with what is not committed yet, and without what git ignores."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        source, target = ROOT / name, folder / name
        if source.is_symlink() or source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    author = ["-c", "user.name=newcomer", "-c", "user.email=newcomer@example.com"]
    for arguments in (["init", "--quiet"], ["add", "--all"], [*author, "commit", "--quiet", "--message", "As it is"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    # What takes a minute to install, and is the same.
    (folder / ".venv").symlink_to(ROOT / ".venv")


def left() -> list[str]:
    """Containers and volumes of the demo's machine."""
    client = docker.from_env()
    containers = client.containers.list(all=True, filters={"name": f"^{MACHINE}$"})
    volumes = client.volumes.list(filters={"name": MACHINE})
    return [*(str(each.name) for each in containers), *(str(each.name) for each in volumes)]


@pytest.fixture
def player(tmp_path: Path) -> Iterator[Player]:
    """A terminal in a fresh clone; at the end nothing of a demo is left, however the test has ended."""
    if left() or not lab_machine.port_is_free(3000):
        pytest.skip("a demo runs on this computer, or something else has port 3000: `make demo-down` first")
    folder = tmp_path / "dagster_gce"
    clone(folder)
    kept = {name: value for name, value in os.environ.items() if not OURS.match(name)}
    programs = [each for each in os.environ["PATH"].split(":") if Path(each) != ROOT / ".venv/bin"]
    # Whose registry it is, decides whether it goes with the demo: other tests may be between two machines.
    shared = {"LAB_KEEP_SHARED": "yes"} if registry_runs() else {}
    shell = Shell(folder, {**kept, **shared, "PATH": ":".join(programs), "NO_COLOR": "1"}, LOGS)
    yield Player(shell)
    shell.close()
    if left() or (folder / ".lab").exists():
        subprocess.run(["make", "demo-down"], cwd=folder, env=kept, check=False)


def registry_runs() -> bool:
    """Whether the lab's registry is there."""
    return bool(docker.from_env().containers.list(filters={"name": f"^{lab_machine.REGISTRY_NAME}$"}))


def pages() -> dict[str, list[Command]]:
    """The commands of each page."""
    return {page: commands(page, (ROOT / page).read_text(encoding="utf-8")) for page in PAGES}


def test_a_newcomer_gets_what_the_pages_show(player: Player) -> None:
    """From nothing to a run in SUCCESS, a refused release, a rollback, a backup that is proven; and nothing is left."""
    ui = Ui()
    others = registry_runs()
    readme, tutorial, move = pages().values()
    *most, last = tutorial
    assert last.text == LAST
    player.play(most)
    runs = ui.runs()
    assert ("__ASSET_JOB", "SUCCESS") in runs, runs
    assert {status for _job, status in runs} == {"SUCCESS"}, runs
    # A database that comes in as an old one does, and all that it holds.
    player.play(move)
    player.play(readme)
    assert ui.runs() == runs
    again = player.played["ansible-playbook -i inventory/lab site.yml"].output
    assert re.search(rf"^{demo.NAME} .*changed=0 .*failed=0", again, re.MULTILINE), again[-2000:]
    assert {location.loaded for location in ui.locations().values()} == {True}
    player.play([last])

    assert left() == []
    assert lab_machine.port_is_free(3000)
    # Registry and engine of whoever else uses them are none of the demo's.
    assert registry_runs() == others
    print(f"{len(player.played)} commands played")


@pytest.mark.parametrize(
    "command",
    [command for page in pages().values() for command in page if command.skipped],
    ids=lambda command: f"{command.place} {command.name}",
)
def test_not_played(command: Command) -> None:
    """So that it is counted, and its reason printed."""
    pytest.skip(command.skipped)
