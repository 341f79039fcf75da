"""What is received becomes part of the backups and of the bucket; what does not come is told, and what is missing."""

from __future__ import annotations

import gzip
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_base,
    backup_bucket,
    backup_files,
    backup_place,
    backup_retention,
    backup_settings,
    backup_take,
    database,
    jobs,
    wal,
    wal_files,
    wal_server,
    wal_store,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_bucket import Bucket
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_place import Directory
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.wal_server import Mark, Server, Slot
from lab.google import Google
from tests.unit.operations.test_backup_files import make
from tests.unit.operations.test_wal_files import SYSTEM, segment

# PostgreSQL's smallest.
SIZE = 1 << 20
# However full the disk is on which tests run.
ROOM = {"min_free_bytes": 0, "min_free_percent": 0}
NOW = 1_796_040_000  # 2026-11-30T12:00:00Z


class Cluster:
    """PostgreSQL and its receiver: segments come as they would."""

    def __init__(self, settings: backup_settings.Settings) -> None:
        self.settings = settings
        self.server = Server(SYSTEM, 1, SIZE)
        self.number = 3
        self.now = NOW
        self.fails: Exception | None = None
        self.started: list[list[str]] = []

    @property
    def spool(self) -> Path:
        return Path(wal_store.spool(self.settings, self.server.system))

    def write(self, whole: int = 0) -> None:
        """So many segments get full, and the next one has begun."""
        for _ in range(whole):
            (self.spool / f"{segment(self.number)}.partial").unlink(missing_ok=True)
            (self.spool / segment(self.number)).write_bytes(f"segment {self.number}".encode().ljust(SIZE, b"\0"))
            self.number += 1
        (self.spool / f"{segment(self.number)}.partial").write_bytes(f"{self.now}".encode().ljust(SIZE, b"\0"))

    def mark(self, _server: Server) -> Mark:
        if self.fails:
            raise self.fails
        return Mark(self.now, 0, segment(self.number))

    def store(self) -> jobs.Result:
        """What the timer does, with its state kept."""
        result: list[jobs.Result] = []

        def work() -> jobs.Result:
            result.append(wal.store(self.settings))
            return result[-1]

        jobs.run(wal.JOB, work, quiet=True)
        return result[-1]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster(backup_settings.make({"directory": str(tmp_path / "backups"), **ROOM}))
    Path(found.settings.directory).mkdir()
    monkeypatch.setattr(wal_server, "look", lambda: found.server)
    monkeypatch.setattr(wal_server, "mark", found.mark)
    monkeypatch.setattr(wal_server, "wait_until_received", lambda lsn, patience=0: None)
    monkeypatch.setattr(wal_server, "slot", lambda: Slot(True, False, 42))
    monkeypatch.setattr(docker_cli, "run", lambda *_, **__: docker_cli.Result(0, "", ""))
    monkeypatch.setattr(subprocess, "run", lambda command, **_: found.started.append(command))
    monkeypatch.setattr(time, "time", lambda: float(found.now))
    return found


def base(cluster: Cluster, start: int, moment: float | None = None, system: str = SYSTEM) -> str:
    """A backup with a base whose WAL begins with a segment."""
    stamp = backup_retention.stamp(cluster.now if moment is None else moment)
    directory = Path(cluster.settings.directory)
    about = {
        "system": system, "segment_size": SIZE, "user": "dagster", "start": segment(start), "end": segment(start),
        "moment": int(cluster.now if moment is None else moment),
    }  # fmt: skip
    stored = backup_files.write(str(directory / "new"), [b"base of ", stamp.encode()])
    make(directory, stamp, base=about, files={"base.tar.gz": asdict(stored)})
    (directory / "new").rename(directory / stamp / "base.tar.gz")
    return stamp


def names(cluster: Cluster) -> list[tuple[str, str]]:
    found = Directory(cluster.settings.directory).names(wal_files.FOLDER)
    pieces = [wal_files.parse(name) for name in sorted(found)]
    return [(each.segment, each.until) for each in pieces if each]


def test_whole_segments_and_the_one_that_is_written(cluster: Cluster) -> None:
    cluster.write(2)
    result = cluster.store()
    assert result.ok
    assert result.details["until"] == "20261130T120000Z"
    assert names(cluster) == [(segment(3), ""), (segment(4), ""), (segment(5), "20261130T120000Z")]
    # The newest whole one stays: the receiver goes on behind it.
    assert sorted(path.name for path in cluster.spool.iterdir()) == [segment(4), f"{segment(5)}.partial"]
    cluster.now += 30
    cluster.write(1)
    cluster.store()
    assert names(cluster) == [(segment(3), ""), (segment(4), ""), (segment(5), ""), (segment(6), "20261130T120030Z")]


