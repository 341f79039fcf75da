"""A main machine and workers, as site.yml makes them, with the user code in the lab's registry."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import docker
from docker.models.containers import Container

from lab import machine as lab_machine
from tests.e2e.harness import ROOT, Machine, Played, wait
from tests.e2e.images import publish
from tests.webserver import PATIENCE

SERVICES = ("dagster-postgres", "dagster-webserver", "dagster-daemon", "dagster-engine-proxy")
PATIENT = {"timeout": "60s", "start_period": "300s"}


def image(name: str, version: str = "1") -> str:
    """An image in the registry; another ``version`` is another image of the same code."""
    return publish(name, f"swarm/{name}", version)[0]


class Cluster(Machine):
    """The main machine; ``workers`` has the others, by name."""

    def __init__(self, name: str, workers: int) -> None:
        super().__init__(name)
        self.workers = [f"{name}-worker-{number + 1}" for number in range(workers)]
        self.storage = f"{lab_machine.SHARED}/{name}"
        self.write_inventory()

    def write_inventory(self, **variables: Any) -> None:
        """The inventory with the workers that there are now."""
        shared = {
            "dagster_run_launcher": "swarm",
            "dagster_storage_path": self.storage,
            "dagster_peer_ranges": [lab_machine.SUBNET],
            # Several machines share this computer's processors.
            "dagster_stack_wait_timeout": 600,
            "dagster_stack_compose_overrides": {"services": {name: {"healthcheck": PATIENT} for name in SERVICES}},
            **variables,
        }
        reach = {"ansible_ssh_common_args": f"-F {lab_machine.ssh_config()}"}
        hosts = {
            "dagster": {"hosts": {self.name: reach}},
            "dagster_workers": {"hosts": dict.fromkeys(self.workers, reach)},
            "all": {"vars": shared},
        }
        (self.inventory / "hosts.yml").write_text(json.dumps(hosts))
        workers = self.inventory / "group_vars" / "dagster_workers.yml"
        workers.unlink(missing_ok=True)
        workers.symlink_to(ROOT / "inventory" / "lab" / "group_vars" / "dagster" / "machine.yml")

    def start(self) -> Cluster:
        """Make every machine new."""
        names = [self.name, *self.workers]
        subprocess.run([sys.executable, "-m", "lab", "up", "--fresh", *names], cwd=ROOT, check=True)
        self.ssh(f"rm -rf {self.storage}")
        return self

    def remove(self) -> None:
        """Remove every machine and its disk, and what they shared."""
        subprocess.run(
            [*lab_machine.ssh_command(self.name), "sudo", "rm", "-rf", self.storage], check=False, timeout=60
        )
        subprocess.run([sys.executable, "-m", "lab", "down", self.name, *self.workers], cwd=ROOT, check=True)

    def set_up(self, *arguments: str, **variables: Any) -> Played:
        """site.yml, with both images from the registry."""
        return self.play(
            "site.yml", *arguments, dagster_image=image("dagster_daemon_webserver"),
            **{"dagster_core_image": image("docker_dagster_core"), **variables},
        )  # fmt: skip

    def on(self, name: str) -> Machine:
        """One of the workers, to look inside."""
        found = object.__new__(Machine)
        found.name, found.port = name, 0
        return found

    def container(self, name: str) -> Container:
        """A machine as the lab's engine has it: to kill it, to look after it without its network."""
        return docker.from_env().containers.get(lab_machine.container_name(name))

    def nft(self, name: str, commands: str) -> None:
        """Rules of a machine's packet filter, given from outside."""
        status, said = self.container(name).exec_run(["nft", commands])
        assert status == 0, said

    def docker(self, command: str) -> str:
        """A docker command on the main machine."""
        return self.ssh(f"docker {command}").strip()

    def states(self) -> dict[str, str]:
        """Every machine's state, as the swarm has it."""
        lines = self.docker("node ls --format '{{.Hostname}} {{.Status}} {{.Availability}}'").splitlines()
        return {name: f"{state} {availability}" for name, state, availability in (line.split() for line in lines)}

    def wait_for_state(self, name: str, state: str, seconds: float = 90) -> None:
        """Wait until the swarm says so of a machine."""
        wait(lambda: self.states().get(name, "gone").startswith(state), seconds, f"{name}: {state}", self.states)

    def where(self, runs: Sequence[str]) -> dict[str, str]:
        """The machine of each run that has one."""
        names = " ".join(f"dagster-run-{run}" for run in runs)
        lines = self.docker(
            f"service ps --no-trunc --format '{{{{.Name}}}} {{{{.Node}}}}' {names} 2>/dev/null || true"
        ).splitlines()
        found = dict(line.split()[:2] for line in lines if len(line.split()) > 1)
        return {run: found[f"dagster-run-{run}.1"] for run in runs if f"dagster-run-{run}.1" in found}

    def spread(self, runs: Sequence[str]) -> Counter[str]:
        """How many of the runs each machine has."""
        return Counter(self.where(runs).values())

    def sleepers(self, count: int, seconds: float, tags: Mapping[str, str] | None = None) -> list[str]:
        """Runs that wait for so long."""
        return [self.launch("sleepy", {"ops": {"sleep": {"config": {"seconds": seconds}}}}, tags) for _ in range(count)]

    def all_reach(self, runs: Sequence[str], *statuses: str, seconds: float) -> dict[str, str]:
        """Wait until each run has one of ``statuses``; returns what they have."""
        seconds *= PATIENCE
        deadline = time.monotonic() + seconds
        left = list(runs)
        found: dict[str, str] = {}
        while left:
            found |= self.run_statuses(left)
            left = [run for run in left if found[run] not in statuses]
            assert time.monotonic() < deadline or not left, f"expected {statuses} within {seconds:.0f} s: {found}"
            time.sleep(0.5 + len(left) / 50)
        return found
