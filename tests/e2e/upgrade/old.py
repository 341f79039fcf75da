"""A machine with an old Dagster and an old PostgreSQL, and what is in its database."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.e2e.harness import ROOT, Machine, wait

HERE = Path(__file__).parent

# Two revisions of the schema behind, which change MySQL only; 1.8.13 would be seven behind, and five of them change
# PostgreSQL.
OLD = os.environ.get("UPGRADE_FROM", "1.9.13")
# Dagster's libraries count from another beginning: 1.9.13 goes with 0.25.13.
OLD_LIBRARIES = f"0.{int(OLD.split('.')[1]) + 16}.{OLD.split('.')[2]}"
OLD_WEBSERVER = f"e2e_old_webserver:{OLD}"
OLD_CORE = f"docker_dagster_core:e2e-{OLD}"
BROKEN = "e2e_broken_webserver:1"
LOAD: dict[str, Any] = {"dagster_core_dir": "tests/fixtures/dagster_core_load"}

# What the old one does not know yet: today's form of the queue's limit, an option of the webserver, a daemon.
OLD_SETTINGS: dict[str, Any] = {
    "dagster_image": OLD_WEBSERVER,
    "dagster_core_image": OLD_CORE,
    "dagster_image_pull_policy": "missing",
    # It looks for heartbeats of daemons that the old one does not have.
    "dagster_watch_enabled": False,
    "dagster_monitoring_enabled": False,
    "dagster_upkeep_enabled": False,
    "dagster_home_dagster_yaml_overrides": {
        "concurrency": None,
        "run_coordinator": {
            "module": "dagster.core.run_coordinator",
            "class": "QueuedRunCoordinator",
            "config": {"max_concurrent_runs": 5},
        },
    },
    "dagster_stack_compose_overrides": {
        "services": {
            "dagster-webserver": {
                "entrypoint": ["dagster-webserver", "-h", "0.0.0.0", "-p", "3000", "-w", "workspace.yaml"]
            },
            "dagster-daemon": {"healthcheck": {"test": ["CMD", "true"]}},
        }
    },
}

_PIP = "RUN pip --python /opt/venv/bin/python install -q --no-cache-dir --ignore-requires-python"
_IMAGES = f"""
set -e
docker build -q -t {OLD_WEBSERVER} - <<E
FROM e2e_webserver:1
USER 0
{_PIP} dagster=={OLD} dagster-webserver=={OLD} dagster-postgres=={OLD_LIBRARIES} dagster-docker=={OLD_LIBRARIES}
USER 10001:10001
E
docker build -q -t {OLD_CORE} - <<E
FROM e2e_core:1
USER 0
{_PIP} dagster=={OLD} dagster-postgres=={OLD_LIBRARIES} dagster-docker=={OLD_LIBRARIES}
USER 10001:10001
E
# Its migration works and its webserver does not.
docker build -q -t {BROKEN} - <<E
FROM e2e_webserver:1
USER 0
RUN printf '#!/bin/sh\\necho broken on purpose; exit 3\\n' > /opt/venv/bin/dagster-webserver
USER 10001:10001
E
"""
# Never anywhere but on a machine of the lab that is called so.
_WIPE = """
test "$(hostname)" = "NAME" || { echo "this is $(hostname), not NAME"; exit 1; }
docker rm -f $(docker ps -aq --filter label=dataops.dagster_gce)
docker rm -f $(docker ps -aq --filter label=com.docker.compose.project=dagster)
docker rm -f $(docker ps -aq --filter label=com.docker.compose.project=article)
docker volume rm dagster-postgres dagster-postgres-17 dagster-storage article_dagster-postgres
docker network rm dagster-network dagster-engine
rm -rf /opt/dagster/* /opt/dagster/.env /srv/article
true
"""
# What its reader has typed, on the old versions.
_ARTICLE = f"""
set -e
cd /srv/article
sed -i s/postgres:17/postgres:13/ docker-compose-GCE.yml
docker tag {OLD_WEBSERVER} dagster_daemon_webserver_image
docker tag {OLD_CORE} docker_dagster_core_image
printf 'POSTGRES_USER=dagster\\nPOSTGRES_PASSWORD=article\\nPOSTGRES_DB=dagster\\n' > .env
chown -R 10001:10001 dagster_home
docker compose -f docker-compose-GCE.yml up -d
"""
_ASK = "docker exec dagster-postgres psql -U dagster -d dagster -AtX -F ' '"
_COUNT = f"""{_ASK} -c "SELECT 'runs', count(*) FROM runs UNION ALL SELECT 'events', count(*) FROM event_logs
UNION ALL SELECT 'ticks', count(*) FROM job_ticks UNION ALL SELECT 'sequence', last_value FROM event_logs_id_seq" """


class OldMachine:
    """What the tests do to it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def make_images(self) -> None:
        """Once: today's from the checkout, the others from them."""
        images = f"{OLD_WEBSERVER} {OLD_CORE} {BROKEN}"
        if "yes" not in self.machine.ssh(f"docker image inspect {images} >/dev/null && echo yes", check=False):
            self.machine.play("tests/e2e/images.yml", **LOAD).ok()
            self.machine.ssh(_IMAGES, timeout=900)

    def wipe(self) -> None:
        """As if Dagster had never been here; the images stay."""
        self.machine.ssh(_WIPE.replace("NAME", self.machine.name), timeout=300)

    def install_article(self) -> None:
        """The article's own stack, with real history: runs and ticks of the old Dagster."""
        self.machine.send("/srv", {"article": ROOT / "tests" / "bench" / "article"})
        self.machine.ssh(_ARTICLE, timeout=300)
        wait(self.machine.serves, 180, "that the article's stack serves")
        self.machine.switch_ticks(True)
        self.history()
        wait(lambda: self.counts()["ticks"] > 0, 120, "a tick")
        self.machine.switch_ticks(False)

    def history(self, runs: int = 4) -> list[str]:
        """Runs, to their end."""
        launched = [self.machine.launch("quick") for _ in range(runs)] + [self.machine.launch("raises")]
        for run in launched:
            self.machine.wait_for_run(run, "SUCCESS", "FAILURE", seconds=180)
        return launched

    def version(self) -> str:
        """Dagster's, as the webserver says it."""
        return str(self.machine.graphql("{ version }")["version"])

    def counts(self) -> dict[str, int]:
        """How much history there is."""
        rows = [line.split() for line in self.machine.ssh(_COUNT).splitlines() if line]
        return {row[0]: int(row[1]) for row in rows}

    def postgres(self) -> str:
        """The major version that runs."""
        return self.machine.ssh(f"{_ASK} -c 'SHOW server_version_num'").strip()[:2]

    def revision(self) -> str:
        """Of Dagster's schema."""
        return self.machine.ssh(f"{_ASK} -c 'SELECT version_num FROM alembic_version'").strip()

    def send_plugins(self) -> None:
        """The collection's module_utils and the program that is killed."""
        self.machine.send_plugins(HERE / "kill_at.py")

    def step(
        self, operation: str, image: str, postgres: str, kill: str = "never", seconds: float = 0
    ) -> tuple[int, str]:
        """Prepare or go back on the machine itself, killed at a step; exit code and output."""
        options = json.dumps({"image": image, "postgres_image": postgres, "answer_seconds": 180})
        said = self.machine.ssh(
            f"cd /root/e2e && PYTHONPATH=. python3 kill_at.py {operation} {kill} {seconds} '{options}'; echo code=$?",
            timeout=600,
        )
        text, _, code = said.rpartition("code=")
        return int(code), text

    def leftovers(self) -> str:
        """What an upgrade may not leave behind once it is over."""
        return self.machine.ssh(
            "ls -d /opt/dagster/upgrades/current.json /run/dagster-gce-upgrade /opt/dagster/state/paused 2>/dev/null;"
            " docker ps -a --format '{{.Names}}' | grep upgrade;"
            f" {_ASK} -c \"SELECT datname FROM pg_database WHERE datname ~ '^dagster_'\"",
            check=False,
        )
