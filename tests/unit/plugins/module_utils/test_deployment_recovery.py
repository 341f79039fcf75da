"""What a deploy or rollback does first with a release that should serve and does not. Files are real; the engine and
the webserver are scripted, since only the decision is tested here."""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    code_server,
    deployment,
    deployment_housekeeping,
    deployment_recovery,
    deployment_task,
    docker_api,
    docker_cli,
    files,
    graphql,
    releases,
    workspace,
)
from tests.unit.plugins.module_utils.deployment_records import IDENTITY, name, save, task_in


def host(day: int) -> str:
    return releases.container_name(name(day))


@dataclass
class Machine:
    """Containers by name, what the gate of each says next (the last one for ever), and what was done to them."""

    containers: dict[str, code_server.Container] = field(default_factory=dict)
    gates: dict[str, list[str]] = field(default_factory=dict)
    images: bool = True
    started: list[str] = field(default_factory=list)
    gated: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def add(self, container: str, status: str = "running", gates: tuple[str, ...] = ("",)) -> None:
        self.containers[container] = code_server.Container(
            name=container, release=releases.release_of(container) or "", identity=IDENTITY, config="",
            running=status == "running", status=status, pid=os.getpid(), addresses=("127.0.0.1",), exit_code=0,
            oom_killed=False, restarts=0, started=releases.stamp(), image_id=IDENTITY,
        )  # fmt: skip
        self.gates[container] = list(gates)

    def gate(self, container: str, *_: Any) -> dict[str, Any]:
        self.gated.append(container)
        said = self.gates[container].pop(0) if len(self.gates[container]) > 1 else self.gates[container][0]
        if said in ("restarting", "exited"):
            self.containers[container] = dataclasses.replace(self.containers[container], running=False, status=said)
        if said:
            raise code_server.CandidateError(f"{container}: {said}")
        return {}

    def start(self, release: releases.Release, _settings: code_server.Settings) -> None:
        self.started.append(release.container)
        self.add(release.container)

    def sleep(self, _seconds: float) -> None:
        """The engine starts again whatever is restarting."""
        for each, found in self.containers.items():
            if found.status == "restarting":
                self.containers[each] = dataclasses.replace(found, running=True, status="running")


class Webserver(graphql.Webserver):
    """Serves what workspace.yaml said at its last reload, unless it cannot load that host."""

    def __init__(self, task: deployment.Deployment, served: str) -> None:
        super().__init__("http://127.0.0.1:9")
        self.task, self.served = task, served
        self.refuses: set[str] = set()
        self.unreachable = 0
        self.unreachable_reloads = False
        self.answers = 10**6

    def reload_workspace(self, timeout: float = 120) -> dict[str, graphql.Location]:
        if self.unreachable_reloads:
            raise graphql.WebserverUnreachableError("it does not answer")
        self.served = self.task.intended_host() or ""
        return self.locations()

    def locations(self) -> dict[str, graphql.Location]:
        self.answers -= 1
        if self.answers < 0:
            raise graphql.WebserverUnreachableError("it has gone away")
        if self.unreachable:
            self.unreachable -= 1
            raise graphql.WebserverUnreachableError("it does not answer")
        error = "cannot load it" if self.served in self.refuses else ""
        return {"dagster_core": graphql.Location("dagster_core", not error, error, self.served, IDENTITY)}

    def run_counts(self) -> dict[str, int]:
        return {"in_flight": 0, "waiting": 0}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    found.add("dagster-webserver")
    monkeypatch.setattr(code_server, "container", found.containers.get)
    monkeypatch.setattr(code_server, "containers", list)
    monkeypatch.setattr(code_server, "workers", lambda _: 0)
    monkeypatch.setattr(code_server, "remove", found.removed.append)
    monkeypatch.setattr(code_server, "start", found.start)
    monkeypatch.setattr(code_server, "gate", found.gate)
    monkeypatch.setattr(docker_cli, "run", lambda *_, **__: docker_cli.Result(0, "", ""))
    monkeypatch.setattr(docker_api, "ask", lambda *_, **__: [])
    monkeypatch.setattr(docker_cli, "inspect", lambda *_, **__: {"Id": IDENTITY} if found.images else None)
    monkeypatch.setattr(time, "sleep", found.sleep)
    monkeypatch.setattr(workspace, "OWNER", files.Owner(os.geteuid(), os.getegid(), 0o644))
    return found


