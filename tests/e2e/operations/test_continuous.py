"""Continuous backup: what somebody has removed comes back as it was a moment before, also from the bucket alone.

``E2E_LONG=1`` also damages the WAL, kills its receiver, makes PostgreSQL throw away what was not received, and empties
the machine's own backups.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import rows
from tests.e2e.harness import ROOT, Machine, long_form, wait
from tests.e2e.operations.backup_bucket import BUCKET, Vault
from tests.e2e.operations.test_backup import FOLDER, STACK, Site, key_of
from tests.webserver import LOST

PREFIX = "continuous"
SLOT = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'dagster_gce'"


class Continuous(Site):
    """A site that receives the WAL, in short steps."""

    on = True

    @property
    def variables(self) -> dict[str, Any]:
        """What the inventory would say."""
        return {
            **super().variables, "dagster_backup_continuous": self.on, "dagster_backup_continuous_every": 5,
            "dagster_backup_continuous_slot_size": "64m",
        }  # fmt: skip

    def details(self) -> dict[str, Any]:
        """What the last look found."""
        found: dict[str, Any] = json.loads(self.machine.ssh("cat /opt/dagster/state/wal.json 2>/dev/null || echo {}"))
        return dict(found.get("details", {}))

    def problems(self) -> list[str]:
        """The names of what is wrong with it."""
        return [each["name"] for each in self.state("wal")["problems"]]

    def now(self) -> str:
        """This moment, by the machine's clock, with a second on either side in which nothing happens."""
        time.sleep(1.1)
        moment = self.machine.ssh("date -u +%Y-%m-%dT%H:%M:%SZ").strip()
        time.sleep(1.1)
        return moment

    def wait_until(self, moment: str) -> None:
        """Wait until everything up to a moment is in the bucket, and a base before it."""
        stamp = moment.replace("-", "").replace(":", "")

        def there() -> bool:
            found = self.details()
            base = f"{PREFIX}/{found.get('base')}/manifest.json"
            return found.get("uploaded", "") >= stamp and base in self.vault.objects()

        wait(there, 120, f"the WAL up to {moment}", lambda: self.machine.ssh("cat /opt/dagster/state/wal.json", False))

    def succeeds(self) -> str:
        """A run that has succeeded."""
        for _ in range(10):
            # After a restart of the database each of the webserver's connections fails once.
            with contextlib.suppress(*LOST):
                run = self.machine.launch("quick")
                self.machine.wait_for_run(run, "SUCCESS")
                return run
            time.sleep(1)
        raise AssertionError("no run can be launched")

    def remove(self, *runs: str) -> None:
        """What the UI's button does."""
        for run in runs:
            query = "mutation ($id: String!) { deletePipelineRun(runId: $id) { __typename } }"
            answer = self.machine.graphql(query, id=run)["deletePipelineRun"]
            assert answer["__typename"] == "DeletePipelineRunSuccess", answer

    def status_of(self, run: str) -> list[list[str]]:
        """Its status in the database; none where it is not there."""
        return self.rows(f"SELECT status FROM runs WHERE run_id = '{run}'")


@pytest.fixture(scope="module")
def site(machine: Machine, there: Vault) -> Iterator[Continuous]:
    there.admit(machine)
    before = machine.ssh(STACK)
    found = Continuous(machine, there, key_of(machine), PREFIX)
    found.set_up("dagster_command", "dagster_backup")
    found.wait_until(found.now())
    assert machine.ssh(STACK) == before, "no container is restarted or made anew"
    yield found
    found.on = False
    found.set_up("dagster_backup")
    machine.ssh(
        f"dagster-gce backup; dagster-gce resume; dagster-gce restore --drop-old; rm -rf {FOLDER}/* {FOLDER}/.wal;"
        " rm -f /opt/dagster/state/{backup,drill,restore,wal}.json",
        check=False,
    )
    machine.play(str(ROOT / "build" / "tests" / f"{machine.name}-backup.yml"))
    there.dismiss(machine)


def test_nothing_is_done_twice(site: Continuous) -> None:
    assert site.set_up("dagster_backup").changed == 0
    assert site.problems() == []
    assert site.machine.ssh("systemctl is-active dagster-gce-receive dagster-gce-wal.timer").split() == ["active"] * 2


def test_nothing_is_readable_in_the_bucket(site: Continuous) -> None:
    names = [name for name in site.vault.objects() if name.startswith(f"{PREFIX}/")]
    assert [name for name in names if name.startswith(f"{PREFIX}/wal/")]
    assert [name for name in names if name.endswith("/base.tar.gz.age")]
    for name in names:
        # A mark may be gone by now.
        if not name.endswith("manifest.json") and not re.search(r"/wal/.*Z-", name):
            assert site.vault.content(name).read_bytes().startswith(b"age-encryption.org/v1"), name
    assert site.machine.ssh(f"find {FOLDER} -perm /077").split() == []


