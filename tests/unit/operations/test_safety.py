"""What waits for a person, and for how long it may."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import safety


def test_a_rotation_that_was_killed_is_told_after_a_minute(tmp_path: Path) -> None:
    assert safety.of_rotation(str(tmp_path)) == []
    pending = tmp_path / ".env.rotation"
    pending.write_text("c4n4ry")
    assert safety.of_rotation(str(tmp_path)) == []
    os.utime(pending, (time.time() - 61,) * 2)
    (problem,) = safety.of_rotation(str(tmp_path))
    assert (problem.name, problem.severity) == ("rotation", "critical")
    assert "rotate_secrets.yml" in problem.text
    assert "c4n4ry" not in problem.text


def test_an_update_may_wait_a_week_for_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "reboot-required"
    monkeypatch.setattr(safety, "REBOOT_REQUIRED", str(mark))
    assert safety.of_reboot() == []
    mark.touch()
    assert safety.of_reboot() == []
    os.utime(mark, (time.time() - 8 * 86400,) * 2)
    (problem,) = safety.of_reboot()
    assert (problem.name, problem.severity) == ("reboot", "warning")
    assert "waited 8 days" in problem.text
