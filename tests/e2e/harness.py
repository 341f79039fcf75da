"""What the end-to-end tests do to a machine of the lab: run playbooks against it, ask its webserver, look inside."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import machine as lab_machine
from tests.webserver import FINISHED, PATIENCE, Webserver

ROOT = Path(__file__).resolve().parent.parent.parent
# What takes minutes and is not needed at each change.
LONG = bool(os.environ.get("E2E_LONG"))
long_form = pytest.mark.skipif(not LONG, reason="long: make test-faults runs it")
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclass
class Played:
    """What came of one ansible-playbook run."""

    status: int
    output: str
    seconds: float

    @property
    def changed(self) -> int:
        """Changed tasks over all hosts."""
        return sum(int(found[3]) for found in RECAP.finditer(self.output))

    @property
    def flat(self) -> str:
        """The output without its line breaks, which fall anywhere."""
        return " ".join(self.output.split())

    def ok(self) -> Played:
        """Itself, if the run ended well."""
        assert self.status == 0, self.output[-8000:]
        return self

    def refused(self, *expected: str) -> Played:
        """Itself, if the run ended with an error that says each of ``expected``."""
        assert self.status != 0, f"expected an error, found none:\n{self.output[-4000:]}"
        for words in expected:
            assert words in self.flat, f"expected {words!r} in:\n{self.output[-6000:]}"
        return self


class Machine(Webserver):
    """A machine of the lab and the Dagster on it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        # The lab's inventory with this machine in place of the demo's, which Google's API makes.
        self.inventory = ROOT / "build" / "inventory" / name
        host = {name: {"ansible_ssh_common_args": f"-F {lab_machine.ssh_config()}"}}
        group_vars = self.inventory / "group_vars" / "dagster.yml"
        if group_vars.parent.is_symlink():
            group_vars.parent.unlink()  # of an older checkout
        group_vars.parent.mkdir(parents=True, exist_ok=True)
        (self.inventory / "hosts.yml").write_text(json.dumps({"dagster": {"hosts": host}}))
        group_vars.unlink(missing_ok=True)
        group_vars.symlink_to(ROOT / "inventory" / "lab" / "group_vars" / "dagster" / "machine.yml")

    def start(self) -> Machine:
        """Make it new, as if just installed."""
        subprocess.run([sys.executable, "-m", "lab", "up", "--fresh", self.name], cwd=ROOT, check=True)
        return self

    def remove(self) -> None:
        """Remove it and its disk."""
        subprocess.run([sys.executable, "-m", "lab", "down", self.name], cwd=ROOT, check=True)

    def ssh(self, command: str, check: bool = True, timeout: float = 120) -> str:
        """Run a shell command as root; returns its standard output."""
        done = subprocess.run(
            [*lab_machine.ssh_command(self.name), "sudo", "bash", "-s"],
            input=command, text=True, capture_output=True, timeout=timeout * PATIENCE, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def send(self, folder: str, files: Mapping[str, bytes | Path]) -> None:
        """Put files and folders, by their names below ``folder``, on the machine."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name, content in files.items():
                if isinstance(content, Path):
                    archive.add(content, name)
                    continue
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        encoded = base64.b64encode(packed.getvalue()).decode()
        self.ssh(f"mkdir -p {folder} && base64 -d <<'E' | tar -xz -C {folder}\n{encoded}\nE")

    def send_plugins(self, program: Path) -> None:
        """Put the collection's module_utils, and a program that imports them, into /root/e2e."""
        source = ROOT / "plugins" / "module_utils"
        inside = "ansible_collections/dataops/dagster_gce/plugins/module_utils"
        modules = {f"{inside}/{path.relative_to(source)}": path for path in sorted(source.rglob("*.py"))}
        self.send("/root/e2e", {**modules, program.name: program})

    def play(
        self, playbook: str, *arguments: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None, **variables: Any
    ) -> Played:
        """Run a playbook (a path of the checkout, or a name of the installed collection) with extra variables."""
        command = self._command(playbook, arguments, variables)
        environment = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", **(env or {})}
        start = time.monotonic()
        done = subprocess.run(
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return Played(done.returncode, done.stdout, time.monotonic() - start)

    def play_in_background(self, playbook: str, *arguments: str, **variables: Any) -> subprocess.Popen[bytes]:
        """Start a playbook; what it prints is in build/tests/<machine>-background.log."""
        log = ROOT / "build" / "tests" / f"{self.name}-background.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as stream:
            return subprocess.Popen(
                self._command(playbook, arguments, variables), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stream,
                stderr=stream, start_new_session=True,
            )  # fmt: skip

    def _command(self, playbook: str, arguments: tuple[str, ...], variables: Mapping[str, Any]) -> list[str]:
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        extra = ["--extra-vars", json.dumps(variables)] if variables else []
        return [program, "-i", str(self.inventory), playbook, *arguments, *extra]

    def tunnel(self) -> int:
        """The local port behind which the machine's webserver is, through SSH as an operator would do it."""
        if not self.port or not lab_machine.tunnel_is_open(self.name, self.port):
            self.port = self.port or lab_machine.free_port()
            lab_machine.tunnel(self.name, self.port, 3000)
        return self.port

    def address(self) -> str:
        """The webserver, through the tunnel."""
        return f"http://127.0.0.1:{self.tunnel()}"

    def wait_for_run(self, run: str, *statuses: str, seconds: float = 90) -> str:
        """Wait until a run has one of ``statuses``; one that has ended gets no other."""
        found = ""

        def reached() -> bool:
            nonlocal found
            found = self.run_status(run)
            ended = found in FINISHED
            assert found in statuses or not ended, f"run {run}: expected {statuses}, found {found}:\n{self.said(run)}"
            return found in statuses

        wait(reached, seconds, f"run {run} in {statuses}", lambda: found)
        return found

    def events(self, run: str) -> list[dict[str, Any]]:
        """The run's events, with the error of those that have one."""
        query = """query ($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
            __typename ... on MessageEvent { message timestamp }
            ... on ExecutionStepFailureEvent { error { message stack cause { message stack } } } } } } }"""
        found: list[dict[str, Any]] = self.graphql(query, id=run)["logsForRun"]["events"]
        return found

    def said(self, run: str) -> str:
        """What the run's events say."""
        return "\n".join(str(event.get("message")) for event in self.events(run))

    def tags(self, run: str) -> dict[str, str]:
        """The run's tags."""
        query = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { tags { key value } } } }"
        return {each["key"]: each["value"] for each in self.graphql(query, id=run)["runOrError"]["tags"]}

    def retry_of(self, run: str, seconds: float = 120) -> str:
        """The run that Dagster has begun in place of one that failed."""
        key = "dagster/auto_retry_run_id"
        wait(lambda: key in self.tags(run), seconds, f"a retry of {run}", lambda: self.tags(run))
        return self.tags(run)[key]

    def terminate(self, run: str) -> None:
        """Cancel a run as the UI does."""
        query = "mutation ($id: String!) { terminateRun(runId: $id) { __typename ... on PythonError { message } } }"
        answer = self.graphql(query, id=run)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer


@contextmanager
def new_or_given(name: str, prepare: Callable[[Machine], None] = lambda _: None) -> Iterator[Machine]:
    """A machine of this name, made new, prepared, and removed at the end.

    ``E2E_MACHINE=NAME`` takes one that is there in its place (and leaves it there), which saves two minutes while
    writing tests.
    """
    there = os.environ.get("E2E_MACHINE")
    machine = Machine(there or name)
    if not there:
        prepare(machine.start())
    yield machine
    if not there:
        machine.remove()


@contextmanager
def with_load_fixture(name: str) -> Iterator[Machine]:
    """Such a machine with the stack on it, and the load fixture as its first release."""
    with new_or_given(name) as machine:
        machine.play("site.yml", dagster_core_dir="tests/fixtures/dagster_core_load").ok()
        yield machine


def wait(probe: Callable[[], bool], seconds: float, what: str, found: Callable[[], Any] = lambda: "nothing") -> None:
    """Call ``probe`` until it is true; fails with what was found after ``seconds`` (times PATIENCE)."""
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline, f"expected within {seconds:.0f} s: {what}; found: {found()}"
        time.sleep(0.5)
