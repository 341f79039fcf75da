"""Backups: taken under load, restored on an empty machine, proven, and what happens where something is wrong.

``E2E_LONG=1`` also kills a restore at each of its steps.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import rows
from tests.e2e.harness import ROOT, Machine, Played, long_form
from tests.e2e.operations.backup_bucket import ACCOUNT, BUCKET, Vault
from tests.webserver import LOST

FOLDER = "/opt/dagster/backups"
STACK = "docker ps --filter label=dataops.dagster_gce=stack --format '{{.Names}} {{.ID}}' | sort"
ROLES = """- hosts: dagster
  gather_facts: false
  become: true
  roles: [ROLES]
"""
STEPS = ["restoring", "swapping", "bringing compute logs back"]


class Site:
    """A machine with backups in the bucket, encrypted for a key that only the test has."""

    def __init__(self, machine: Machine, there: Vault, key: tuple[str, str], prefix: str) -> None:
        self.machine = machine
        self.vault = there
        self.recipient, self.identity = key
        self.prefix = prefix

    @property
    def variables(self) -> dict[str, Any]:
        """What the inventory would say."""
        return {
            "dagster_backup_bucket": BUCKET,
            "dagster_backup_bucket_prefix": self.prefix,
            "dagster_backup_recipients": [self.recipient],
        }

    def set_up(self, *roles: str) -> Played:
        """The roles alone; site.yml runs them, too."""
        playbook = ROOT / "build" / "tests" / f"{self.machine.name}-backup.yml"
        playbook.parent.mkdir(parents=True, exist_ok=True)
        playbook.write_text(ROLES.replace("ROLES", ", ".join(f"dataops.dagster_gce.{role}" for role in roles)))
        return self.machine.play(str(playbook), **self.variables).ok()

    def play(self, playbook: str, *arguments: str, **more: Any) -> Played:
        """One of the playbooks, with the inventory's variables."""
        return self.machine.play(f"playbooks/{playbook}", *arguments, **{**self.variables, **more})

    def command(self, arguments: str, identity: str | None = None) -> tuple[int, str]:
        """dagster-gce on the machine, with the private key on its standard input."""
        given = f" --identity - <<'E'\n{self.identity if identity is None else identity}\nE" if identity != "" else ""
        output = self.machine.ssh(f"dagster-gce {arguments} 2>&1{given}\necho status=$?", check=False, timeout=300)
        text, _, status = output.rpartition("status=")
        return int(status), text

    def state(self, job: str) -> dict[str, Any]:
        """The last result of a job."""
        found: dict[str, Any] = json.loads(self.machine.ssh(f"cat /opt/dagster/state/{job}.json"))
        return found

    def rows(self, sql: str, database: str = "dagster") -> list[list[str]]:
        """What PostgreSQL answers."""
        text = self.machine.ssh(
            f"docker exec -i dagster-postgres psql -U dagster -d {database} -AtF '|' <<'E'\n{sql}\nE"
        )
        return [line.split("|") for line in text.splitlines()]

    def databases(self) -> list[str]:
        """Every database."""
        return [row[0] for row in self.rows("SELECT datname FROM pg_database ORDER BY 1", "postgres")]


def key_of(machine: Machine) -> tuple[str, str]:
    """A new pair of age's keys: the public one, and the private one."""
    said = machine.ssh(
        "command -v age-keygen >/dev/null || (apt-get update -qq; apt-get install -qq --yes age) >/dev/null 2>&1\n"
        "age-keygen 2>/dev/null"
    )
    recipient, identity = re.search(r"age1\w+", said), re.search(r"AGE-SECRET-KEY-1\w+", said)
    assert recipient
    assert identity
    return recipient[0], identity[0]


def log_of(machine: Machine, run: str) -> str:
    """What the UI shows as a run's compute log."""
    keys = machine.graphql(
        """query ($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
           ... on LogsCapturedEvent { fileKey } } } } }""",
        id=run,
    )["logsForRun"]["events"]
    key = next(each["fileKey"] for each in keys if each.get("fileKey"))
    query = "query ($key: [String!]!) { capturedLogs(logKey: $key) { stdout stderr } }"
    found = machine.graphql(query, key=[run, "compute_logs", key])["capturedLogs"]
    return f"{found['stdout']}{found['stderr']}"


