"""`make dev`: an edit is served at once, an error is shown, a run outlives an edit, a debugger attaches."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import machine as lab_machine
from tests.e2e.harness import ROOT, wait
from tests.webserver import LOST, PATIENCE, Webserver

PROJECT = "dagster-local-test"
NEEDED = ["docker-compose-local.yml", ".env.dev", "dagster_core", "files", "requirements"]
# What the issue asks for, and what this test asks for: the median of several edits.
SECONDS = 3.0
ASSET = '''

@dg.asset
def edited_{number}() -> None:
    """Made by a test."""
    import time

    time.sleep({sleep})
'''


class Stack(Webserver):
    """The stack of a copy of the checkout, whose user code may be edited."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.code = folder / "dagster_core" / "assets" / "publication.py"
        self.port, self.debugger = lab_machine.free_port(), lab_machine.free_port()

    def address(self) -> str:
        """Where the webserver listens."""
        return f"http://127.0.0.1:{self.port}"

    def compose(self, *arguments: str) -> str:
        """`docker compose` as the Makefile calls it."""
        environment = os.environ | {"DAGSTER_WEBSERVER_PORT": str(self.port), "DAGSTER_DEBUG_PORT": str(self.debugger)}
        command = ["docker", "compose", "-p", PROJECT, "-f", "docker-compose-local.yml", "--env-file", ".env.dev"]
        done = subprocess.run(
            [*command, *arguments], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def assets(self) -> list[str]:
        """The keys of the assets that are served; empty while there is no answer."""
        try:
            return [
                each["assetKey"]["path"][-1]
                for each in self.graphql("{ assetNodes { assetKey { path } } }")["assetNodes"]
            ]
        except LOST:
            return []

    def error(self) -> str:
        """What is wrong with the code location, with its causes; empty if nothing is."""
        query = """{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError {
            ... on PythonError { message stack causes { message stack } } } } } } }"""
        try:
            (entry,) = self.graphql(query)["workspaceOrError"]["locationEntries"]
        except LOST:
            return ""
        error = entry["locationOrLoadError"]
        parts = [error, *error.get("causes", [])]
        return "\n".join(text for each in parts for text in (each.get("message", ""), *each.get("stack", [])))

    def said(self, run: str) -> str:
        """The run's events."""
        query = """query ($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
            ... on MessageEvent { message } ... on RunFailureEvent { error { message stack } }
            ... on EngineEvent { error { message stack } } } } } }"""
        return json.dumps(self.graphql(query, id=run)["logsForRun"]["events"], indent=1)

    def edit(self, text: str) -> None:
        """Save the file with more at its end."""
        self.code.write_text(self.code.read_text() + text)

    def seconds_until(self, probe: Callable[[], bool], what: str) -> float:
        """How long it takes until something is true."""
        start = time.monotonic()
        deadline = start + 60 * PATIENCE
        while not probe():
            assert time.monotonic() < deadline, (
                what + "\n" + self.compose("logs", "--tail", "40", "docker_dagster_core")
            )
            time.sleep(0.05)
        return time.monotonic() - start


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack, up and healthy."""
    subprocess.run([sys.executable, "-m", "lab", "up"], cwd=ROOT, check=True)
    folder = tmp_path_factory.mktemp("checkout")
    folder.chmod(0o755)
    for parent in folder.parents[:2]:
        parent.chmod(0o755)
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.json"))
        else:
            shutil.copy(source, folder / name)
    stack = Stack(folder)
    try:
        stack.compose("up", "--build", "--detach", "--wait")
        yield stack
    finally:
        stack.compose("down", "--volumes", "--timeout", "5")


def test_an_edit_is_served_within_seconds(stack: Stack) -> None:
    assert "climate_normals" in stack.assets()
    seconds = []
    for number in range(5):
        stack.edit(ASSET.format(number=number, sleep=0))
        seconds.append(stack.seconds_until(lambda n=number: f"edited_{n}" in stack.assets(), "the edit"))  # type: ignore[misc]
    print("edit to served:", [round(each, 2) for each in seconds])
    # With other machines beside it the processors are somebody else's: run alone, it is held to the three seconds.
    assert statistics.median(seconds) <= SECONDS * PATIENCE


def test_code_that_cannot_be_imported_is_shown_with_file_and_line(stack: Stack) -> None:
    good = stack.code.read_text()
    stack.edit("\ndef broken(:\n")
    line = len(stack.code.read_text().splitlines())
    stack.seconds_until(lambda: "SyntaxError" in stack.error(), "the error")
    assert "publication.py" in stack.error()
    assert f"line {line}" in stack.error()
    stack.code.write_text(good)
    stack.seconds_until(
        lambda: "climate_normals" in stack.assets() and not stack.error(), "the code without the mistake"
    )


def test_a_run_outlives_the_edit_of_its_code(stack: Stack) -> None:
    stack.edit(ASSET.format(number="slow", sleep=15))
    stack.seconds_until(lambda: "edited_slow" in stack.assets(), "the edit")
    run = stack.launch("__ASSET_JOB", assets=["edited_slow"])
    wait(lambda: stack.run_status(run) == "STARTED", 60, "that the run starts", lambda: stack.run_status(run))
    time.sleep(5)
    stack.edit(ASSET.format(number="meanwhile", sleep=0))
    stack.seconds_until(lambda: "edited_meanwhile" in stack.assets(), "the edit")
    wait(lambda: stack.run_status(run) not in ("STARTED",), 60, "that the run ends", lambda: stack.run_status(run))
    assert stack.run_status(run) == "SUCCESS"


def test_a_debugger_attaches_and_follows_a_run(stack: Stack) -> None:
    """The Debug Adapter Protocol, as an editor speaks it: a run's process announces itself to the editor."""
    time.sleep(3)  # the last test's edit gives the debugger a new process
    announced: list[str] = []
    with contextlib.ExitStack() as sessions:
        debugger = sessions.enter_context(Debugger(stack.debugger))
        debugger.attach(justMyCode=True, subProcess=True)

        def follow() -> None:
            """Attach to whatever announces itself, as an editor does: the run, and multiprocessing's own helper."""
            with contextlib.suppress(OSError, ValueError, AssertionError):
                while True:
                    process = debugger.wait_for("debugpyAttach")["body"]
                    announced.append(process["name"])
                    sessions.enter_context(Debugger(stack.debugger)).attach(**process)

        threading.Thread(target=follow, daemon=True).start()
        run = stack.launch("__ASSET_JOB", assets=["edited_0"])
        wait(lambda: stack.run_status(run) in ("SUCCESS", "FAILURE"), 120, "its end", lambda: stack.run_status(run))
    assert announced
    assert stack.run_status(run) == "SUCCESS", stack.said(run)


class Debugger:
    """As much of an editor as it takes to attach."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.sequence = 0

    def __enter__(self) -> Debugger:
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        self.stream = self.socket.makefile("rb")
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def attach(self, **arguments: Any) -> None:
        """Initialize, attach, and let the program go on."""
        self.send("initialize", adapterID="test", clientID="test")
        self.send("attach", **arguments)
        self.wait_for("initialized")
        self.send("configurationDone")
        self.wait_for("attach")

    def send(self, command: str, **arguments: Any) -> None:
        """Send one request."""
        self.sequence += 1
        body = json.dumps(
            {"seq": self.sequence, "type": "request", "command": command, "arguments": arguments}
        ).encode()
        self.socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    def wait_for(self, name: str) -> dict[str, Any]:
        """Read until this event, or the answer to this command."""
        while True:
            length = 0
            while line := self.stream.readline().strip():
                key, _, value = line.partition(b":")
                if key.lower() == b"content-length":
                    length = int(value)
            assert length, f"the debugger closed the connection before: {name}"
            message: dict[str, Any] = json.loads(self.stream.read(length))
            if name in (message.get("event"), message.get("command")):
                assert message.get("success", True), message
                return message
