"""Load with the fixture's schedule and sensor beside it, and what came of every tick."""

from __future__ import annotations

import datetime
import itertools
import time
from collections import Counter
from typing import Any

from tests.e2e.harness import wait
from tests.e2e.load import Load

_RUNS = """query ($tags: [ExecutionTag!]) { runsOrError(filter: {tags: $tags}, limit: 1000) { ... on Runs {
  results { runId status creationTime tags { key value } } } } }"""
_TICKS = """query ($selector: InstigationSelector!, $after: Float!) {
  instigationStateOrError(instigationSelector: $selector) { ... on InstigationState { status
    ticks(limit: 1000, afterTimestamp: $after) { timestamp status skipReason runIds error { message } } } } }"""


class LoadWithTicks(Load):
    """The block lasts at least one whole minute's tick."""

    def __exit__(self, *raised: object) -> None:
        # Without a whole minute's tick inside there would be nothing to judge the schedule by.
        if not any(raised) and not self.minutes(time.time()):
            time.sleep(60.5 - time.time() % 60)
        super().__exit__(*raised)

    def _runs_tagged(self, key: str, value: str) -> list[dict[str, Any]]:
        found = self.machine.graphql(_RUNS, tags=[{"key": key, "value": value}])
        results: list[dict[str, Any]] = found["runsOrError"]["results"]
        return [each for each in results if each["creationTime"] >= self.started]

    def _ticks(self, name: str) -> list[dict[str, Any]]:
        selector = {"repositoryName": "__repository__", "repositoryLocationName": "dagster_core", "name": name}
        found = self.machine.graphql(_TICKS, selector=selector, after=self.started)["instigationStateOrError"]
        return [each for each in found["ticks"] if self.started <= each["timestamp"]]

    def minutes(self, ended: float) -> range:
        """The whole minutes between the load's start and ``ended``, each of which is a tick of the schedule."""
        return range(int(self.started // 60 + 1) * 60, int(ended // 60) * 60 + 1, 60)

    def schedule_problems(self) -> list[str]:
        """Minutes of the load that were not evaluated exactly once, each with exactly one run."""
        minutes = self.minutes(self.ended)
        assert minutes, "the load spans no tick of the schedule"
        last = minutes[-1]

        def ended() -> list[dict[str, Any]]:
            found = [each for each in self._ticks("every_minute") if round(each["timestamp"]) <= last]
            return [each for each in found if each["status"] != "STARTED"]

        def evaluated() -> Counter[int]:
            return Counter(round(each["timestamp"]) for each in ended())

        wait(lambda: evaluated()[last] > 0, 90, "that the last minute is evaluated", evaluated)
        ticks = ended()
        problems = [
            f"tick {each['timestamp']}: {each['status']} {each['error']}"
            for each in ticks
            if each["status"] != "SUCCESS"
        ]
        count = Counter(round(each["timestamp"]) for each in ticks)
        problems += [f"minute {minute} was evaluated {count[minute]} times" for minute in minutes if count[minute] != 1]
        runs = Counter(_tag(each, "load/tick") for each in self._runs_tagged("dagster/schedule_name", "every_minute"))
        expected = {datetime.datetime.fromtimestamp(each, datetime.UTC).isoformat() for each in minutes}
        return problems + [f"tick {tick} has {runs[tick]} runs" for tick in expected | set(runs) if runs[tick] != 1]

    def sensor_problems(self) -> list[str]:
        """Numbers that the sensor's cursor skipped or used twice, ticks that failed, runs that were doubled."""
        ticks = [each for each in self._ticks("every_five_seconds") if each["status"] != "STARTED"]
        problems = [
            f"tick {each['timestamp']}: {each['status']} {each['error']}"
            for each in ticks
            if each["status"] == "FAILURE"
        ]
        runs = Counter(
            _tag(each, "load/sensor_tick") for each in self._runs_tagged("dagster/sensor_name", "every_five_seconds")
        )
        problems += [f"sensor tick {tick} has {number} runs" for tick, number in runs.items() if number != 1]
        numbers = [int(each["skipReason"].split()[1]) for each in ticks if each["skipReason"]]
        numbers += [int(tick) for tick in runs]
        count = Counter(numbers)
        if numbers:
            expected = range(min(numbers), max(numbers) + 1)
            problems += [f"sensor tick {each} came {count[each]} times" for each in expected if count[each] != 1]
        else:
            problems.append("the sensor was not evaluated at all")
        gaps = sorted(each["timestamp"] for each in ticks)
        problems += [
            f"no sensor tick for {later - sooner:.0f} s"
            for sooner, later in itertools.pairwise(gaps)
            if later - sooner > 30
        ]
        return problems


def _tag(run: dict[str, Any], key: str) -> str:
    return next((str(each["value"]) for each in run["tags"] if each["key"] == key), "")
