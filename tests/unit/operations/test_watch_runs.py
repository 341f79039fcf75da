"""Which runs have no worker any more, and which only seem so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import swarm
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    watch_look,
    watch_memory,
    watch_runs,
    watch_settings,
)
from tests.unit.operations.watching import OLDER, SERVER, WALL, Time, container, look, run, server, worker

SETTINGS = watch_settings.Settings()
Judge = Callable[[watch_memory.Memory], list[watch_runs.Dead]]


def judged(found: watch_look.Look, has: frozenset[str] | None = frozenset(), released: bool = False) -> Judge:
    """What the watch concludes about runs; every code server says that it has the runs ``has``."""
    return lambda memory: watch_runs.dead_runs(found, memory, SETTINGS, lambda _: has, released)


@pytest.fixture
def time(tmp_path: Path) -> Time:
    return Time(tmp_path)


def dead(given: list[Any]) -> list[bool]:
    return [bool(each) for each in given]


def test_a_run_whose_container_ended_is_left_to_run_monitoring_first(time: Time) -> None:
    found = look(worker("r1", id="w1", status="exited", exit_code=137), runs=[run(container_id="w1")])
    assert dead(time.looks(4, judged(found))) == [False, False, True, True]


@pytest.mark.parametrize(("status", "action"), [("STARTING", "fail_run"), ("CANCELING", "cancel_run")])
def test_what_run_monitoring_leaves_for_minutes_ends_at_the_second_look(time: Time, status: str, action: str) -> None:
    found = look(worker("r1", id="w1", status="exited", exit_code=1), runs=[run(status=status, container_id="w1")])
    first, second = time.looks(2, judged(found))
    assert (first, [each.action for each in second]) == ([], [action])
    assert "exit code 1" in second[0].reason


def test_two_looks_that_are_close_are_no_two_looks(time: Time) -> None:
    found = look(worker("r1", id="w1", status="exited"), runs=[run(status="STARTING", container_id="w1")])
    assert dead(time.looks(3, judged(found), after=5)) == [False, False, False]


def test_a_look_in_between_that_finds_it_well_begins_anew(time: Time) -> None:
    one = run(status="STARTING", container_id="w1")
    ended, well = look(worker("r1", id="w1", status="exited"), runs=[one]), look(worker("r1", id="w1"), runs=[one])
    assert dead([time.look(judged(each)) for each in (ended, well, ended)]) == [False, False, False]


def test_a_memory_that_is_old_counts_for_nothing(time: Time) -> None:
    found = look(worker("r1", id="w1", status="exited"), runs=[run(status="STARTING", container_id="w1")])
    assert dead([time.look(judged(found)), time.look(judged(found), after=3600)]) == [False, False]


def test_a_run_memory_kill_says_so(time: Time) -> None:
    ended = worker("r1", id="w1", status="exited", exit_code=137, oom_killed=True)
    found = look(ended, runs=[run(status="STARTING", container_id="w1")])
    assert "killed for its memory" in time.looks(2, judged(found))[-1][0].reason


def test_a_container_that_is_gone_is_a_dead_run(time: Time) -> None:
    found = look(runs=[run(container_id="w1")], missing=frozenset({"w1"}))
    assert dead(time.looks(3, judged(found))) == [False, False, True]


def test_a_container_that_the_engine_could_not_look_up_may_be_there(time: Time) -> None:
    assert not any(dead(time.looks(9, judged(look(runs=[run(container_id="w1")])))))


@pytest.mark.parametrize("status", ["STARTING", "STARTED", "CANCELING"])
@pytest.mark.parametrize("of_container", ["running", "paused", "created", "restarting", "removing"])
def test_a_container_that_may_still_go_is_no_dead_run(time: Time, status: str, of_container: str) -> None:
    found = look(worker("r1", id="w1", status=of_container), runs=[run(status=status, container_id="w1")])
    assert not any(dead(time.looks(9, judged(found))))


@pytest.mark.parametrize("status", ["STARTING", "CANCELING"])
def test_a_retry_that_is_being_launched_carries_the_dead_container_of_its_parent(time: Time, status: str) -> None:
    parent = worker("parent", id="w1", status="exited", exit_code=137)
    retry = run("retry", status, container_id="w1")
    assert not any(dead(time.looks(9, judged(look(parent, runs=[retry])))))
    # The same after the parent's container was removed.
    assert not any(dead(time.looks(9, judged(look(runs=[retry], missing=frozenset({"w1"}))))))


def test_a_run_without_any_worker_yet_belongs_to_run_monitoring(time: Time) -> None:
    assert not any(dead(time.looks(9, judged(look(runs=[run(status=each) for each in ("STARTING", "CANCELING")])))))


def test_a_launch_that_was_cut_off_with_its_daemon(time: Time) -> None:
    starting = run(status="STARTING", updated=WALL - 900)
    again = container("dagster-daemon", started=WALL - 800)
    assert dead(time.looks(3, judged(look(again, runs=[starting])))) == [False, True, True]
    # It has a container, or had one; the daemon is the one that launches it; the clock was set back meanwhile.
    assert not any(dead(time.looks(3, judged(look(again, runs=[starting], launched=frozenset({"r1"}))))))
    assert not any(dead(time.looks(3, judged(look(container("dagster-daemon", started=WALL - 901), runs=[starting])))))
    later = container("dagster-daemon", started=WALL + 9000)
    assert not any(dead(time.looks(3, judged(look(later, runs=[starting])))))
    queued = run(status="STARTED", updated=WALL - 900)
    assert not any(dead(time.looks(3, judged(look(again, runs=[queued])))))


def test_a_run_in_a_code_server_that_went_ends_with_it(time: Time) -> None:
    for found in (look(), look(server(status="exited", exit_code=137)), look(server(status="restarting"))):
        found.runs = [run(server=SERVER)]
        assert dead(time.looks(2, judged(found, None))) == [False, True]
        time.look(judged(look()))


def test_a_code_server_that_was_started_again_is_asked(time: Time) -> None:
    found = look(server(started=WALL - 100, started_text="again"), runs=[run(server=SERVER)])
    assert not any(dead(time.looks(4, judged(found, frozenset({"r1"})))))
    assert not any(dead(time.looks(4, judged(found, None))))
    assert dead(time.looks(2, judged(found, frozenset({"other"})))) == [False, True]


def test_a_code_server_that_was_not_started_again_is_not_even_asked(time: Time) -> None:
    def ask(_: watch_look.Container) -> frozenset[str] | None:
        raise AssertionError("an exec for nothing costs a third of a second of CPU")

    found = look(server(), runs=[run(server=SERVER)])
    assert not any(time.looks(4, lambda memory: watch_runs.dead_runs(found, memory, SETTINGS, ask, released=False)))


def test_a_clock_that_was_set_back_hides_no_restart(time: Time) -> None:
    """By the clock the server started before the run; the watch has seen another life of it."""
    assert not time.look(judged(look(server(), runs=[run(server=SERVER)])))
    again = look(server(started=WALL - 4000, started_text="again"), runs=[run(server=SERVER)])
    assert dead(time.looks(2, judged(again))) == [False, True]


def test_a_clock_that_was_set_back_kills_no_run(time: Time) -> None:
    """By the clock the server started after the run; it says that it has it."""
    found = look(server(started=WALL + 3600), runs=[run(server=SERVER)])
    assert not any(dead(time.looks(4, judged(found, frozenset({"r1"})))))


def test_a_release_that_drains_keeps_its_runs(time: Time) -> None:
    older = f"docker_dagster_core_{OLDER}"
    found = look(server(), server(name=older), runs=[run(server=older)])
    assert not any(dead(time.looks(4, judged(found))))


def test_a_server_that_is_not_ours_is_not_judged(time: Time) -> None:
    assert not any(dead(time.looks(9, judged(look(runs=[run(server="code.example.com")])))))


def test_while_something_is_released_no_server_is_judged(time: Time) -> None:
    assert not any(dead(time.looks(9, judged(look(runs=[run(server=SERVER)]), released=True))))


def test_a_launch_into_a_server_that_was_started_again_gets_time(time: Time) -> None:
    """A retry carries its parent's server until it is launched itself."""
    found = look(server(status="exited"), runs=[run(status="STARTING", server=SERVER)])
    assert dead(time.looks(3, judged(found))) == [False, False, True]


