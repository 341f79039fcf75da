"""What happens to a machine's power, for every status and every wish."""

from __future__ import annotations

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_instance_power import Power


@pytest.mark.parametrize(
    ("status", "state", "needs_stop", "stop", "start", "after"),
    [
        ("RUNNING", "present", False, False, False, "RUNNING"),
        ("RUNNING", "present", True, True, True, "RUNNING"),
        ("RUNNING", "started", True, True, True, "RUNNING"),
        ("RUNNING", "stopped", False, True, False, "TERMINATED"),
        ("RUNNING", "stopped", True, True, False, "TERMINATED"),
        ("STAGING", "started", False, False, False, "STAGING"),
        ("REPAIRING", "present", False, False, False, "REPAIRING"),
        ("TERMINATED", "present", True, False, False, "TERMINATED"),
        ("TERMINATED", "stopped", True, False, False, "TERMINATED"),
        ("TERMINATED", "started", True, False, True, "RUNNING"),
        ("STOPPED", "started", False, False, True, "RUNNING"),
        ("STOPPING", "present", False, False, False, "STOPPING"),
        ("STOPPING", "stopped", False, False, False, "STOPPING"),
        ("STOPPING", "started", False, False, True, "RUNNING"),
        ("SUSPENDED", "present", False, False, False, "SUSPENDED"),
        ("SUSPENDED", "present", True, True, False, "TERMINATED"),
        ("SUSPENDED", "stopped", False, True, False, "TERMINATED"),
        ("SUSPENDED", "started", False, False, True, "RUNNING"),
        ("SUSPENDED", "started", True, True, True, "RUNNING"),
    ],
)
def test_power(status: str, state: str, needs_stop: bool, stop: bool, start: bool, after: str) -> None:
    power = Power.of(status, state, needs_stop)
    assert (power.stop, power.start, power.after) == (stop, start, after)
