"""The jobs."""

import dagster as dg

from dagster_core.assets import climate, publication
from dagster_core.ops.platform import check_platform

climate_month = dg.define_asset_job(
    "climate_month",
    selection=dg.AssetSelection.assets(climate.station_observations, climate.monthly_summaries),
    description="One month: observations, their checks, its summary.",
)

publish_normals = dg.define_asset_job(
    "publish_normals",
    selection=dg.AssetSelection.assets(climate.climate_normals, publication.published_normals),
    description="The normals over every month that is there, and their publication.",
)


@dg.job(executor_def=dg.in_process_executor, tags={"purpose": "proof"})
def platform_check() -> None:
    """One op without data: site.yml and deploy_core.yml launch it as their proof."""
    check_platform()


JOBS = (climate_month, publish_normals, platform_check)