def test_what_is_stored_is_what_was_received(cluster: Cluster) -> None:
    cluster.write(1)
    cluster.store()
    folder = Path(cluster.settings.directory) / wal_files.FOLDER
    found = {piece.segment: path for path in folder.iterdir() if (piece := wal_files.parse(path.name))}
    assert gzip.decompress(found[segment(3)].read_bytes()) == b"segment 3".ljust(SIZE, b"\0")
    for path in folder.iterdir():
        piece = wal_files.parse(path.name)
        assert piece
        backup_files.check(str(path), path.stat().st_size, piece.sha256)
    assert (folder.stat().st_mode | cluster.spool.stat().st_mode) & 0o77 == 0


def test_a_segment_that_gets_full_meanwhile(cluster: Cluster) -> None:
    cluster.write()
    path = cluster.spool / f"{segment(3)}.partial"
    path.rename(cluster.spool / segment(3))
    assert cluster.store().details["until"] == "20261130T120000Z"
    assert names(cluster) == [(segment(3), ""), (segment(3), "20261130T120000Z")]


def test_a_moment_without_postgres_is_no_problem_and_a_long_one_is(cluster: Cluster) -> None:
    cluster.write()
    cluster.store()
    cluster.fails = database.DatabaseError("PostgreSQL in dagster-postgres: it is starting up")
    cluster.now += 200
    result = cluster.store()
    assert (result.ok, result.problems) == (True, [])
    assert result.details["until"] == "20261130T120000Z"
    cluster.now += 200
    result = cluster.store()
    assert not result.ok
    assert [(each.name, each.severity) for each in result.problems] == [("wal_received", jobs.CRITICAL)]
    assert "found the WAL up to 2026-11-30T12:00:00Z: history is not kept: PostgreSQL" in result.problems[0].text
    cluster.fails = None
    cluster.write()
    result = cluster.store()
    assert (result.ok, result.problems) == (True, [])


def test_without_a_base_one_is_asked_for_and_not_again_at_once(cluster: Cluster) -> None:
    cluster.write()
    cluster.store()
    cluster.now += 60
    cluster.store()
    assert cluster.started == [["systemctl", "start", "--no-block", "dagster-gce-backup.service"]]
    cluster.now += 900
    cluster.store()
    assert len(cluster.started) == 2


def test_a_base_that_was_removed_is_asked_for_at_once(cluster: Cluster) -> None:
    cluster.write()
    cluster.store()
    stamp = base(cluster, 3)
    cluster.store()
    backup_place.remove_backup(Directory(cluster.settings.directory), stamp)
    cluster.now += 30
    assert cluster.store().details["base"] == ""
    assert len(cluster.started) == 2
    cluster.store()
    assert len(cluster.started) == 2


def test_a_gap_is_told_and_ended_by_a_new_base(cluster: Cluster) -> None:
    cluster.write()
    cluster.store()
    first = base(cluster, 3)
    assert cluster.store().problems == []
    assert len(cluster.started) == 1, "the first base"
    # The slot was lost: what comes next is not what comes after.
    (cluster.spool / f"{segment(3)}.partial").unlink()
    cluster.number = 9
    cluster.now += 600
    cluster.write()
    result = cluster.store()
    assert [(each.name, each.severity) for each in result.problems] == [("wal_gap", jobs.CRITICAL)]
    assert "no moment between 20261130T120000Z and the next base" in result.problems[0].text
    assert len(cluster.started) == 2, "at once, although one was asked for ten minutes ago"
    assert backup_base.due(cluster.settings), f"nothing leads on from {first}"
    second = base(cluster, 9)
    cluster.now += 30
    result = cluster.store()
    assert [(each.name, each.severity) for each in result.problems] == [("wal_gap", jobs.WARNING)]
    assert f"and the base of backup {second}" in result.problems[0].text
    assert not backup_base.due(cluster.settings)
    cluster.now += 86401
    assert cluster.store().problems == []


@pytest.mark.parametrize("based", [False, True])
def test_what_is_put_back_ends_the_gap(cluster: Cluster, based: bool) -> None:
    """Also where a new base has been taken meanwhile: all moments of before it can be restored again."""
    cluster.write(3)
    cluster.store()
    base(cluster, 3)
    assert cluster.store().problems == []
    folder = Path(cluster.settings.directory) / wal_files.FOLDER
    (lost,) = folder.glob(f"*-{segment(4)}-*")
    away = lost.rename(folder.parent / "kept")
    cluster.now += 30
    assert [each.name for each in cluster.store().problems] == ["wal_gap"]
    asked = len(cluster.started)
    if based:
        base(cluster, 6)
    away.rename(lost)
    cluster.now += 30
    assert cluster.store().problems == []
    # The next one is as new.
    lost.unlink()
    cluster.now += 30
    assert len(cluster.started) == asked
    assert [each.name for each in cluster.store().problems] == ([] if based else ["wal_gap"])
    assert len(cluster.started) == asked + (not based)


