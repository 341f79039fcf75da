"""`make demo` before it has begun."""

from __future__ import annotations

import socket
import time

import pytest
import yaml

from lab import demo
from lab.shell import LabError


def test_a_taken_port_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("DEMO_PORT", str(port))
        with pytest.raises(LabError, match=f"port {port} of 127.0.0.1 is in use; choose another one"):
            demo.run(time.monotonic())


def test_the_image_is_in_the_repository_of_the_inventory() -> None:
    cloud = yaml.safe_load((demo.ROOT / "inventory" / "lab" / "group_vars" / "dagster" / "cloud.yml").read_text())
    assert demo.REGION == cloud["gcp_location"] == cloud["gce_zone"].rpartition("-")[0]
    repository = f"dagster-core-{cloud['dagster_environment']}"
    assert f"{cloud['gcp_project']}/{repository}/docker_dagster_core" == demo.IMAGE
