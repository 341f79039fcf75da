"""A sensor that runs a month again when its correction arrives."""

import json
from collections.abc import Iterator

import dagster as dg

from dagster_core.assets.climate import MONTHS
from dagster_core.pipelines.jobs import climate_month
from dagster_core.utils.storage import landing_dir


@dg.sensor(job=climate_month, minimum_interval_seconds=30)
def corrected_months(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """One run per new or changed `YYYY-MM.csv` in the landing folder.

    The cursor holds the modification time in ns of every file that was seen: a clock that jumps or two files of one
    moment lose nothing, unlike a single "latest" time.
    """
    seen: dict[str, int] = json.loads(context.cursor) if context.cursor else {}
    known = set(MONTHS.get_partition_keys())
    found = {path.stem: path.stat().st_mtime_ns for path in sorted(landing_dir().glob("*.csv"))}
    changed = {month: time for month, time in found.items() if seen.get(month) != time}
    for month in sorted(changed.keys() - known):
        context.log.warning("%s.csv is no month of the record, ignored", month)
    for month in sorted(changed.keys() & known):
        yield dg.RunRequest(run_key=f"{month}:{changed[month]}", partition_key=month)
    if not changed.keys() & known:
        yield dg.SkipReason(f"nothing new in {landing_dir()} ({len(found)} files)")
    context.update_cursor(json.dumps(found, sort_keys=True))


SENSORS = [corrected_months]
