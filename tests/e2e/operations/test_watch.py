"""The watch on a real machine: what is broken on purpose is well again, and a run that goes is left alone.

The long form (``E2E_LONG=1``) waits as long as the watch does by itself and measures it; the short one makes it
impatient.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e import rows
from tests.e2e.harness import Machine, long_form, wait
from tests.webserver import PATIENCE

SETTINGS = "/etc/dagster-gce/watch.json"
SLEEP: dict[str, Any] = {"ops": {"sleep": {"config": {"seconds": 3600}}}}

# Ten seconds between two looks, and half a minute for what takes minutes.
IMPATIENT = {
    "agree_seconds": 8, "starting_seconds": 5, "daemon_silent_seconds": 40, "failures": 2, "webserver_seconds": 4,
    "unknown_run_seconds": 8,
}  # fmt: skip


def settings(machine: Machine) -> dict[str, Any]:
    """The watch's settings on the machine."""
    found: dict[str, Any] = json.loads(machine.ssh(f"cat {SETTINGS}"))
    return found


def set_settings(machine: Machine, given: dict[str, Any]) -> None:
    machine.ssh(f"printf %s {shlex.quote(json.dumps(given))} >{SETTINGS}")


@contextlib.contextmanager
def by_hand(machine: Machine, **changed: Any) -> Iterator[None]:
    """No timer meanwhile: the test takes the looks; with these settings changed."""
    before = settings(machine)
    machine.ssh("systemctl stop dagster-gce-watch.timer && rm -f /run/dagster-gce/watch.json")
    set_settings(machine, {**before, **changed})
    try:
        yield
    finally:
        set_settings(machine, before)
        machine.ssh("systemctl start dagster-gce-watch.timer")


def look(machine: Machine) -> str:
    return machine.ssh("dagster-gce watch --wait", check=False)


def look_until(machine: Machine, probe: Callable[[], bool], seconds: float, what: str) -> float:
    """One look after the other, for ``seconds`` (times PATIENCE) at most; returns how long it took."""
    start = time.monotonic()
    said: list[str] = []
    seconds *= PATIENCE
    while not probe():
        assert time.monotonic() - start < seconds, f"expected within {seconds:.0f} s: {what}; the watch said {said}"
        said.append(look(machine).strip())
        time.sleep(5)
    return time.monotonic() - start


def actions(machine: Machine) -> list[dict[str, Any]]:
    """What the watch did so far."""
    shown = machine.ssh("cat /opt/dagster/state/actions.jsonl 2>/dev/null || true")
    return [json.loads(line) for line in shown.splitlines()]


def did(machine: Machine, before: int) -> set[tuple[str, str]]:
    """What it did since there were ``before`` actions."""
    return {(each["action"], each["target"]) for each in actions(machine)[before:] if each["ok"]}


def inspect(machine: Machine, name: str, form: str) -> str:
    return machine.ssh(f"docker inspect -f {shlex.quote(form)} {name} 2>/dev/null", check=False).strip()


def container_of(machine: Machine, run: str) -> str:
    return machine.ssh(f"docker ps -aq --no-trunc --filter label=dagster/run_id={run}").strip()


def serving(machine: Machine) -> str:
    return f"docker_dagster_core_{machine.ssh('basename $(readlink /opt/dagster/releases/current)').strip()}"


def is_up(machine: Machine, name: str) -> bool:
    return inspect(machine, name, "{{.State.Status}} {{.HostConfig.RestartPolicy.Name}}") in (
        "running always", "running unless-stopped",
    )  # fmt: skip


def healthy(machine: Machine) -> bool:
    names = ("dagster-postgres", "dagster-webserver", "dagster-daemon", "dagster-engine-proxy")
    if not all(inspect(machine, name, "{{.State.Health.Status}}") == "healthy" for name in names):
        return False
    with contextlib.suppress(OSError, AssertionError, ValueError):
        return machine.locations(timeout=5)["dagster_core"].loaded
    return False


@pytest.fixture(scope="module")
def going(machine: Machine) -> Iterator[str]:
    """A run that goes through everything that is done here, and has to stay what it is."""
    run = machine.launch("sleepy", SLEEP)
    machine.wait_for_run(run, "STARTED")
    yield run
    wait(lambda: healthy(machine), 120, "a healthy machine at the end")
    machine.terminate(run)
    assert machine.wait_for_run(run, "CANCELED", "FAILURE", "SUCCESS") == "CANCELED"


def freeze(machine: Machine, name: str) -> None:
    """Stop the service's process without ending it; Docker sees a container that runs."""
    pid = inspect(machine, name, "{{.State.Pid}}")
    machine.ssh(f"kill -STOP $(pgrep -P {pid})")


