"""What the tests of the images share: the docker command, waiting, and a stack of containers."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.webserver import FINISHED, PATIENCE, Webserver

ROOT = Path(__file__).resolve().parents[2]
PREFIX = f"images-test-{os.getpid()}"
HARDENING = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
SECRETS = ["-e", "POSTGRES_USER=dagster", "-e", "POSTGRES_PASSWORD=pa $s'w#\"rd", "-e", "POSTGRES_DB=dagster"]
POSTGRES = {
    "postgres_db": {
        "hostname": "dagster-postgres",
        "username": {"env": "POSTGRES_USER"},
        "password": {"env": "POSTGRES_PASSWORD"},
        "db_name": {"env": "POSTGRES_DB"},
    }
}
STORAGES = {
    "run_storage": ("dagster_postgres.run_storage", "PostgresRunStorage"),
    "event_log_storage": ("dagster_postgres.event_log", "PostgresEventLogStorage"),
    "schedule_storage": ("dagster_postgres.schedule_storage", "PostgresScheduleStorage"),
}


def docker(*arguments: str, check: bool = True, timeout: float = 600) -> str:
    """Run docker; returns what it wrote."""
    result = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False)
    if check and result.returncode:
        raise AssertionError(f"docker {' '.join(arguments)}: {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout + result.stderr


def wait_for(what: str, condition: Callable[[], Any], seconds: float = 60) -> Any:
    """The first true value of a condition, which may raise until then; within ``seconds`` (times PATIENCE)."""
    seconds *= PATIENCE
    deadline, last = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        try:
            if value := condition():
                return value
        except (OSError, AssertionError, KeyError, TypeError, ValueError) as error:
            last = repr(error)
        time.sleep(0.3)
    raise AssertionError(f"{what}: not within {seconds:.0f} s. {last}")


@dataclass
class Stack(Webserver):
    """The containers by part, and GraphQL."""

    core_image: str
    server_image: str
    names: dict[str, str] = field(default_factory=dict)
    url: str = ""

    def run(self, part: str, *arguments: str) -> None:
        """Start a container `part`."""
        self.names[part] = f"{PREFIX}-{part}"
        docker("run", "-d", "--name", self.names[part], *arguments)

    def execute(self, part: str, *command: str) -> tuple[int, str]:
        """Exit status and output of a command in a container."""
        result = subprocess.run(
            ["docker", "exec", self.names[part], *command], capture_output=True, text=True, timeout=60, check=False
        )
        return result.returncode, result.stdout + result.stderr

    def logs(self, part: str) -> str:
        """Everything that a container said."""
        return docker("logs", self.names[part])

    def address(self) -> str:
        """The webserver's published port."""
        return self.url

    def finish(self, run: str, seconds: float = 60) -> str:
        """A run's final status."""
        return str(wait_for(f"run {run}", lambda: (s := self.run_status(run)) in FINISHED and s, seconds))

    def daemons(self) -> dict[str, bool]:
        """Health by required daemon."""
        found = self.graphql("{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }")
        statuses = found["instance"]["daemonHealth"]["allDaemonStatuses"]
        return {item["daemonType"]: bool(item["healthy"]) for item in statuses if item["required"]}


def dagster_yaml() -> dict[str, Any]:
    """The article's storage blocks and queue, with monitoring and retries."""
    blocks: dict[str, Any] = {
        name: {"module": module, "class": kind, "config": POSTGRES} for name, (module, kind) in STORAGES.items()
    }
    return {
        **blocks,
        "scheduler": {"module": "dagster.core.scheduler", "class": "DagsterDaemonScheduler"},
        "run_coordinator": {
            "module": "dagster.core.run_coordinator",
            "class": "QueuedRunCoordinator",
            "config": {"max_concurrent_runs": 5, "dequeue_interval_seconds": 1},
        },
        "compute_logs": {
            "module": "dagster.core.storage.local_compute_log_manager",
            "class": "LocalComputeLogManager",
            "config": {"base_dir": "/opt/dagster/storage/compute_logs"},
        },
        "run_monitoring": {"enabled": True},
        "run_retries": {"enabled": True, "max_retries": 1},
        "telemetry": {"enabled": False},
    }
