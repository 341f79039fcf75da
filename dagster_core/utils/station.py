"""The station's files: the bundled record, and corrections that arrive in the landing folder."""

import csv
from pathlib import Path

from dagster_core.types import Observation
from dagster_core.utils.storage import landing_dir

RECORD = Path(__file__).parent.parent / "data" / "seattle-weather.csv"
FIRST_MONTH, FIRST_MONTH_AFTER = "2012-01", "2016-01"


def read_month(month: str) -> tuple[list[Observation], Path]:
    """The observations of a month `YYYY-MM` and the file that they come from.

    A corrected month in the landing folder wins over the bundled record.
    """
    correction = landing_dir() / f"{month}.csv"
    source = correction if correction.exists() else RECORD
    with source.open(newline="", encoding="utf-8") as file:
        observations = [Observation.from_row(row, source.name) for row in csv.DictReader(file)]
    return [item for item in observations if item.day.startswith(month)], source
