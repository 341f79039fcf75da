"""See that ansible-doc renders every plugin and every role of the collection.

Usage: python tests/tools/check_docs.py
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

COLLECTION = "dataops.dagster_gce"
ROOT = Path(__file__).resolve().parents[2]
# Folder of plugins/ → type of ansible-doc. An action is documented by the module of the same name, or by those that
# meta/runtime.yml has it start.
KINDS = {"modules": "module", "filter": "filter", "lookup": "lookup", "inventory": "inventory", "callback": "callback"}
ATTRIBUTES = ("check_mode", "diff_mode", "idempotent")


def render(kind: str, names: list[str]) -> list[str]:
    """Ask ansible-doc for some plugins of one kind; returns what it complains about."""
    command = ["ansible-doc", "--type", kind, *names]
    if kind == "role":
        command += ["--roles-path", str(ROOT / "roles")]
    # As text, too: --json lets pass what cannot be shown.
    text = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, cwd=ROOT, check=False)
    # Ansible warns about a collection of its own, without a manifest.
    complaints = [line for line in text.stderr.splitlines() if line.strip() and "_protomatter" not in line]
    if done.returncode != 0 or text.returncode != 0:
        return complaints or [f"ansible-doc {kind}: exit status {done.returncode}"]
    rendered = json.loads(done.stdout)
    # With --json a plugin that cannot be documented is left out, or holds its error, and the exit status is 0.
    missing = [name for name in names if not _has_docs(rendered.get(name))]
    complaints += [f"{kind} {name}: ansible-doc shows nothing" for name in missing]
    if kind == "module":
        complaints += [line for name in names if name not in missing for line in _gaps(name, rendered[name])]
    return complaints


def _has_docs(entry: object) -> bool:
    return isinstance(entry, dict) and bool(entry.get("doc") or entry.get("entry_points")) and "error" not in entry


def _gaps(name: str, entry: dict[str, Any]) -> list[str]:
    """What a module's documentation leaves out."""
    attributes = entry["doc"].get("attributes") or {}
    gaps = [f"attribute {attribute}" for attribute in ATTRIBUTES if attribute not in attributes]
    gaps += [part for part in ("examples", "return") if not entry.get(part)]
    return [f"module {name}: no {gap}" for gap in gaps]


def main() -> int:
    """Check all; returns the exit status."""
    complaints: list[str] = []
    count = 0
    for folder, kind in KINDS.items():
        stems = sorted(path.stem for path in (ROOT / "plugins" / folder).glob("[!_]*.py"))
        if kind == "filter":
            stems = _filters()
        if stems:
            count += len(stems)
            complaints += render(kind, [f"{COLLECTION}.{stem}" for stem in stems])
    routing = yaml.safe_load((ROOT / "meta/runtime.yml").read_text(encoding="utf-8"))["plugin_routing"]["modules"]
    named = {each["action_plugin"] for each in routing.values()}
    for path in sorted((ROOT / "plugins/action").glob("[!_]*.py")):
        if not (ROOT / "plugins/modules" / path.name).exists() and f"{COLLECTION}.{path.stem}" not in named:
            complaints.append(f"plugins/action/{path.name}: no module of the same name documents it")
    roles = sorted(path.name for path in (ROOT / "roles").glob("*") if path.is_dir())
    if roles:
        count += len(roles)
        complaints += render("role", roles)
    print("\n".join(complaints) or f"{count} plugins and roles")
    return 1 if complaints else 0


def _filters() -> list[str]:
    """One file may hold several filters, each documented by itself: ask Ansible for their names."""
    command = ["ansible-doc", "--json", "--list", "--type", "filter", COLLECTION]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    return sorted(name.rpartition(".")[2] for name in json.loads(done.stdout))


if __name__ == "__main__":
    sys.exit(main())