def cancel_without_an_end(machine: Machine) -> str:
    """A run that is being cancelled, and whose worker is killed before it could say so."""
    run = machine.launch("sleepy", SLEEP)
    machine.wait_for_run(run, "STARTED")
    worker = container_of(machine, run)
    # What stands still does not hear that it should end.
    freeze(machine, worker)
    mutation = f'mutation {{ terminateRun(runId: "{run}") {{ __typename }} }}'
    asked = subprocess.Popen(
        ["curl", "-s", "-X", "POST", f"{machine.address()}/graphql", "-H", "Content-Type: application/json",
         "-d", json.dumps({"query": mutation})],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    wait(lambda: machine.run_status(run) == "CANCELING", 20, "CANCELING")
    machine.ssh(f"docker kill {worker}")
    asked.wait(60)
    return run


def beats(machine: Machine) -> bool:
    """Whether the watch has seen the daemon's heart beat."""
    found = machine.ssh("cat /run/dagster-gce/watch.json", check=False)
    return bool(found) and len(json.loads(found)["values"].get("daemons", {}).get("kinds", [])) > 5


# Whether the daemon's consumer of events has been past a run's failure.
_SEEN = """docker exec dagster-postgres psql -U dagster -d dagster -AtXc "SELECT value::bigint >= (SELECT max(id)
FROM event_logs WHERE run_id = 'RUN' AND dagster_event_type = 'PIPELINE_FAILURE')
FROM kvs WHERE key = 'EVENT_LOG_CONSUMER_CURSOR-PIPELINE_FAILURE'\""""


def promise_a_retry(machine: Machine, run: str) -> None:
    """What Dagster writes when a run fails; the daemon, which looks at a failure once, has been there before."""
    seen = _SEEN.replace("RUN", run)
    wait(lambda: machine.ssh(seen).strip() == "t", 60, "the daemon's look at the failure", lambda: machine.ssh(seen))
    program = (
        "from dagster import DagsterInstance\nwith DagsterInstance.get() as instance:\n"
        f"    instance.add_run_tags('{run}', {{'dagster/will_retry': 'true'}})"
    )
    machine.ssh(f"docker exec -i dagster-daemon python - <<'E'\n{program}\nE")


@pytest.fixture(scope="module")
def mended(machine: Machine, going: str) -> dict[str, Any]:
    """Everything broken at once: two looks of a watch that is paused, then looks until all is well."""
    before = len(actions(machine))
    with by_hand(machine, **IMPATIENT):
        failed = machine.launch("raises")
        cancelled = cancel_without_an_end(machine)
        image = inspect(machine, container_of(machine, cancelled), "{{.Image}}")
        stray = machine.ssh(
            f"docker run -d --init --label dataops.dagster_gce=run --label dagster/run_id={uuid.uuid4()}"
            f" --entrypoint sleep {image} 600"
        ).strip()
        # What does not beat cannot be seen to stop.
        look_until(machine, lambda: beats(machine), 90, "heartbeats")
        assert machine.wait_for_run(failed, "FAILURE", "SUCCESS", "CANCELED") == "FAILURE"
        promise_a_retry(machine, failed)
        cancelled_by = len(actions(machine)) - before
        machine.ssh("dagster-gce pause 'a test of the watch'")
        core = serving(machine)
        machine.ssh(
            "docker rm -f dagster-engine-proxy; docker update --restart no dagster-postgres;"
            f" docker update --restart no {core}; docker stop -t 1 {core}"
        )
        for name in ("dagster-daemon", "dagster-webserver"):
            freeze(machine, name)
        paused = [look(machine)]
        time.sleep(9)
        paused.append(look(machine))
        meanwhile = len(actions(machine)) - before - cancelled_by
        shown = machine.ssh("dagster-gce status", check=False)
        machine.ssh("dagster-gce resume")
        hung = {("restart", "dagster-daemon"), ("restart", "dagster-webserver")}
        look_until(machine, lambda: hung <= did(machine, before), 150, "both restarted")
        wait(lambda: healthy(machine), 90, "a healthy machine", lambda: machine.ssh("docker ps -a"))
        look_until(machine, lambda: ("retry_run", failed) in did(machine, before), 120, "the retry")
        return {
            "failed": failed, "cancelled": cancelled, "stray": stray, "core": core, "did": did(machine, before),
            "actions": actions(machine)[before:], "paused": paused, "meanwhile": meanwhile, "status": shown,
        }  # fmt: skip


def test_while_it_was_paused_it_touched_nothing_and_said_so(mended: dict[str, Any]) -> None:
    assert mended["meanwhile"] == 0
    assert "a test of the watch" in mended["paused"][-1]
    assert "a test of the watch" in mended["status"]


def test_the_run_that_was_being_cancelled_is_cancelled(machine: Machine, mended: dict[str, Any]) -> None:
    run = mended["cancelled"]
    assert machine.run_status(run) == "CANCELED"
    assert ("cancel_run", run) in mended["did"]
    said = [each["message"] for each in machine.events(run) if each.get("message")]
    assert any("exit code 137" in each for each in said), said


def test_the_retry_that_was_promised_is_begun(machine: Machine, mended: dict[str, Any]) -> None:
    retry = machine.tags(mended["failed"])["dagster/auto_retry_run_id"]
    assert machine.wait_for_run(retry, "FAILURE", "SUCCESS", "CANCELED", seconds=120) == "FAILURE"


def test_the_container_that_belongs_to_no_run_is_gone(machine: Machine, mended: dict[str, Any]) -> None:
    assert inspect(machine, mended["stray"], "{{.Id}}") == ""
    assert ("stop_container", mended["stray"][:12]) in mended["did"]


def test_the_engine_proxy_is_there_again(machine: Machine, mended: dict[str, Any]) -> None:
    assert is_up(machine, "dagster-engine-proxy")
    assert ("create", "dagster-engine-proxy") in mended["did"]


def test_the_release_that_was_stopped_serves_again(machine: Machine, mended: dict[str, Any]) -> None:
    assert is_up(machine, mended["core"])
    assert ("start", mended["core"]) in mended["did"]


def test_restart_policies_are_what_they_were(machine: Machine, mended: dict[str, Any]) -> None:
    assert is_up(machine, "dagster-postgres")
    assert ("restart_policy", "dagster-postgres") in mended["did"]
    # It was not restarted for that.
    assert ("restart", "dagster-postgres") not in mended["did"]


def test_the_run_that_goes_went_on(machine: Machine, going: str, mended: dict[str, Any]) -> None:
    assert machine.run_status(going) == "STARTED"
    assert not any(target == going for _, target in mended["did"])


def test_what_hung_was_restarted_and_said_where_it_hung(machine: Machine, mended: dict[str, Any]) -> None:
    assert {("restart", "dagster-daemon"), ("restart", "dagster-webserver")} <= mended["did"]
    kept = next(each["evidence"] for each in mended["actions"] if each["target"] == "dagster-daemon")
    said = machine.ssh(f"cat {kept}")
    # Each thread's place in the code, and in the kernel.
    assert "Thread 0x" in said, said[-3000:]
    assert "run_daemon_loop" in said, said[-3000:]
    assert "do_signal_stop" in said, said[:3000]


@long_form
@pytest.mark.parametrize("name", ["dagster-daemon", "dagster-webserver"])
def test_what_hangs_is_restarted_by_itself(machine: Machine, mended: dict[str, Any], name: str) -> None:
    """With the timer and the settings that the role brings."""
    before = len(actions(machine))
    # Long enough after the last restart.
    time.sleep(180)
    freeze(machine, name)
    start = time.monotonic()
    wait(lambda: ("restart", name) in did(machine, before), 400, f"{name} restarted")
    wait(lambda: healthy(machine), 120, "a healthy machine", lambda: machine.ssh("docker ps -a"))
    rows.write("watch", f"{name} stopped (SIGSTOP)", 1, "nothing", [time.monotonic() - start])


@long_form
def test_a_run_that_dies_with_its_code_server_is_failed_and_retried(machine: Machine) -> None:
    """DefaultRunLauncher: Dagster itself never notices."""
    load: dict[str, Any] = {"dagster_core_dir": "tests/fixtures/dagster_core_load"}
    machine.play("site.yml", dagster_run_launcher="default", **load).ok()
    try:
        run = machine.launch("sleepy", SLEEP)
        machine.wait_for_run(run, "STARTED")
        core = serving(machine)
        machine.ssh(f"docker kill -s KILL {core}; docker start {core}")
        start = time.monotonic()
        machine.wait_for_run(run, "FAILURE", seconds=180)
        rows.write("watch", "code server killed with a run in it (launcher `default`)", 1, "1 run, retried",
                   [time.monotonic() - start])  # fmt: skip
        said = [each["message"] for each in machine.events(run) if each.get("message")]
        assert any("was started again" in each for each in said), said

        def retried() -> list[str]:
            query = "query ($f: RunsFilter) { runsOrError(filter: $f) { ... on Runs { results { runId status } } } }"
            tags = [{"key": "dagster/parent_run_id", "value": run}]
            found = machine.graphql(query, f={"tags": tags})["runsOrError"]["results"]
            return [each["runId"] for each in found if each["status"] == "STARTED"]

        wait(lambda: bool(retried()), 120, "a retry that has started")
        # It has its parent's tags; it goes on all the same.
        time.sleep(90)
        assert retried()
        machine.terminate(retried()[0])
    finally:
        machine.play("site.yml", dagster_run_launcher="docker", **load).ok()
