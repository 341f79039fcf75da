"""Everything that Dagster is told about: assets, checks, jobs, schedules, sensors and resources."""

import dagster as dg

from dagster_core.assets import climate, publication
from dagster_core.pipelines.jobs import JOBS
from dagster_core.pipelines.schedules import SCHEDULES
from dagster_core.pipelines.sensors import SENSORS
from dagster_core.utils.resources import resources_for_environment

defs = dg.Definitions(
    assets=dg.load_assets_from_modules([climate, publication]),
    asset_checks=dg.load_asset_checks_from_modules([climate]),
    jobs=JOBS,
    schedules=SCHEDULES,
    sensors=SENSORS,
    resources=resources_for_environment(),
    # A step takes milliseconds here; a process for each would cost a second of imports.
    executor=dg.in_process_executor,
)
