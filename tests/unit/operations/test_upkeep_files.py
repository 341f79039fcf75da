"""Files that upkeep removes, and those that it must not."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import upkeep_docker, upkeep_files

DAY = 86400


def written(path: Path, days: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x" * 5000)
    moment = time.time() - days * DAY
    for each in (path, path.parent, path.parent.parent):
        os.utime(each, (moment, moment))
    return path


def logs(volume: Path, days: float) -> tuple[str, Path]:
    run = str(uuid.uuid4())
    return run, written(volume / "compute_logs" / run / "compute_logs" / "step.err", days)


def test_logs_go_with_age_and_those_of_lost_runs_after_a_day(tmp_path: Path) -> None:
    old, old_file = logs(tmp_path, 31)
    young, young_file = logs(tmp_path, 29)
    _, gone_file = logs(tmp_path, 2)
    _, coming_file = logs(tmp_path, 0.5)
    flying, flying_file = logs(tmp_path, 300)
    arguments = (str(tmp_path), {old, young, flying}, {flying}, 30, 120)
    assert upkeep_files.remove_compute_logs(*arguments, dry=True)[0] == 2
    assert old_file.exists()
    count, size = upkeep_files.remove_compute_logs(*arguments)
    assert count == 2
    assert size >= 10_000
    assert not old_file.parent.parent.exists()
    assert not gone_file.parent.parent.exists()
    assert all(each.exists() for each in (young_file, coming_file, flying_file))


def test_a_run_that_still_writes_keeps_its_logs(tmp_path: Path) -> None:
    run, file = logs(tmp_path, 300)
    fresh = file.with_name("other.out")
    fresh.write_text("x")
    moment = time.time() - 300 * DAY
    os.utime(file.parent, (moment, moment))
    assert upkeep_files.remove_compute_logs(str(tmp_path), {run}, set(), 30, 120) == (0, 0)


def test_never_means_never(tmp_path: Path) -> None:
    run, file = logs(tmp_path, 3000)
    upkeep_files.remove_compute_logs(str(tmp_path), {run}, set(), 0, 120)
    assert file.exists()


def test_logs_of_ticks_go_with_the_ticks(tmp_path: Path) -> None:
    old = written(tmp_path / "compute_logs" / "__repository__" / "sensor" / "1.err", 130)
    young = written(tmp_path / "compute_logs" / "__repository__" / "sensor" / "2.err", 100)
    assert upkeep_files.remove_compute_logs(str(tmp_path), set(), set(), 30, 120)[0] == 1
    assert not old.exists()
    assert young.exists()


def test_what_io_managers_wrote_is_never_touched(tmp_path: Path) -> None:
    file = written(tmp_path / "storage" / "asset" / "data", 3000)
    beside = written(tmp_path / str(uuid.uuid4()) / "step" / "result", 3000)
    upkeep_files.remove_compute_logs(str(tmp_path), set(), set(), 1, 1)
    assert file.exists()
    assert beside.exists()


def test_links_of_the_users_code_lead_nowhere(tmp_path: Path) -> None:
    elsewhere = written(tmp_path / "etc" / "inside" / "passwd", 3000)
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "compute_logs").symlink_to(tmp_path / "etc")
    upkeep_files.remove_compute_logs(str(volume), set(), set(), 1, 1)
    assert elsewhere.exists()
    (volume / "compute_logs").unlink()
    (volume / "compute_logs" / "tick").mkdir(parents=True)
    (volume / "compute_logs" / str(uuid.uuid4())).symlink_to(tmp_path / "etc")
    (volume / "compute_logs" / "tick" / "link").symlink_to(tmp_path / "etc")
    upkeep_files.remove_compute_logs(str(volume), set(), set(), 1, 1)
    assert elsewhere.exists()


def test_a_volume_without_logs_is_fine(tmp_path: Path) -> None:
    assert upkeep_files.remove_compute_logs(str(tmp_path), set(), set(), 1, 1) == (0, 0)


@pytest.mark.parametrize(
    ("shown", "size"), [("0B", 0), ("1.5kB", 1500), ("12.3MB", 12_300_000), ("2GB", 2_000_000_000), ("", 0)]
)
def test_sizes_as_docker_prints_them(shown: str, size: int) -> None:
    assert upkeep_docker.size(shown) == size
