"""The way out of the machine is cut: registry, Google and DNS are gone. Deploys say so; everything else goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.e2e import rows
from tests.e2e.faults import health
from tests.e2e.faults.conftest import TIMES, VARIABLES
from tests.e2e.harness import Machine

# What is dropped; SSH comes in and is answered. DROP and not REJECT: a network that is gone says nothing.
CUTS = {
    "network to registry and Google gone": ["-o eth0 -m conntrack --ctstate NEW -j DROP"],
    "DNS gone": ["-o eth0 -p udp --dport 53 -j DROP", "-o eth0 -p tcp --dport 53 -j DROP"],
}


# The first takes DNS along.
@pytest.fixture(params=CUTS if TIMES > 1 else list(CUTS)[:1])
def cut(request: pytest.FixtureRequest, machine: Machine) -> Iterator[str]:
    def rules(action: str) -> str:
        chains = ("OUTPUT", "DOCKER-USER")
        return "\n".join(f"iptables {action} {chain} {rule}" for chain in chains for rule in CUTS[request.param])

    machine.ssh(f"set -e\n{rules('-I')}")
    yield request.param
    machine.ssh(rules("-D"))


def test_deploys_say_so_and_all_else_goes_on(machine: Machine, cut: str) -> None:
    served = machine.locations()["dagster_core"].metadata["host"]
    image = "registry.example:5000/e2e/absent:1" if cut == "DNS gone" else "registry.lab:5000/e2e/absent:1"
    played = machine.play("deploy_core.yml", **(VARIABLES | {"dagster_core_image": image}))
    print(f"{cut}: refused after {played.seconds:.1f} s:\n{played.output[-1500:]}")
    played.refused(image, "no connection to the registry")
    assert machine.locations()["dagster_core"].metadata["host"] == served
    # A container that has to start finds the others without the world's DNS.
    restart = time.time()
    machine.ssh("docker restart --time 5 dagster-webserver")
    seconds = health.seconds_until_healthy(machine, restart)
    note = f"a deploy was refused after {played.seconds:.0f} s; a restarted webserver served after {seconds:.0f} s"
    rows.write("faults", cut, 1, "nothing", [], note)
