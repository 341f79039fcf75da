"""The record of PostgreSQL's volume."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import postgres_volume


def test_without_a_record_it_is_the_article_s(tmp_path: Path) -> None:
    assert postgres_volume.name(str(tmp_path)) == "dagster-postgres"
    assert postgres_volume.record(str(tmp_path)) == {}


def test_what_was_saved_is_read_and_closed_to_others(tmp_path: Path) -> None:
    postgres_volume.save(str(tmp_path), {"volume": "dagster-postgres-17", "major": "17"})
    assert postgres_volume.name(str(tmp_path)) == "dagster-postgres-17"
    assert stat.S_IMODE((tmp_path / "upgrades").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "upgrades" / "postgres.json").stat().st_mode) == 0o600
    postgres_volume.save(str(tmp_path), None)
    assert postgres_volume.name(str(tmp_path)) == "dagster-postgres"
    postgres_volume.save(str(tmp_path), None)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"volume": ""}', '{"volume": 17}'])
def test_a_broken_record_is_an_error_and_no_guess(tmp_path: Path, content: str) -> None:
    (tmp_path / "upgrades").mkdir()
    (tmp_path / "upgrades" / "postgres.json").write_text(content)
    with pytest.raises(ValueError, match=r"postgres.json: found .*expected JSON that names the volume"):
        postgres_volume.name(str(tmp_path))
