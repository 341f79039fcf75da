"""docs/reliability.md's table is made of the rows that tests leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import rows
from tests.e2e.faults import table


def row(fault: str, times: int, **more: Any) -> dict[str, Any]:
    about = {"fault": fault, "times": times, "lost": "nothing", "seconds": [3.0, 1.0, 2.0], "note": ""}
    return (
        about
        | {"test": "tests/e2e/faults/test_kills.py::test_x", "date": "2026-11-23", "machine": "2", "load": 3}
        | more
    )


def test_of_one_fault_the_row_with_the_most_repetitions_wins(tmp_path: Path) -> None:
    file = tmp_path / "faults.jsonl"
    written = [row("a", 20), row("a", 1), row("b", 1, note="old"), row("b", 1, note="new")]
    file.write_text("".join(json.dumps(each) + "\n" for each in written))
    found = [(each["fault"], each["times"], each["note"]) for each in table.read([file])]
    assert found == [("a", 20, ""), ("b", 1, "new")]


def test_a_line_shows_median_and_longest() -> None:
    assert (
        table.line(row("a", 20))
        == "| a | 20 | nothing | 2.0 s, 3.0 s |  | 2026-11-23, load 3, `faults/test_kills.py` |"
    )
    assert "| – |" in table.line(row("a", 1, seconds=[]))


def test_lines_of_faults_that_were_not_measured_again_stay() -> None:
    page = table.merge("", [row("a", 20), row("b", 1)])
    expected = [*table.HEAD, table.line(row("a", 20)), table.line(row("b", 5))]
    assert table.merge(page, [row("b", 5)]).splitlines() == expected


def test_a_row_names_its_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "FOLDER", tmp_path)
    rows.write("part", "a", 1, "nothing", [1.26])
    found = json.loads((tmp_path / "part.jsonl").read_text())
    assert found["test"] == "tests/unit/test_reliability_table.py::test_a_row_names_its_test"
    assert found["seconds"] == [1.3]
