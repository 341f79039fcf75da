"""Which services are repaired, when, and which are left to people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    config,
    watch_look,
    watch_memory,
    watch_services,
    watch_settings,
)
from tests.unit.operations.watching import STACK, Time, container, look

SETTINGS = watch_settings.Settings()
KINDS = ("SCHEDULER", "SENSOR", "BACKFILL")


@pytest.fixture
def time(tmp_path: Path) -> Time:
    return Time(tmp_path)


@pytest.fixture(autouse=True)
def compose_file() -> Path:
    """The stack's, with the names that the tests use."""
    place = Path(config.stack().root, "docker-compose-GCE.yml")
    names = (*STACK, "dagster-engine-proxy")
    place.write_text("services:\n" + "".join(f"  {name}:\n    container_name: {name}\n" for name in names))
    return place


def judged(
    found: watch_look.Look, settings: watch_settings.Settings = SETTINGS
) -> Callable[[watch_memory.Memory], list[tuple[str, str]]]:
    """The repairs, as action and name."""
    return lambda memory: [(each.action, each.name) for each in watch_services.judge(found, memory, settings)[0]]


def without(name: str) -> watch_look.Look:
    found = look()
    del found.containers[name]
    return found


def test_a_stack_that_is_well_is_left_alone(time: Time) -> None:
    assert time.looks(20, judged(look())) == [[]] * 20


@pytest.mark.parametrize("name", STACK)
@pytest.mark.parametrize(
    ("given", "action"),
    [
        ({"status": "exited"}, "start"),
        ({"status": "dead"}, "start"),
        ({"status": "paused"}, "unpause"),
        ({"policy": "no"}, "restart_policy"),
        ({"policy": "on-failure"}, "restart_policy"),
    ],
)
def test_what_somebody_did_to_a_container_is_undone(time: Time, name: str, given: dict[str, Any], action: str) -> None:
    found = look(container(name, **given))
    assert time.looks(2, judged(found)) == [[], [(action, name)]]


@pytest.mark.parametrize("name", STACK)
def test_a_container_that_is_gone_is_made_again(time: Time, name: str) -> None:
    assert time.looks(2, judged(without(name))) == [[], [("create", name)]]


def test_a_container_that_the_stack_goes_without_is_not_made(time: Time, compose_file: Path) -> None:
    """A switch of launchers takes the proxy out of the compose file, some time before the watch's settings say so."""
    compose_file.write_text("    container_name: not-dagster-daemon\n    container_name: dagster-daemon-2\n")
    assert time.looks(9, judged(without("dagster-daemon"))) == [[]] * 9
    compose_file.unlink()
    assert time.looks(9, judged(without("dagster-daemon"))) == [[]] * 9


def test_a_container_that_is_being_replaced_is_left_alone(time: Time) -> None:
    """Gone at one look, there at the next, gone again while Compose replaces the next one."""
    looks = [without("dagster-daemon"), look(), without("dagster-daemon"), look()]
    assert [time.look(judged(each)) for each in looks] == [[]] * 4


def test_a_container_that_waits_for_its_turn_gets_minutes(time: Time) -> None:
    found = look(container("dagster-daemon", status="created"))
    given = time.looks(12, judged(found))
    assert given[:10] == [[]] * 10
    assert given[-1] == [("start", "dagster-daemon")]


def test_the_engine_s_own_restart_is_left_to_it(time: Time) -> None:
    assert time.looks(9, judged(look(container("dagster-daemon", status="restarting")))) == [[]] * 9


def test_the_engine_proxy_counts_where_there_is_one(time: Time) -> None:
    with_proxy = watch_settings.Settings(engine_proxy="dagster-engine-proxy")
    assert time.looks(2, judged(look(), with_proxy)) == [[], [("create", "dagster-engine-proxy")]]
    assert time.looks(2, judged(look())) == [[]] * 2


def test_an_engine_proxy_that_hangs_is_restarted(time: Time) -> None:
    with_proxy = watch_settings.Settings(engine_proxy="dagster-engine-proxy")
    found = look(container("dagster-engine-proxy", health="unhealthy"))
    given = time.looks(7, judged(found, with_proxy))
    assert given[:5] == [[]] * 5
    assert given[-1] == [("restart", "dagster-engine-proxy")]


def test_a_read_only_webserver_that_hangs_is_restarted(time: Time) -> None:
    """It is part of the stack where there is one; settings do not name it."""
    found = look(container("dagster-webserver-read-only", health="unhealthy"))
    given = time.looks(7, judged(found))
    assert given[:5] == [[]] * 5
    assert given[-1] == [("restart", "dagster-webserver-read-only")]
    assert time.looks(7, judged(look(container("dagster-webserver-read-only", health="healthy")))) == [[]] * 7


