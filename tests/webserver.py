"""Dagster's webserver as the tests ask it: GraphQL, launching a run, a run's status."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# More than 1 where the computer has something else to do: waits are so much longer, and figures say nothing.
PATIENCE = float(os.environ.get("E2E_PATIENCE", "1"))
FINISHED = ("SUCCESS", "FAILURE", "CANCELED")
# What a query or a launch may end with while nothing serves.
LOST = (OSError, urllib.error.URLError, AssertionError, KeyError, TypeError, ValueError)
_LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus
  displayMetadata { key value } locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
# VERB is `start` or `reset`.
_TICKS = """mutation ($schedule: ScheduleSelector!, $sensor: SensorSelector!) {
  schedule: VERBSchedule(scheduleSelector: $schedule) { ... on ScheduleStateResult { scheduleState { status } } }
  sensor: VERBSensor(sensorSelector: $sensor) { ... on Sensor { sensorState { status } } } }"""

_STATUSES = """query ($runs: [String!]) { runsOrError(filter: {runIds: $runs}) { ... on Runs {
  results { runId status } } } }"""


@dataclass(frozen=True)
class Location:
    """A code location as the webserver has it; ``metadata`` has its ``host`` and ``image``."""

    loaded: bool
    metadata: dict[str, str]
    error: str


class Webserver(ABC):
    """Whatever has a webserver: a machine of the lab, a stack of containers."""

    @abstractmethod
    def address(self) -> str:
        """Where it answers, ``http://127.0.0.1:<port>``."""

    def graphql(self, query: str, timeout: float = 30, **variables: Any) -> dict[str, Any]:
        """Ask the webserver; returns the answer's ``data``. It has ``timeout`` seconds (times PATIENCE) for it."""
        request = urllib.request.Request(
            f"{self.address()}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=timeout * PATIENCE) as answer:
            body = json.load(answer)
        assert "errors" not in body, body["errors"]
        data: dict[str, Any] = body["data"]
        return data

    def locations(self, timeout: float = 30) -> dict[str, Location]:
        """The code locations by name."""
        found = {}
        for entry in self.graphql(_LOCATIONS, timeout=timeout)["workspaceOrError"]["locationEntries"]:
            inside = entry["locationOrLoadError"] or {}
            loaded = (entry["loadStatus"], inside.get("__typename")) == ("LOADED", "RepositoryLocation")
            metadata = {each["key"]: str(each["value"]) for each in entry["displayMetadata"]}
            found[entry["name"]] = Location(loaded, metadata, inside.get("message", ""))
        return found

    def serves(self) -> bool:
        """Whether it answers, with the user code loaded."""
        try:
            return self.locations()["dagster_core"].loaded
        except LOST:
            return False

    def launch(
        self,
        job: str,
        config: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        assets: Sequence[str] = (),
    ) -> str:
        """Launch a job of the location dagster_core, or (``__ASSET_JOB``) these assets of it; returns the run's id."""
        answer = self.graphql(
            """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
                 __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
                 ... on PipelineNotFoundError { message }
                 ... on RunConfigValidationInvalid { errors { message } } } }""",
            params={
                "selector": {
                    "repositoryLocationName": "dagster_core",
                    "repositoryName": "__repository__",
                    "pipelineName": job,
                }
                | ({"assetSelection": [{"path": [each]} for each in assets]} if assets else {}),
                "runConfigData": config or {},
                "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in (tags or {}).items()]},
            },
        )["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def switch_ticks(self, on: bool) -> None:
        """Start the load fixture's schedule and sensor, or have them off again, as they are by default."""
        where = {"repositoryLocationName": "dagster_core", "repositoryName": "__repository__"}
        answer = self.graphql(
            _TICKS.replace("VERB", "start" if on else "reset"),
            schedule={**where, "scheduleName": "every_minute"}, sensor={**where, "sensorName": "every_five_seconds"},
        )  # fmt: skip
        status = "RUNNING" if on else "STOPPED"
        expected = {"schedule": {"scheduleState": {"status": status}}, "sensor": {"sensorState": {"status": status}}}
        assert answer == expected, answer

    def run_status(self, run: str) -> str:
        """QUEUED, STARTED, SUCCESS, …"""
        query = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
        return str(self.graphql(query, id=run)["runOrError"]["status"])

    def run_statuses(self, runs: Sequence[str]) -> dict[str, str]:
        """The status of each, in one question: to ask for many is work that they wait for."""
        found = self.graphql(_STATUSES, runs=list(runs))["runsOrError"]["results"]
        return {each["runId"]: each["status"] for each in found}