@dataclass
class Site:
    """Two releases, of which the second serves, and the first is kept warm."""

    task: deployment.Deployment
    machine: Machine
    webserver: Webserver

    def check(self, operation: str = deployment_task.DEPLOY) -> bool:
        self.task.outcome = deployment.Outcome(operation)
        return deployment_recovery.finish_interrupted(self.task)

    def state(self, day: int) -> str:
        found = self.task.store.load(name(day))
        assert found
        return found.state


@pytest.fixture
def site(tmp_path: Path, machine: Machine) -> Site:
    (tmp_path / "dagster_home").mkdir()
    task = deployment.Deployment(deployment.Options(root=str(tmp_path)), code_server.Settings())
    for day in (1, 2):
        task.store.save(releases.Release(name(day), IDENTITY, state=releases.LIVE, served=[day * 10.0]))
        machine.add(host(day))
    Path(task.workspace_path).write_text(workspace.with_core_location(None, host(2)))
    task.store.point_current(name(2))
    webserver = Webserver(task, host(2))
    task.webserver = webserver
    return Site(task, machine, webserver)


def test_what_serves_well_is_left_alone(site: Site) -> None:
    assert site.check()
    assert (site.machine.gated, site.task.outcome.changed, site.task.outcome.repaired) == ([], False, [])


def test_a_release_that_still_starts_is_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    # The webserver has tried it too early, and shows an error until it is told to look again.
    site.webserver.refuses = {host(2)}

    def gate(container: str, *rest: Any) -> dict[str, Any]:
        site.webserver.refuses = set()
        return site.machine.gate(container, *rest)

    monkeypatch.setattr(code_server, "gate", gate)
    assert site.check()
    assert site.task.serving_release() == name(2)
    assert site.state(2) == releases.LIVE
    assert site.machine.gated == [host(2)]


def test_a_webserver_that_still_starts_is_waited_for(site: Site) -> None:
    site.webserver.unreachable = 3
    assert site.check()
    assert site.task.serving_release() == name(2)


@pytest.mark.parametrize("status", ["exited", "gone"])
def test_without_a_webserver_nothing_is_judged(site: Site, status: str) -> None:
    site.webserver.unreachable = 10**6
    site.machine.add("dagster-webserver", "exited")
    if status == "gone":
        del site.machine.containers["dagster-webserver"]
    expected = f"container dagster-webserver is {'not there' if status == 'gone' else status} .*Nothing was touched"
    with pytest.raises(graphql.WebserverUnreachableError, match=expected):
        site.check()
    assert site.task.serving_release() == name(2)
    assert site.state(2) == releases.LIVE


def test_a_webserver_that_goes_away_at_the_reload_restores_nothing(site: Site) -> None:
    site.webserver.refuses = {host(2)}
    site.webserver.unreachable_reloads = True
    with pytest.raises(graphql.WebserverUnreachableError):
        site.check()
    assert site.task.serving_release() == name(2)
    assert site.state(2) == releases.LIVE


@pytest.mark.parametrize(("answers", "serves"), [(1, 2), (2, 1)])
def test_a_webserver_that_goes_away_meanwhile_is_no_reason_to_go_on(site: Site, answers: int, serves: int) -> None:
    """Before the switch nothing is moved; after it, the next deploy finds a release that has passed its gate."""
    site.webserver.refuses = {host(2)}
    site.machine.gates[host(2)] = ["hangs"]
    site.webserver.answers = answers
    with pytest.raises(graphql.WebserverUnreachableError):
        site.check()
    assert site.task.serving_release() == site.task.store.current() == name(serves)
    assert (site.state(1), site.state(2)) == (releases.LIVE, releases.LIVE)


def test_one_death_on_the_way_up_is_forgiven(site: Site) -> None:
    site.webserver.served = ""
    site.machine.gates[host(2)] = ["restarting", ""]
    assert site.check()
    assert site.task.serving_release() == name(2)
    assert site.machine.started == []


def test_a_second_death_is_not(site: Site) -> None:
    site.webserver.served = ""
    site.machine.gates[host(2)] = ["restarting", "restarting", ""]
    assert site.check()
    assert site.task.serving_release() == site.task.store.current() == name(1)
    assert (site.state(1), site.state(2)) == (releases.LIVE, releases.ROLLED_BACK)
    assert site.task.outcome.changed
    assert failure(site) == f"{name(2)} did not serve: {host(2)}: restarting\n"


