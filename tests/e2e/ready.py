"""``python -m tests.e2e.ready NAME``: a machine that others begin with, as ``LAB_LIKE=NAME`` has it.

It has what nearly every test waits for first and few are about: Docker Engine, PostgreSQL's image, the webserver's and
the load fixture's, as `site.yml` makes and names them.
"""

from __future__ import annotations

import subprocess
import sys

from tests.e2e.harness import ROOT, Machine


def main(name: str) -> None:
    """Make it, whatever an earlier one was."""
    machine = Machine(name).start()
    machine.play("tests/e2e/images.yml", dagster_core_dir="tests/fixtures/dagster_core_load").ok()
    machine.ssh("docker rmi e2e_webserver:1 e2e_core:1 && docker pull --quiet postgres:17")
    subprocess.run([sys.executable, "-m", "lab", "keep", name], cwd=ROOT, check=True)


if __name__ == "__main__":
    main(sys.argv[1])
