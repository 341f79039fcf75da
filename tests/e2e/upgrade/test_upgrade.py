"""Old Dagster and old PostgreSQL to today's: killed half-way, broken, taken back, and at last done. Nothing is lost."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator

import pytest

from tests.e2e import rows
from tests.e2e.harness import LONG, long_form, wait
from tests.e2e.upgrade.old import BROKEN, LOAD, OLD, OLD_SETTINGS, OldMachine

NEW_WEBSERVER = "e2e_webserver:1"
# (kill at, seconds later). The first one is the short form.
WITH_POSTGRES = [("copying", 0.0)]
if LONG:
    WITH_POSTGRES += [("begun", 0.0), ("quiescing", 0.0), ("dumping", 0.0), ("copying", 2.0), ("copying", 4.0),
                      ("migrating", 0.0), ("migrating", 3.0), ("switching", 0.0), ("starting", 0.0)]  # fmt: skip
SCHEMA_ONLY = [("migrating", 0.0), ("rehearsing", 0.0), ("rehearsing", 2.0), ("quiescing", 0.0), ("dumping", 0.0),
               ("migrating", 2.0), ("switching", 0.0), ("starting", 0.0)]  # fmt: skip


def as_before(old: OldMachine, revision: str, counts: dict[str, int]) -> None:
    """The old versions answer, with everything that was there."""
    assert old.version() == OLD
    assert old.postgres() == "13"
    assert old.revision() == revision
    found = old.counts()
    assert all(found[name] >= count for name, count in counts.items()), (counts, found)
    wait(lambda: old.leftovers() == "", 10, "nothing left of the upgrade", old.leftovers)


class Kills:
    """The upgrades that were killed: where, and the seconds from the next attempt until the old versions answered."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.seconds: list[float] = []

    def write(self, what: str) -> None:
        """A row for docs/reliability.md, where all of them ended well."""
        if len(self.seconds) == len(self.steps):
            note = f"at {', '.join(dict.fromkeys(self.steps))}; seconds of the next attempt and of the way back"
            rows.write("upgrade", f"upgrade of {what} killed", len(self.steps), "nothing", self.seconds, note)


@pytest.fixture(scope="module")
def kills() -> Iterator[dict[str, Kills]]:
    """By what was upgraded."""
    found: dict[str, Kills] = defaultdict(Kills)
    yield found
    for what, each in found.items():
        each.write(what)


def killed_and_run_again(old: OldMachine, kills: Kills, postgres: str, step: str, seconds: float) -> None:
    kills.steps.append(step)
    revision, counts = old.revision(), old.counts()
    code, said = old.step("prepare", NEW_WEBSERVER, postgres, step, seconds)
    assert code == 137, said
    assert "current.json" in old.leftovers()
    start = time.monotonic()
    code, said = old.step("prepare", NEW_WEBSERVER, postgres)
    assert code == 0, said
    outcome = json.loads(said)
    assert outcome["pending"], outcome
    assert any("interrupted" in note for note in outcome["notes"]), outcome
    # From here the roles would go on; the way back is tried instead, and leaves the machine for the next test.
    code, said = old.step("back", NEW_WEBSERVER, postgres)
    assert code == 0, said
    as_before(old, revision, counts)
    kills.seconds.append(time.monotonic() - start)


def test_what_is_not_ours_is_refused_and_named(old: OldMachine) -> None:
    old.machine.play("playbooks/upgrade.yml", **LOAD).refused(
        "dagster-postgres was not made by this collection (Compose project article in /srv/article)",
        "playbooks/adopt.yml",
    )
    assert old.version() == OLD


def test_the_article_s_machine_is_taken_over_with_its_history(old: OldMachine) -> None:
    counts, revision = old.counts(), old.revision()
    run = old.machine.launch("sleepy", {"ops": {"sleep": {"config": {"seconds": 8}}}})
    old.machine.wait_for_run(run, "STARTED")
    played = old.machine.play("playbooks/adopt.yml", **OLD_SETTINGS).ok()
    assert "its database stays in the volume article_dagster-postgres (PostgreSQL 13" in played.flat
    as_before(old, revision, counts)
    assert old.machine.run_status(run) == "SUCCESS"
    mounted = old.machine.ssh("docker inspect -f '{{range .Mounts}}{{.Name}} {{end}}' dagster-postgres")
    assert "article_dagster-postgres" in mounted
    assert old.machine.play("playbooks/adopt.yml", "--check", **OLD_SETTINGS).ok().changed == 0


def test_site_leaves_another_dagster_to_the_upgrade(old: OldMachine) -> None:
    counts, revision = old.counts(), old.revision()
    new = OLD_SETTINGS | {"dagster_image": NEW_WEBSERVER, "dagster_stack_postgres_image": "postgres:13"}
    old.machine.play("site.yml", **new).refused(
        f"{NEW_WEBSERVER}: found Dagster ", f"expected {OLD}, which the stack has", "playbooks/upgrade.yml"
    )
    as_before(old, revision, counts)


