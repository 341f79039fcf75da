#!/usr/bin/env python3
"""What a test run has left behind in this machine's Docker engine.

Usage: tests/tools/leftovers.py record FILE     note what is there before
       tests/tools/leftovers.py compare FILE    list what has come since and stayed; exit status 1 if there is any

Only what tests make counts, by its name: something else may use the engine meanwhile.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

LISTS = {
    "container": ["ps", "--all", "--format", "{{.Names}}"],
    # One that a container uses is told by the container.
    "volume": ["volume", "ls", "--filter", "dangling=true", "--format", "{{.Name}}"],
    "network": ["network", "ls", "--format", "{{.Name}}"],
}
# Machines of scenarios and end-to-end tests, what tests name after themselves, and what Docker names where nobody did.
OURS = re.compile(r"dagster-gce-lab-(molecule|e2e)-.*|[a-z-]+-test-.*|[a-z]+_[a-z]+[0-9]*|[0-9a-f]{64}")


def everything() -> set[str]:
    """What is there, ``<kind> <name>`` each."""
    found = set()
    for kind, command in LISTS.items():
        done = subprocess.run(["docker", *command], capture_output=True, text=True, check=True)
        found |= {f"{kind} {name}" for name in done.stdout.split()}
    return found


def left(before: Iterable[str], after: Iterable[str]) -> list[str]:
    """What of ours is there after and was not before."""
    return sorted(each for each in set(after) - set(before) if OURS.fullmatch(each.split(" ", 1)[1]))


def main(action: str, file: str) -> int:
    """Record or compare; returns the exit status."""
    path = Path(file)
    if action == "record":
        path.write_text("".join(f"{each}\n" for each in sorted(everything())), encoding="utf-8")
        return 0
    found = left(path.read_text(encoding="utf-8").splitlines(), everything())
    print("\n".join(f"left behind: {each}" for each in found) or "nothing was left behind")
    return 1 if found else 0


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("record", "compare"):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
