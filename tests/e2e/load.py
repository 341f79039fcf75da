"""Load on a Dagster while releases are replaced under it, and what came of every query, launch and run."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Self

from tests.e2e.harness import Machine, wait
from tests.webserver import FINISHED, LOST, PATIENCE


def served_host(machine: Machine, timeout: float = 10) -> str:
    """The host of the code location that the webserver serves.

    Raises one of LOST: it serves none, or does not answer within ``timeout`` seconds.
    """
    location = machine.locations(timeout)["dagster_core"]
    assert location.loaded
    return location.metadata["host"]


@dataclass
class Load:
    """Queries each 200 ms and launches each 2 s (times PATIENCE) while the ``with`` block runs, beside long runs."""

    machine: Machine
    long_runs: int = 2
    long_seconds: float = 45
    queries: int = 0
    failed_queries: list[str] = field(default_factory=list)
    failed_launches: list[str] = field(default_factory=list)
    launched: list[str] = field(default_factory=list)
    long: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    started: float = 0.0
    ended: float = 0.0

    def __enter__(self) -> Self:
        self.machine.tunnel()
        self._stop = threading.Event()
        self.started = time.time()
        for _ in range(self.long_runs):
            self.keep_one_in_flight()
        # A deploy is to meet all of them in flight, and each takes the machine a few seconds of CPU to start.
        for run in self.long:
            self.machine.wait_for_run(run, "STARTED")
        self._threads = [threading.Thread(target=each) for each in (self._ask, self._launch)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.ended = time.time()

    def keep_one_in_flight(self) -> None:
        """One more run that sleeps across a cutover."""
        config = {"ops": {"sleep": {"config": {"seconds": self.long_seconds}}}}
        self.long.append(self.machine.launch("sleepy", config))

    def wait_for_launches(self, more: int) -> None:
        """Wait until the load has launched so many more."""
        enough = len(self.launched) + more
        wait(lambda: len(self.launched) >= enough, 30, f"{more} more launches", lambda: self.failed_launches)

    def lost_runs(self, patience: float = 240) -> dict[str, str]:
        """Runs that did not end in SUCCESS, with their state, after waiting for them."""
        left = self.long + self.launched
        states = dict.fromkeys(left, "nowhere")
        deadline = time.monotonic() + patience * PATIENCE
        while left and time.monotonic() < deadline:
            states |= self.machine.run_statuses(left)
            left = [run for run in left if states[run] not in FINISHED]
            time.sleep(2 if left else 0)
        return {run: state for run, state in states.items() if state != "SUCCESS"}

    def story(self, run: str) -> str:
        """What is known about a run: its state, its events and the last lines of its container."""
        lines = [f"run {run}: {self.machine.run_status(run)}"]
        for event in self.machine.events(run):
            stamp = time.strftime("%H:%M:%S", time.gmtime(float(event.get("timestamp", 0)) / 1000))
            lines.append(f"  {stamp} {event['__typename']}: {event.get('message', '')}"[:400])
        found = f"$(docker ps -aq --filter label=dagster/run_id={run})"
        lines.append(self.machine.ssh(f"for id in {found}; do docker logs --tail 30 $id 2>&1; done", check=False))
        return "\n".join(lines)

    def _ask(self) -> None:
        while not self._stop.wait(0.2):
            self.queries += 1
            try:
                host = served_host(self.machine)
                if self.hosts[-1:] != [host]:
                    self.hosts.append(host)
            except LOST as error:
                self.failed_queries.append(f"{time.strftime('%H:%M:%S')} {error!r}")

    def _launch(self) -> None:
        while not self._stop.wait(2 * PATIENCE):
            try:
                self.launched.append(self.machine.launch("quick"))
            except LOST as error:
                self.failed_launches.append(f"{time.strftime('%H:%M:%S')} {error!r}")
