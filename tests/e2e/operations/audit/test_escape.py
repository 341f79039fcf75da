"""The engine proxy of the running stack, attacked from the daemon's container, which is the one that may talk to it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.e2e.harness import Machine

# Runs come and go by themselves; nothing else may.
THINGS = (
    "docker ps -aq --no-trunc --filter label=dataops.dagster_gce=stack; docker volume ls -q; docker network ls -q;"
    " docker images -q --no-trunc | sort -u; docker ps -a --format '{{.Image}}' | grep -c postgres"
)


def test_every_attack_on_the_proxy_is_refused(machine: Machine) -> None:
    others = machine.ssh("docker ps -q --no-trunc --filter label=dataops.dagster_gce=stack").split()
    image = machine.ssh(
        "docker inspect -f '{{.Image}}' $(docker ps -q --filter label=dataops.dagster_gce=release | head -1)"
    ).strip()
    runs = "docker ps -aq --filter label=dataops.dagster_gce=run --filter status=created | wc -l"
    before, created = machine.ssh(THINGS), machine.ssh(runs)
    program = (Path(__file__).parent / "attack.py").read_text(encoding="utf-8")
    given = json.dumps({"image": image, "containers": others})
    machine.ssh(f"cat >/run/attack.py <<'E'\n{program}\nE")
    said = machine.ssh(
        f"echo '{given}' | docker exec -i dagster-daemon python3 -c \"$(cat /run/attack.py)\"; rm /run/attack.py",
        timeout=180,
    )
    found = json.loads(said)
    assert found["control"] == "200", "the proxy does not answer: a test that cannot fail"
    # 501: a method that the proxy does not have at all.
    through = {name: status for name, status in found["attacks"].items() if not re.match("4|501|closed", status)}
    assert through == {}
    assert len(found["attacks"]) >= 90
    refused = [name for name, status in found["attacks"].items() if status == "closed"]
    assert len(refused) < 10, f"closed without an answer: {refused}"
    assert machine.ssh(THINGS) == before
    assert machine.ssh(runs) == created
    assert "healthy" in machine.ssh("docker inspect -f '{{.State.Health.Status}}' dagster-engine-proxy")
    log = machine.ssh("docker logs --since 3m dagster-engine-proxy 2>&1 | grep -c '^refuse'")
    assert int(log) >= 80