def test_after_a_switch_of_launchers_the_inherited_tag_counts_for_nothing(time: Time) -> None:
    # Launched into the server; the container tag is its parent's.
    parent = worker("parent", id="w1", status="exited")
    both = run(container_id="w1", server=SERVER)
    assert not any(dead(time.looks(4, judged(look(parent, server(), runs=[both])))))
    assert not any(dead(time.looks(4, judged(look(server(), runs=[both], missing=frozenset({"w1"}))))))
    # Launched into a container; the server tag is its parent's.
    own = worker("r1", id="w1")
    assert not any(dead(time.looks(4, judged(look(own, runs=[both])))))
    # Into the server, which is gone too.
    assert any(dead(time.looks(4, judged(look(parent, runs=[both])))))


def test_without_the_database_nothing_is_said(time: Time) -> None:
    found = look(worker("r1", id="w1"), runs=None or [])
    found.runs = None
    assert time.looks(4, judged(found)) == [[]] * 4
    assert time.looks(9, lambda memory: watch_runs.strays(found, memory, SETTINGS)) == [[]] * 9


def strays(found: watch_look.Look) -> Callable[[watch_memory.Memory], list[watch_runs.Stray]]:
    return lambda memory: watch_runs.strays(found, memory, SETTINGS)


def test_a_container_whose_run_has_ended_is_stopped_after_a_while(time: Time) -> None:
    found = look(worker("r1", id="w1"), known={"r1": "FAILURE"})
    given = time.looks(5, strays(found))
    assert dead(given) == [False] * 4 + [True]
    assert not given[-1][0].remove
    assert "FAILURE" in given[-1][0].why


