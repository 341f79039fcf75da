# SPDX-License-Identifier: Apache-2.0
"""The proof that a Dagster works: daemons healthy, location loaded, one run to its end; else the cause."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import code_server, docker_cli, graphql, swarm

_LAUNCH = """
mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PipelineNotFoundError { message }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on UnauthorizedError { message }
    ... on PythonError { message stack causes { message stack } }
  }
}
"""
_CANCEL = """mutation ($id: String!) { terminateRun(runId: $id) { __typename } }"""
_RUN = """
query($id: ID!, $cursor: String) {
  runOrError(runId: $id) { __typename ... on Run { status startTime endTime tags { key value } } }
  logsForRun(runId: $id, afterCursor: $cursor, limit: 1000) {
    __typename
    ... on EventConnection {
      cursor hasMore
      events {
        __typename
        ... on MessageEvent { message level stepKey timestamp }
        ... on ErrorEvent { error { message stack causes { message stack } } }
      }
    }
  }
}
"""
_JOBS = """
query($selector: RepositorySelector!) {
  repositoryOrError(repositorySelector: $selector) { __typename ... on Repository { jobs { name } } }
}
"""


class ProofError(Exception):
    """It does not work; the message says what, and shows the cause."""


@dataclass(frozen=True)
class Expectation:
    """What has to hold, and where to look when it does not."""

    location: str = "dagster_core"
    job: str = "platform_check"
    launch: bool = False
    job_required: bool = False
    deadline: float = 180
    webserver_container: str = "dagster-webserver"
    daemon_container: str = "dagster-daemon"
    log_lines: int = 30
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Proof:
    """What was seen."""

    daemons: dict[str, bool] = field(default_factory=dict)
    image: str = ""
    host: str = ""
    run_id: str = ""
    run_status: str = ""
    run_seconds: float | None = None
    not_launched: str = ""
    seconds: float = 0.0


def prove(webserver: graphql.Webserver, expected: Expectation) -> Proof:
    """Wait until everything holds.

    Raises:
        ProofError: it does not within the deadline, or cannot any more.
    """
    started = time.monotonic()
    deadline = started + expected.deadline
    proof = Proof()
    location = _wait_until_healthy(webserver, expected, deadline, proof)
    proof.host, proof.image = location.host, location.image
    if expected.launch:
        repository = _repository_with(webserver, location, expected.job)
        if repository is None:
            text = f"code location {expected.location} has no job {expected.job}, so no run was launched as a proof"
            if expected.job_required:
                raise ProofError(
                    f"dagster_proof_job: found {expected.job!r}; expected a job of code location {expected.location}"
                )
            proof.not_launched = text
        else:
            _run(webserver, expected, repository, deadline, proof)
    proof.seconds = round(time.monotonic() - started, 3)
    return proof


def _wait_until_healthy(
    webserver: graphql.Webserver, expected: Expectation, deadline: float, proof: Proof
) -> graphql.Location:
    problem = ""
    blame = expected.webserver_container
    while True:
        try:
            daemons = webserver.daemons()
            location = webserver.locations().get(expected.location)
            proof.daemons = {each.kind: each.healthy for each in daemons if each.required}
            ill = [each for each in daemons if each.required and not each.healthy]
            if location is None:
                problem = f"the webserver knows no code location {expected.location}"
                # Only a release changes that.
                break
            blame = location.host or blame
            if location.error:
                problem = f"code location {expected.location} does not load:\n{location.error}"
            elif not location.loaded:
                problem = (
                    f"code location {expected.location} is {location.load_status or 'not loaded'}; expected LOADED"
                )
            elif _gone(location.host):
                # The webserver notices a server that is gone only after some ten seconds.
                problem = f"code location {expected.location} does not answer: {location.host} does not run"
            elif ill:
                blame = expected.daemon_container
                problem = "not healthy: " + "; ".join(_ill(each) for each in ill)
            elif not proof.daemons:
                problem, blame = (
                    "the instance requires no daemon; expected at least the run queue's",
                    expected.daemon_container,
                )
            else:
                return location
        except graphql.WebserverUnreachableError as error:
            problem, blame = str(error), expected.webserver_container
        except graphql.GraphQLError as error:
            problem, blame = f"the webserver answers with an error: {error}", expected.webserver_container
        if time.monotonic() > deadline or _gone(blame):
            break
        time.sleep(0.5)
    raise ProofError(f"{problem}\n{_said(blame, expected.log_lines)}")


def _ill(daemon: graphql.Daemon) -> str:
    if daemon.errors:
        return f"daemon {daemon.kind} reports: " + " / ".join(daemon.errors)
    if not daemon.last_heartbeat:
        return f"daemon {daemon.kind} has sent no heartbeat yet"
    return f"daemon {daemon.kind} sent its last heartbeat {time.time() - daemon.last_heartbeat:.0f} s ago"


def _gone(name: str) -> bool:
    """Waiting is pointless: the container has ended and nothing starts it again."""
    with contextlib.suppress(docker_cli.DockerError):
        found = code_server.container(name)
        return found is not None and found.status in ("exited", "dead")
    return False


def _said(name: str, lines: int) -> str:
    with contextlib.suppress(docker_cli.DockerError):
        found = code_server.container(name)
        if found is None:
            return f"There is no container {name} on this machine."
        state = found.status + (f" (exit code {found.exit_code})" if found.status == "exited" else "")
        return f"Container {name} is {state}. Its last log lines:\n{code_server.logs(name, lines)}"
    return ""


def _repository_with(webserver: graphql.Webserver, location: graphql.Location, job: str) -> str | None:
    for repository in location.repositories:
        data = webserver.query(
            _JOBS, {"selector": {"repositoryName": repository, "repositoryLocationName": location.name}}
        )
        if job in [each["name"] for each in data["repositoryOrError"].get("jobs", [])]:
            return repository
    return None


def _run(webserver: graphql.Webserver, expected: Expectation, repository: str, deadline: float, proof: Proof) -> None:
    parameters = {
        "selector": {
            "repositoryLocationName": expected.location,
            "repositoryName": repository,
            "jobName": expected.job,
        },
        "runConfigData": {},
        "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in expected.tags.items()]},
    }
    started = time.monotonic()
    launched = webserver.query(_LAUNCH, {"params": parameters})["launchRun"]
    if launched["__typename"] != "LaunchRunSuccess":
        details = "; ".join(each["message"] for each in launched.get("errors") or ()) or graphql.error_text(launched)
        raise ProofError(f"job {expected.job} could not be launched ({launched['__typename']}): {details}")
    proof.run_id = launched["run"]["runId"]
    events: list[dict[str, Any]] = []
    cursor = None
    while True:
        data = webserver.query(_RUN, {"id": proof.run_id, "cursor": cursor})
        run = data["runOrError"]
        proof.run_status = run.get("status", run["__typename"])
        log = data["logsForRun"]
        if log["__typename"] == "EventConnection":
            events += log["events"]
            cursor = log["cursor"]
        more = log.get("hasMore")
        if proof.run_status in graphql.FINISHED and not more:
            break
        if time.monotonic() > deadline:
            break
        if not more:
            time.sleep(0.3)
    proof.run_seconds = round(time.monotonic() - started, 3)
    if proof.run_status == "QUEUED" and webserver.runs(["STARTED", "STARTING"], limit=1):
        # A busy queue is no fault, and a run that starts later proves nothing to anybody.
        webserver.query(_CANCEL, {"id": proof.run_id})
        proof.not_launched = (
            f"the queue's slots were taken by other runs for {proof.run_seconds:g} s, "
            f"so the proof run {proof.run_id} was cancelled"
        )
        return
    if proof.run_status != "SUCCESS":
        raise ProofError(_run_problem(proof, run, events, expected))


def _run_problem(proof: Proof, run: Mapping[str, Any], events: list[dict[str, Any]], expected: Expectation) -> str:
    """Why the run did not succeed: its error with the stack, else whoever should have moved it on."""
    text = f"run {proof.run_id} of job {expected.job} is {proof.run_status} after {proof.run_seconds:g} s"
    text += "; expected SUCCESS"
    errors = [each for each in events if each.get("error")]
    # The step's own error tells more than the run's, which only says that a step failed.
    errors.sort(key=lambda each: each["__typename"] != "ExecutionStepFailureEvent")
    if errors:
        worst = errors[0]
        step = f" in step {worst['stepKey']}" if worst.get("stepKey") else ""
        return f"{text}. {worst['__typename']}{step}: {worst.get('message', '')}\n{graphql.error_text(worst['error'])}"
    said = [f"{each['__typename']}: {each['message']}" for each in events if each.get("message")][-5:]
    text += ". Its last events:\n" + "\n".join(said or ["none"])
    if proof.run_status in ("QUEUED", "NOT_STARTED"):
        log = _said(expected.daemon_container, expected.log_lines)
        return f"{text}\nThe daemon has not taken it from the queue. {log}"
    tags = {each["key"]: each["value"] for each in run.get("tags", [])}
    if tags.get("dagster_gce/service") == swarm.service_name(proof.run_id):
        log = swarm.logs(swarm.service_name(proof.run_id), expected.log_lines)
        return f"{text}\nIts container said last:\n{log or 'nothing'}"
    worker = tags.get("docker/container_id")
    if worker:
        return f"{text}\n{_said(worker, expected.log_lines)}"
    return f"{text}\n{_said(proof.host, expected.log_lines)}"
