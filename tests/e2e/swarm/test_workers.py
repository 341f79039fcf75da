"""Workers that join, run, lose their power, are drained, leave and come back."""

from __future__ import annotations

import json
import re

from tests.e2e.harness import long_form, wait
from tests.e2e.swarm.cluster import Cluster, image

# What a run takes to begin where other tests take the processors.
BEGINS = 90


def test_the_machines_are_a_swarm_of_their_own(cluster: Cluster) -> None:
    assert cluster.states() == dict.fromkeys([cluster.name, *cluster.workers], "Ready Active")
    network = json.loads(cluster.docker("network inspect dagster-swarm"))[0]
    assert (network["Driver"], network["Attachable"]) == ("overlay", True)
    for name in cluster.workers:
        labels = json.loads(cluster.docker(f"node inspect {name} --format '{{{{json .Spec.Labels}}}}'"))
        assert labels == {"dagster.worker": "true", "dagster.host": name}


def test_a_second_run_changes_nothing_and_shows_no_token(cluster: Cluster) -> None:
    played = cluster.set_up("-vvv", "--diff").ok()
    assert played.changed == 0
    for kind in ("worker", "manager"):
        token = cluster.docker(f"swarm join-token -q {kind}")
        assert token.startswith("SWMTKN-")
        assert token not in played.output
    password = cluster.ssh("cat /opt/dagster/dagster_home/database/password")
    assert password not in played.output


@long_form
def test_check_mode_says_the_same(cluster: Cluster) -> None:
    assert cluster.set_up("--check", "--diff").ok().changed == 0


def test_the_ports_of_the_swarm_are_open_among_the_machines_only(cluster: Cluster) -> None:
    rules = cluster.ssh("nft list chain inet dagster_gce input")
    for ports in ("tcp dport { 2377, 7946 }", "udp dport { 4789, 7946 }"):
        (line,) = [each for each in rules.splitlines() if ports in each]
        assert "ip saddr 10.128.0.0/20" in line


def test_runs_are_on_every_machine_and_their_logs_in_the_ui(cluster: Cluster) -> None:
    runs = cluster.sleepers(2 * (len(cluster.workers) + 1), 5)
    assert set(cluster.all_reach(runs, "SUCCESS", "FAILURE", seconds=2 * BEGINS).values()) == {"SUCCESS"}
    spread = cluster.spread(runs)
    assert set(spread) == {cluster.name, *cluster.workers}, spread
    query = """query ($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
        __typename ... on LogsCapturedEvent { logKey fileKey } } } } }"""
    captured = """query ($key: [String!]!) { capturedLogs(logKey: $key) { stderr } }"""
    for run, machine in cluster.where(runs).items():
        events = cluster.graphql(query, id=run)["logsForRun"]["events"]
        (keys,) = [each for each in events if each["__typename"] == "LogsCapturedEvent"]
        key = [run, "compute_logs", keys["fileKey"]]
        shown = cluster.graphql(captured, key=key)["capturedLogs"]["stderr"] or ""
        assert "sleeping for 5.0 s" in shown, (machine, keys)


def test_a_run_goes_to_the_machine_that_its_tag_names_and_is_cancelled_there(cluster: Cluster) -> None:
    worker = cluster.workers[0]
    (run,) = cluster.sleepers(1, 600, {"dagster_gce/node": worker})
    cluster.wait_for_run(run, "STARTED", seconds=BEGINS)
    assert cluster.where([run]) == {run: worker}
    cluster.terminate(run)
    assert cluster.wait_for_run(run, "CANCELED", "FAILURE", "SUCCESS") == "CANCELED"
    containers = f"docker ps -q --filter label=dagster/run_id={run}"
    wait(lambda: not cluster.on(worker).ssh(containers).split(), 60, "the end of the run's container")


def test_status_shows_the_machines_and_why_a_run_waits(cluster: Cluster) -> None:
    (run,) = cluster.sleepers(1, 5, {"dagster_gce/node": cluster.workers[0], "dagster_gce/memory": "1g"})
    cluster.docker(f"node update --availability pause {cluster.workers[0]}")
    try:
        (waits,) = cluster.sleepers(1, 1, {"dagster_gce/node": cluster.workers[0]})
        service = f"dagster-run-{waits}"
        wait(lambda: service in cluster.docker("service ls --format '{{.Name}}'"), BEGINS, "the service of the run")
        found = json.loads(cluster.ssh("dagster-gce status --json"))
        assert {each["name"]: each["state"] for each in found["machines"]} == dict.fromkeys(
            [cluster.name, *cluster.workers], "ready"
        )
        (waiting,) = [each for each in found["waiting"] if each["run_id"] == waits]
        assert "no suitable node" in waiting["why"]
        shown = cluster.ssh("dagster-gce status")
        assert re.search(rf"{cluster.workers[0]} +ready, pause", shown), shown
    finally:
        cluster.docker(f"node update --availability active {cluster.workers[0]}")
    cluster.all_reach([run, waits], "SUCCESS", seconds=BEGINS)