def test_a_container_whose_run_is_unknown_gets_longer_and_is_removed(time: Time) -> None:
    given = time.looks(11, strays(look(worker("r1", id="w1"))))
    assert dead(given) == [False] * 10 + [True]
    assert given[-1][0].remove


@pytest.mark.parametrize("status", ["QUEUED", "NOT_STARTED", "MANAGED"])
def test_a_container_whose_run_waits_is_none_of_ours(time: Time, status: str) -> None:
    assert not any(time.looks(20, strays(look(worker("r1", id="w1"), known={"r1": status}))))


def test_a_container_of_a_run_in_flight_stays(time: Time) -> None:
    found = look(worker("r1", id="w1"), runs=[run(container_id="w1")], known={"r1": "STARTED"})
    assert not any(time.looks(20, strays(found)))


def test_a_container_that_has_ended_is_no_stray(time: Time) -> None:
    found = look(worker("r1", id="w1", status="exited"), container("dagster-daemon"), known={"r1": "FAILURE"})
    assert not any(time.looks(20, strays(found)))


def test_the_run_s_log_says_what_to_do() -> None:
    failed = watch_runs.message(watch_runs.Dead(run(), watch_runs.FAIL, "container w1 is gone"))
    assert "container w1 is gone" in failed
    assert "re-execute" in failed
    assert watch_runs.message(watch_runs.Dead(run(), watch_runs.CANCEL, "it is gone")).startswith(
        "Cancelled: it is gone"
    )


# --- runs that are services of Docker Swarm ---


def service(run_id: str = "r1", state: str = "running", **given: Any) -> swarm.Task:
    """The task of a run's service, on a machine that is well."""
    base: dict[str, Any] = {
        "service": f"s-{run_id}", "name": f"dagster-run-{run_id}", "run_id": run_id, "state": state,
        "desired": "running", "node": "n1", "hostname": "worker-1", "node_state": "ready",
    }  # fmt: skip
    return swarm.Task(**{**base, **given})


def launched(run_id: str = "r1", status: str = "STARTED", **given: Any) -> watch_look.Run:
    """A run that was launched as a service; it may have tags of the run that it repeats."""
    return run(run_id, status, service=f"dagster-run-{run_id}", **given)


