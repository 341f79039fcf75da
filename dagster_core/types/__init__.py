"""The records that pass between assets."""

from dagster_core.types.weather import CalendarMonthNormal, MonthlySummary, Observation

__all__ = ["CalendarMonthNormal", "MonthlySummary", "Observation"]
