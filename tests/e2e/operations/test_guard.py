"""The disk guard on a machine: what it stops, what goes on, and PostgreSQL on a file system that is really full.

The last one takes minutes: it is of the long form (``E2E_LONG=1``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.e2e import rows
from tests.e2e.harness import LONG, Machine, long_form, wait
from tests.e2e.operations import upkeep_load

SETTINGS = "/etc/dagster-gce/upkeep.json"
ALWAYS = {"percent": 100, "megabytes": 10**9}
NEVER = {"percent": 0, "megabytes": 0, "inodes_percent": 0}


def guard(machine: Machine) -> dict[str, Any]:
    """One look of the guard; returns its state."""
    machine.ssh("dagster-gce guard --wait", timeout=900)
    found: dict[str, Any] = json.loads(machine.ssh("cat /opt/dagster/state/guard.json"))
    return found


@contextmanager
def settings(machine: Machine, **changed: Any) -> Iterator[None]:
    """Other settings of the guard, and no timer, for as long as the block runs; then a look with the old ones."""
    machine.ssh(f"systemctl stop dagster-gce-guard.timer; cp -a {SETTINGS} {SETTINGS}.before")
    program = (
        "import json\n"
        f"content = json.load(open('{SETTINGS}'))\n"
        f"content['guard'].update(json.loads('''{json.dumps(changed)}'''))\n"
        f"json.dump(content, open('{SETTINGS}', 'w'))\n"
    )
    machine.ssh(f"python3 - <<'END'\n{program}END\n")
    try:
        yield
    finally:
        machine.ssh(f"mv {SETTINGS}.before {SETTINGS}")
        guard(machine)
        machine.ssh("systemctl start dagster-gce-guard.timer")


def thresholds(level: str) -> dict[str, Any]:
    """Thresholds with which every disk is at a level."""
    levels = ("warn", "refuse", "pause", "full")
    return {each: ALWAYS if levels.index(each) <= levels.index(level) else NEVER for each in levels}


def ticks(machine: Machine) -> list[int]:
    """The minutes for which the schedule has ticked."""
    found = upkeep_load.sql(
        machine,
        "SELECT DISTINCT extract(epoch FROM timestamp)::bigint / 60 FROM job_ticks"
        " WHERE type = 'SCHEDULE' AND status IN ('SUCCESS', 'SKIPPED') ORDER BY 1",
    )
    return [int(each) for each in found]


def test_a_disk_that_is_too_full_pauses_the_queue_and_nothing_is_lost(machine: Machine) -> None:
    config = {"ops": {"sleep": {"config": {"seconds": 20}}}}
    machine.switch_ticks(True)
    flying = machine.launch("sleepy", config)
    machine.wait_for_run(flying, "STARTED")
    before, first = machine.ssh("cat /opt/dagster/dagster_home/dagster.yaml"), int(time.time() // 60) + 1
    with settings(machine, thresholds=thresholds("pause")):
        started = time.monotonic()
        state = guard(machine)
        pausing = time.monotonic() - started
        assert state["details"]["paused"] is True
        assert {each["severity"] for each in state["problems"]} == {"critical"}
        assert "no run starts" in machine.ssh("dagster-gce status || true")
        waiting = machine.launch("quick")
        machine.wait_for_run(flying, "SUCCESS")
        if LONG:
            # Until the schedule has come due, too: what it launches waits as well.
            wait(lambda: time.time() // 60 > first, 90, "the next minute")
        time.sleep(10)
        assert machine.run_status(waiting) == "QUEUED"
        # With nothing new to say it does nothing: the daemon is not restarted each minute.
        since = machine.ssh("docker inspect -f '{{.State.StartedAt}}' dagster-daemon")
        guard(machine)
        assert machine.ssh("docker inspect -f '{{.State.StartedAt}}' dagster-daemon") == since
    assert machine.ssh("cat /opt/dagster/dagster_home/dagster.yaml") == before
    machine.wait_for_run(waiting, "SUCCESS")
    last = int(time.time() // 60)
    wait(
        lambda: set(range(first, last + 1)) <= set(ticks(machine)),
        90,
        "a tick for each minute",
        lambda: ticks(machine)[-5:],
    )
    machine.switch_ticks(False)
    assert "no run starts" not in machine.ssh("dagster-gce status || true")
    rows.write(
        "guard", "disk below the guard's limit, then room again", 1, "nothing: no run, no tick",
        note=f"paused within {pausing:.0f} s of the guard's look",
    )  # fmt: skip


def test_a_deploy_is_refused_and_a_rollback_is_not(machine: Machine) -> None:
    serves = machine.locations()["dagster_core"].metadata["host"]
    deploy: dict[str, Any] = {"dagster_core_dir": "tests/fixtures/dagster_core_load"}
    with settings(machine, thresholds=thresholds("refuse")):
        assert guard(machine)["details"]["paused"] is False
        # Nothing to do is nothing to refuse.
        machine.play("deploy_core.yml", **deploy).ok()
        other = {**deploy, "dagster_core_environment": {"LOAD_RELEASE": "disk"}}
        machine.play("deploy_core.yml", **other).refused(
            "the disk guard refuses deploys", "dagster_ignore_disk", "GB free"
        )
        assert machine.locations()["dagster_core"].metadata["host"] == serves
        machine.play("deploy_core.yml", **other, dagster_ignore_disk=True).ok()
        machine.play("playbooks/rollback_core.yml").ok()
        assert machine.locations()["dagster_core"].metadata["host"] == serves


SMALL = "/mnt/small"
VOLUMES = "/var/lib/docker/volumes"
BALLAST = f"{VOLUMES}/dagster-storage/_data/ballast"


@contextmanager
def small_disk(machine: Machine, megabytes: int) -> Iterator[None]:
    """Docker's volumes, and with them PostgreSQL's data, on a real file system of this size."""
    machine.ssh(f"""set -e
        names=$(docker ps --format '{{{{.Names}}}}' --filter label=com.docker.compose.project=dagster)
        releases=$(docker ps --format '{{{{.Names}}}}' --filter label=dataops.dagster_gce=release)
        echo $names $releases > /root/names
        systemctl stop 'dagster-gce-*.timer' || true
        docker stop $names $releases > /dev/null
        systemctl stop docker.socket docker
        truncate -s {megabytes}M /var/lib/docker/small.img
        mkfs.ext4 -q -m 0 /var/lib/docker/small.img
        for number in $(seq 0 63); do [ -e /dev/loop$number ] || mknod /dev/loop$number b 7 $number; done
        mkdir -p {SMALL}
        mount -o loop /var/lib/docker/small.img {SMALL}
        cp -a {VOLUMES}/. {SMALL}/
        mount --move {SMALL} {VOLUMES} || {{ umount {SMALL}; mount -o loop /var/lib/docker/small.img {VOLUMES}; }}
        systemctl start docker
        docker start $(cat /root/names) > /dev/null
        """, timeout=300)  # fmt: skip
    try:
        yield
    finally:
        machine.ssh(f"""
            docker stop $(cat /root/names) > /dev/null
            docker rm -f $(docker ps -aq --filter label=dagster/run_id) > /dev/null 2>&1
            systemctl stop docker.socket docker
            mkdir -p {SMALL}; rm -f {BALLAST} {VOLUMES}/dagster-gce-reserve
            cp -a {VOLUMES}/. {SMALL}/
            umount {VOLUMES} && rm -rf {VOLUMES} && mv {SMALL} {VOLUMES} && rm -f /var/lib/docker/small.img
            systemctl start docker
            docker start $(cat /root/names) > /dev/null
            systemctl start 'dagster-gce-*.timer' --all
            for name in upkeep guard watch notify backup drill; do systemctl start dagster-gce-$name.timer; done
            """, timeout=300)  # fmt: skip
        machine.port = 0
        wait(lambda: _answers(machine), 120, "the webserver")


def _answers(machine: Machine) -> bool:
    try:
        return machine.locations(5)["dagster_core"].loaded
    except (OSError, AssertionError, KeyError, ValueError):
        return False


def _database_answers(machine: Machine) -> bool:
    try:
        return upkeep_load.number(machine, "SELECT 1") == 1
    except (AssertionError, IndexError, ValueError):
        return False


@long_form
def test_postgresql_on_a_full_disk_comes_back_with_everything(machine: Machine) -> None:
    # PostgreSQL keeps up to 1 GB of its log after much has been written.
    used = int(machine.ssh(f"du -sm {VOLUMES} | cut -f1"))
    with small_disk(machine, used + 900):
        wait(lambda: _answers(machine), 180, "the webserver")
        with settings(machine, reserve_megabytes=100):
            upkeep_load.sql(machine, "DROP TABLE IF EXISTS written; CREATE TABLE written (n bigint, t text)")
            assert guard(machine)["details"]["level"] in ("ok", "warn")
            assert int(machine.ssh(f"stat -c %s {VOLUMES}/dagster-gce-reserve")) == 100_000_000
            seen = []
            while "pause" not in seen:
                # The last levels are a few hundredths of the disk.
                step = 10 if "refuse" in seen else 40
                machine.ssh(f"dd if=/dev/zero bs=1M count={step} status=none >> {BALLAST}")
                level = guard(machine)["details"]["level"]
                seen += [level] if level not in seen else []
                assert level != "full", seen
            assert seen[-2:] == ["refuse", "pause"], seen
            waiting = machine.launch("quick")
            # Somebody writes on, faster than the guard looks.
            machine.ssh(f"dd if=/dev/zero bs=1M status=none >> {BALLAST} 2> /dev/null; true")
            acknowledged = 0
            for number in range(1, 400):
                try:
                    upkeep_load.sql(machine, f"INSERT INTO written SELECT {number}, repeat(md5(g::text), 100) FROM "
                                             "generate_series(1, 1000) g", timeout=60)  # fmt: skip
                except AssertionError:
                    break
                acknowledged = number
            else:
                raise AssertionError("expected PostgreSQL to run out of room")
            full = time.monotonic()
            assert guard(machine)["details"]["level"] == "full"
            assert machine.ssh(f"test -e {VOLUMES}/dagster-gce-reserve || echo gone").strip() == "gone"
            # The reserve is what it needs to come back, although the disk is as good as full.
            wait(lambda: _database_answers(machine), 120, "PostgreSQL with the reserve")
            alive = time.monotonic() - full
            assert upkeep_load.number(machine, "SELECT count(DISTINCT n) FROM written") >= acknowledged
            machine.ssh(f"rm {BALLAST}")
            freed = time.monotonic()
            assert guard(machine)["details"]["paused"] is False
            machine.wait_for_run(waiting, "SUCCESS", seconds=180)
            healthy = time.monotonic() - freed
            assert (
                upkeep_load.number(machine, f"SELECT count(*) FROM written WHERE n <= {acknowledged}")
                == acknowledged * 1000
            )
            upkeep_load.sql(machine, "DROP TABLE written")
        rows.write(
            "guard", "disk of PostgreSQL full to the last byte, then freed", 1, "nothing that was committed, no run",
            [healthy], f"levels {' → '.join(seen)} → full; PostgreSQL answers {alive:.0f} s after it got the reserve",
        )  # fmt: skip