def with_services(*tasks: swarm.Task, runs: list[watch_look.Run], **given: Any) -> watch_look.Look:
    return look(runs=runs, services={each.run_id: each for each in tasks}, **given)


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (service(state="failed", desired="shutdown", exit_code=137), "is failed (exit code 137)"),
        (service(state="rejected", desired="shutdown", said="No such image"), "is rejected: No such image"),
        # The last word of a task on a machine that went stays `running`.
        (service(desired="shutdown", node_state="down"), "machine worker-1, on which this run was, is down"),
        (service(node_state=""), "machine worker-1, on which this run was, is no part of the swarm any more"),
        (service(desired="shutdown"), "is to be shut down"),
    ],
)  # fmt: skip
def test_a_service_that_lost_its_run(time: Time, task: swarm.Task, says: str) -> None:
    given = time.looks(4, judged(with_services(task, runs=[launched()])))
    assert dead(given) == [False, False, True, True]
    assert says in given[-1][0].reason
    assert given[-1][0].service == "s-r1"
    # Run monitoring does not look at a run that has not started.
    assert dead(time.looks(2, judged(with_services(task, runs=[launched(status="STARTING")])))) == [False, True]


@pytest.mark.parametrize("status", ["STARTING", "STARTED", "CANCELING"])
@pytest.mark.parametrize("state", ["running", "pending", "preparing", "starting"])
def test_a_service_that_may_still_go_is_no_dead_run(time: Time, status: str, state: str) -> None:
    # The retry of a run whose container is gone has its tag, and a daemon that was started again did not launch it.
    again = container("dagster-daemon", started=WALL - 100)
    given = launched(status=status, container_id="w1", updated=WALL - 400)
    found = look(again, runs=[given], services={"r1": service(state=state)}, missing=frozenset({"w1"}))
    assert not any(dead(time.looks(9, judged(found))))


def test_a_service_that_is_gone(time: Time) -> None:
    assert dead(time.looks(3, judged(with_services(runs=[launched()])))) == [False, False, True]
    # A cancel has removed it, and the container may take its time to end.
    assert not any(dead(time.looks(9, judged(with_services(runs=[launched(status="CANCELING")])))))


def test_a_launch_that_was_cut_off_before_there_was_a_service(time: Time) -> None:
    again = container("dagster-daemon", started=WALL - 800)
    starting = launched(status="STARTING", updated=WALL - 900)
    assert dead(time.looks(2, judged(look(again, runs=[starting], services={})))) == [False, True]
    # Where the swarm does not answer, it may have one.
    assert not any(dead(time.looks(9, judged(look(again, runs=[starting])))))


def test_where_the_swarm_does_not_answer_nothing_is_concluded(time: Time) -> None:
    assert not any(dead(time.looks(9, judged(look(runs=[launched()])))))


def test_a_retry_has_the_service_of_its_parent_and_is_not_judged_by_it(time: Time) -> None:
    parent = service("parent", "failed", desired="shutdown")
    retry = run("retry", "STARTING", service="dagster-run-parent")
    assert not any(dead(time.looks(9, judged(with_services(parent, runs=[retry])))))


def test_a_service_that_goes_on_without_its_run_is_removed(time: Time) -> None:
    found = with_services(service(), runs=[], known={"r1": "FAILURE"})
    *before, last = time.looks(6, strays(found))
    assert dead(before[:4]) == [False] * 4
    assert (last[0].container, last[0].service) == (None, "s-r1")
    # Its container on this machine is Swarm's to stop.
    own = worker("r1", id="w1", service="s-r1")
    found = look(own, runs=[], known={"r1": "FAILURE"}, services={"r1": service()})
    assert [each.service for each in time.looks(6, strays(found))[-1]] == ["s-r1"]


def test_what_the_watch_and_the_launcher_say_of_a_task_is_the_same() -> None:
    """Two programs, on the machine and in the image, which cannot share a module."""
    from tests.unit.launcher.test_launcher import launcher, node

    for state in (*swarm.WAITING, "running", "complete", "failed", "rejected", "orphaned", "shutdown", "remove"):
        for desired in ("running", "shutdown", "remove"):
            for machine in ("ready", "down", "unknown", "disconnected", ""):
                task = service(state=state, desired=desired, node_state=machine)
                asked = {"Status": {"State": state}, "DesiredState": desired, "NodeID": "n1"}
                status, text = launcher.verdict(asked, node("worker-1", state=machine) if machine else None)
                assert bool(task.ended) == (status.value != "RUNNING"), (state, desired, machine, text, task.ended)