class Launching:
    """Runs all the time, as long as the block goes on."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.launched: list[str] = []
        self._stop = threading.Event()

    def __enter__(self) -> Launching:
        self._thread = threading.Thread(target=self._launch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _launch(self) -> None:
        while not self._stop.wait(1):
            try:
                self.launched.append(self.machine.launch("quick"))
            except LOST as error:
                self.launched.append(f"failed: {error!r}")


@pytest.fixture(scope="module")
def site(machine: Machine, there: Vault) -> Iterator[Site]:
    there.admit(machine)
    found = Site(machine, there, key_of(machine), "first")
    found.set_up("dagster_command", "dagster_backup")
    yield found
    # What was damaged on purpose is nobody's problem any more.
    machine.ssh(
        "dagster-gce resume; dagster-gce restore --drop-old; rm -rf /opt/dagster/backups/*;"
        " rm -f /opt/dagster/state/backup.json /opt/dagster/state/drill.json /opt/dagster/state/restore.json",
        check=False,
    )
    machine.play(str(ROOT / "build" / "tests" / f"{machine.name}-backup.yml"))
    there.dismiss(machine)


@pytest.fixture(scope="module")
def taken(site: Site) -> dict[str, Any]:
    """A backup taken while runs were written and one was in flight: its manifest, and what Dagster said then."""
    machine = site.machine
    first = machine.launch("quick")
    machine.wait_for_run(first, "SUCCESS")
    going = machine.launch("sleepy", {"ops": {"sleep": {"config": {"seconds": 600}}}})
    machine.wait_for_run(going, "STARTED")
    with Launching(machine) as load:
        time.sleep(3)
        played = site.play("backup.yml").ok()
        time.sleep(2)
    assert not [each for each in load.launched if each.startswith("failed")]
    details = site.state("backup")["details"]
    manifest = json.loads(site.vault.content(f"first/{details['stamp']}/manifest.json").read_text())
    assert f"gs://{BUCKET}/first" in played.flat
    machine.terminate(going)
    finished = site.rows(
        "SELECT run_id, status FROM runs WHERE status IN ('SUCCESS', 'FAILURE', 'CANCELED')"
        f" AND id <= {manifest['database']['newest_run']['id']} ORDER BY id"
    )
    return {
        "manifest": manifest, "first": first, "going": going, "finished": finished,
        "events": machine.events(first), "log": log_of(machine, first), "launched": load.launched,
    }  # fmt: skip


def test_nothing_is_done_twice(site: Site) -> None:
    assert site.set_up("dagster_backup").changed == 0


def test_a_backup_tells_what_it_holds_and_hides_it(site: Site, taken: dict[str, Any]) -> None:
    manifest = taken["manifest"]
    assert manifest["versions"]["dagster"].startswith("1.")
    assert manifest["schema_revision"]
    assert manifest["release"]["identity"].startswith("sha256:")
    assert manifest["database"]["in_flight"] >= 1
    assert manifest["database"]["tables"]["runs"] >= 2
    assert all(name.endswith(".age") for name in manifest["files"])
    for name in manifest["files"]:
        content = site.vault.content(f"first/{manifest['stamp']}/{name}").read_bytes()
        assert content.startswith(b"age-encryption.org/v1")
    password = site.machine.ssh("grep -o 'POSTGRES_PASSWORD=.*' /opt/dagster/.env | cut -d= -f2").strip()
    found = site.machine.ssh(f"grep -rlF -- '{password}' {FOLDER} /opt/dagster/state /run/dagster-gce || true")
    assert not found


def test_the_drill_proves_it_from_the_bucket(site: Site, taken: dict[str, Any]) -> None:
    played = site.play("restore_drill.yml", dagster_backup_identity=site.identity).ok()
    assert f"{sum(taken['manifest']['database']['tables'].values())} rows in" in played.flat
    state = site.state("drill")
    assert state["details"]["proven"] == taken["manifest"]["stamp"]
    assert state["details"]["place"] == f"gs://{BUCKET}/first"
    assert site.identity not in site.machine.ssh("cat /opt/dagster/state/*.json; journalctl --no-pager -q")
    assert (
        site.machine.ssh("docker ps -aq --filter name=dagster-gce-drill; ls -d /opt/dagster/backups/.drill", False)
        == ""
    )
    assert site.machine.ssh("ls /run/dagster-gce | grep identity || true") == ""


def test_without_the_key_the_drill_compares_checksums_and_says_so(site: Site, taken: dict[str, Any]) -> None:
    status, said = site.command("drill", identity="")
    assert status == 0, said
    assert "not restored, for want of the key" in said
    assert [each["name"] for each in site.state("drill")["problems"]] == ["drill_identity"]
    assert site.state("drill")["details"]["proven"] == taken["manifest"]["stamp"]


DAMAGES = {
    "a byte in the dump": (
        "printf X | dd of={backup}/database.dump.age bs=1 seek=4000 conv=notrunc",
        "database.dump.age",
    ),
    "half of the dump": ("truncate -s 5000 {backup}/database.dump.age", "database.dump.age: found 5000 bytes"),
    "no dump": ("rm {backup}/database.dump.age", "database.dump.age: there is no such file any more"),
    "another set-up": ("echo x > {backup}/machine.tar.gz.age", "machine.tar.gz.age: found 2 bytes"),
    "a number in the manifest": (
        'sed -i \'s/"runs": [0-9]*/"runs": 1/\' {backup}/manifest.json',
        "manifest.json is damaged",
    ),
    "no manifest's end": ("truncate -s 300 {backup}/manifest.json", "manifest.json is damaged"),
    "an archive of logs": (
        "printf X | dd of=$(ls {folder}/logs/*.age | head -1) bs=1 seek=300 conv=notrunc",
        "is damaged",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_drill_fails_where_the_backup_is_damaged(site: Site, taken: dict[str, Any], damage: str) -> None:
    command, said = DAMAGES[damage]
    backup = f"{FOLDER}/{taken['manifest']['stamp']}"
    site.machine.ssh(f"rm -rf /root/kept; cp -a {FOLDER} /root/kept")
    try:
        site.machine.ssh(command.format(backup=backup, folder=FOLDER))
        status, output = site.command(f"drill --place directory --backup {taken['manifest']['stamp']}")
        assert status == 1, output
        assert said in output
        assert site.state("drill")["ok"] is False
        status, output = site.command(f"restore {taken['manifest']['stamp']} --place directory --confirm")
        assert status == 1, output
        assert said in output
        assert "dagster_restore" not in " ".join(site.databases())
    finally:
        site.machine.ssh(f"rm -rf {FOLDER}; mv /root/kept {FOLDER}")


def test_the_drill_fails_where_the_bucket_lost_something(site: Site, taken: dict[str, Any]) -> None:
    path = site.vault.content(f"first/{taken['manifest']['stamp']}/database.dump.age")
    kept = path.read_bytes()
    path.write_bytes(kept[:1000] + bytes([kept[1000] ^ 1]) + kept[1001:])
    try:
        status, output = site.command("drill")
        assert status == 1, output
        assert "its content has changed since it was written" in output
    finally:
        path.write_bytes(kept)


def test_what_checksums_cannot_tell_the_restore_does(site: Site, taken: dict[str, Any]) -> None:
    """A dump that lacks rows although its checksum is right: the drill counts."""
    stamp = taken["manifest"]["stamp"]
    program = (
        "import hashlib, json, pathlib\n"
        f"path = pathlib.Path('{FOLDER}/{stamp}/manifest.json'); content = json.loads(path.read_text())\n"
        "del content['checksum']; content['database']['tables']['event_logs'] += 1\n"
        "text = json.dumps(content, sort_keys=True).encode()\n"
        "path.write_text(json.dumps({**content, 'checksum': hashlib.sha256(text).hexdigest()}))\n"
    )
    site.machine.ssh(f"rm -rf /root/kept; cp -a {FOLDER} /root/kept; python3 - <<'E'\n{program}E")
    try:
        status, output = site.command(f"drill --place directory --backup {stamp}")
        assert status == 1, output
        assert "rows in table event_logs, expected" in output
        assert site.machine.ssh("docker ps -aq --filter name=dagster-gce-drill") == ""
    finally:
        site.machine.ssh(f"rm -rf {FOLDER}; mv /root/kept {FOLDER}")


def test_another_key_opens_nothing(site: Site) -> None:
    other = re.search(r"AGE-SECRET-KEY-1\w+", site.machine.ssh("age-keygen 2>/dev/null"))
    assert other
    for what in ("drill", "restore latest --confirm"):
        status, output = site.command(what, identity=other[0])
        assert status == 1, output
        assert "it was not encrypted for this identity" in output
    status, output = site.command("restore latest", identity="")
    assert status == 1
    assert "is encrypted: found no private key" in output


def test_bad_input_is_one_error_and_nothing_is_touched(site: Site, taken: dict[str, Any]) -> None:
    before = site.machine.ssh(STACK)
    databases = site.databases()
    site.play("restore.yml").refused("dagster_restore_backup: found nothing; expected latest, or a stamp")
    site.play("restore.yml", dagster_restore_backup="yesterday").refused(
        "(from dagster_restore_backup): found 'yesterday'; expected latest, or a stamp"
    )
    site.play("restore.yml", dagster_restore_backup="20200101T000000Z", dagster_backup_identity=site.identity).refused(
        f"no backup 20200101T000000Z in gs://{BUCKET}/first", taken["manifest"]["stamp"]
    )
    site.play("restore.yml", dagster_restore_backup="latest", dagster_backup_identity=site.identity).refused(
        "runs of this machine are not in it and would be lost",
        "Nothing has been touched",
        "dagster_restore_confirm=true",
    )
    site.play("backup.yml", dagster_backup_secrets=True, dagster_backup_recipients=[]).refused(
        "dagster_backup_recipients: found", "so it has to be encrypted"
    )
    site.play("backup.yml", dagster_backup_recipients=["ssh-rsa"]).refused(
        "dagster_backup_recipients: found 'ssh-rsa' at position 1 of the list; expected a list, each of it a public key"
    )
    assert site.machine.ssh(STACK) == before
    assert site.databases() == databases


def test_no_room_is_said_before_anything_is_written(site: Site) -> None:
    stamps = site.machine.ssh(f"ls {FOLDER}")
    site.machine.ssh(
        "cp /etc/dagster-gce/backup.json /root/\n"
        'sed -i \'s/"min_free_percent": 10/"min_free_percent": 99/\' /etc/dagster-gce/backup.json'
    )
    try:
        status, output = site.command("backup", identity="")
        assert status == 1, output
        assert "no room for a backup in /opt/dagster/backups: found" in output
        assert site.machine.ssh(f"ls {FOLDER}") == stamps
        assert "no room for a backup" in site.machine.ssh("dagster-gce status", check=False)
    finally:
        site.machine.ssh("mv /root/backup.json /etc/dagster-gce/")


def test_what_google_refuses_is_a_problem_and_no_lost_backup(site: Site) -> None:
    site.vault.google.revoke("storage.objects.create", ACCOUNT)
    try:
        status, output = site.command("backup --reason test", identity="")
        assert status == 1, output
        assert "it is in /opt/dagster/backups only" in output
        assert "403 forbidden" in output
        state = site.state("backup")
        assert [each["name"] for each in state["problems"]] == ["backup_bucket"]
        stamp = state["details"]["stamp"]
        assert f"first/{stamp}/manifest.json" not in site.vault.objects()
    finally:
        site.vault.google.grant("storage.objects.create", ACCOUNT)
    # The next one brings what was left behind.
    status, output = site.command("backup --reason test", identity="")
    assert status == 0, output
    assert f"first/{stamp}/manifest.json" in site.vault.objects()
    assert site.state("backup")["problems"] == []


def test_a_killed_backup_leaves_nothing(site: Site) -> None:
    stamps = site.machine.ssh(f"ls {FOLDER}")
    site.machine.ssh(
        "dagster-gce backup & child=$!\n"
        f"for i in $(seq 200); do ls {FOLDER}/.partial-*/database.dump.age >/dev/null 2>&1 && break; sleep 0.02; done\n"
        "kill -9 $child; sleep 1"
    )
    assert site.machine.ssh(f"ls {FOLDER}") == stamps
    assert "partial" in site.machine.ssh(f"ls -a {FOLDER}"), "the kill came too late to show anything"
    status, output = site.command("backup", identity="")
    assert status == 0, output
    assert "partial" not in site.machine.ssh(f"ls -a {FOLDER} {FOLDER}/logs")
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dagster-gce backup'"
    assert site.rows(sessions) == [["0"]]


@pytest.fixture(scope="module")
def empty(there: Vault, site: Site) -> Iterator[Site]:
    """A machine as site.yml leaves it, with the same inventory's variables."""
    machine = Machine("e2e-restore").start()
    try:
        found = Site(machine, there, (site.recipient, site.identity), "first")
        machine.play("site.yml", dagster_core_dir="tests/fixtures/dagster_core_load", **found.variables).ok()
        there.admit(machine)
        yield found
    finally:
        machine.remove()


