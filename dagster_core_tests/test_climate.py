"""The pipeline over the bundled record, in process."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from dagster_core import defs
from dagster_core.assets.climate import MONTHS
from dagster_core.utils.station import RECORD, read_month


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance in memory."""
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def run_month(month: str, instance: dg.DagsterInstance, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
    """Run job climate_month for a month."""
    job = defs.resolve_job_def("climate_month")
    return job.execute_in_process(partition_key=month, instance=instance, raise_on_error=raise_on_error)


def land(storage: Path, month: str, drop_last: int = 0, **changes: str) -> Path:
    """Write a correction of a month: the record's rows with changed columns, the last rows left out."""
    with RECORD.open(newline="", encoding="utf-8") as file:
        rows = [row | changes for row in csv.DictReader(file) if row["date"].replace("/", "-").startswith(month)]
    rows = rows[: len(rows) - drop_last]
    path = storage / "landing" / f"{month}.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_every_month_of_the_record_is_complete() -> None:
    assert len(MONTHS.get_partition_keys()) == 48
    assert sum(len(read_month(month)[0]) for month in MONTHS.get_partition_keys()) == 1461


def test_a_month(instance: dg.DagsterInstance, storage: Path) -> None:
    result = run_month("2012-01", instance)
    checks = {item.check_name: item.passed for item in result.get_asset_check_evaluations()}
    assert checks == {"every_day_is_there": True, "temperatures_are_plausible": True}
    summary = json.loads((storage / "monthly_summaries" / "2012-01.json").read_text())
    # Independent of the code: awk over the file's lines of January 2012.
    assert summary["days"] == 31
    assert summary["precipitation"] == 173.3
    assert summary["highest_temperature"] == 12.8
    assert summary["wettest_day"] == "2012-01-29"


def test_normals_and_their_publication(instance: dg.DagsterInstance, storage: Path) -> None:
    for month in ("2012-01", "2013-01", "2012-07"):
        run_month(month, instance)
    result = defs.resolve_job_def("publish_normals").execute_in_process(instance=instance)
    assert [item.passed for item in result.get_asset_check_evaluations()] == [True]
    with (storage / "published" / "climate_normals.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["calendar_month"], row["years"]) for row in rows] == [("1", "2"), ("7", "1")]


def test_normals_with_one_month_only(instance: dg.DagsterInstance, storage: Path) -> None:
    run_month("2012-01", instance)
    assert defs.resolve_job_def("publish_normals").execute_in_process(instance=instance).success
    assert (storage / "climate_normals.json").exists()


def test_a_month_with_missing_days_gets_no_summary(instance: dg.DagsterInstance, storage: Path) -> None:
    land(storage, "2012-01", drop_last=2)
    result = run_month("2012-01", instance, raise_on_error=False)
    assert not result.success
    failed = [item for item in result.get_asset_check_evaluations() if not item.passed]
    assert [item.check_name for item in failed] == ["every_day_is_there"]
    assert failed[0].metadata["missing"].value == ["2012-01-30", "2012-01-31"]
    assert not (storage / "monthly_summaries").exists()


def test_implausible_temperatures_warn(instance: dg.DagsterInstance, storage: Path) -> None:
    land(storage, "2012-01", temp_max="-90")
    result = run_month("2012-01", instance)
    failed = [item.check_name for item in result.get_asset_check_evaluations() if not item.passed]
    assert failed == ["temperatures_are_plausible"]


def test_an_unreadable_row_names_file_field_and_row(instance: dg.DagsterInstance, storage: Path) -> None:
    land(storage, "2012-01", wind="n/a")
    with pytest.raises(ValueError, match=r"2012-01\.csv: cannot read field 'wind' of row .*'2012/01/01'"):
        run_month("2012-01", instance)


def test_what_is_not_materialised_is_named(instance: dg.DagsterInstance) -> None:
    result = dg.materialize(
        [defs.get_assets_def("published_normals"), *defs.get_assets_def("climate_normals").to_source_assets()],
        resources=dict(defs.resources or {}),
        instance=instance,
        raise_on_error=False,
        selection="published_normals",
    )
    failure = result.get_step_failure_events()[0].step_failure_data.error
    assert failure
    assert "climate_normals has not been materialised" in failure.to_string()


def test_the_sensor_asks_for_each_correction_once(storage: Path) -> None:
    sensor = defs.get_sensor_def("corrected_months")

    def tick(cursor: str | None) -> tuple[list[str | None], str | None]:
        with dg.build_sensor_context(cursor=cursor, definitions=defs) as context:
            data = sensor.evaluate_tick(context)
        return [request.partition_key for request in data.run_requests or []], data.cursor

    assert tick(None) == ([], "{}")
    first = land(storage, "2012-01")
    land(storage, "2012-02")
    land(storage, "2012-03").rename(first.with_name("notes.csv"))
    requested, cursor = tick("{}")
    assert requested == ["2012-01", "2012-02"]
    assert tick(cursor) == ([], cursor)
    first.touch()
    requested, cursor = tick(cursor)
    assert requested == ["2012-01"]
    first.unlink()
    assert tick(cursor)[0] == []


def test_the_platform_check_needs_a_writable_storage(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = defs.resolve_job_def("platform_check")
    assert job.execute_in_process(instance=instance).success
    monkeypatch.setenv("DAGSTER_STORAGE_DIR", "/nonexistent")
    with pytest.raises(dg.Failure, match="/nonexistent is not writable"):
        job.execute_in_process(instance=instance)
