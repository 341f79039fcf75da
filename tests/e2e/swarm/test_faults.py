"""What befalls a cluster: no run is lost or done twice without a retry on record, each has a true state in time."""

from __future__ import annotations

import time

from lab import machine as lab_machine
from tests.e2e.harness import long_form, wait
from tests.e2e.load import Load
from tests.e2e.swarm.cluster import Cluster, image
from tests.e2e.swarm.test_workers import BEGINS

pytestmark = long_form
# Until a run whose machine is gone has to be known as failed.
TRUE_WITHIN = 90
# Before all other rules, and after them.
CUT = """add table inet cut
add chain inet cut in { type filter hook prerouting priority -400; }
add rule inet cut in iifname eth0 drop
add chain inet cut out { type filter hook postrouting priority 400; }
add rule inet cut out oifname eth0 drop"""


def elsewhere_than_main(cluster: Cluster, seconds: float) -> tuple[str, str]:
    """A run that has begun on a worker, and that worker."""
    (run,) = cluster.sleepers(1, seconds, {"dagster_gce/node": f"dagster.host!={cluster.name}"})
    cluster.wait_for_run(run, "STARTED", seconds=BEGINS)
    return run, cluster.where([run])[run]


def test_a_worker_is_cut_off_for_two_minutes_and_comes_back(cluster: Cluster) -> None:
    # One ends while nobody hears of it, one would go on after that.
    short, worker = elsewhere_than_main(cluster, 100)
    (endless,) = cluster.sleepers(1, 3600, {"dagster_gce/node": worker, "dagster/max_retries": "0"})
    cluster.wait_for_run(endless, "STARTED", seconds=BEGINS)
    cluster.nft(worker, CUT)
    try:
        cut = time.monotonic()
        for run in (short, endless):
            assert cluster.wait_for_run(run, "FAILURE", "SUCCESS", seconds=TRUE_WITHIN) == "FAILURE"
            assert worker in cluster.said(run)
        again = cluster.retry_of(short)
        time.sleep(max(0.0, 120 - (time.monotonic() - cut)))
    finally:
        cluster.nft(worker, "delete table inet cut")
    cluster.wait_for_state(worker, "Ready", seconds=120)
    inside = "docker ps -q --filter label=dagster/run_id"
    wait(lambda: not cluster.on(worker).ssh(inside).split(), 120, "the end of the containers of before")
    # What was ended stays failed. What was done says so when it is heard again (docs/scale.md).
    assert cluster.run_status(endless) == "FAILURE"
    done = "Finished execution of run" in cluster.said(short)
    assert cluster.run_status(short) == ("SUCCESS" if done else "FAILURE")
    assert cluster.wait_for_run(again, "SUCCESS", "FAILURE", seconds=BEGINS + 100) == "SUCCESS"
    assert cluster.where([again])[again] != worker


def test_the_registry_is_away_when_a_worker_needs_the_image(cluster: Cluster) -> None:
    worker = cluster.workers[0]
    inside = cluster.on(worker)
    inside.ssh(
        "docker container prune -f >/dev/null; docker image prune -af >/dev/null; "
        f"ip route add blackhole {lab_machine.REGISTRY_ADDRESS}"
    )
    try:
        (run,) = cluster.sleepers(1, 1, {"dagster_gce/node": worker})
        assert cluster.wait_for_run(run, "FAILURE", "SUCCESS", seconds=BEGINS) == "FAILURE"
        assert f"machine {worker} is rejected" in cluster.said(run)
        assert "No such image" in cluster.said(run)
    finally:
        inside.ssh(f"ip route del blackhole {lab_machine.REGISTRY_ADDRESS}")
    again = cluster.retry_of(run)
    found = cluster.wait_for_run(again, "SUCCESS", "FAILURE", seconds=BEGINS)
    # The retry may have been there before the registry was.
    if found == "FAILURE":
        (again,) = cluster.sleepers(1, 1, {"dagster_gce/node": worker})
        assert cluster.wait_for_run(again, "SUCCESS", "FAILURE", seconds=BEGINS) == "SUCCESS"


def test_a_worker_s_disk_is_full(cluster: Cluster) -> None:
    worker = cluster.workers[0]
    inside = cluster.on(worker)
    # The engine's part that every container writes to first; the whole disk is this computer's.
    folder = "/var/lib/docker/containers"
    inside.ssh(
        f"systemctl stop docker.socket docker && mount -t tmpfs -o size=64k tmpfs {folder} && "
        f"(dd if=/dev/zero of={folder}/full bs=1k 2>/dev/null; systemctl start docker)"
    )
    try:
        cluster.wait_for_state(worker, "Ready", seconds=120)
        (run,) = cluster.sleepers(1, 1, {"dagster_gce/node": worker})
        assert cluster.wait_for_run(run, "FAILURE", "SUCCESS", seconds=BEGINS) == "FAILURE"
        assert "no space left on device" in cluster.said(run)
        # Elsewhere runs go on.
        (other,) = cluster.sleepers(1, 1, {"dagster_gce/node": cluster.name})
        assert cluster.wait_for_run(other, "SUCCESS", "FAILURE", seconds=BEGINS) == "SUCCESS"
    finally:
        inside.ssh(f"systemctl stop docker.socket docker; umount {folder}; systemctl start docker")
    cluster.wait_for_state(worker, "Ready", seconds=120)


def test_releases_under_load_lose_nothing(cluster: Cluster) -> None:
    with Load(cluster, long_runs=len(cluster.workers)) as load:
        for version in ("3", "4"):
            cluster.play("deploy_core.yml", dagster_core_image=image("docker_dagster_core", version=version)).ok()
    assert (load.failed_queries, load.failed_launches) == ([], [])
    assert load.lost_runs(patience=300) == {}