def test_a_new_base_is_due_after_a_day(cluster: Cluster) -> None:
    assert backup_base.due(cluster.settings)
    base(cluster, 3)
    cluster.write()
    cluster.store()
    assert not backup_base.due(cluster.settings)
    cluster.now += 24 * 3600
    assert backup_base.due(cluster.settings)


def test_another_cluster_has_bases_of_its_own(cluster: Cluster) -> None:
    base(cluster, 3)
    cluster.write()
    cluster.store()
    cluster.server = Server("42", 1, SIZE)
    assert backup_base.due(cluster.settings)


def test_the_wal_of_before_the_oldest_base_goes(cluster: Cluster) -> None:
    """Seven days of moments: the newest base that is older stays, and what comes after it."""
    day = 86400
    for age, start in ((9, 3), (8, 4), (6, 5), (1, 6)):
        base(cluster, start, cluster.now - age * day)
    cluster.write(5)
    cluster.store()
    directory = Directory(cluster.settings.directory)
    needed = backup_base.needed(directory, 7, cluster.now)
    assert needed == backup_base.stamps(directory)[1:]
    assert backup_base.remove_unneeded_wal(directory, 7, cluster.now) == 1
    assert names(cluster)[0] == (segment(4), "")
    # Switched off for as long, nothing of it can be used.
    assert backup_base.needed(directory, 7, cluster.now + 8 * day) == []
    assert backup_base.remove_unneeded_wal(directory, 7, cluster.now + 8 * day) == 5
    assert names(cluster) == []


@pytest.fixture
def bucket(google: Google, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    google.call("storage.buckets.insert", {"project": "example-project"}, {"name": "example-backups", "location": "eu"})
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    cluster.settings = backup_settings.make(
        {"directory": cluster.settings.directory, "bucket": "example-backups", **ROOM}
    )

    def make_one(_settings: Any = None) -> Bucket:
        return Bucket("example-backups", "machine", "https://storage.googleapis.com", google.token)

    monkeypatch.setattr(backup_take, "bucket", make_one)
    return make_one()


def in_bucket() -> list[tuple[str, str]]:
    found = backup_take.bucket(backup_settings.Settings()).names(wal_files.FOLDER)
    pieces = [wal_files.parse(name) for name in sorted(found)]
    return [(each.segment, each.until) for each in pieces if each]


def test_the_bucket_has_the_same(cluster: Cluster, bucket: Bucket) -> None:
    cluster.write(1)
    assert cluster.store().details["uploaded"] == "20261130T120000Z"
    assert in_bucket() == names(cluster) == [(segment(3), ""), (segment(4), "20261130T120000Z")]
    cluster.now += 30
    cluster.write(2)
    cluster.store()
    assert in_bucket() == names(cluster)
    place: backup_place.Place = bucket
    found = wal_files.archives(place.names(wal_files.FOLDER))[SYSTEM]
    assert len(found.chain(segment(3), segment(6), SIZE)) == 4


def test_what_an_outage_left_behind_is_sent_after_it(cluster: Cluster, bucket: Bucket, google: Google) -> None:
    cluster.write(1)
    cluster.store()
    # Two times all attempts.
    google.fail("storage.upload", 503, times=2 * (len(backup_bucket.PAUSES) + 1))
    cluster.now += 30
    cluster.write(2)
    result = cluster.store()
    assert (result.ok, result.problems, result.details["uploaded"]) == (True, [], "20261130T120000Z")
    cluster.now += 400
    cluster.write()
    result = cluster.store()
    assert [(each.name, each.severity) for each in result.problems] == [("wal_uploaded", jobs.CRITICAL)]
    assert result.details["until"] == "20261130T120710Z", "it is received all the same"
    cluster.now += 30
    cluster.write()
    result = cluster.store()
    assert result.problems == []
    assert in_bucket() == names(cluster)


def test_a_damaged_file_is_not_sent(cluster: Cluster, bucket: Bucket) -> None:
    cluster.write(1)
    directory = Directory(cluster.settings.directory)
    wal_store.store_whole(cluster.settings, SYSTEM)
    (name,) = directory.names(wal_files.FOLDER)
    path = Path(directory.path) / wal_files.FOLDER / name
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    cluster.now += 30
    result = cluster.store()
    assert "its content has changed since it was written" in result.summary
    assert result.details["uploaded"] == ""
    assert in_bucket() == []
