# SPDX-License-Identifier: Apache-2.0
"""What every step of a deployment works with: what was asked for, what came of it, the lock and the audit log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    code_server,
    docker_cli,
    files,
    graphql,
    releases,
    workspace,
)

DEPLOY = "deploy"
ROLLBACK = "rollback"
CLEAN = "clean"

# Whatever a step may fail with: the engine, the webserver, the release itself, a full disk.
FAILURES = (
    docker_cli.DockerError,
    graphql.GraphQLError,
    code_server.CandidateError,
    workspace.WorkspaceError,
    OSError,
)


class DeploymentError(Exception):
    """What failed, where, and what serves now."""


@dataclass(frozen=True)
class Options:
    """What to do, and what to keep."""

    root: str = "/opt/dagster"
    pull: str = docker_cli.NEVER
    pull_timeout: float = 1800
    webserver_url: str = "http://127.0.0.1:3000"
    webserver_container: str = "dagster-webserver"
    daemon_container: str = "dagster-daemon"
    start_timeout: float = 120
    reload_timeout: float = 120
    soak_seconds: float = 0
    wait_for_daemon: bool = False
    daemon_timeout: float = 150
    # The daemon refreshes every 60 s, and the kernel remembers a contact for 60 s.
    quiet_seconds: float = 30
    keep_releases: int = 5
    max_containers: int = 8
    keep_run_containers: int = 50
    keep_run_containers_hours: float = 24
    lock_wait: float = 60
    force: bool = False
    force_unlock: bool = False
    ignore_disk: bool = False
    who: str = ""
    git_sha: str = ""
    log_lines: int = 40


@dataclass
class Outcome:
    """What happened, for the play and for the audit log."""

    operation: str
    changed: bool = False
    release: str = ""
    previous: str = ""
    identity: str = ""
    reference: str = ""
    digest: str = ""
    result: str = "unchanged"
    failure: str = ""
    phases: dict[str, float] = field(default_factory=dict)
    runs_before: int | None = None
    runs_after: int | None = None
    retired: list[str] = field(default_factory=list)
    draining: dict[str, str] = field(default_factory=dict)
    removed_images: list[str] = field(default_factory=list)
    removed_run_containers: int = 0
    daemon_moved: bool | None = None
    repaired: list[str] = field(default_factory=list)


class Task:
    """One deploy, rollback or clean-up on this machine.

    Args:
        options: what to keep and how long to wait.
        settings: how the containers of releases are run.
        on_phase: called with a phase's name when it begins (tests kill the process there).
    """

    def __init__(
        self,
        options: Options,
        settings: code_server.Settings,
        on_phase: Callable[[str], None] | None = None,
    ) -> None:
        self.options = options
        self.settings = settings
        self.store = releases.Store(options.root)
        self.webserver = graphql.Webserver(options.webserver_url)
        self.workspace_path = f"{options.root}/dagster_home/workspace.yaml"
        self._on_phase = on_phase
        self._lock: releases.Lock | None = None
        self._phase_started: tuple[str, float] | None = None
        self.outcome = Outcome(DEPLOY)

    def intended_host(self) -> str | None:
        """The host that workspace.yaml names: what serves, or is about to."""
        found = files.read(self.workspace_path)
        return workspace.core_host(found.decode() if found else None, self.settings.location)

    def serving_release(self) -> str | None:
        """The release that workspace.yaml names."""
        return releases.release_of(self.intended_host())

    def mark_served(self, name: str | None) -> None:
        """The release gets traffic from now on; the newest such moment tells which one served last."""
        known = self.store.all()
        record = next((each for each in known if each.release == name), None)
        if record:
            record.state = releases.LIVE
            # Later than every other mark, whatever the clock says: it may have been set back.
            last = max((each.last_served for each in known), default=0.0)
            record.served = [*record.served, max(releases.now(), round(last + 0.001, 3))]
            self.store.save(record)

    def mark_rolled_back(self, name: str) -> None:
        """The release proved bad, or somebody has left it: no rollback goes to it unasked."""
        record = self.store.load(name)
        if record:
            record.state = releases.ROLLED_BACK
            self.store.save(record)

    def runs_in_flight(self) -> int | None:
        """How many runs there are now; None where the webserver does not say."""
        with contextlib.suppress(graphql.GraphQLError):
            return self.webserver.run_counts()["in_flight"]
        return None

    def phase(self, name: str) -> None:
        """What is done from now on; empty ends the last phase."""
        moment = time.monotonic()
        if self._phase_started:
            before, since = self._phase_started
            self.outcome.phases[before] = round(self.outcome.phases.get(before, 0) + moment - since, 3)
        self._phase_started = (name, moment) if name else None
        if not name:
            return
        if self._lock:
            self._lock.about["release"] = self.outcome.release
            self._lock.phase(name)
        if self._on_phase:
            self._on_phase(name)

    @contextlib.contextmanager
    def running(self, image: str, audit: bool = True) -> Iterator[None]:
        """Hold the lock, time the phases, write the audit log whatever happens."""
        problem = code_server.environment_problem(self.settings)
        if problem:
            raise DeploymentError(f"{problem}. Nothing was touched.")
        try:
            with self._locked(image, audit):
                yield
        except OSError as error:
            raise DeploymentError(f"{self.store.lock_path}: {error}. Nothing was touched.") from error

    @contextlib.contextmanager
    def _locked(self, image: str, audit: bool) -> Iterator[None]:
        about = {"who": self.options.who, "operation": self.outcome.operation, "image": image}
        started = time.monotonic()
        with releases.lock(
            self.store.lock_path, about, wait=self.options.lock_wait, force=self.options.force_unlock
        ) as self._lock:
            if self._lock.stale:
                gone = self._lock.stale
                self.outcome.repaired.append(
                    f"an earlier {gone.get('operation')} by {gone.get('who') or 'somebody'} died in phase"
                    f" {gone.get('phase')}"
                )
            try:
                yield
            except FAILURES as error:
                self._failed(error)
                raise DeploymentError(str(error)) from error
            except DeploymentError as error:
                self._failed(error)
                raise
            finally:
                self.phase("")
                if audit and (self.outcome.changed or self.outcome.failure):
                    # A full disk that stopped the deploy also refuses its line, and must not hide why it failed.
                    with contextlib.suppress(OSError):
                        self._audit(time.monotonic() - started)
        self._lock = None

    def _failed(self, error: Exception) -> None:
        self.outcome.failure = str(error)
        if self.outcome.result != "rolled_back":
            self.outcome.result = "failed"

    def _audit(self, seconds: float) -> None:
        outcome = self.outcome
        self.store.audit(
            {
                "time": releases.stamp(),
                "who": self.options.who,
                "operation": outcome.operation,
                "result": "repaired" if outcome.result == "unchanged" else outcome.result,
                "release": outcome.release,
                "from": outcome.previous,
                "image": outcome.identity,
                "reference": outcome.reference,
                "digest": outcome.digest,
                "git_sha": self.options.git_sha,
                "seconds": round(seconds, 3),
                "phases": outcome.phases,
                "runs_in_flight_before": outcome.runs_before,
                "runs_in_flight_after": outcome.runs_after,
                "retired": outcome.retired,
                "draining": outcome.draining,
                "repaired": outcome.repaired,
                # The whole text is in the play's output; the log keeps the line that tells.
                "failure": outcome.failure.splitlines()[0][:500] if outcome.failure else "",
            }
        )
