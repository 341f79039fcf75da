"""Compute logs: only what is new, everything from time to time, and back again."""

from __future__ import annotations

import io
import os
import tarfile
import time
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import backup_storage
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_storage import Index


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    root = tmp_path / "volume"
    for name, text in (("compute_logs/a/1.out", "one"), ("compute_logs/b/2.err", "two"), ("io/asset", "data")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "compute_logs/a/link").symlink_to("/etc/passwd")
    return root


def packed(root: Path, paths: list[str]) -> io.BytesIO:
    target = io.BytesIO()
    backup_storage.pack(str(root), paths, target)
    target.seek(0)
    return target


def test_logs_or_all_and_no_links(volume: Path) -> None:
    assert sorted(backup_storage.look(str(volume), "logs")) == ["compute_logs/a/1.out", "compute_logs/b/2.err"]
    assert "io/asset" in backup_storage.look(str(volume), "all")


def test_only_what_is_new(volume: Path, tmp_path: Path) -> None:
    first = backup_storage.look(str(volume), "logs")
    assert backup_storage.plan(Index(), first, "logs", 7, set()) == (True, sorted(first))
    index = Index(["one"], time.time(), "logs", first)
    backup_storage.write_index(str(tmp_path), index)
    index = backup_storage.read_index(str(tmp_path))
    assert backup_storage.plan(index, first, "logs", 7, {"one"}) == (False, [])
    (volume / "compute_logs/a/1.out").write_text("one and more")
    (volume / "compute_logs/c.out").write_text("new")
    there = backup_storage.look(str(volume), "logs")
    assert backup_storage.plan(index, there, "logs", 7, {"one"}) == (
        False,
        ["compute_logs/a/1.out", "compute_logs/c.out"],
    )


@pytest.mark.parametrize(
    ("index", "known"),
    [
        (Index(["one"], time.time() - 8 * 86400, "logs"), {"one"}),
        (Index(["one"], time.time(), "all"), {"one"}),
        (Index(["one", "two"], time.time(), "logs"), {"two"}),
    ],
    ids=["a week is over", "another scope", "an archive is gone"],
)
def test_everything_again(volume: Path, index: Index, known: set[str]) -> None:
    there = backup_storage.look(str(volume), "logs")
    assert backup_storage.plan(index, there, "logs", 7, known) == (True, sorted(there))


def test_an_index_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / backup_storage.INDEX).write_text('{"archives": ')
    assert backup_storage.read_index(str(tmp_path)) == Index()


def test_there_and_back(volume: Path, tmp_path: Path) -> None:
    stream = packed(volume, sorted(backup_storage.look(str(volume), "all")))
    back = tmp_path / "back"
    (back / "compute_logs/a").mkdir(parents=True)
    (back / "compute_logs/a/1.out").write_text("one, and what came after the backup")
    (back / "compute_logs/b").mkdir()
    (back / "compute_logs/b/2.err").write_text("t")
    assert backup_storage.unpack(stream, str(back)) == 2
    assert (back / "compute_logs/a/1.out").read_text() == "one, and what came after the backup"
    assert (back / "compute_logs/b/2.err").read_text() == "two"
    assert (back / "io/asset").read_text() == "data"
    assert not list(back.rglob("*.restoring"))
    assert (back / "io/asset").stat().st_mtime == pytest.approx((volume / "io/asset").stat().st_mtime, abs=1)


def test_a_file_that_shrinks_or_goes_while_it_is_read(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fstat

    def shrink(handle: int) -> os.stat_result:
        found = real(handle)
        if found.st_size == 3:
            (volume / "compute_logs/a/1.out").write_text("")
        return found

    monkeypatch.setattr("os.fstat", shrink)
    stream = packed(volume, ["compute_logs/a/1.out", "gone", "compute_logs/b/2.err"])
    found = {entry.name: content.read() for entry, content in backup_storage.members(stream)}
    assert found == {"compute_logs/a/1.out": b"\0\0\0", "compute_logs/b/2.err": b"two"}


@pytest.mark.parametrize("name", ["/etc/evil", "../evil", "compute_logs/../../evil"])
def test_nothing_is_written_elsewhere(tmp_path: Path, name: str) -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"evil"))
    target.seek(0)
    (tmp_path / "back").mkdir()
    assert backup_storage.unpack(target, str(tmp_path / "back")) == 0
    assert not list(tmp_path.rglob("evil"))
