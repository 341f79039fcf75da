"""What goes on beside faults: runs in flight, launches, queries, and a writer whose every commit is noted outside."""

from __future__ import annotations

import base64
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from lab import machine as lab_machine
from tests.e2e.faults import database, health
from tests.e2e.harness import Machine, wait
from tests.webserver import FINISHED, PATIENCE

_WRITER = Path(__file__).with_name("writer.py")
_START = """mkdir -p /root/e2e && cd /root/e2e && echo {code} | base64 -d > writer.py
docker inspect -f '{{{{range .Config.Env}}}}{{{{println .}}}}{{{{end}}}}' dagster-daemon | grep = > writer.env
docker rm -f e2e-writer >/dev/null 2>&1
exec docker run --rm --name e2e-writer --network dagster-network --env-file writer.env --memory 400m \\
  -v /opt/dagster/dagster_home:/opt/dagster/dagster_home:ro -v /root/e2e/writer.py:/writer.py:ro --entrypoint python \\
  $(docker inspect -f '{{{{.Image}}}}' dagster-daemon) -u /writer.py {run} {first}"""


@dataclass
class Writer:
    """Writes events through Dagster's API in a container of its own; ``acknowledged`` is outside of the machine."""

    machine: Machine
    run: str = field(default_factory=lambda: str(uuid.uuid4()))
    acknowledged: set[int] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Begin, or go on after what was acknowledged; returns when the first one is."""
        before = len(self.acknowledged)
        script = _START.format(
            code=base64.b64encode(_WRITER.read_bytes()).decode(),
            run=self.run,
            first=max(self.acknowledged, default=0) + 1,
        )
        self._process = subprocess.Popen(
            [*lab_machine.ssh_command(self.machine.name), "sudo", "bash", "-s"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdin
        self._process.stdin.write(script)
        self._process.stdin.close()
        self._threads = [threading.Thread(target=each) for each in (self._note, self._note_errors)]
        for each in self._threads:
            each.start()
        wait(
            lambda: len(self.acknowledged) > before or self._process.poll() is not None,
            60, "that the writer writes", lambda: self.errors[-3:],
        )  # fmt: skip

    def start_again_if_it_ended(self) -> None:
        """Without the engine its container goes on, but says no more."""
        if self._process.poll() is not None:
            self.wait_until_it_ends()
            self.start()

    def stop(self) -> None:
        """End it, wherever it is."""
        self.machine.ssh("docker rm -f e2e-writer", check=False)
        self.wait_until_it_ends()

    def wait_until_it_ends(self) -> None:
        """All that it has said is noted then."""
        self._process.terminate()
        self._process.wait()
        for each in self._threads:
            each.join()

    def lost(self) -> set[int]:
        """What was acknowledged and is not there."""
        number = "substring(event from 'written ([0-9]+)[.]')"
        found = database.sql(self.machine, f"select distinct {number} from event_logs where run_id = '{self.run}'")
        return self.acknowledged - {int(each) for each in found}

    def _note(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.strip().isdigit():
                self.acknowledged.add(int(line))

    def _note_errors(self) -> None:
        assert self._process.stderr
        self.errors.extend(line.strip() for line in self._process.stderr)


@dataclass
class FaultLoad:
    """A query each half second, a launch each ``launch_seconds``, ``long_runs`` runs that log and leave a mark."""

    machine: Machine
    long_runs: int = 2
    long_seconds: float = 30
    launch_seconds: float = 8
    queries: int = 0
    failed_queries: int = 0
    failed_launches: int = 0
    launched: list[str] = field(default_factory=list)
    long: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.machine.tunnel()
        self.writer = Writer(self.machine)
        self.writer.start()
        self._stop = threading.Event()
        for _ in range(self.long_runs):
            self.launch_long()
        for run in self.long:
            self.machine.wait_for_run(run, "STARTED", "SUCCESS", seconds=60)
        self._threads = [threading.Thread(target=each) for each in (self._ask, self._launch)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.writer.stop()

    def launch_long(self) -> str:
        """One more run that is in flight for a while."""
        run = self.machine.launch("marked", {"ops": {"work": {"config": {"seconds": self.long_seconds}}}})
        self.long.append(run)
        return run

    def keep_in_flight(self) -> None:
        """Put others in the place of long runs that have ended, and of a writer whose connection has."""
        self.writer.start_again_if_it_ended()
        going = [run for run in self.long if self.machine.run_status(run) not in FINISHED]
        for _ in range(self.long_runs - len(going)):
            self.launch_long()

    def outcome(self, patience: float = 240) -> Outcome:
        """What became of every run so far, those that Dagster has started again among them."""
        deadline = time.monotonic() + patience * PATIENCE
        # Those that there are now; a load that still goes on launches others meanwhile.
        roots = [*self.long, *self.launched]
        while True:
            runs = _family(self.machine, roots)
            shown = "docker ps --filter label=dagster/run_id --format '{{.Label \"dagster/run_id\"}}'"
            # A container lives a moment longer than its run.
            living = set(self.machine.ssh(shown).split()) & set(runs)
            found = Outcome(runs, set(), living)
            if not (living or found.going()) or time.monotonic() > deadline:
                break
            time.sleep(2)
        marks = set(self.machine.ssh("docker exec dagster-daemon ls /opt/dagster/storage/e2e", check=False).split())
        return Outcome(runs, marks, living)

    def _ask(self) -> None:
        while not self._stop.wait(0.5):
            self.queries += 1
            try:
                assert self.machine.locations(timeout=5)["dagster_core"].loaded
            except health.UNREACHABLE:
                self.failed_queries += 1

    def _launch(self) -> None:
        while not self._stop.wait(self.launch_seconds):
            try:
                self.launched.append(self.machine.launch("quick"))
            except health.UNREACHABLE:
                self.failed_launches += 1


@dataclass
class Outcome:
    """What became of the runs of a load."""

    runs: dict[str, dict[str, Any]]
    marks: set[str]
    living: set[str]

    def going(self) -> list[str]:
        """Runs that have not ended, and those that Dagster is about to start again."""
        return [
            run
            for run, about in self.runs.items()
            if about["status"] not in FINISHED
            or (self.tag(run, "dagster/will_retry") == "true" and run not in self.started_again)
        ]

    def untrue(self) -> list[str]:
        """Runs whose state is not what happened."""
        found = []
        for run, about in self.runs.items():
            status = about["status"]
            if status not in FINISHED:
                found.append(
                    f"{run} ({about['jobName']}) is {status} for ever; its container lives: {run in self.living}"
                )
            elif run in self.living:
                found.append(f"{run} is {status}, and its container lives")
            elif status == "SUCCESS" and about["jobName"] == "marked" and run not in self.marks:
                found.append(f"{run} is SUCCESS, and its work was not done")
        return found

    @property
    def failed(self) -> list[str]:
        """Runs that ended otherwise than in SUCCESS."""
        return [run for run, about in self.runs.items() if about["status"] in ("FAILURE", "CANCELED")]

    @property
    def started_again(self) -> dict[str, str]:
        """Runs by the one that they take the place of."""
        return {about["parentRunId"]: run for run, about in self.runs.items() if about["parentRunId"]}

    def undone(self) -> list[str]:
        """Failed runs that were not started again, or whose second try failed too."""
        return [run for run in self.failed if run not in self.started_again]

    def tag(self, run: str, key: str) -> str:
        """A tag of a run; empty where it has none."""
        return next((str(each["value"]) for each in self.runs[run]["tags"] if each["key"] == key), "")

    def reason(self, run: str) -> str:
        """Why it failed, as Dagster says."""
        return self.tag(run, "dagster/failure_reason")

    def lost(self) -> str:
        """In the words of the table."""
        again = len(self.failed) - len(self.undone())
        if not self.failed:
            return "nothing"
        return f"{len(self.failed)} of {len(self.runs)} runs failed, {again} of them started again by themselves"


def _family(machine: Machine, roots: list[str]) -> dict[str, dict[str, Any]]:
    query = """query ($ids: [String!]) { runsOrError(filter: {runIds: $ids}) { ... on Runs { results {
        runId status jobName parentRunId tags { key value } } } } }"""
    found = machine.graphql(query, ids=roots)["runsOrError"]["results"]
    # Only a run that failed has successors.
    for each in [each for each in found if each["status"] == "FAILURE"]:
        tags = [{"key": "dagster/root_run_id", "value": each["runId"]}]
        answer = machine.graphql(
            """query ($tags: [ExecutionTag!]) { runsOrError(filter: {tags: $tags}) { ... on Runs { results {
               runId status jobName parentRunId tags { key value } } } } }""",
            tags=tags,
        )
        found += answer["runsOrError"]["results"]
    return {each["runId"]: each for each in found}
