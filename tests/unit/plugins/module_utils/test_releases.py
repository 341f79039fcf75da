"""Records, lock and audit log of releases, on a real file system with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import releases

DIGEST = "sha256:" + "0123456789abcdef" * 4
HOLD = """
import sys, time
sys.path.insert(0, {path!r})
from ansible_collections.dataops.dagster_gce.plugins.module_utils import releases
with releases.lock({lock!r}, {{"who": "alice", "operation": "deploy", "image": "core:v1"}}) as held:
    held.phase("gate")
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def store(tmp_path: Path) -> releases.Store:
    return releases.Store(str(tmp_path))


def hold(root: Path, lock: str) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    code = HOLD.format(path=str(root / ".collections"), lock=lock)
    found = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert found.stdout is not None
    assert found.stdout.readline() == "held\n"
    return found


def test_a_release_is_named_after_its_time_and_its_image() -> None:
    assert releases.release_name(DIGEST, 0) == "19700101T000000-0123456789ab"
    with pytest.raises(ValueError, match="expected sha256"):
        releases.release_name("core:latest")
    name = "20261122T210031-0123456789ab"
    assert releases.release_of(releases.container_name(name)) == name
    # The article's host is no release of ours, and nothing is done to it.
    assert releases.release_of("docker_dagster_core") is None
    assert releases.release_of("docker_dagster_core_$(reboot)") is None
    assert releases.release_of(None) is None


def test_records_come_back_as_they_were(store: releases.Store) -> None:
    later = releases.Release("20260102T000000-0123456789ab", DIGEST, served=[2.5], state=releases.LIVE)
    sooner = releases.Release("20260101T000000-0123456789ab", DIGEST)
    store.save(later)
    store.save(sooner)
    assert store.all() == [sooner, later]
    # A field that a later version of the collection wrote is no reason to forget the release.
    path = Path(store.path(later.release))
    path.write_text(json.dumps({**json.loads(path.read_text()), "new_field": 1}))
    assert store.load(later.release) == later
    path.write_text("{ half")
    assert store.all() == [sooner]
    store.delete(sooner.release)
    assert store.all() == []


def test_current_is_replaced_in_one_step(store: releases.Store) -> None:
    assert store.current() is None
    assert store.point_current("a")
    assert not store.point_current("a")
    assert store.point_current("b")
    assert store.current() == "b"
    assert store.point_current(None)
    assert store.current() is None
    assert os.listdir(store.folder) == []


def test_the_audit_log_shows_the_newest_first_and_skips_what_is_broken(store: releases.Store) -> None:
    for number in range(30):
        store.audit({"number": number, "text": "é" * 500})
    with open(store.audit_path, "a", encoding="utf-8") as stream:
        stream.write("{ half a line")
    assert [each["number"] for each in store.last_deploys(3)] == [29, 28, 27]
    assert os.stat(store.audit_path).st_mode & 0o777 == 0o640


def test_a_taken_lock_says_who_has_it(store: releases.Store, root: Path) -> None:
    holder = hold(root, store.lock_path)
    try:
        with pytest.raises(releases.LockedError) as caught, releases.lock(store.lock_path, {"who": "bob"}):
            pass
        assert "is held by alice since" in str(caught.value)
        assert "phase gate" in str(caught.value)
        assert releases.read_lock(store.lock_path)["held"] is True
        assert releases.holders(store.lock_path) == [holder.pid]
    finally:
        holder.kill()
        holder.wait()


def test_a_killed_holder_leaves_no_lock_but_its_last_words(store: releases.Store, root: Path) -> None:
    holder = hold(root, store.lock_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert releases.read_lock(store.lock_path)["held"] is False
    with releases.lock(store.lock_path, {"who": "bob"}) as held:
        assert held.stale["who"] == "alice"
        assert held.stale["phase"] == "gate"
    assert releases.read_lock(store.lock_path) == {}


def test_force_ends_the_holder(store: releases.Store, root: Path) -> None:
    holder = hold(root, store.lock_path)
    with releases.lock(store.lock_path, {"who": "bob"}, force=True):
        assert holder.wait(5) == -signal.SIGTERM


def test_a_lock_can_be_waited_for(store: releases.Store, root: Path) -> None:
    holder = hold(root, store.lock_path)
    started = time.monotonic()
    with pytest.raises(releases.LockedError), releases.lock(store.lock_path, {}, wait=0.5):
        pass
    assert time.monotonic() - started >= 0.5
    holder.kill()
    holder.wait()
    with releases.lock(store.lock_path, {}, wait=5):
        pass


def test_only_the_owner_can_open_the_lock(store: releases.Store) -> None:
    for _new_and_old in range(2):
        with releases.lock(store.lock_path, {}):
            assert os.stat(store.lock_path).st_mode & 0o777 == 0o600
        os.chmod(store.lock_path, 0o644)


def test_a_note_that_cannot_be_written_stops_nothing(store: releases.Store) -> None:
    """As on a full disk."""
    with releases.lock(store.lock_path, {}) as held, open(store.lock_path, encoding="utf-8") as read_only:
        writable, held._handle = held._handle, read_only
        held.phase("gate")
        held._handle = writable
        assert "gate" not in Path(store.lock_path).read_text()


# --- which release --------------------------------------------------------------------------------------------------


def served(day: int, *moments: float, state: str = releases.LIVE) -> releases.Release:
    return releases.Release(f"202601{day:02}T000000-abababababab", DIGEST, state=state, served=list(moments))


def test_the_way_back_is_what_served_before() -> None:
    known = [served(1, 10.0), served(2, 20.0), served(3, 30.0)]
    assert releases.before(known[2].release, known) == known[1]
    assert releases.before(known[0].release, known[:1]) is None


def test_a_release_that_was_rolled_back_is_no_way_back() -> None:
    known = [served(1, 10.0), served(2, 20.0, 40.0), served(3, 30.0, state=releases.ROLLED_BACK)]
    assert releases.before(known[1].release, known) == known[0]
    # It stays warm all the same: the daemon may use it for a minute.
    assert releases.warm(known[1].release, known) == known[2].release


def test_a_candidate_is_neither_a_way_back_nor_warm() -> None:
    known = [served(1, 10.0), served(2, state=releases.CANDIDATE)]
    assert releases.before(known[0].release, known) is None
    assert releases.warm(known[0].release, known) is None