def test_postgres_that_hangs_is_a_problem_and_never_restarted(time: Time) -> None:
    found = look(container("dagster-postgres", health="unhealthy"))
    given = time.looks(20, lambda memory: watch_services.judge(found, memory, SETTINGS))
    assert all(repairs == [] for repairs, _ in given)
    assert [each.name for each in given[-1][1]] == ["postgres_unhealthy"]
    assert "docker logs" in given[-1][1][0].text


class Heart:
    """A daemon whose heartbeats the looks find, one every 30 s for each kind that beats."""

    def __init__(self, time: Time) -> None:
        self.time = time
        self.moments = dict.fromkeys((*KINDS, "NO_LONGER_REQUIRED"), 1.0)

    def look(self, *beating: str, **given: Any) -> list[tuple[str, str]]:
        for kind in beating:
            self.moments[kind] += 30.0
        found = look(container("dagster-daemon", **given), heartbeats=dict(self.moments))
        return self.time.look(judged(found))  # type: ignore[no-any-return]  # whatever the judge returns

    def looks(self, count: int, *beating: str, **given: Any) -> list[list[tuple[str, str]]]:
        return [self.look(*beating, **given) for _ in range(count)]


RESTARTED = [("restart", "dagster-daemon")]


def test_a_daemon_whose_heart_beats_goes_on(time: Time) -> None:
    assert Heart(time).looks(60, *KINDS) == [[]] * 60


def test_a_daemon_that_is_silent_is_restarted(time: Time) -> None:
    heart = Heart(time)
    heart.looks(6, *KINDS)
    given = heart.looks(6)
    # 90 s of silence, seen by three looks.
    assert given.index(RESTARTED) == 4


def test_one_thread_that_is_silent_gets_longer(time: Time) -> None:
    heart = Heart(time)
    heart.looks(6, *KINDS)
    given = heart.looks(25, *KINDS[1:])
    assert given.index(RESTARTED) == 21


def test_a_daemon_that_was_just_started_is_not_silent_yet(time: Time) -> None:
    heart = Heart(time)
    heart.looks(6, *KINDS)
    heart.looks(2)
    # Replaced by a play; it takes its time to begin.
    assert heart.looks(3, started_text="again") == [[]] * 3
    assert heart.looks(20, *KINDS, started_text="again") == [[]] * 20


def test_a_daemon_that_never_began_is_restarted_when_docker_finds_it_ill_as_well(time: Time) -> None:
    given = Heart(time).looks(16, health="unhealthy")
    assert given[:10] == [[]] * 10
    assert given[-1] == RESTARTED
    assert Heart(time).looks(16, health="healthy", started_text="again") == [[]] * 16


def test_without_the_database_the_daemon_is_not_at_fault(time: Time) -> None:
    heart = Heart(time)
    heart.looks(6, *KINDS)
    assert time.looks(12, judged(look(heartbeats=None, database_error="does not answer"))) == [[]] * 12
    # The heartbeats are old when the database is back; the daemon has a moment to send new ones.
    assert heart.looks(2) == [[]] * 2
    assert heart.looks(6, *KINDS) == [[]] * 6


def test_the_clock_s_steps_make_no_silence(time: Time) -> None:
    heart = Heart(time)
    heart.looks(6, *KINDS)
    time.wall += 7200
    assert heart.looks(6, *KINDS) == [[]] * 6
    time.wall -= 14400
    assert heart.looks(6, *KINDS) == [[]] * 6


def test_a_webserver_that_does_not_answer_is_restarted_at_the_third_look(time: Time) -> None:
    time.looks(6, judged(look()))
    assert time.looks(3, judged(look(webserver_error="timed out"))) == [[], [], [("restart", "dagster-webserver")]]


def test_a_webserver_whose_database_does_not_answer_is_not_at_fault(time: Time) -> None:
    time.looks(6, judged(look()))
    silent = look(webserver_error="HTTP 500", database_error="refused", heartbeats=None)
    assert time.looks(20, judged(silent)) == [[]] * 20


def test_a_webserver_that_was_just_started_gets_its_time(time: Time) -> None:
    given = time.looks(7, judged(look(webserver_error="connection refused")))
    assert given[:6] == [[]] * 6
    assert given[-1] == [("restart", "dagster-webserver")]


def test_on_a_machine_that_is_starved_silence_proves_nothing(time: Time) -> None:
    heart = Heart(time)
    heart.looks(6, *KINDS)
    starved = look(starved=True, heartbeats=dict(heart.moments), webserver_error="timed out")
    assert time.looks(20, judged(starved)) == [[]] * 20
