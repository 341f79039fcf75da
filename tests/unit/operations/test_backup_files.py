"""Files with checksums, manifests, places: what is damaged is told, what is half is never taken for whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_files,
    backup_manifest,
    backup_place,
    backup_retention,
    backup_settings,
    config,
    jobs,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_files import DamagedError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_manifest import Manifest
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_place import Directory

STAMP = "20261123T035930Z"


def make(directory: Path, stamp: str = STAMP, logs: tuple[str, ...] = (), **more: Any) -> Manifest:
    """A backup with one file."""
    folder = directory / stamp
    folder.mkdir(parents=True)
    (directory / "logs").mkdir(exist_ok=True)
    stored = backup_files.write(str(folder / "database.dump"), [b"dump of ", stamp.encode()])
    archives = []
    for name in logs:
        path = directory / "logs" / name
        path.unlink(missing_ok=True)
        archives.append({"name": name, **asdict(backup_files.write(str(path), [b"logs"]))})
    manifest = Manifest(
        {
            "format": 1, "stamp": stamp, "reason": "timer", "versions": {"dagster": "1.13.27", "postgres": 170006},
            "schema_revision": "abc", "recipients": [], "files": {"database.dump": asdict(stored)}, "logs": archives,
            "database": {"tables": {"runs": 1}, "newest_run": None, "newest_event": 0, "size": 1},
            **more,
        }
    )  # fmt: skip
    (folder / "manifest.json").write_bytes(manifest.render())
    return manifest


def test_what_was_written_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    stored = backup_files.write(str(path), [b"a" * 10, b"", b"b" * 1000])
    assert (stored.size, path.stat().st_mode & 0o777) == (1010, 0o600)
    backup_files.check(str(path), stored.size, stored.sha256)
    assert backup_files.measure(str(path)) == stored


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"another!!!", "sha256 differs"), (b"short", "found 5 bytes, expected 10"), (None, "there is no such file")],
)
def test_what_is_damaged_is_told(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "file"
    stored = backup_files.write(str(path), [b"0123456789"])
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(DamagedError, match=said):
        backup_files.check(str(path), stored.size, stored.sha256)


def test_a_disk_that_fills_up_while_a_file_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = iter([1000, 400, 50])
    monkeypatch.setattr(backup_files, "LOOK_EVERY", 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 0, next(usage)))
    with pytest.raises(jobs.JobError, match=r"no room for writing file in .*: found 0\.1 kB free, expected 0\.1 kB"):
        backup_files.write(str(tmp_path / "file"), [b"x" * 100] * 10, floor=100)


def test_a_source_that_fails_fails_the_file(tmp_path: Path) -> None:
    def source() -> Iterator[bytes]:
        yield b"half"
        raise jobs.JobError("pg_dump failed")

    with pytest.raises(jobs.JobError, match="pg_dump failed"):
        backup_files.write(str(tmp_path / "file"), source())

    def work(stream: IO[bytes]) -> None:
        stream.write(b"half")
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(backup_files.produced(work))


def test_an_identity_is_in_memory_for_as_long_as_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LOCKS", str(tmp_path / "run"))
    with backup_files.identity_file(" AGE-SECRET-KEY-1X ") as path:
        assert Path(path).read_text() == "AGE-SECRET-KEY-1X\n"
        assert Path(path).stat().st_mode & 0o777 == 0o600
    assert list((tmp_path / "run").iterdir()) == []
    with backup_files.identity_file("") as path:
        assert path == ""


@pytest.mark.parametrize(
    "change",
    [
        lambda content: {**content, "database": {**content["database"], "tables": {"runs": 2}}},
        lambda content: {name: value for name, value in content.items() if name != "checksum"},
        lambda content: {**content, "format": 2},
        lambda content: [],
        lambda content: {},
    ],
)
def test_a_manifest_that_was_changed_is_none(tmp_path: Path, change: Any) -> None:
    make(tmp_path)
    path = tmp_path / STAMP / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(DamagedError, match=r"manifest\.json is damaged"):
        backup_place.manifest(Directory(str(tmp_path)), STAMP)


def test_every_byte_of_a_manifest_counts(tmp_path: Path) -> None:
    text = make(tmp_path).render()
    unnoticed = []
    for place in range(0, len(text) - 1, 3):
        changed = bytearray(text)
        changed[place] ^= 1
        try:
            found = backup_manifest.parse(bytes(changed), "manifest.json")
        except DamagedError:
            continue
        unnoticed.append((place, found.render() == text))
    # White space only.
    assert all(same for _, same in unnoticed)


def test_without_a_manifest_there_is_no_backup(tmp_path: Path) -> None:
    make(tmp_path)
    make(tmp_path, "20261123T045930Z")
    (tmp_path / "20261123T045930Z" / "manifest.json").unlink()
    (tmp_path / ".partial-20261123T055930Z").mkdir()
    place = Directory(str(tmp_path))
    assert place.stamps() == [STAMP]
    assert backup_place.find(place, "latest").stamp == STAMP
    place.prepare()
    assert not (tmp_path / ".partial-20261123T055930Z").exists()


def test_another_backups_manifest_is_not_this_ones(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / STAMP).rename(tmp_path / "20261123T045930Z")
    with pytest.raises(DamagedError, match="is another backup's: 20261123T035930Z"):
        backup_place.find(Directory(str(tmp_path)), "latest")


def test_no_such_backup(tmp_path: Path) -> None:
    place = Directory(str(tmp_path))
    with pytest.raises(jobs.JobError, match=f"no backup latest in {tmp_path}: expected .* those there: none"):
        backup_place.find(place, "latest")
    make(tmp_path)
    with pytest.raises(jobs.JobError, match=f"no backup 20200101T000000Z in {tmp_path}: .*{STAMP}"):
        backup_place.find(place, "20200101T000000Z")


def test_latest_is_not_what_a_restore_has_taken(tmp_path: Path) -> None:
    make(tmp_path)
    make(tmp_path, "20261123T045930Z", reason="restore")
    place = Directory(str(tmp_path))
    assert backup_place.find(place, "latest").stamp == "20261123T045930Z"
    assert backup_place.find(place, "latest", but="restore").stamp == STAMP


def test_archives_stay_as_long_as_a_backup_names_them(tmp_path: Path) -> None:
    old, new = "20200101T000000Z-full.tar.gz", "20200102T000000Z-part.tar.gz"
    young = f"{backup_retention.stamp()}-part.tar.gz"
    make(tmp_path, logs=(old,))
    make(tmp_path, "20261123T045930Z", logs=(new,))
    (tmp_path / "logs" / young).write_bytes(b"of a backup that is being taken")
    place = Directory(str(tmp_path))
    assert backup_place.remove_unused_archives(place) == []
    backup_place.remove_backup(place, STAMP)
    assert not (tmp_path / STAMP).exists()
    assert backup_place.remove_unused_archives(place) == [old]
    assert sorted(place.names("logs")) == [new, young]
    (tmp_path / "20261123T045930Z" / "manifest.json").write_text("{")
    assert backup_place.remove_unused_archives(place) == [], "where a manifest cannot be read, nothing goes"


def test_settings_of_another_version_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    found = backup_settings.make({"keep": {"hourly": "3"}, "recipients": ["age1x"], "of another version": 1})
    assert (found.keep.hourly, found.keep.daily, found.recipients) == (3, 7, ("age1x",))
    monkeypatch.setattr(config, "load", lambda part: {})
    with pytest.raises(jobs.JobError, match="backups are not set up on this machine"):
        backup_settings.load()
