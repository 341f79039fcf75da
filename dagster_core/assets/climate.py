"""Observations → monthly summaries → normals, with checks on what arrives."""

from calendar import monthrange
from collections import Counter
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

import dagster as dg

from dagster_core.types import CalendarMonthNormal, MonthlySummary, Observation
from dagster_core.utils.station import FIRST_MONTH, FIRST_MONTH_AFTER, read_month

WET_DAY_MM = 1.0  # the World Meteorological Organization's limit
HEATING_BASE_C = 18.0
COLDEST_C, HOTTEST_C = -40.0, 50.0

MONTHS = dg.MonthlyPartitionsDefinition(start_date=FIRST_MONTH, end_date=FIRST_MONTH_AFTER, fmt="%Y-%m")
Record = dict[str, Any]


@dg.asset(
    partitions_def=MONTHS,
    group_name="climate",
    kinds={"csv"},
    # In the asset, not as checks of their own: those cannot be partitioned yet (a preview in Dagster 1.13).
    check_specs=[
        dg.AssetCheckSpec("every_day_is_there", asset="station_observations", blocking=True),
        dg.AssetCheckSpec("temperatures_are_plausible", asset="station_observations"),
    ],
)
def station_observations(
    context: dg.AssetExecutionContext,
) -> Iterator[dg.Output[list[Observation]] | dg.AssetCheckResult]:
    """The days of a month as the station reported them, or as they were corrected since."""
    observations, source = read_month(context.partition_key)
    context.log.info("%d days of %s from %s", len(observations), context.partition_key, source)
    yield dg.Output(observations, metadata={"source": source.name, "days": len(observations)})
    yield every_day_is_there(context.partition_key, observations)
    yield temperatures_are_plausible(observations)


def every_day_is_there(month: str, observations: list[Observation]) -> dg.AssetCheckResult:
    """A month with missing or doubled days must not become a summary."""
    days = Counter(item.day for item in observations)
    expected = {f"{month}-{day:02d}" for day in range(1, monthrange(int(month[:4]), int(month[5:]))[1] + 1)}
    missing = sorted(expected - days.keys())
    doubled = sorted(day for day, times in days.items() if times > 1)
    return dg.AssetCheckResult(
        check_name="every_day_is_there",
        passed=not missing and not doubled,
        metadata={"days": len(observations), "missing": missing, "doubled": doubled},
    )


def temperatures_are_plausible(observations: list[Observation]) -> dg.AssetCheckResult:
    """The lowest is below the highest, and both are of this planet."""
    odd = [
        item.day for item in observations if not COLDEST_C <= item.temperature_min <= item.temperature_max <= HOTTEST_C
    ]
    return dg.AssetCheckResult(
        check_name="temperatures_are_plausible",
        passed=not odd,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"odd_days": odd},
    )


@dg.asset(partitions_def=MONTHS, group_name="climate")
def monthly_summaries(
    context: dg.AssetExecutionContext, station_observations: list[Record]
) -> dg.Output[MonthlySummary]:
    """Mean, extremes, rain and heating degree days of a month."""
    summary = summarise(context.partition_key, station_observations)
    return dg.Output(
        summary,
        metadata={"mean_temperature": summary.mean_temperature, "precipitation": summary.precipitation},
    )


@dg.asset(group_name="climate", ins={"monthly_summaries": dg.AssetIn(partition_mapping=dg.AllPartitionMapping())})
def climate_normals(monthly_summaries: Mapping[str, Record]) -> dg.Output[list[CalendarMonthNormal]]:
    """The mean of each calendar month over the years that are there."""
    normals = normals_of(list(monthly_summaries.values()))
    return dg.Output(normals, metadata={"calendar_months": len(normals), "months": len(monthly_summaries)})


@dg.asset_check(asset=climate_normals)
def summers_are_warmer(climate_normals: list[Record]) -> dg.AssetCheckResult:
    """A mix-up of months shows here first: July is warmer than January in Seattle."""
    by_month = {item["calendar_month"]: item["mean_temperature"] for item in climate_normals}
    if not {1, 7} <= by_month.keys():
        return dg.AssetCheckResult(passed=True, description="January or July is not there yet")
    return dg.AssetCheckResult(passed=by_month[7] > by_month[1], metadata={"january": by_month[1], "july": by_month[7]})


def summarise(month: str, observations: list[Record]) -> MonthlySummary:
    """One month's summary.

    Raises:
        dagster.Failure: there is no observation.
    """
    if not observations:
        raise dg.Failure(f"no observation for {month}")
    means = [(item["temperature_max"] + item["temperature_min"]) / 2 for item in observations]
    return MonthlySummary(
        month=month,
        days=len(observations),
        mean_temperature=round(fmean(means), 2),
        highest_temperature=max(item["temperature_max"] for item in observations),
        lowest_temperature=min(item["temperature_min"] for item in observations),
        precipitation=round(sum(item["precipitation"] for item in observations), 1),
        wet_days=sum(item["precipitation"] >= WET_DAY_MM for item in observations),
        wettest_day=max(observations, key=lambda item: item["precipitation"])["day"],
        heating_degree_days=round(sum(max(0.0, HEATING_BASE_C - mean) for mean in means), 1),
    )


def normals_of(summaries: list[Record]) -> list[CalendarMonthNormal]:
    """Normals by calendar month, from January on; months without a summary are left out."""
    normals = []
    for calendar_month in range(1, 13):
        same = [item for item in summaries if int(item["month"][5:]) == calendar_month]
        if same:
            normals.append(
                CalendarMonthNormal(
                    calendar_month=calendar_month,
                    years=len(same),
                    mean_temperature=round(fmean(item["mean_temperature"] for item in same), 2),
                    precipitation=round(fmean(item["precipitation"] for item in same), 1),
                    wet_days=round(fmean(item["wet_days"] for item in same), 1),
                )
            )
    return normals