@pytest.mark.parametrize(("step", "seconds"), WITH_POSTGRES)
def test_both_at_once_killed_and_run_again(old: OldMachine, kills: dict[str, Kills], step: str, seconds: float) -> None:
    killed_and_run_again(old, kills["Dagster and PostgreSQL"], "postgres:17", step, seconds)


@long_form
@pytest.mark.parametrize(("step", "seconds"), SCHEMA_ONLY)
def test_dagster_killed_and_run_again(old: OldMachine, kills: dict[str, Kills], step: str, seconds: float) -> None:
    killed_and_run_again(old, kills["Dagster"], "postgres:13", step, seconds)


@long_form
def test_a_way_back_that_is_killed_is_finished(old: OldMachine) -> None:
    revision, counts = old.revision(), old.counts()
    code, said = old.step("prepare", NEW_WEBSERVER, "postgres:13")
    assert code == 0, said
    code, said = old.step("back", NEW_WEBSERVER, "postgres:13", "returning", 1.5)
    assert code == 137, said
    code, said = old.step("back", NEW_WEBSERVER, "postgres:13")
    assert code == 0, said
    as_before(old, revision, counts)


def test_a_new_image_that_does_not_start_is_taken_back(old: OldMachine) -> None:
    revision, counts = old.revision(), old.counts()
    played = old.machine.play(
        "playbooks/upgrade.yml", dagster_image=BROKEN, dagster_image_pull_policy="missing",
        dagster_stack_wait_timeout=40,
    )  # fmt: skip
    played.refused("The upgrade was taken back", f"Dagster {OLD} answers as before", "broken on purpose")
    as_before(old, revision, counts)
    run = old.machine.launch("quick")
    assert old.machine.wait_for_run(run, "SUCCESS", "FAILURE") == "SUCCESS"
    last = json.loads(old.machine.ssh("tail -n 1 /opt/dagster/deploys.jsonl"))
    assert (last["operation"], last["result"]) == ("upgrade", "rolled_back")


@long_form
def test_a_run_that_does_not_end_in_time_stops_the_upgrade_and_nothing_else(old: OldMachine) -> None:
    run = old.machine.launch("sleepy", {"ops": {"sleep": {"config": {"seconds": 600}}}})
    old.machine.wait_for_run(run, "STARTED")
    played = old.machine.play(
        "playbooks/upgrade.yml", dagster_stack_postgres_image="postgres:17", dagster_upgrade_wait_for_runs=1, **LOAD
    )
    played.refused("dagster_upgrade_wait_for_runs: found 1 runs in flight after 1 s", run, f"Dagster {OLD} answers")
    assert old.machine.run_status(run) == "STARTED"
    old.machine.terminate(run)
    old.machine.wait_for_run(run, "CANCELED")


def test_everything_at_once_with_a_run_in_flight_and_a_kill(old: OldMachine) -> None:
    counts = old.counts()
    run = old.machine.launch("sleepy", {"ops": {"sleep": {"config": {"seconds": 10}}}})
    old.machine.wait_for_run(run, "STARTED")
    # Nothing of the stack runs then.
    code, said = old.step("prepare", NEW_WEBSERVER, "postgres:17", "starting")
    assert code == 137, said
    assert "dagster-postgres\n" not in old.machine.ssh("docker ps --format '{{.Names}}'")
    played = old.machine.play("playbooks/upgrade.yml", dagster_stack_postgres_image="postgres:17", **LOAD).ok()
    assert "was interrupted at the step starting; it is gone on with" in played.flat
    assert "PostgreSQL 13 → 17" in played.output
    assert "the webserver was away for" in played.output
    assert (old.postgres(), old.version() == OLD) == ("17", False)
    assert old.machine.run_status(run) == "SUCCESS"
    found = old.counts()
    assert all(found[name] >= count for name, count in counts.items()), (counts, found)
    assert old.leftovers() == ""
    # What site.yml knows of it: the volume is remembered, and the old version is refused.
    again = old.machine.play("playbooks/upgrade.yml", "--check").ok()
    assert "nothing to do" in again.output
    old.machine.play("site.yml", dagster_stack_postgres_image="postgres:13", **LOAD).refused(
        "dagster_stack_postgres_image: found postgres:13", "dagster-postgres-17", "upgrade.yml"
    )


def test_back_to_the_old_volume_says_what_would_be_lost(old: OldMachine) -> None:
    run = old.machine.launch("quick")
    old.machine.wait_for_run(run, "SUCCESS")
    old.machine.play("playbooks/upgrade.yml", dagster_upgrade_back=True).refused(
        "going back would lose what came since the upgrade", "dagster_upgrade_confirm=true"
    )
    assert old.postgres() == "17"


def test_the_old_volume_goes_when_it_is_confirmed(old: OldMachine) -> None:
    assert "article_dagster-postgres\n" in old.machine.ssh("docker volume ls -q")
    old.machine.play("playbooks/upgrade.yml", dagster_upgrade_confirm=True).ok()
    assert "article_dagster-postgres\n" not in old.machine.ssh("docker volume ls -q")
    assert old.machine.play("playbooks/upgrade.yml", dagster_upgrade_confirm=True).ok().changed == 0
    assert old.version() != OLD
