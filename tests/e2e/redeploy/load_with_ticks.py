"""Load with the fixture's schedule and sensor beside it, and what came of every tick."""

from __future__ import annotations

import datetime
import itertools
import time
from collections import Counter
from typing import Any, Self

from tests.e2e.harness import wait
from tests.e2e.load import Load
from tests.webserver import PATIENCE

_RUNS = """query ($tags: [ExecutionTag!]) { runsOrError(filter: {tags: $tags}, limit: 1000) { ... on Runs {
  results { runId status creationTime tags { key value } } } } }"""
_TICKS = """query ($selector: InstigationSelector!, $after: Float!) {
  instigationStateOrError(instigationSelector: $selector) { ... on InstigationState { status
    ticks(limit: 1000, afterTimestamp: $after) { timestamp status skipReason runIds error { message } } } } }"""


class LoadWithTicks(Load):
    """The fixture's schedule and sensor are on during the block, which lasts at least one whole minute's tick."""

    def __enter__(self) -> Self:
        self.machine.switch_ticks(True)
        return super().__enter__()

    def __exit__(self, *raised: object) -> None:
        # Without a whole minute's tick inside there would be nothing to judge the schedule by.
        if not any(raised) and not self.minutes(time.time()):
            time.sleep(60.5 - time.time() % 60)
        super().__exit__(*raised)
        if not any(raised):
            last = self.minutes(self.ended)[-1]
            wait(lambda: last in self._evaluated(), 90, "that the last minute is evaluated", self._evaluated)
        self.machine.switch_ticks(False)

    def _runs_tagged(self, key: str, value: str) -> list[dict[str, Any]]:
        found = self.machine.graphql(_RUNS, tags=[{"key": key, "value": value}])
        results: list[dict[str, Any]] = found["runsOrError"]["results"]
        return [each for each in results if each["creationTime"] >= self.started]

    def _ticks(self, name: str) -> list[dict[str, Any]]:
        selector = {"repositoryName": "__repository__", "repositoryLocationName": "dagster_core", "name": name}
        found = self.machine.graphql(_TICKS, selector=selector, after=self.started)["instigationStateOrError"]
        return [each for each in found["ticks"] if self.started <= each["timestamp"]]

    def _schedule_ticks(self) -> list[dict[str, Any]]:
        return [each for each in self._ticks("every_minute") if each["status"] != "STARTED"]

    def _evaluated(self) -> set[int]:
        return {round(each["timestamp"]) for each in self._schedule_ticks()}

    def minutes(self, ended: float) -> range:
        """The whole minutes between the load's start and ``ended``, each of which is a tick of the schedule."""
        return range(int(self.started // 60 + 1) * 60, int(ended // 60) * 60 + 1, 60)

    def schedule_problems(self) -> list[str]:
        """Minutes of the load that were not evaluated exactly once, each with exactly one run."""
        minutes = self.minutes(self.ended)
        assert minutes, "the load spans no tick of the schedule"
        ticks = [each for each in self._schedule_ticks() if round(each["timestamp"]) <= minutes[-1]]
        problems = [
            f"tick {each['timestamp']}: {each['status']} {each['error']}"
            for each in ticks
            if each["status"] != "SUCCESS"
        ]
        count = Counter(round(each["timestamp"]) for each in ticks)
        problems += [f"minute {minute} was evaluated {count[minute]} times" for minute in minutes if count[minute] != 1]
        launched = [_tag(each, "load/tick") for each in self._runs_tagged("dagster/schedule_name", "every_minute")]
        # The schedule is switched off after the block: a minute that began in between is not looked at.
        runs = Counter(each for each in launched if datetime.datetime.fromisoformat(each).timestamp() <= minutes[-1])
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
            if later - sooner > 30 * PATIENCE
        ]
        return problems


def _tag(run: dict[str, Any], key: str) -> str:
    return next((str(each["value"]) for each in run["tags"] if each["key"] == key), "")
