"""The code location: what is reloaded, started or restarted, and how often."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import connections, releases
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    config,
    jobs,
    watch_location,
    watch_look,
    watch_memory,
    watch_services,
    watch_settings,
)
from tests.unit.operations.watching import OLDER, RELEASE, SERVER, Time, container, location, look, server

SETTINGS = watch_settings.Settings()
WANTED = watch_location.Releases(RELEASE, OLDER)
OLDER_SERVER = f"docker_dagster_core_{OLDER}"


@pytest.fixture
def time(tmp_path: Path) -> Time:
    return Time(tmp_path)


@pytest.fixture(autouse=True)
def used(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """The address that the daemon asks."""

    def uses(address: str) -> None:
        row = connections.Connection(("172.18.0.9", 40000), (address, 4000), 6, 1.0, 1)
        monkeypatch.setattr(connections, "of_process", lambda _: [row])

    uses("172.18.0.2")
    return uses


def both(**given: Any) -> watch_look.Look:
    """A look at a machine with both releases up, the newer one serving."""
    found = look(
        server(addresses=("172.18.0.2",)), server(name=OLDER_SERVER, addresses=("172.18.0.3",)), locations=location()
    )
    for key, value in given.items():
        setattr(found, key, value)
    return found


def judged(
    found: watch_look.Look, wanted: watch_location.Releases = WANTED, answers: bool = True, workers: int | None = 0
) -> Callable[[watch_memory.Memory], list[tuple[str, str]]]:
    return lambda memory: [(each.action, each.name) for each in concluded(found, memory, wanted, answers, workers)[0]]


def concluded(
    found: watch_look.Look,
    memory: watch_memory.Memory,
    wanted: watch_location.Releases = WANTED,
    answers: bool = True,
    workers: int | None = 0,
) -> tuple[list[watch_services.Repair], list[jobs.Problem]]:
    return watch_location.judge(found, memory, SETTINGS, wanted, lambda _: answers, lambda _: workers)


def test_a_location_that_is_loaded_is_left_alone(time: Time) -> None:
    assert time.looks(40, judged(both())) == [[]] * 40


@pytest.mark.parametrize(
    "shown", [location(error="UNAVAILABLE"), location(host=OLDER_SERVER), {}], ids=["error", "other", "none"]
)
def test_a_location_that_is_not_what_it_should_be_is_reloaded(time: Time, shown: Any) -> None:
    assert time.looks(2, judged(both(locations=shown))) == [[], [("reload", "dagster_core")]]


def test_reloads_that_do_not_help_become_rare(time: Time) -> None:
    given = time.looks(120, judged(both(locations=location(error="broken"))))
    at = [number * 30 for number, found in enumerate(given) if found]
    assert [later - earlier for earlier, later in itertools.pairwise(at)] == [30, 60, 120, 240, 480, 900, 900]
    # Once it is well, the next error is met at once again.
    time.look(judged(both()))
    assert time.looks(2, judged(both(locations=location(error="broken"))))[-1]


def test_a_location_that_is_loading_is_left_to_it(time: Time) -> None:
    loading = location(error="not yet")
    loading["dagster_core"] = loading["dagster_core"].__class__(
        "dagster_core", loaded=False, error="", host=SERVER, image="", load_status="LOADING"
    )
    assert time.looks(9, judged(both(locations=loading))) == [[]] * 9


def test_without_a_webserver_or_a_release_nothing_is_reloaded(time: Time) -> None:
    assert time.looks(9, judged(both(locations=None))) == [[]] * 9
    assert time.looks(9, judged(both(locations={}), watch_location.Releases())) == [[]] * 9


@pytest.mark.parametrize("name", [SERVER, OLDER_SERVER])
@pytest.mark.parametrize(
    ("given", "action"),
    [
        ({"status": "exited"}, "start"),
        ({"status": "created"}, "start"),
        ({"status": "paused"}, "unpause"),
        ({"policy": "no"}, "restart_policy"),
    ],
)
def test_a_release_that_should_run_is_brought_back(time: Time, name: str, given: dict[str, Any], action: str) -> None:
    found = both()
    found.containers[name] = server(name=name, **given)
    assert time.looks(2, judged(found)) == [[], [(action, name)]]


def test_a_release_that_nobody_needs_is_left_alone(time: Time) -> None:
    found = both()
    found.containers[OLDER_SERVER] = server(name=OLDER_SERVER, status="exited", policy="no")
    assert time.looks(9, judged(found, watch_location.Releases(RELEASE))) == [[]] * 9


def test_a_release_that_is_gone_is_a_problem(time: Time) -> None:
    found = both()
    del found.containers[SERVER]
    given = time.looks(2, lambda memory: concluded(found, memory))
    assert [each.name for each in given[-1][1]] == ["release_gone"]


def test_a_daemon_that_stays_with_an_older_release_is_restarted_once(time: Time, used: Callable[[str], None]) -> None:
    used("172.18.0.3")
    given = time.looks(100, judged(both()))
    assert given.count([("restart", "dagster-daemon")]) == 1
    assert given.index([("restart", "dagster-daemon")]) == 20
    # For the next release again.
    newer = "20260201T000000-efefefefefef"
    found = both(locations=location(f"docker_dagster_core_{newer}"))
    found.containers[f"docker_dagster_core_{newer}"] = server(
        name=f"docker_dagster_core_{newer}", addresses=("172.18.0.4",)
    )
    assert any(time.looks(30, judged(found, watch_location.Releases(newer, RELEASE))))


def test_a_daemon_that_has_asked_nobody_lately_is_left_alone(time: Time, used: Callable[[str], None]) -> None:
    used("10.0.0.1")
    assert not any(time.looks(60, judged(both())))


def test_a_daemon_that_moves_is_left_alone(time: Time, used: Callable[[str], None]) -> None:
    used("172.18.0.3")
    time.looks(10, judged(both()))
    used("172.18.0.2")
    assert not any(time.looks(60, judged(both())))


def test_what_should_serve_stands_in_workspace_yaml(time: Time) -> None:
    root = Path(config.stack().root)
    place = root / "dagster_home" / "workspace.yaml"
    assert time.look(watch_location.intended) == watch_location.Releases()
    place.parent.mkdir(parents=True)

    def name(host: str) -> None:
        entry = f"{{grpc_server: {{host: {host}, port: 4000, location_name: dagster_core}}}}"
        place.with_suffix(".new").write_text(f"load_from: [{entry}]\n")
        place.with_suffix(".new").rename(place)

    store = releases.Store(str(root))
    identity = "sha256:" + "ab" * 32
    store.save(releases.Release(RELEASE, identity, state=releases.LIVE, served=[2.0]))
    store.save(releases.Release(OLDER, identity, state=releases.LIVE, served=[1.0]))
    name(SERVER)
    assert time.looks(2, watch_location.intended) == [watch_location.Releases(RELEASE, OLDER)] * 2
    name(OLDER_SERVER)
    assert time.look(watch_location.intended) == watch_location.Releases(OLDER, RELEASE)
    name("code.example.com")
    assert time.look(watch_location.intended) == watch_location.Releases()
    place.write_text("{")
    assert time.look(watch_location.intended) == watch_location.Releases()


def test_a_daemon_in_a_container_that_stands_still_is_not_asked(time: Time, used: Callable[[str], None]) -> None:
    used("172.18.0.3")
    found = both()
    found.containers["dagster-daemon"] = container("dagster-daemon", status="exited")
    assert not any(time.looks(60, judged(found)))


DEAF = location(error="DagsterUserCodeUnreachableError: Could not reach user code server. gRPC Error code: UNAVAILABLE")


def test_a_code_server_that_does_not_answer_is_restarted(time: Time) -> None:
    given = time.looks(3, judged(both(locations=DEAF), answers=False))
    assert given[-1] == [("restart", SERVER)]


def test_one_that_answers_is_only_read_again(time: Time) -> None:
    given = time.looks(6, judged(both(locations=DEAF), answers=True))
    assert {each for found in given for each in found} == {("reload", "dagster_core")}


def test_user_code_that_does_not_load_restarts_nothing(time: Time) -> None:
    given = time.looks(6, judged(both(locations=location(error="ImportError: no module named pandas")), answers=False))
    assert {each for found in given for each in found} == {("reload", "dagster_core")}


@pytest.mark.parametrize("workers", [1, None])
def test_a_code_server_with_runs_in_it_is_left_to_people(time: Time, workers: int | None) -> None:
    found = both(locations=DEAF)
    given = time.looks(3, lambda memory: concluded(found, memory, answers=False, workers=workers))
    assert not any(each.action == "restart" for repairs, _ in given for each in repairs)
    assert [each.name for each in given[-1][1]] == ["code_server_deaf"]