def test_removed_runs_come_back(site: Continuous) -> None:
    machine = site.machine
    kept = [site.succeeds() for _ in range(3)]
    events = machine.events(kept[0])
    moment = site.now()
    site.remove(*kept)
    after = site.succeeds()
    assert [site.status_of(run) for run in kept] == [[]] * 3
    site.wait_until(site.now())
    stack = machine.ssh(STACK)
    answer = {"dagster_restore_to": moment, "dagster_backup_identity": site.identity}
    site.play("restore.yml", **answer).refused(
        "1 runs of this machine are not in it and would be lost", after, "Nothing has been touched"
    )
    assert machine.ssh(STACK) == stack
    shown = site.play("restore.yml", "--check", **answer).ok()
    assert f"from gs://{BUCKET}/{PREFIX} by recovery" in shown.flat
    started = time.monotonic()
    site.play("restore.yml", dagster_restore_confirm=True, **answer).ok()
    seconds = time.monotonic() - started
    assert [site.status_of(run) for run in kept] == [[["SUCCESS"]]] * 3
    assert site.status_of(after) == []
    assert machine.events(kept[0]) == events
    assert machine.ssh(f"ls -d {FOLDER}/.recovered; docker ps -aq --filter name=dagster-gce-recovery", False) == ""
    site.succeeds()
    details = site.state("restore")["details"]
    note = f"{details['rows']} rows; the play took {seconds:.0f} s"
    fault = "runs removed by hand, restored to the moment before"
    rows.write("backup", fault, 1, "nothing of before the moment", [details["downtime_seconds"]], note)


def test_what_is_not_covered_is_refused(site: Continuous) -> None:
    before, databases = site.machine.ssh(STACK), site.databases()
    site.play("restore.yml", dagster_restore_to="noon").refused(
        "(from dagster_restore_to): found 'noon'; expected latest, or a moment in UTC such as 2026-11-30T12:00:00Z"
    )
    site.play("restore.yml", dagster_restore_to="latest", dagster_restore_backup="latest").refused(
        "(from dagster_restore_to): found 'latest'; expected either this or dagster_restore_backup"
    )
    for moment in ("2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z"):
        site.play("restore.yml", dagster_restore_to=moment, dagster_backup_identity=site.identity).refused(
            f"dagster_restore_to: found {moment}; expected latest, or a moment from 2", f"gs://{BUCKET}/{PREFIX} cover"
        )
    site.play("restore.yml", dagster_restore_to="latest").refused("is encrypted: found no private key")
    site.play("backup.yml", dagster_postgres_host="database.example").refused(
        "dagster_backup_continuous: found the boolean true; expected false where dagster_postgres_host names"
    )
    assert site.machine.ssh(STACK) == before
    assert site.databases() == databases


def test_the_drill_recovers_the_newest_base(site: Continuous) -> None:
    status, said = site.command("drill")
    assert status == 0, said
    assert "; continuous: the base of " in said


@long_form
@pytest.mark.parametrize("damage", ["a byte of a segment", "a segment is gone", "a byte of the base"])
def test_damage_is_told_and_nothing_is_touched(site: Continuous, damage: str) -> None:
    # A segment in the middle: the base's own, with newer ones behind it.
    site.rows("SELECT pg_switch_wal()", "postgres")
    time.sleep(8)
    base = f"{FOLDER}/{site.details()['base']}"
    start = json.loads(site.machine.ssh(f"cat {base}/manifest.json"))["base"]["start"]
    path = f"{base}/base.tar.gz.age"
    if damage != "a byte of the base":
        path = site.machine.ssh(f"ls {FOLDER}/wal/*-{start}-*").strip()
    command = f"rm {path}" if damage == "a segment is gone" else f"printf X | dd of={path} bs=1 seek=3000 conv=notrunc"
    databases = site.databases()
    site.machine.ssh(f"systemctl stop dagster-gce-wal.timer; cp -a {path} /root/kept; {command}")
    try:
        for what in ("drill --place directory", "restore --to latest --place directory --confirm"):
            status, output = site.command(what)
            assert status == 1, output
            expected = f"segment {start} is missing" if damage == "a segment is gone" else "is damaged"
            assert expected in output
        assert site.databases() == databases
    finally:
        site.machine.ssh(f"mv /root/kept {path}; systemctl start dagster-gce-wal.timer")
    site.wait_until(site.now())
    assert site.problems() == [], site.details()


