"""The table that other people read."""

from typing import Any

import dagster as dg

from dagster_core.utils.resources import Publisher


@dg.asset(group_name="climate", kinds={"table"})
def published_normals(
    climate_normals: list[dict[str, Any]], publisher: dg.ResourceParam[Publisher]
) -> dg.MaterializeResult[None]:
    """The normals in BigQuery where GCP_PROJECT is set, else as CSV in the storage folder."""
    where = publisher.publish("climate_normals", climate_normals)
    return dg.MaterializeResult(metadata={"where": where, "rows": len(climate_normals)})
