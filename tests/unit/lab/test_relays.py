"""What stands inside the lab's machines in Google's place is not cut off by the firewall that site.yml brings."""

from __future__ import annotations

import re
from pathlib import Path

import yaml


def test_the_lab_s_inventory_opens_what_the_relays_listen_on(root: Path) -> None:
    units = (root / "lab/images/machine/units").glob("*.socket")
    listening = {int(port) for unit in units for port in re.findall(r"^ListenStream=.*:(\d+)$", unit.read_text(), re.M)}
    assert listening
    settings = yaml.safe_load((root / "inventory/lab/group_vars/dagster/cloud.yml").read_text())
    # 53: the name server, which has no socket of systemd's.
    assert set(settings["host_hardening_open_ports"]) == listening | {53}
