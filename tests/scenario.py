"""What the tests of molecule's scenarios share: running their role on their machine, looking at its containers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from testinfra.host import Host

PROJECT = Path(__file__).resolve().parents[1]

Role = Callable[..., subprocess.CompletedProcess[str]]


def role_of(scenario: Path, folder: Path) -> Role:
    """A function that plays the scenario's converge.yml with extra variables (kept in ``folder``).

    Its positional arguments go to ansible-playbook as they are.
    """
    file = folder / "variables.json"
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".collections"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
        "MOLECULE_PROJECT_DIRECTORY": str(PROJECT),
        "MOLECULE_SCENARIO_NAME": scenario.name,
    }

    def run(*options: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        file.write_text(json.dumps(variables), encoding="utf-8")
        return subprocess.run(
            [
                Path(sys.executable).with_name("ansible-playbook"),
                f"--inventory={PROJECT / 'molecule' / 'inventory'}",
                f"--extra-vars=@{file}",
                *options,
                scenario / "converge.yml",
            ],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def inspect(host: Host, container: str) -> dict[str, Any]:
    """What the machine's engine says of a container."""
    found: dict[str, Any] = json.loads(host.check_output("docker container inspect %s", container))[0]
    return found
