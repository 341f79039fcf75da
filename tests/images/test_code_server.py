"""How the user code starts, fails to start, and stops."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.images.support import HARDENING, docker, wait_for

CODE = "/opt/dagster/dagster_home/dagster_core"
# Each the way users break it, what the log must name: file and line where Python knows them, and the error.
BROKEN = {
    "syntax error": (
        {"__init__.py": "import dagster as dg\n\ndefs = dg.Definitions(\n"},
        [f'File "{CODE}/__init__.py", line 3', "SyntaxError: '(' was never closed"],
    ),
    "syntax error in a submodule": (
        {"__init__.py": "from dagster_core.sub import x\n", "sub.py": "x = (1\ny = 2\n"},
        [f'File "{CODE}/__init__.py", line 1', f'File "{CODE}/sub.py", line 1', "SyntaxError: '(' was never closed"],
    ),
    "missing import": (
        {"__init__.py": "import dagster as dg\nimport not_installed\ndefs = dg.Definitions()\n"},
        [f'File "{CODE}/__init__.py", line 2', "ModuleNotFoundError: No module named 'not_installed'"],
    ),
    "missing variable": (
        {"__init__.py": "import os\n\nTOKEN = os.environ['NOT_SET']\n"},
        [f'File "{CODE}/__init__.py", line 3', "KeyError: 'NOT_SET'"],
    ),
    "no Definitions": (
        {"__init__.py": "x = 1\n"},
        ["DagsterInvariantViolationError: No Definitions, RepositoryDefinition, Job,", 'found in "dagster_core"'],
    ),
    "two Definitions": (
        {"__init__.py": "import dagster as dg\na = dg.Definitions()\nb = dg.Definitions()\n"},
        ["Cannot have more than one Definitions object", "dagster_core.a, dagster_core.b"],
    ),
    "duplicate asset": (
        {
            "__init__.py": "import dagster as dg\n"
            "@dg.asset\ndef a(): ...\n"
            "@dg.asset(name='a')\ndef b(): ...\n"
            "defs = dg.Definitions(assets=[a, b])\n"
        },
        ["DagsterInvalidDefinitionError: Duplicate asset key: AssetKey(['a'])"],
    ),
}
Start = Callable[..., str]


@pytest.fixture
def start(images: tuple[str, str]) -> Iterator[Start]:
    """Starts a hardened container of the user code's image; returns its name."""
    names: list[str] = []

    def run(*arguments: str, command: tuple[str, ...] = ()) -> str:
        names.append(f"images-test-{uuid.uuid4().hex[:8]}")
        docker("run", "-d", "--name", names[-1], *HARDENING, *arguments, images[0], *command)
        return names[-1]

    yield run
    docker("rm", "-f", "-v", *names, check=False)


def started(name: str) -> bool:
    """The server said that it listens."""
    return "Started Dagster code server" in docker("logs", name)


@pytest.mark.parametrize("case", BROKEN)
def test_broken_code_ends_the_server_and_says_why(start: Start, tmp_path: Path, case: str) -> None:
    files, expected = BROKEN[case]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for folder in (tmp_path, tmp_path.parent):
        folder.chmod(0o755)
    name = start("-v", f"{tmp_path}:{CODE}:ro")
    assert docker("wait", name, timeout=60).strip() == "1"
    log = docker("logs", name)
    assert [text for text in expected if text not in log] == [], log
    assert not started(name)


def test_no_instance_of_its_own(start: Start) -> None:
    """The instance comes with each request; a server that finds a DAGSTER_HOME opens SQLite there."""
    name = start()
    wait_for("the server", lambda: started(name))
    log = docker("logs", name)
    assert "WARNING" not in log, log
    assert docker("diff", name).strip() == ""


def test_the_articles_command_works_too(start: Start) -> None:
    command = ("dagster", "api", "grpc", "-h", "0.0.0.0", "-p", "4000", "-f", f"{CODE}/__init__.py")
    name = start(command=command)
    wait_for("the server", lambda: started(name))


def test_stop_is_graceful(start: Start) -> None:
    name = start()
    wait_for("the server", lambda: started(name))
    before = time.monotonic()
    docker("stop", "-t", "60", name)
    assert time.monotonic() - before < 20
    assert docker("inspect", "-f", "{{.State.ExitCode}}", name).strip() == "0"
    assert "Shutting down Dagster code server" in docker("logs", name)