def test_a_fallback_that_does_not_serve_is_none(site: Site) -> None:
    site.webserver.refuses = {host(2)}
    site.machine.gates = {host(2): ["hangs"], host(1): ["hangs too"]}
    assert not site.check()
    assert site.machine.gated == [host(2), host(1)]
    assert site.task.serving_release() == site.task.store.current() == name(2)
    assert (site.state(1), site.state(2)) == (releases.LIVE, releases.LIVE)
    assert not site.task.outcome.changed


def test_a_webserver_that_loads_nothing_moves_nothing(site: Site) -> None:
    site.webserver.refuses = {host(1), host(2)}
    assert not site.check()
    assert site.task.serving_release() == site.task.store.current() == name(2)
    assert releases.before(name(2), site.task.store.all()) == site.task.store.load(name(1))
    assert site.state(2) == releases.LIVE


def test_a_release_that_was_rolled_back_is_the_last_to_fall_back_to(site: Site) -> None:
    site.task.store.save(releases.Release(name(3), IDENTITY, state=releases.ROLLED_BACK, served=[15.0]))
    site.machine.add(host(3))
    site.machine.gates[host(2)] = ["hangs"]
    site.webserver.refuses = {host(2)}
    assert site.check()
    assert site.task.serving_release() == name(1)


@pytest.mark.parametrize("there", [True, False])
def test_a_release_that_was_stopped_is_started_again(site: Site, there: bool) -> None:
    site.machine.add(host(2), "exited")
    if not there:
        del site.machine.containers[host(2)]
    assert site.check()
    assert site.machine.started == [host(2)]
    assert site.task.outcome.repaired == [f"{host(2)} did not run; it was started again"]


def test_a_release_that_cannot_be_started_again_falls_back(site: Site) -> None:
    site.machine.images = False
    del site.machine.containers[host(2)]
    assert site.check()
    assert site.task.serving_release() == name(1)


def test_an_engine_that_is_slow_judges_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.webserver.refuses = {host(2)}

    def slow(*_: Any) -> None:
        raise docker_cli.DockerTimeoutError("`docker container inspect` did not end within 60 s")

    monkeypatch.setattr(code_server, "gate", slow)
    with pytest.raises(docker_cli.DockerTimeoutError):
        site.check()
    assert site.task.serving_release() == name(2)


def test_a_rollback_from_a_broken_release_goes_one_step_and_not_two(site: Site) -> None:
    site.task.store.save(releases.Release(name(3), IDENTITY, state=releases.LIVE, served=[5.0]))
    site.machine.add(host(3))
    site.machine.gates[host(2)] = ["hangs"]
    site.webserver.refuses = {host(2)}
    outcome = site.task.rollback()
    assert site.task.serving_release() == name(1)
    assert (outcome.changed, outcome.result, outcome.previous, outcome.release) == (True, "ok", name(2), name(1))
    line = site.task.store.last_deploys(1)[0]
    assert (line["from"], line["release"], line["result"]) == (name(2), name(1), "ok")