@long_form
def test_a_new_password_reaches_the_workers(cluster: Cluster) -> None:
    place = "/opt/dagster/dagster_home/database/pgpass"
    before = cluster.ssh(f"sha256sum {place}")
    cluster.play("playbooks/rotate_secrets.yml", dagster_secrets_rotate=["password"]).ok()
    after = cluster.ssh(f"sha256sum {place}")
    assert after != before
    for name in cluster.workers:
        assert cluster.on(name).ssh(f"sha256sum {place}") == after
        assert cluster.on(name).ssh(f"stat -c '%u %a' {place}").split() == ["10001", "400"]
    (run,) = cluster.sleepers(1, 1, {"dagster_gce/node": cluster.workers[0]})
    cluster.all_reach([run], "SUCCESS", seconds=BEGINS)


def test_a_worker_that_loses_its_power_fails_its_runs_which_are_retried(cluster: Cluster) -> None:
    (run,) = cluster.sleepers(1, 45, {"dagster_gce/node": f"dagster.host!={cluster.name}"})
    cluster.wait_for_run(run, "STARTED", seconds=BEGINS)
    worker = cluster.where([run])[run]
    cluster.container(worker).kill()
    try:
        # The swarm takes three heartbeats of 15 s to notice, run monitoring looks each 15 s.
        assert cluster.wait_for_run(run, "FAILURE", "SUCCESS", seconds=90) == "FAILURE"
        assert worker in cluster.said(run)
        again = cluster.retry_of(run)
        assert cluster.wait_for_run(again, "SUCCESS", "FAILURE", seconds=BEGINS + 45) == "SUCCESS"
        assert cluster.where([again])[again] != worker
        assert f"machine {worker} is down" in cluster.ssh("dagster-gce status")
    finally:
        cluster.container(worker).start()
    cluster.wait_for_state(worker, "Ready", seconds=120)


def test_a_worker_is_drained_leaves_and_comes_back(cluster: Cluster) -> None:
    worker = cluster.workers[-1]
    (run,) = cluster.sleepers(1, 20, {"dagster_gce/node": worker})
    cluster.wait_for_run(run, "STARTED", seconds=BEGINS)
    cluster.play("playbooks/remove_worker.yml", dagster_worker_remove=worker).ok()
    assert cluster.run_status(run) == "SUCCESS"
    assert worker not in cluster.states()
    inside = cluster.on(worker)
    assert inside.ssh("docker info --format '{{.Swarm.LocalNodeState}}'").strip() == "inactive"
    assert inside.ssh("find /opt/dagster -type f").split() == []
    assert inside.ssh("systemctl is-active dagster-gce-images.timer").strip() == "active"
    assert cluster.play("playbooks/remove_worker.yml", dagster_worker_remove=worker).ok().changed == 0
    # Somebody else's swarm is not touched.
    inside.ssh("docker swarm init --advertise-addr 127.0.0.1 >/dev/null")
    cluster.play("site.yml", "--limit", worker).refused("this machine manages a swarm itself", "Nothing was changed")
    inside.ssh("docker swarm leave --force")
    cluster.play("site.yml", "--limit", worker).ok()
    cluster.wait_for_state(worker, "Ready Active")
    (run,) = cluster.sleepers(1, 1, {"dagster_gce/node": worker})
    cluster.all_reach([run], "SUCCESS", seconds=BEGINS)


@long_form
def test_the_main_machine_s_engine_is_restarted_under_runs(cluster: Cluster) -> None:
    worker = cluster.workers[0]
    (run,) = cluster.sleepers(1, 60, {"dagster_gce/node": worker})
    cluster.wait_for_run(run, "STARTED", seconds=BEGINS)
    cluster.ssh("systemctl restart docker")
    wait(lambda: cluster.states().get(worker, "").startswith("Ready"), 90, "the worker is known again", cluster.states)
    wait(cluster.serves, 120, "an answer of the webserver")
    # Its database was away: the run goes on once it is back, or fails with that as the reason and is retried.
    found = cluster.wait_for_run(run, "SUCCESS", "FAILURE", seconds=BEGINS)
    if found == "FAILURE":
        assert cluster.wait_for_run(cluster.retry_of(run), "SUCCESS", "FAILURE", seconds=BEGINS) == "SUCCESS"


def test_a_release_under_runs_touches_none(cluster: Cluster) -> None:
    runs = cluster.sleepers(3, 30)
    cluster.all_reach(runs, "STARTED", "SUCCESS", "FAILURE", seconds=BEGINS)
    cluster.play("deploy_core.yml", dagster_core_image=image("docker_dagster_core", version="2")).ok()
    assert set(cluster.all_reach(runs, "SUCCESS", "FAILURE", seconds=BEGINS).values()) == {"SUCCESS"}
    (run,) = cluster.sleepers(1, 1, {"dagster_gce/node": cluster.workers[0]})
    cluster.all_reach([run], "SUCCESS", seconds=BEGINS)
    cluster.play("deploy_core.yml", dagster_core_image=image("docker_dagster_core")).ok()
