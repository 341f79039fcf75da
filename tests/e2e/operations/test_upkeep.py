"""Upkeep on a machine: two years of history go while the UI is used, and what Docker left goes.

``E2E_UPKEEP_ROWS`` says how many rows of the event log there are (default 100,000; the long form has 1,000,000).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.e2e import rows
from tests.e2e.harness import LONG, Machine
from tests.e2e.operations import upkeep_load

SETTINGS = "/etc/dagster-gce/upkeep.json"
ROWS = int(os.environ.get("E2E_UPKEEP_ROWS") or (1_000_000 if LONG else 100_000))


@contextmanager
def policy(machine: Machine, **changed: Any) -> Iterator[None]:
    """Other settings for as long as the block runs."""
    program = (
        "import json\n"
        f"content = json.load(open('{SETTINGS}'))\n"
        f"content.update(json.loads('{json.dumps(changed)}'))\n"
        f"json.dump(content, open('{SETTINGS}', 'w'))\n"
    )
    machine.ssh(f"cp -a {SETTINGS} {SETTINGS}.before; python3 - <<'END'\n{program}END\n")
    try:
        yield
    finally:
        machine.ssh(f"mv {SETTINGS}.before {SETTINGS}")


def _upkeep(machine: Machine, option: str = "--wait") -> str:
    # What else the computer of the tests has to do is none of the machine's load.
    with policy(machine, max_load=1000):
        return machine.ssh(f"dagster-gce upkeep {option}", timeout=7200)


def test_years_of_history_go_and_nobody_notices(machine: Machine) -> None:
    run = machine.launch("quick")
    machine.wait_for_run(run, "SUCCESS")
    upkeep_load.fill(machine, run, ROWS)
    before = upkeep_load.number(machine, "SELECT count(*) FROM event_logs")
    assert before > ROWS * 0.95
    assets = upkeep_load.sql(machine, _NEWEST)
    measured = {"before": upkeep_load.measure(machine, run, 10)}

    told = _upkeep(machine, "--dry-run").splitlines()[0]
    said: list[str] = []
    started = time.monotonic()
    measured["during"] = upkeep_load.measure(machine, run, 0, lambda: said.append(_upkeep(machine)))
    took = time.monotonic() - started
    measured["after"] = upkeep_load.measure(machine, run, 10)
    shown = upkeep_load.table(measured)
    print(f"\n{said[0]}\n{shown}")

    for phase in measured.values():
        assert phase.failures == []
    after = upkeep_load.number(machine, "SELECT count(*) FROM event_logs")
    assert after < before * 0.3
    # What it told before is what it did; only Docker's part differs, which a dry run counts otherwise.
    state = json.loads(machine.ssh("cat /opt/dagster/state/upkeep.json"))
    removed = state["details"]["removed"]
    for kind in ("asset events", "step events", "events of removed runs", "runs"):
        assert f"{removed[kind]} {kind}" in told, told
    assert state["ok"] is True
    assert state["details"]["refused"] == []
    assert state["details"]["slowest_batch_seconds"] < 10
    # Assets are as they were, and runs go on to be launched.
    assert upkeep_load.sql(machine, _NEWEST) == assets
    machine.wait_for_run(machine.launch("quick"), "SUCCESS")
    note = "; ".join(
        f"{name} {measured['before'].median(name):.0f} → {measured['during'].median(name):.0f} → "
        f"{measured['after'].median(name):.0f} ms, p95 {measured['before'].p95(name):.0f} → "
        f"{measured['during'].p95(name):.0f} → {measured['after'].p95(name):.0f} ms"
        for name in upkeep_load.QUERIES
    )
    size = f"{round(ROWS, -5):,}"
    rows.write(
        "upkeep",
        f"upkeep of {size} rows of the event log beside a load: the webserver's queries before, during, after",
        1,
        "nothing: no query failed, the newest of each asset is as before",
        note=f"{before - after:,} rows gone in {took:.0f} s, slowest batch "
        f"{state['details']['slowest_batch_seconds']:.1f} s; {note}",
    )
    # The machine had a moment to breathe; nothing may be ten times as slow because of upkeep.
    for name in upkeep_load.QUERIES:
        assert measured["during"].median(name) < 10 * measured["before"].median(name) + 500, shown


_NEWEST = (
    "SELECT asset_key, max(id) FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION' GROUP BY 1 ORDER BY 1"
)


def test_the_playbook_says_what_went_and_a_dry_run_removes_nothing(machine: Machine) -> None:
    dry = machine.play("playbooks/upkeep.yml", "--check").ok()
    assert dry.changed == 0
    assert "would remove" in dry.output
    done = machine.play("playbooks/upkeep.yml").ok()
    assert "removed" in done.output


def test_logs_of_all_containers_of_ours_have_a_limit(machine: Machine) -> None:
    machine.wait_for_run(machine.launch("quick"), "SUCCESS")
    form = '{{.Name}} {{.HostConfig.LogConfig.Type}} {{index .HostConfig.LogConfig.Config "max-size"}}'
    shown = machine.ssh(f"docker inspect -f '{form}' $(docker ps -aq)").splitlines()
    assert len(shown) >= 6
    assert [line for line in shown if len(line.split()) < 3] == []


def test_images_that_nobody_uses_go_and_those_in_use_stay(machine: Machine) -> None:
    machine.ssh("printf 'FROM scratch\\nLABEL a=b\\n' | docker build -q -t somebodys:old - ; "
                "printf 'FROM scratch\\nLABEL a=c\\n' | docker build -q -t somebodys:new -")  # fmt: skip
    images = "docker images --format '{{.Repository}}:{{.Tag}}' | sort"
    everything = set(machine.ssh(images).split())
    # Old enough is what was named before the policy's days: as many seconds as this test is old.
    with policy(machine, images_days=1e-6):
        machine.ssh("dagster-gce upkeep --wait --emergency", timeout=600)
        left = set(machine.ssh(images).split())
        assert everything - left >= {"somebodys:old", "somebodys:new"}
        used = set(machine.ssh("docker ps -a --format '{{.Image}}' | sort -u").split())
        assert {each for each in used if ":" in each and not each.startswith("sha256")} <= left
        assert any(each.startswith("docker_dagster_core:2") for each in left)
        machine.wait_for_run(machine.launch("quick"), "SUCCESS")
