# SPDX-License-Identifier: Apache-2.0
"""How many runs have ended, as counters that only grow.

Counting the table would not do: upkeep removes runs, and Prometheus takes a counter that falls for one that began again
at zero. So what ended since the last look is added to what a file says.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files
from ansible_collections.dataops.dagster_gce.plugins.module_utils.graphql import FINISHED
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config, database, jobs

# A run's last event carries the time at which it was made; it may be committed a little later.
LAG = 10.0

# idx_run_range (status, update_timestamp, …) serves both; update_timestamp is never before the run's end.
_ALL = (
    "SELECT status, count(*) FROM runs WHERE status IN {results} AND coalesce(end_time, 0) <= {until} GROUP BY status"
)
_SINCE = """
SELECT status, count(*) FROM runs WHERE status IN {results}
AND update_timestamp >= (to_timestamp({since}) AT TIME ZONE 'UTC') - interval '1 minute'
AND end_time > {since} AND end_time <= {until} GROUP BY status
"""


def path() -> str:
    """The file with the counters."""
    return os.path.join(config.stack().state, "metrics_counters.json")


def runs(now: float | None = None) -> dict[str, int]:
    """Runs that ended so far by result, the last `LAG` seconds left out.

    Raises:
        database.DatabaseError
    """
    until = (time.time() if now is None else now) - LAG
    with contextlib.suppress(jobs.BusyError), jobs.lock("metrics-counters"):
        known = _read()
        since = known.get("until")
        # A clock that was set back by much: what it says now may be counted again in an hour, or never.
        if since is not None and since >= until:
            return _counts(known)
        wanted = {"results": "('" + "', '".join(FINISHED) + "')", "since": repr(since), "until": repr(until)}
        found = database.query((_ALL if since is None else _SINCE).format(**wanted), timeout=10)
        counts = _counts(known)
        for status, count in found:
            counts[status] = counts.get(status, 0) + int(count)
        _write({"until": until, "runs": counts})
        return counts
    return _counts(_read())


def _counts(known: dict[str, Any]) -> dict[str, int]:
    given = known.get("runs")
    given = given if isinstance(given, dict) else {}
    return {each: int(given.get(each, 0)) for each in FINISHED}


def _read() -> dict[str, Any]:
    try:
        with open(path(), encoding="utf-8") as stream:
            found = json.load(stream)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(content: dict[str, Any]) -> None:
    # A full disk must not take the metrics away, which say so: the next look counts again from where the file stands.
    with contextlib.suppress(OSError):
        files.replace(path(), json.dumps(content).encode(), jobs.STATE_FILE)
