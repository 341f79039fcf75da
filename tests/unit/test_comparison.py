"""The table that stands us beside others: each thing that we say of ourselves has a test, and the test is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs/comparison.md"
OURS, SHOWN_BY = 4, 5


def rows() -> list[list[str]]:
    """The cells of the table's rows, without its head."""
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_what_we_say_of_ourselves_is_shown_by_a_test() -> None:
    found = rows()
    assert len(found) > 20
    for cells in found:
        assert len(cells) == SHOWN_BY + 1, cells
        if cells[OURS].startswith("no"):
            continue
        link = re.fullmatch(r"\[(test_\w+)\]\(\.\./(tests/[\w/]+\.py)\)", cells[SHOWN_BY])
        assert link, cells
        assert f"\ndef {link[1]}(" in (ROOT / link[2]).read_text(encoding="utf-8"), cells[SHOWN_BY]
