"""The journal of an upgrade."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import upgrade_journal


def test_a_journal_tells_how_far_it_came(tmp_path: Path) -> None:
    journal = upgrade_journal.start(str(tmp_path), {"plan": {"a": 1}})
    assert upgrade_journal.load(str(tmp_path)) is None
    journal.begin("begun")
    journal.begin("dumping")
    found = upgrade_journal.load(str(tmp_path))
    assert found is not None
    assert (found.step, found.id, found.content["plan"]) == ("dumping", journal.id, {"a": 1})
    assert found.past("quiescing")
    assert not found.past("migrating")
    assert stat.S_IMODE(Path(upgrade_journal.path(str(tmp_path))).stat().st_mode) == 0o600


def test_a_way_back_that_is_interrupted_knows_from_where(tmp_path: Path) -> None:
    journal = upgrade_journal.start(str(tmp_path), {})
    journal.begin("migrating")
    journal.begin("returning")
    again = upgrade_journal.load(str(tmp_path))
    assert again is not None
    again.begin("returning")
    assert again.past("migrating")
    assert not again.past("switching")


def test_an_ended_upgrade_is_in_its_own_folder(tmp_path: Path) -> None:
    journal = upgrade_journal.start(str(tmp_path), {})
    journal.begin("starting")
    journal.end("ok")
    assert upgrade_journal.load(str(tmp_path)) is None
    (found,) = upgrade_journal.finished(str(tmp_path))
    assert found["result"] == "ok"
    assert found["step"] == "starting"


@pytest.mark.parametrize("content", ["", "{", '{"id": "x", "step": "unknown"}', '{"step": "begun"}', "[]"])
def test_a_broken_journal_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "upgrades").mkdir()
    Path(upgrade_journal.path(str(tmp_path))).write_text(content)
    with pytest.raises(ValueError, match="expected the journal of an upgrade"):
        upgrade_journal.load(str(tmp_path))
