"""The schedules. They are off until somebody turns them on, which is Dagster's own default."""

import dagster as dg

from dagster_core.pipelines.jobs import publish_normals

publish_every_morning = dg.ScheduleDefinition(
    name="publish_every_morning",
    job=publish_normals,
    cron_schedule="0 6 * * *",
    execution_timezone="UTC",
)

SCHEDULES = [publish_every_morning]