def test_an_empty_machine_gets_all_of_it_back(empty: Site, taken: dict[str, Any]) -> None:
    machine, manifest = empty.machine, taken["manifest"]
    # A run there already, which nobody wants back.
    machine.wait_for_run(machine.launch("quick"), "SUCCESS")
    shown = empty.play(
        "restore.yml", "--check", dagster_restore_backup=manifest["stamp"], dagster_backup_identity=empty.identity
    ).ok()
    assert f"backup {manifest['stamp']} of" in shown.flat
    played = empty.play(
        "restore.yml", dagster_restore_backup=manifest["stamp"], dagster_backup_identity=empty.identity,
        dagster_restore_confirm=True,
    ).ok()  # fmt: skip
    assert f"backup {manifest['stamp']} restored from gs://{BUCKET}/first" in played.flat
    newest = manifest["database"]["newest_run"]["id"]
    assert empty.rows(f"SELECT count(*) FROM runs WHERE id <= {newest}") == [
        [str(manifest["database"]["tables"]["runs"])]
    ]
    found = dict(empty.rows(f"SELECT run_id, status FROM runs WHERE id <= {newest}"))
    finished = [each for each in taken["finished"] if each[1] == "SUCCESS"]
    assert taken["first"] in found
    assert found[taken["first"]] == "SUCCESS"
    assert {run for run, _ in finished} <= set(found)
    assert not {"STARTED", "STARTING", "QUEUED", "CANCELING", "NOT_STARTED"} & set(found.values())
    assert found[taken["going"]] == "FAILURE"
    said = " ".join(each.get("message", "") for each in machine.events(taken["going"]))
    assert f"in flight when backup {manifest['stamp']} was taken" in said
    assert machine.events(taken["first"]) == taken["events"]
    assert log_of(machine, taken["first"]) == taken["log"]
    assert taken["log"]
    # It goes on: the sequences of the database are right, too.
    run = machine.launch("quick")
    machine.wait_for_run(run, "SUCCESS")
    status, output = empty.command("status", identity="")
    assert "dagster_before_" not in output or status in (0, 1)
    details = empty.state("restore")["details"]
    fault = "backup taken while runs are written, restored on an empty machine"
    tables = manifest["database"]["tables"]
    note = (
        f"{tables['runs']} runs, {tables['event_logs']} events, every table equal; backup {manifest['seconds']:.1f} s, "
        f"restore {details['seconds']:.0f} s; the run in flight ends as failed"
    )
    rows.write("backup", fault, 1, "nothing that was in the backup", [details["downtime_seconds"]], note)
    # Not retried: what became of it is not known.
    assert empty.rows(
        f"SELECT count(*) FROM run_tags WHERE key = 'dagster/root_run_id' AND value = '{taken['going']}'"
    ) == [["0"]]


