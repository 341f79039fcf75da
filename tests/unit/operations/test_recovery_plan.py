"""Which base and which WAL lead to a moment, and what is refused before anything is touched."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_files,
    backup_place,
    database,
    jobs,
    recovery,
    recovery_cluster,
    recovery_plan,
    restore_plan,
    wal_files,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_files import DamagedError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_manifest import Manifest
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_place import Directory
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.restore_plan import Wanted
from tests.unit.operations.test_wal import NOW, Cluster, base, cluster  # noqa: F401 - a fixture
from tests.unit.operations.test_wal_files import segment

HOUR = 3600


@pytest.fixture
def history(cluster: Cluster) -> Cluster:  # noqa: F811
    """Bases at ten and eleven, WAL up to twelve; segments 3, 4 | 5, 6 and what is written of 7."""
    base(cluster, 3, NOW - 2 * HOUR)
    base(cluster, 5, NOW - HOUR)
    cluster.write(4)
    cluster.store()
    return cluster


def find(history: Cluster, to: str) -> recovery_plan.Way:
    return recovery_plan.find(Directory(history.settings.directory), to)


def segments(way: recovery_plan.Way) -> list[str]:
    return [each.segment for each in way.pieces]


def test_from_the_newest_base_before_the_moment(history: Cluster) -> None:
    way = find(history, "2026-11-30T10:30:00Z")
    assert (way.base.stamp, way.stamp) == ("20261130T100000Z", "20261130T103000Z")
    # To the end of the next base, which is later.
    assert segments(way) == [segment(3), segment(4), segment(5)]
    way = find(history, "2026-11-30T11:30:00Z")
    assert way.base.stamp == "20261130T110000Z"
    assert segments(way) == [segment(5), segment(6), segment(7)]
    assert way.missing == ""


def test_latest_is_all_that_was_received(history: Cluster) -> None:
    way = find(history, "latest")
    assert way.stamp == "20261130T120000Z"
    assert segments(way) == [segment(5), segment(6), segment(7)]


@pytest.mark.parametrize("moment", ["2026-11-30T10:00:00Z", "2026-11-30T12:00:00Z"])
def test_the_borders_are_in_it(history: Cluster, moment: str) -> None:
    assert find(history, moment).missing == ""


@pytest.mark.parametrize("moment", ["2026-11-30T09:59:59Z", "2026-11-30T12:00:01Z", "2020-01-01T00:00:00Z"])
def test_what_is_not_covered_is_refused_with_what_is(history: Cluster, moment: str) -> None:
    with pytest.raises(jobs.JobError) as error:
        find(history, moment)
    said = str(error.value)
    assert f"dagster_restore_to: found {moment}; expected latest, or a moment from " in said
    assert "from 2026-11-30T10:00:00Z to 2026-11-30T12:00:00Z" in said
    assert history.settings.directory in said
    assert "Nothing has been touched" in said


@pytest.mark.parametrize("moment", ["yesterday", "2026-11-30", "2026-11-30 12:00:00", "2026-13-30T12:00:00Z"])
def test_what_is_no_moment(history: Cluster, moment: str) -> None:
    with pytest.raises(jobs.JobError, match=f"dagster_restore_to: found '{moment}'; expected latest, or a moment in"):
        find(history, moment)


def test_without_bases_it_says_how_to_get_one(cluster: Cluster) -> None:  # noqa: F811
    with pytest.raises(jobs.JobError, match=r"found no base of .*dagster_backup_continuous: true"):
        find(cluster, "latest")
    base(cluster, 3)
    with pytest.raises(jobs.JobError, match="found no WAL behind the 1 bases"):
        find(cluster, "latest")


def test_a_missing_segment_is_known(history: Cluster) -> None:
    place = Directory(history.settings.directory)
    gone = wal_files.archives(place.names(wal_files.FOLDER))["7578123456789012345"].whole[segment(6)]
    place.remove(gone.path)
    way = find(history, "latest")
    assert (segments(way), way.missing) == ([segment(5)], segment(6))
    assert find(history, "2026-11-30T10:30:00Z").missing == ""


def test_a_damaged_base_is_no_way(history: Cluster) -> None:
    path = Path(history.settings.directory) / "20261130T110000Z" / "manifest.json"
    path.write_text(path.read_text().replace("dagster", "drogster"))
    way = find(history, "latest")
    assert way.base.stamp == "20261130T100000Z"
    assert len(way.pieces) == 5


def test_a_machine_that_was_just_made_is_not_what_latest_means(history: Cluster) -> None:
    history.server = dataclasses.replace(history.server, system="42")
    history.now += HOUR
    base(history, 2, system="42")
    history.number = 2
    history.write()
    history.store()
    place = Directory(history.settings.directory)
    assert recovery_plan.find(place, "latest").stamp == "20261130T130000Z"
    way = recovery_plan.find(place, "latest", fresh="42")
    assert (way.stamp, way.base.stamp) == ("20261130T120000Z", "20261130T110000Z")
    assert find(history, "2026-11-30T13:00:00Z").base.base["system"] == "42"
    with pytest.raises(jobs.JobError, match="to 2026-11-30T12:00:00Z or from 2026-11-30T13:00:00Z to 2026-11-30T13:00"):
        find(history, "2026-11-30T12:30:00Z")


def test_range_for_people(history: Cluster) -> None:
    place = Directory(history.settings.directory)
    assert recovery_plan.ranges(place) == [(NOW - 2 * HOUR, NOW)]
    assert recovery_plan.ranges(Directory("/nowhere")) == []


def test_damaged_wal_is_told_before_anything_starts(history: Cluster, tmp_path: Path) -> None:
    way = find(history, "latest")
    recovery_cluster.hold_mark(way, str(tmp_path))
    # A newer mark takes its place meanwhile.
    history.now += 30
    history.write()
    history.store()
    paths = recovery_cluster.fetch(history.settings, way, str(tmp_path))
    assert sorted(paths) == segments(way)
    path = Path(paths[segment(6)])
    content = path.read_bytes()
    path.write_bytes(content[:20] + bytes([content[20] ^ 1]) + content[21:])
    with pytest.raises(DamagedError, match=f"{way.pieces[1].name}: its content has changed"):
        recovery_cluster.fetch(history.settings, way, str(tmp_path))
    path.unlink()
    with pytest.raises(DamagedError, match="there is no such file any more"):
        recovery_cluster.fetch(history.settings, way, str(tmp_path))


def test_files_of_a_cluster_need_its_own_version(history: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    way = find(history, "latest")
    monkeypatch.setattr(database, "query", lambda *_, **__: [["170006"]])
    recovery_plan.check_version(way)
    monkeypatch.setattr(database, "query", lambda *_, **__: [["180001"]])
    with pytest.raises(jobs.JobError, match=r"PostgreSQL 17's: found PostgreSQL 18 on this machine; expected 17"):
        recovery_plan.check_version(way)


def test_a_recovery_that_fails_leaves_nothing_and_one_that_is_there_is_not_made_again(
    history: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "query", lambda *_, **__: [["170006"]])
    monkeypatch.setattr(restore_plan, "fresh_system", lambda: "")
    folder = Path(history.settings.directory) / backup_place.RECOVERED

    def fail(*_: object) -> None:
        raise DamagedError("it is damaged")

    monkeypatch.setattr(recovery, "_recover", fail)
    with pytest.raises(DamagedError):
        recovery.prepare(history.settings, Wanted("", "directory"), "2026-11-30T11:30:00Z")
    assert not folder.exists()

    def recover(_settings: object, way: recovery_plan.Way, there: recovery.Recovered, *_: object) -> None:
        stored = backup_files.write(f"{there.path}/{way.stamp}/database.dump", [b"dump"])
        content = {
            **way.base.content, "stamp": way.stamp, "origin": there.origin.name, "base": {},
            "files": {"database.dump": dataclasses.asdict(stored)},
        }  # fmt: skip
        (folder / way.stamp / "manifest.json").write_bytes(Manifest(content).render())

    monkeypatch.setattr(recovery, "_recover", recover)
    found = recovery.prepare(history.settings, Wanted("", "directory"), "2026-11-30T11:30:00Z")
    assert found.backup == "20261130T113000Z"
    assert found.source
    assert backup_place.manifest(found.source, found.backup).file("database.dump") == "database.dump"
    assert [each.stat().st_mode & 0o77 for each in (folder, folder / found.backup)] == [0, 0]
    monkeypatch.setattr(recovery, "_recover", fail)
    again = recovery.prepare(history.settings, Wanted("", "directory"), "2026-11-30T11:30:00Z")
    assert again.backup == found.backup
    # After the swap `latest` is what is in the database already.
    left = recovery.prepare(history.settings, Wanted("", "directory"), "latest", unfinished=found.backup)
    assert left.backup == found.backup
    with pytest.raises(DamagedError):
        recovery.prepare(history.settings, Wanted("", "directory"), "2026-11-30T11:40:00Z")
    recovery.forget(history.settings)
    assert not folder.exists()