@long_form
def test_a_killed_receiver_leaves_no_gap(site: Continuous) -> None:
    machine = site.machine
    for _ in range(3):
        machine.ssh("docker kill dagster-gce-receive; systemctl kill -s KILL dagster-gce-receive.service", check=False)
        site.succeeds()
    machine.ssh("docker restart dagster-postgres", timeout=180)
    wait(machine.serves, 120, "the webserver")
    last = site.succeeds()
    # PostgreSQL goes on to another segment while nobody receives.
    machine.ssh("systemctl stop dagster-gce-receive")
    site.rows("SELECT pg_switch_wal()", "postgres")
    site.succeeds()
    machine.ssh("systemctl start dagster-gce-receive")
    site.wait_until(site.now())
    assert site.problems() == [], site.details()
    status, output = site.command("restore --to latest --plan")
    assert status == 0, output
    assert "no run of this machine would be lost" in output
    assert site.status_of(last) == [["SUCCESS"]]


@long_form
def test_what_postgres_has_thrown_away_is_a_gap_until_the_next_base(site: Continuous) -> None:
    machine = site.machine
    site.wait_until(site.now())
    base = site.details()["base"]
    machine.ssh("systemctl stop dagster-gce-receive; docker rm -f dagster-gce-receive", check=False)
    filler = "CREATE TABLE filler AS SELECT repeat(md5(n::text), 30) FROM generate_series(1, 40000) n"
    for _ in range(6):
        site.rows(f"{filler}; DROP TABLE filler; SELECT pg_switch_wal(); CHECKPOINT", "postgres")
    assert site.rows(SLOT, "postgres") == [["lost"]], "the disk is not filled for a dead receiver"
    machine.ssh("systemctl start dagster-gce-receive")
    wait(lambda: site.details().get("base", "") > base, 180, "a new base", site.details)
    assert site.problems() == ["wal_gap"]
    assert "a part of the WAL is missing" in machine.ssh("dagster-gce status", check=False)
    site.wait_until(site.now())
    status, output = site.command("restore --to latest --plan")
    assert status == 0, output


@long_form
@pytest.mark.parametrize("step", ["recovering", "restoring", "bringing compute logs back"])
def test_a_killed_restore_goes_on(site: Continuous, step: str) -> None:
    """Before the swap ``latest`` is a later moment then; after it, the one that is in the database already."""
    machine = site.machine
    last = site.succeeds()
    site.wait_until(site.now())
    machine.ssh(
        f"(umask 077; echo '{site.identity}' > /run/key)\n"
        "dagster-gce restore --to latest --confirm --identity /run/key > /tmp/restore.log 2>&1 & child=$!\n"
        f"while kill -0 $child && ! grep -q '^{step}' /tmp/restore.log; do sleep 0.02; done\n"
        "kill -9 $child; rm /run/key",
        timeout=300,
    )
    assert "restored from" not in machine.ssh("cat /tmp/restore.log")
    status, output = site.command("restore --to latest --confirm")
    assert status == 0, output
    assert ("was broken off after the swap" in output) == (step == "bringing compute logs back")
    assert site.status_of(last) == [["SUCCESS"]]
    assert [name for name in site.databases() if name.startswith("dagster_restore_")] == []
    left = f"ls -d {FOLDER}/.recovered /opt/dagster/state/restore-journal.json; docker ps -aq --filter name=-recovery"
    assert machine.ssh(left, check=False) == ""
    site.succeeds()


@long_form
def test_from_the_bucket_alone(site: Continuous) -> None:
    machine = site.machine
    last = site.succeeds()
    site.wait_until(site.now())
    machine.ssh(f"systemctl stop dagster-gce-wal.timer dagster-gce-receive; rm -rf {FOLDER}; mkdir -m 700 {FOLDER}")
    site.remove(last)
    status, output = site.command("restore --to latest --confirm")
    assert status == 0, output
    assert f"restored from gs://{BUCKET}/{PREFIX} by recovery" in output
    assert site.status_of(last) == [["SUCCESS"]]
    machine.ssh("systemctl start dagster-gce-wal.timer dagster-gce-receive")
    site.wait_until(site.now())


def test_switched_off_postgres_keeps_nothing_for_it(site: Continuous) -> None:
    site.on = False
    site.set_up("dagster_backup")
    status, output = site.command("backup", identity="")
    assert status == 0, output
    assert site.rows(SLOT, "postgres") == []
    assert site.machine.ssh("docker ps -aq --filter name=dagster-gce-receive") == ""
    assert site.rows("SHOW max_slot_wal_keep_size", "postgres") == [["-1"]]
