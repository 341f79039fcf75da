"""What more machines bring: runs per minute with 1, 2 and 4 workers, and how long a run waits in the queue.

One cluster for all: a main machine that takes no runs, and four workers, of which some are paused. A worker has room
for two runs at a time, since each reserves half of its processors. All machines are on this computer and share its
processors, so the waiting job shows what the scheduling costs, and the job that computes what this computer has.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

from tests.bench.measure import row
from tests.e2e.swarm.cluster import Cluster

WAIT = float(os.environ.get("SCALE_WAIT", "90"))
BURN = float(os.environ.get("SCALE_BURN", "10"))
# How often each place for a run is taken in a measurement.
BATCHES = int(os.environ.get("SCALE_BATCHES", "2"))
# As many short runs at once.
QUEUED = int(os.environ.get("SCALE_QUEUED", "1000"))
# Of a worker, as the tag dagster_gce/cpu reserves: half of this computer's.
PLACES = 2
# Runs in flight at the most: all of the largest measurement of throughput.
AT_ONCE = 4 * PLACES * BATCHES
# Runs whose ends are counted, of those that wait; as often with few as with many, in turns.
COUNTED = 80
ROUNDS = int(os.environ.get("SCALE_ROUNDS", "3"))
_TIMES = """query ($id: ID!) { runOrError(runId: $id) { ... on Run { stats { ... on RunStatsSnapshot {
  enqueuedTime launchTime startTime endTime } } } } }"""
_CANCEL = "mutation ($runs: [String!]!) { terminateRuns(runIds: $runs) { __typename } }"


def measure(parts: list[str]) -> None:
    """Print the rows of ``parts`` (names of ``PARTS``)."""
    cluster = Cluster("bench-swarm", 4)
    cluster.start()
    try:
        cluster.write_inventory(dagster_max_concurrent_runs=AT_ONCE, dagster_swarm_runs_here=False)
        cluster.set_up().ok()
        for name in cluster.workers:
            # The first run of a machine pulls the image.
            (run,) = cluster.sleepers(1, 0.1, {"dagster_gce/node": name})
            cluster.all_reach([run], "SUCCESS", seconds=300)
        for part in parts:
            PARTS[part](cluster)
    finally:
        cluster.remove()


def _waiting(cluster: Cluster) -> None:
    rates = {}
    for count in (1, 2, 4):
        rates[count] = _throughput(cluster, count, "sleepy", "sleep", WAIT)
        note = f"a job that waits {WAIT:.0f} s, {PLACES} at a time on each worker"
        row(f"workers_{count}_runs_per_minute", rates[count], "runs", note)
    note = f"runs per minute with 4 workers to 4 times those with 1, a job that waits {WAIT:.0f} s"
    row("workers_4_efficiency", rates[4] / (4 * rates[1]), "", note)


def _burning(cluster: Cluster) -> None:
    for count in (1, 2, 4):
        rate = _throughput(cluster, count, "burning", "burn", BURN)
        note = f"a job that computes for {BURN:.0f} s of one processor; this computer has {os.cpu_count()}"
        row(f"workers_{count}_cpu_runs_per_minute", rate, "runs", note)


def _use(cluster: Cluster, count: int) -> None:
    for number, name in enumerate(cluster.workers):
        cluster.docker(f"node update --availability {'active' if number < count else 'pause'} {name}")


def _throughput(cluster: Cluster, workers: int, job: str, op: str, seconds: float) -> float:
    """Runs per minute, from the first launch to the last end."""
    _use(cluster, workers)
    config = {"ops": {op: {"config": {"seconds": seconds}}}}
    tags = {"dagster_gce/cpu": str((os.cpu_count() or 2) / PLACES)}
    runs = [cluster.launch(job, config, tags) for _ in range(BATCHES * PLACES * workers)]
    found = cluster.all_reach(runs, "SUCCESS", "FAILURE", seconds=BATCHES * (seconds + 120) + 60 * workers)
    failed = [run for run, status in found.items() if status != "SUCCESS"]
    assert not failed, "\n".join(str(event) for run in failed for event in cluster.events(run))
    times = [_times(cluster, run) for run in runs]
    took = max(each["endTime"] for each in times) - min(each["enqueuedTime"] for each in times)
    return len(runs) / took * 60


def _times(cluster: Cluster, run: str) -> dict[str, float]:
    found: dict[str, float] = cluster.graphql(_TIMES, id=run)["runOrError"]["stats"]
    return found


def _latency(cluster: Cluster, count: int = 20, every: float = 4) -> None:
    """From the launch to the first step, one run at a time on machines that have room."""
    _use(cluster, len(cluster.workers))
    runs = []
    for _ in range(count):
        runs.append(cluster.launch("quick"))
        time.sleep(every)
    assert set(cluster.all_reach(runs, "SUCCESS", "FAILURE", seconds=300).values()) == {"SUCCESS"}
    took = sorted(each["startTime"] - each["enqueuedTime"] for each in (_times(cluster, run) for run in runs))
    note = f"from the launch until the run's process has begun, one run each {every:.0f} s, n={count}"
    row("workers_queue_latency_p50_seconds", statistics.median(took), "s", note)
    row("workers_queue_latency_p95_seconds", took[int(0.95 * (len(took) - 1))], "s", note)


def _wait_in_the_queue(cluster: Cluster, count: int) -> list[str]:
    """So many short runs; to launch them is work of the same processors, so no worker takes one before all wait."""
    _use(cluster, 0)
    runs = [cluster.launch("quick", tags={"dagster_gce/memory": "256m"}) for _ in range(count)]
    _use(cluster, len(cluster.workers))
    return runs


def _drain(cluster: Cluster) -> None:
    """Many short runs that wait."""
    runs = _wait_in_the_queue(cluster, QUEUED)
    start = time.time()
    found = cluster.all_reach(runs, "SUCCESS", "FAILURE", seconds=60 + 10 * QUEUED)
    failed = sum(1 for each in found.values() if each != "SUCCESS")
    took = max(_times(cluster, run)["endTime"] for run in runs) - start
    note = f"{QUEUED} short runs that wait, 4 workers, {AT_ONCE} in flight; {failed} failed"
    row(f"workers_drain_{QUEUED}_seconds", took, "s", note)


def _growth(cluster: Cluster) -> None:
    """What a run takes must not grow with the number that waits: few and many in turns, since computers vary."""
    # Also of the few there is one that begins for each that ends.
    enough = COUNTED + 2 * AT_ONCE
    few: list[float] = []
    many: list[float] = []
    turns = ((enough, few), (QUEUED, many))
    for number in range(ROUNDS):
        for waiting, paces in turns[:: -1 if number % 2 else 1]:
            paces.append(_pace(cluster, waiting))
            print(f"{waiting} waiting: {paces[-1]:.2f} s a run", flush=True)
    note = f"a run with {QUEUED} queued, {_spread(many)}, to one with {enough}, {_spread(few)}; n={COUNTED} a turn"
    row(f"workers_drain_{QUEUED}_growth", statistics.median(many) / statistics.median(few), "", note)


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f})"


def _pace(cluster: Cluster, waiting: int) -> float:
    """Seconds a run: from the end of the first that are in flight to that of COUNTED more."""
    runs = _wait_in_the_queue(cluster, waiting)
    # The first come first; the others are asked for by nobody, since that is work.
    counted, others = runs[: AT_ONCE + COUNTED], runs[AT_ONCE + COUNTED :]
    found = cluster.all_reach(counted, "SUCCESS", "FAILURE", seconds=120 + 10 * len(counted))
    assert set(found.values()) == {"SUCCESS"}, found
    ends = sorted(_times(cluster, run)["endTime"] for run in counted)
    for first in range(0, len(others), 100):
        cluster.graphql(_CANCEL, runs=others[first : first + 100])
    cluster.all_reach(others, "SUCCESS", "CANCELED", seconds=300)
    return (ends[-1] - ends[AT_ONCE - 1]) / COUNTED


PARTS: dict[str, Callable[[Cluster], None]] = {
    "scale_waiting": _waiting,
    "scale_latency": _latency,
    "scale_burning": _burning,
    "scale_drain": _drain,
    "scale_growth": _growth,
}
