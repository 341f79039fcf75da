"""What the audit looks at, asked for once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Machine

# Containers that are the product's, by their label.
LABEL = "dataops.dagster_gce"


@pytest.fixture(scope="session")
def found(machine: Machine) -> dict[str, Any]:
    """The answer of look.py, with a run in flight so that its container is among the others."""
    run = machine.launch("sleepy", {"ops": {"sleep": {"config": {"seconds": 60.0}}}})
    machine.wait_for_run(run, "STARTED", seconds=120)
    source = (Path(__file__).parent / "look.py").read_text(encoding="utf-8")
    answer: dict[str, Any] = json.loads(machine.ssh(f"python3 - <<'E'\n{source}\nE", timeout=180))
    machine.terminate(run)
    return answer


@pytest.fixture(scope="session")
def ours(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """`docker inspect` of each container of the product: part and name → what it says."""
    chosen = {}
    for each in found["containers"]:
        part = (each["Config"].get("Labels") or {}).get(LABEL)
        if part:
            chosen[f"{part} {each['Name'].lstrip('/')}"] = each
    parts = {name.split()[0] for name in chosen}
    assert parts >= {"stack", "release", "run"}, f"expected each part to run, found {parts}"
    return chosen
