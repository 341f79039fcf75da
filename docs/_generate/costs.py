"""What an environment costs: quantities from its inventory and the roles' defaults, and a sum where prices are given.

Usage: python docs/_generate/costs.py [INVENTORY] [--price NAME=USD]... [--use NAME=NUMBER]...
       python docs/_generate/costs.py --write|--check      (the table of docs/costs.md, for inventory/prod)
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from docs._generate import pages  # noqa: E402

PAGE = ROOT / "docs/costs.md"
BEGIN, END = "<!-- costs -->", "<!-- /costs -->"
NOTE = "<!-- Made by `make docs-diagrams` of inventory/prod and the roles' defaults. -->"
HOURS = 730
# What no inventory says: how much is used. docs/costs.md says what each is.
USE = {"used_gb": 15.0, "changed_gb": 0.5, "nat_gib": 20.0, "images_gb": 3.0, "backups_gb": 1.0}


@dataclass(frozen=True)
class Row:
    """Something that Google charges for."""

    name: str
    what: str
    quantity: float
    unit: str
    setting: str


def settings(inventory: str) -> dict[str, dict[str, Any]]:
    """What each host of an inventory has."""
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        command = [program, "-i", inventory, "docs/_generate/costs.yml", "-e", f"costs_dir={folder}"]
        # A password that nobody gave, a vault that is closed: nothing of it is needed here.
        done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"docs/_generate/costs.yml failed:\n{done.stdout}{done.stderr}")
        return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(folder).glob("*.json"))}


def rows(has: dict[str, Any], use: dict[str, float]) -> list[Row]:
    """What is charged for one machine in a month."""
    spot = " (Spot)" if has["spot"] else ""
    found = [Row("machine", f"{has['machine_type']}{spot} in {has['zone']}", HOURS, "h", "gce_instance_machine_type")]
    for name in ("boot_disk", "data_disk"):
        kind, size = has[name]
        found.append(Row(str(kind), f"{name.replace('_', ' ')}, {kind}", float(size), "GB", f"gce_instance_{name}_gb"))
    days = int(has["snapshot_days"])
    if days:
        kept = use["used_gb"] + days * use["changed_gb"]
        what = f"snapshots of {days} days: the first has all that is used, each later one what has changed"
        found.append(Row("snapshots", what, kept, "GB", "gce_instance_snapshot_days"))
    if has["nat"]:
        found += [
            Row("nat", "Cloud NAT, one machine", HOURS, "h", "gce_network_nat"),
            Row("address", "the address that NAT uses", HOURS, "h", "gce_network_nat"),
            Row("nat_gib", "what goes through NAT, both ways", use["nat_gib"], "GiB", "gce_network_nat"),
        ]
    if has["external_address"] != "none":
        found.append(Row("address", "the machine's external address", HOURS, "h", "gce_instance_external_address"))
    if has["repository"]:
        what = f"Artifact Registry: layers of the last {has['repository_keep']} images, without the free 0.5 GB"
        found.append(Row("registry", what, max(0.0, use["images_gb"] - 0.5), "GB", "gce_project_repository_keep"))
    if has["bucket"]:
        found.append(Row("bucket", "backups in Cloud Storage", use["backups_gb"], "GB", "dagster_backup_bucket"))
    return found


def table(found: list[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| what | a month | unit of the price | price | variable |", "|---|---|---|---|---|"]
    for row in found:
        unit = {"h": "hour", "GB": "GB and month", "GiB": "GiB"}[row.unit]
        lines.append(f"| {row.what} | {row.quantity:g} {row.unit} | {unit} | `{row.name}` | `{row.setting}` |")
    return "\n".join(lines)


def total(found: list[Row], prices: dict[str, float]) -> str:
    """What a month comes to, as a sum that can be followed."""
    missing = sorted({row.name for row in found} - prices.keys())
    known = [row for row in found if row.name in prices]
    parts = " + ".join(f"{row.quantity:g} × {prices[row.name]:g}" for row in known)
    amount = sum(row.quantity * prices[row.name] for row in known)
    text = f"{parts} = {amount:.2f} USD a month" if known else "no price is given"
    return f"{text}; without a price: {', '.join(missing)}" if missing else text


def numbers(given: list[str]) -> dict[str, float]:
    """``NAME=NUMBER`` arguments. Raises SystemExit."""
    found = {}
    for each in given:
        name, _equals, value = each.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise SystemExit(f"found {each!r}; expected NAME=NUMBER") from None
    return found


def page(check: bool) -> int:
    """Write or check the table in docs/costs.md; returns the exit status."""
    (has,) = settings("inventory/prod").values()
    text = f"{NOTE}\n\n{table(rows(has, USE))}\n"
    new = pages.between(PAGE.read_text(encoding="utf-8"), BEGIN, END, text)
    if new is None:
        raise SystemExit(f"docs/costs.md: found no markers; expected {BEGIN} and {END}")
    wrong = pages.keep({PAGE: new}, check, "the table is out of date; run `make docs-diagrams`")
    print("\n".join(wrong) or "1 table of costs")
    return 1 if wrong else 0


def main() -> int:
    """Print, write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description="What an environment has at Google, and what that costs.")
    parser.add_argument("inventory", nargs="?", default="inventory/prod")
    parser.add_argument("--price", action="append", default=[], metavar="NAME=USD", help="price of a unit")
    parser.add_argument("--use", action="append", default=[], metavar="NAME=NUMBER", help=f"one of {', '.join(USE)}")
    parser.add_argument("--write", action="store_true", help="write the table of docs/costs.md")
    parser.add_argument("--check", action="store_true", help="fail if that table is out of date")
    given = parser.parse_args()
    if given.write or given.check:
        return page(not given.write)
    use = numbers(given.use)
    if unknown := use.keys() - USE.keys():
        raise SystemExit(f"--use: found {', '.join(sorted(unknown))}; expected one of {', '.join(USE)}")
    prices = numbers(given.price)
    for host, has in settings(given.inventory).items():
        found = rows(has, USE | use)
        print(f"{host}\n\n{table(found)}\n\n{total(found, prices)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