@long_form
@pytest.mark.parametrize("step", STEPS)
def test_a_killed_restore_ends_the_same_when_it_is_run_again(empty: Site, taken: dict[str, Any], step: str) -> None:
    machine, stamp = empty.machine, taken["manifest"]["stamp"]
    run = machine.launch("quick")
    machine.wait_for_run(run, "SUCCESS")
    empty.play("restore.yml", dagster_restore_backup=stamp, dagster_backup_identity=empty.identity).refused(run)
    machine.ssh(
        f"(umask 077; echo '{empty.identity}' > /run/key)\n"
        f"dagster-gce restore {stamp} --confirm --identity /run/key > /tmp/restore.log 2>&1 & child=$!\n"
        f"while kill -0 $child && ! grep -q '^{step}' /tmp/restore.log; do sleep 0.02; done\n"
        "kill -9 $child; rm /run/key; cat /tmp/restore.log",
    )
    said = machine.ssh("cat /tmp/restore.log")
    assert step in said
    assert "restored from" not in said
    status, output = empty.command(f"restore {stamp} --confirm")
    assert status == 0, output
    assert f"backup {stamp} restored" in output
    assert empty.rows(f"SELECT count(*) FROM runs WHERE run_id = '{run}'") == [["0"]]
    assert empty.rows(f"SELECT status FROM runs WHERE run_id = '{taken['first']}'") == [["SUCCESS"]]
    assert empty.rows(f"SELECT status FROM runs WHERE run_id = '{taken['going']}'") == [["FAILURE"]]
    assert [name for name in empty.databases() if name.startswith("dagster_restore_")] == []
    assert (
        machine.ssh("ls /opt/dagster/state/paused /opt/dagster/state/restore-journal.json 2>/dev/null", check=False)
        == ""
    )
    machine.wait_for_run(machine.launch("quick"), "SUCCESS")
    details = empty.state("restore")["details"]
    fault = f"restore killed while {step}, run again"
    rows.write("backup", fault, 1, "nothing that was in the backup", [details["downtime_seconds"]])


def test_back_to_the_database_of_before_and_away_with_it(empty: Site, taken: dict[str, Any]) -> None:
    last = empty.machine.launch("quick")
    empty.machine.wait_for_run(last, "SUCCESS")
    empty.play("restore.yml", dagster_restore_back=True).ok()
    assert empty.rows(f"SELECT count(*) FROM runs WHERE run_id = '{last}'") == [["0"]]
    empty.play("restore.yml", dagster_restore_back=True).ok()
    assert empty.rows(f"SELECT count(*) FROM runs WHERE run_id = '{last}'") == [["1"]]
    empty.play("restore.yml", dagster_restore_drop_old=True).ok()
    assert empty.databases() == ["dagster", "postgres", "template0", "template1"]
