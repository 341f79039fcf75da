"""Weather records. Temperatures in °C, precipitation in mm, wind in m/s."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime


@dataclass(frozen=True, slots=True)
class Observation:
    """One day at the station."""

    day: str
    precipitation: float
    temperature_max: float
    temperature_min: float
    wind: float
    weather: str

    @classmethod
    def from_row(cls, row: Mapping[str, str], source: str) -> "Observation":
        """Read a row of the station's CSV.

        Raises:
            ValueError: names the source, the row and the field that cannot be read.
        """
        field = "date"
        try:
            day = _parse_day(row["date"])
            numbers = {}
            for field in ("precipitation", "temp_max", "temp_min", "wind"):
                numbers[field] = float(row[field])
            field = "weather"
            weather = row["weather"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{source}: cannot read field {field!r} of row {dict(row)!r}: {error}") from error
        return cls(
            day=day.isoformat(),
            precipitation=numbers["precipitation"],
            temperature_max=numbers["temp_max"],
            temperature_min=numbers["temp_min"],
            wind=numbers["wind"],
            weather=weather,
        )


@dataclass(frozen=True, slots=True)
class MonthlySummary:
    """What one month was like."""

    month: str
    days: int
    mean_temperature: float
    highest_temperature: float
    lowest_temperature: float
    precipitation: float
    wet_days: int
    wettest_day: str
    heating_degree_days: float


@dataclass(frozen=True, slots=True)
class CalendarMonthNormal:
    """What a calendar month (1 to 12) is like over the years on record."""

    calendar_month: int
    years: int
    mean_temperature: float
    precipitation: float
    wet_days: float


def _parse_day(text: str) -> date:
    """The station writes 2012/01/31; corrections may use ISO dates."""
    return datetime.strptime(text.replace("/", "-"), "%Y-%m-%d").date()
