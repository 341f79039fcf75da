"""Write what the tests of faults have measured into docs/reliability.md.

Usage: python -m tests.e2e.faults.table [FILE.jsonl…]     (default: build/reliability/*.jsonl)

Of one fault the row with the most repetitions wins, the later one of two with as many. Faults that are in the table
and in no file keep their line.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from tests.bench.table import put
from tests.e2e import rows

PAGE = rows.ROOT / "docs" / "reliability.md"
HEAD = [
    "| what was done | times | lost | healthy again: median, longest | seen besides | date, load average, shown by |",
    "|" + "---|" * 6,
]


def read(paths: list[Path]) -> list[dict[str, Any]]:
    """The rows of the files, one for each fault."""
    best: dict[str, dict[str, Any]] = {}
    for path in paths:
        for line in path.read_text().splitlines():
            row = json.loads(line)
            if row["times"] >= best.get(row["fault"], {"times": 0})["times"]:
                best[row["fault"]] = row
    return list(best.values())


def line(row: dict[str, Any]) -> str:
    """A row as a line of the table."""
    seconds = row["seconds"]
    healthy = f"{statistics.median(seconds):.1f} s, {max(seconds):.1f} s" if seconds else "–"
    file = row["test"].removeprefix("tests/e2e/").partition("::")[0]
    when = ", ".join(
        [row["date"], *([f"load {row['load']}"] if "load" in row else []), *([f"`{file}`"] if file else [])]
    )
    return f"| {row['fault']} | {row['times']} | {row['lost']} | {healthy} | {row['note']} | {when} |"


def merge(page: str, found: list[dict[str, Any]]) -> str:
    """The table with these rows in it."""
    lines = dict(_fault_of(each) for each in page.splitlines() if each.startswith("| "))
    lines.pop("what was done", None)
    lines.update({row["fault"]: line(row) for row in found})
    return "\n".join([*HEAD, *lines.values()])


def _fault_of(table_line: str) -> tuple[str, str]:
    return table_line.split(" | ")[0].removeprefix("| "), table_line


def main(paths: list[str]) -> None:
    """Read the files and write the page."""
    found = read([Path(path) for path in paths] or sorted(rows.FOLDER.glob("*.jsonl")))
    if not found:
        raise SystemExit(f"found no rows in {rows.FOLDER}; the tests of faults write them: make test-faults")
    before = PAGE.read_text().partition("<!-- table -->\n")[2].partition("<!-- /table -->")[0]
    machines = sorted({row["machine"] for row in found})
    print(f"{len(found)} rows, measured on: {'; '.join(machines)}")
    put(PAGE, "table", merge(before, found))


if __name__ == "__main__":
    main(sys.argv[1:])
