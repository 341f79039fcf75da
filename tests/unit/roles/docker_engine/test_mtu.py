"""The size of Docker's packets follows the machine's network where that carries less."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from tests.unit.programs import load

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
wlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
ens4\t00000000\t0100800A\t0003\t0\t0\t100\t00000000\t0\t0\t0
ens4\t0100800A\t00000000\t0005\t0\t0\t100\tFFFFFFFF\t0\t0\t0
"""


@pytest.fixture(scope="module")
def inspect_machine(root: Path) -> ModuleType:
    found: ModuleType = load(root / "roles/docker_engine/files/inspect_machine.py")
    return found


def test_interface_of_the_default_route(inspect_machine: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "route").write_text(ROUTES)
    for name, mtu in (("ens4", 1460), ("wlan0", 1400), ("docker0", 1500)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mtu").write_text(f"{mtu}\n")
    assert inspect_machine.default_mtu(str(tmp_path / "route"), str(tmp_path)) == 1460


@pytest.mark.parametrize("routes", ["", ROUTES.splitlines()[0], "\n".join(ROUTES.splitlines()[:2])])
def test_no_default_route(inspect_machine: ModuleType, tmp_path: Path, routes: str) -> None:
    (tmp_path / "route").write_text(routes)
    assert inspect_machine.default_mtu(str(tmp_path / "route"), str(tmp_path)) == 0


def test_no_such_file(inspect_machine: ModuleType, tmp_path: Path) -> None:
    assert inspect_machine.default_mtu(str(tmp_path / "route"), str(tmp_path)) == 0


SIZED = {"mtu": 1460, "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1460"}}}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "smaller": ({"__docker_engine_machine": {"mtu": 1460}}, SIZED),
    "as Docker's": ({"__docker_engine_machine": {"mtu": 1500}}, {}),
    "jumbo": ({"__docker_engine_machine": {"mtu": 8896}}, {}),
    "no default route": ({"__docker_engine_machine": {"mtu": 0}}, {}),
    "not looked at yet": ({}, {}),
    "asked for": ({"__docker_engine_machine": {"mtu": 1500}, "docker_engine_mtu": 1460}, SIZED),
    "as text": ({"docker_engine_mtu": "1460"}, SIZED),
    "switched off": ({"__docker_engine_machine": {"mtu": 1460}, "docker_engine_mtu": 1500}, {}),
    "overridden": (
        {"__docker_engine_machine": {"mtu": 1460}, "docker_engine_daemon_overrides": {"default-network-opts": None}},
        {"mtu": 1460},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_daemon_json(root: Path, case: str) -> None:
    given, expected = CASES[case]
    loader = DataLoader()
    variables: dict[str, Any] = {}
    for part in ("defaults", "vars"):
        path = root / f"roles/docker_engine/{part}/main.yml"
        variables |= loader.load_from_file(str(path), trusted_as_template=True)
    rendered = Templar(loader, variables=variables | given).template(variables["__docker_engine_daemon_json"])
    written = json.loads(rendered)
    assert written["live-restore"] is True
    assert {key: written[key] for key in SIZED if key in written} == expected
