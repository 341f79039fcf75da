"""``make demo``: a machine, ``site.yml`` against it, and the UI on this computer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from . import machine
from .shell import LabError, say, wait_until

NAME = "dagster-lab"
ROOT = Path(__file__).resolve().parent.parent
# What the UI is asked at the end: the same question that a user would ask.
QUESTION = """{
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } }
  workspaceOrError { ... on Workspace { locationEntries {
    name loadStatus locationOrLoadError { __typename ... on PythonError { message } } } } }
}"""


def port() -> int:
    """The UI's port on this computer: DEMO_PORT, 3000 by default. Raises LabError."""
    given = os.environ.get("DEMO_PORT", "3000")
    if not given.isdigit() or not 0 < int(given) < 65536:
        raise LabError(f"DEMO_PORT: found {given!r}; expected a TCP port")
    return int(given)


def run(started: float) -> None:
    """Provision the machine and open the tunnel. ``started`` is time.monotonic() at the start of the command."""
    local = port()
    if not machine.tunnel_is_open(NAME, local) and not machine.port_is_free(local):
        raise LabError(f"port {local} of 127.0.0.1 is in use; choose another one: make demo DEMO_PORT=3001")
    say("site.yml: project, network and machine through Google's API; Docker Engine, the stack, the user code")
    playbook("site.yml")
    machine.tunnel(NAME, local, 3000)
    wait_until(lambda: _answers(local), 60, f"a loaded code location behind http://127.0.0.1:{local}")
    print(
        f"\nDagster answers on http://127.0.0.1:{local} ({time.monotonic() - started:.0f} s)\n\n"
        "Try next:\n"
        "  make deploy                           ship dagster_core/ again after an edit, in seconds\n"
        "  make status                           what serves, what runs, how it is\n"
        "  make demo-down                        remove it\n"
    )


def close() -> None:
    """End the tunnel, and forget the machine's host keys: the next one has others."""
    machine.close_connection(NAME)
    shutil.rmtree(machine.PROVISIONED.parent, ignore_errors=True)


def playbook(name: str, *arguments: str) -> None:
    """Run a playbook of the checkout against the demo's machine. Raises LabError if it fails."""
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory/lab", name, *arguments]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise LabError(f"{name} failed; what is above says why. The same command goes on where this one stopped")


def _answers(local: int) -> bool:
    """Whether every required daemon is healthy and every code location is loaded without an error."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{local}/graphql",
        data=json.dumps({"query": QUESTION}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            data = json.load(answer)["data"]
    except (OSError, urllib.error.URLError, KeyError, ValueError):
        return False
    daemons = data["instance"]["daemonHealth"]["allDaemonStatuses"]
    locations = data["workspaceOrError"].get("locationEntries", [])
    return all(daemon["healthy"] or not daemon["required"] for daemon in daemons) and any(
        entry["name"] == "dagster_core"
        and entry["loadStatus"] == "LOADED"
        and entry["locationOrLoadError"]["__typename"] == "RepositoryLocation"
        for entry in locations
    )
