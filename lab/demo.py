"""``make demo``: a machine, ``site.yml`` against it, and the UI on this computer."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import docker

from . import machine
from .shell import LabError, say, wait_until

NAME = "dagster-lab"
ROOT = Path(__file__).resolve().parent.parent
# The part of the demo's inventory that says which workers there are; without it there is one machine.
WORKERS = ROOT / "inventory" / "lab" / "workers.yml"
MOST_WORKERS = 8
# Of the inventory: where its repository of Artifact Registry is, and the image in it.
REGION = "europe-west3"
IMAGE = "dagster-lab/dagster-core-lab/docker_dagster_core"
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


def workers() -> int:
    """How many workers there are to be: WORKERS, by default as many as there are. Raises LabError."""
    there = len(re.findall(rf"^ +{NAME}-worker-\d+:", WORKERS.read_text(), re.MULTILINE)) if WORKERS.exists() else 0
    given = os.environ.get("WORKERS", "").strip() or str(there)
    if not given.isdigit() or int(given) > MOST_WORKERS:
        raise LabError(f"WORKERS: found {given!r}; expected a number of workers, at most {MOST_WORKERS}")
    if int(given) < there:
        raise LabError(
            f"WORKERS: found {given}; expected at least {there}, since the demo has so many. One goes with "
            "ansible-playbook -i inventory/lab playbooks/remove_worker.yml "
            f"-e dagster_worker_remove={NAME}-worker-{there}, and then out of {WORKERS.relative_to(ROOT)}"
        )
    return int(given)


def write_workers(count: int) -> None:
    """Write the inventory's part with so many workers."""
    text = (
        "---\n# Written by `make demo WORKERS=…`; out of git.\n"
        "all:\n  vars:\n    dagster_run_launcher: swarm\n"
        f"    dagster_storage_path: {machine.SHARED}/{NAME}\n"
        "dagster_workers:\n  hosts:\n"
    )
    text += "".join(f"    {NAME}-worker-{number + 1}:\n" for number in range(count))
    if not WORKERS.exists() or WORKERS.read_text() != text:
        WORKERS.write_text(text)


def run(started: float) -> None:
    """Provision the machine and open the tunnel. ``started`` is time.monotonic() at the start of the command."""
    local = port()
    count = workers()
    if not machine.tunnel_is_open(NAME, local) and not machine.port_is_free(local):
        raise LabError(f"port {local} of 127.0.0.1 is in use; choose another one: make demo DEMO_PORT=3001")
    if count:
        write_workers(count)
        say(f"provision.yml, build_core.yml: {count + 1} machines, and the user code's image in Artifact Registry")
        playbook("playbooks/provision.yml")
        image = build()
        say("site.yml: Docker Engine and the swarm, the stack, the user code, the workers")
        playbook("site.yml", "-e", f"dagster_core_image={image}")
    else:
        say("site.yml: project, network and machine through Google's API; Docker Engine, the stack, the user code")
        playbook("site.yml")
    machine.tunnel(NAME, local, 3000)
    wait_until(lambda: _answers(local), 60, f"a loaded code location behind http://127.0.0.1:{local}")
    deploy = (
        "  make demo                             build, push and ship dagster_core/ again after an edit\n"
        if count
        else "  make deploy                           ship dagster_core/ again after an edit, in seconds\n"
    )
    print(
        f"\nDagster answers on http://127.0.0.1:{local} ({time.monotonic() - started:.0f} s)\n\n"
        f"Try next:\n{deploy}"
        "  make status                           what serves, what runs, how it is\n"
        "  make demo-down                        remove it\n"
    )


def close() -> None:
    """End the tunnel, and forget the machine's host keys: the next one has others."""
    machine.close_connection(NAME)
    WORKERS.unlink(missing_ok=True)
    shutil.rmtree(machine.PROVISIONED.parent, ignore_errors=True)


def build() -> str:
    """Have the image of the checkout's user code in the registry; returns its reference. Raises LabError.

    This computer's engine knows nothing of the lab's Google. It pushes to the registry behind, under the name that
    makes it Artifact Registry's image; the machines pull it by Google's name, with their own login.
    """
    behind = machine.registry_address(docker.from_env())
    with tempfile.TemporaryDirectory() as folder:
        # What the playbook tells a workflow at GitHub.
        output = Path(folder, "output")
        output.touch()
        playbook(
            "playbooks/build_core.yml", "-e", f"dagster_core_repository={behind}/{REGION}/{IMAGE}",
            environment={"GITHUB_OUTPUT": str(output)},
        )  # fmt: skip
        told = dict(line.split("=", 1) for line in output.read_text().splitlines() if "=" in line)
    return told["image"].replace(f"{behind}/{REGION}/", f"{REGION}-docker.pkg.dev/", 1)


def playbook(name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
    """Run a playbook of the checkout against the demo's machine. Raises LabError if it fails."""
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory/lab", name, *arguments]
    if subprocess.run(command, cwd=ROOT, check=False, env={**os.environ, **(environment or {})}).returncode:
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
