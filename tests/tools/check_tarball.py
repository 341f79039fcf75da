"""Look into the collection's tarball: what users need is there, what they must not get is not.

Usage: python tests/tools/check_tarball.py TARBALL
"""

from __future__ import annotations

import re
import sys
import tarfile
from pathlib import Path

NEEDED = (
    "MANIFEST.json",
    "LICENSE",
    "README.md",
    "CHANGELOG.rst",
    "meta/runtime.yml",
    "playbooks/site.yml",
    "playbooks/deploy_core.yml",
    "playbooks/provision.yml",
    "playbooks/destroy.yml",
    "plugins/action/check_inputs.py",
    "plugins/doc_fragments/google.py",
    "plugins/inventory/gce.py",
    "plugins/lookup/gcp_secret.py",
    "plugins/module_utils/google_client.py",
    "plugins/modules/gce_instance.py",
    "dagster_core/__init__.py",
    "files/docker/dockerfile_dagster_core",
    "files/docker/dockerfile_daemon_webserver",
    "requirements/dagster_core.txt",
    "requirements/daemon_webserver.txt",
)
FORBIDDEN = re.compile(
    r"(^|/)(tests?|molecule|lab|build|(?<!plugins/)inventory|secrets|__pycache__|\.[^/]+)(/|$)|\.(pyc|pem|key|log)$"
    r"|service-account"
)
LARGEST_BYTES = 2_000_000


def problems(tarball: Path) -> list[str]:
    """What is wrong with a tarball, one line each."""
    with tarfile.open(tarball) as archive:
        members = {member.name: member for member in archive.getmembers()}
    files = [name for name, member in members.items() if member.isfile()]
    # roles/*/tasks and dagster_core's own tests are named like nothing above; anything else that matches is a leak.
    found = [f"missing: {name}" for name in NEEDED if name not in members]
    found += [f"must not be shipped: {name}" for name in files if FORBIDDEN.search(name)]
    for role in sorted({name.split("/")[1] for name in files if name.startswith("roles/")}):
        for part in ("README.md", "meta/main.yml", "meta/argument_specs.yml", "defaults/main.yml"):
            if f"roles/{role}/{part}" not in members:
                found.append(f"missing: roles/{role}/{part}")
    if tarball.stat().st_size > LARGEST_BYTES:
        found.append(f"{tarball.stat().st_size} bytes, of at most {LARGEST_BYTES}")
    if not found:
        print(f"{tarball.name}: {len(files)} files, {tarball.stat().st_size // 1024} KiB")
    return found


if __name__ == "__main__":
    lines = problems(Path(sys.argv[1]))
    print("\n".join(lines), end="\n" if lines else "")
    sys.exit(1 if lines else 0)
