"""The pictures are of the code: a phase that it does not have, or that nobody has described, is an error."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from docs._generate import diagrams

ROOT = Path(__file__).resolve().parents[3]


def test_phases_stand_in_the_order_of_the_code() -> None:
    found = diagrams.phases()
    in_order = ["check", "start", "gate", "cutover", "reload", "assert", "retire"]
    assert [name for name in found if name in in_order] == in_order


def test_a_phase_that_nobody_has_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(diagrams.PHASES, "gate")
    with pytest.raises(SystemExit, match="phases of a deploy"):
        diagrams.deploy()


def test_a_step_that_the_code_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *rest = diagrams.BACKUP
    monkeypatch.setattr(diagrams, "BACKUP", (second, first, *rest))
    with pytest.raises(SystemExit, match=r"backup_database\.end_leftovers"):
        diagrams.backup()


def test_a_change_of_the_template_changes_the_picture() -> None:
    compose, rest = diagrams.rendered()
    before = diagrams.architecture(compose, rest).svg()
    assert "127.0.0.1:3000" in before
    compose["services"]["dagster-webserver"]["ports"] = ["127.0.0.1:3999:3000"]
    assert "127.0.0.1:3999" in diagrams.architecture(compose, rest).svg()


def test_the_pictures_are_shown() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for name in ("architecture", "run", "deploy", "backup"):
        assert f"](images/{name}.svg)" in text
        root = ElementTree.parse(ROOT / f"docs/images/{name}.svg").getroot()
        assert root.tag.endswith("svg")