def test_the_same_image_is_no_answer_to_a_release_that_hangs(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a release to go back to, a deploy of the same image makes a new container."""
    config = site.task.settings.config_hash()
    monkeypatch.setattr(code_server, "image", lambda reference: code_server.Image(reference, IDENTITY, ""))
    monkeypatch.setattr(code_server, "containers", lambda: list(site.machine.containers.values())[1:])
    monkeypatch.setattr(deployment_housekeeping, "retire", lambda _: None)
    del site.machine.containers[host(1)]
    site.machine.containers[host(2)] = dataclasses.replace(site.machine.containers[host(2)], config=config)
    assert not site.task.deploy("core:v1").changed
    site.machine.gates[host(2)] = ["hangs"]
    site.webserver.refuses = {host(2)}
    assert site.task.deploy("core:v1").changed
    assert site.task.serving_release() not in (name(1), name(2))


# --- the first deploy, killed before its cutover --------------------------------------------------------------------


def test_a_first_release_without_its_cutover_is_a_candidate(site: Site) -> None:
    os.unlink(site.task.workspace_path)
    site.task.store.point_current(None)
    site.task.store.delete(name(2))
    # The files are lost, and the webserver remembers.
    site.webserver.served = host(1)
    assert site.check()
    assert site.state(1) == releases.LIVE
    site.webserver.served = ""
    assert site.check()
    assert site.task.store.load(name(1)) == releases.Release(name(1), IDENTITY)


def test_lost_files_unmark_nothing(site: Site) -> None:
    os.unlink(site.task.workspace_path)
    site.task.store.point_current(None)
    deployment_recovery.unmark_unserved(site.task, None)
    assert (site.state(1), site.state(2)) == (releases.LIVE, releases.LIVE)


# --- marks and the cutover ------------------------------------------------------------------------------------------


@pytest.fixture
def task(tmp_path: Path) -> deployment.Deployment:
    return task_in(tmp_path)


def test_a_mark_of_a_cutover_that_never_came_is_undone(task: deployment.Deployment) -> None:
    save(task, 1, 10.0)
    save(task, 2, 20.0)
    save(task, 3, 30.0)
    save(task, 4, 5.0, 35.0)
    deployment_recovery.unmark_unserved(task, name(2))
    states = {each.release: (each.state, each.served) for each in task.store.all()}
    assert states[name(3)] == (releases.CANDIDATE, [])
    assert states[name(4)] == (releases.LIVE, [5.0])
    assert states[name(1)] == (releases.LIVE, [10.0])


@pytest.mark.parametrize("serving", [None, name(9)])
def test_a_lost_workspace_unmarks_nothing(task: deployment.Deployment, serving: str | None) -> None:
    before = [save(task, 1, 10.0), save(task, 2, 20.0)]
    deployment_recovery.unmark_unserved(task, serving)
    assert task.store.all() == before


def test_a_clock_set_back_changes_no_order(task: deployment.Deployment) -> None:
    ahead = time.time() + 3600
    save(task, 1, ahead)
    save(task, 2, state=releases.CANDIDATE)
    task.mark_served(name(2))
    deployment_recovery.unmark_unserved(task, name(2))
    states = {each.release: each.state for each in task.store.all()}
    assert states == {name(1): releases.LIVE, name(2): releases.LIVE}
    assert releases.warm(name(2), task.store.all()) == name(1)
    # And a mark without its cutover is undone as ever.
    deployment_recovery.unmark_unserved(task, name(1))
    assert task.store.load(name(2)) == releases.Release(name(2), IDENTITY)


# --- the way back itself --------------------------------------------------------------------------------------------


def test_a_serving_release_that_fails_again_stays_where_it_is(site: Site) -> None:
    release = site.task.store.load(name(2))
    assert release
    site.webserver.refuses = {host(2)}
    with (
        pytest.raises(deployment.DeploymentError, match="is broken: the webserver could not load"),
        site.task.running(""),
    ):
        site.task._activate(release, fresh=True)
    assert site.machine.removed == []
    assert site.state(2) == releases.LIVE
    assert site.task.serving_release() == name(2)


def test_a_serving_release_that_fails_its_gate_again_keeps_its_container(site: Site) -> None:
    release = site.task.store.load(name(2))
    assert release
    site.machine.gates[host(2)] = ["hangs"]
    with pytest.raises(deployment.DeploymentError, match="hangs"), site.task.running(""):
        site.task._activate(release, fresh=True)
    assert site.machine.removed == []


def failure(site: Site) -> str:
    return Path(site.task.store.path(name(2))).with_name("failure.txt").read_text()


def test_taking_back_starts_the_release_before_again(site: Site) -> None:
    del site.machine.containers[host(1)]
    assert site.task.take_back(name(2), "it died 2 times")
    assert site.machine.started == [host(1)]
    assert site.task.serving_release() == name(1)
    assert site.state(2) == releases.ROLLED_BACK
    line = site.task.store.last_deploys(1)[0]
    assert (line["operation"], line["result"], line["release"], line["from"]) == (
        "rollback", "rolled_back", name(1), name(2),
    )  # fmt: skip
    assert f"{name(2)} was taken back: it died 2 times" in failure(site)


@pytest.mark.parametrize("why", ["no image", "hangs", "none before"])
def test_a_release_that_cannot_be_taken_back_leaves_word(site: Site, why: str) -> None:
    if why == "no image":
        site.machine.images = False
        del site.machine.containers[host(1)]
    elif why == "hangs":
        site.machine.gates[host(1)] = ["hangs"]
    else:
        site.task.store.delete(name(1))
    assert not site.task.take_back(name(2), "it died 2 times")
    assert site.task.serving_release() == name(2)
    assert site.machine.removed == []
    line = site.task.store.last_deploys(1)[0]
    assert line["result"] == "failed"
    assert line["failure"].startswith(f"{name(2)} could not be taken back, although it died 2 times: ")
    assert line["failure"] in failure(site)


def test_a_release_that_serves_no_more_is_not_taken_back(site: Site) -> None:
    assert not site.task.take_back(name(1), "it died 2 times")
    assert site.task.store.last_deploys(1) == []
