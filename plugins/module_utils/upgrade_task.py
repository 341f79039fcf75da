# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: S608 - psql has no parameters: texts go through literal() and identifier(), the rest are our own names
"""What all parts of an upgrade share: what is wanted, what came of it, the journal, the containers."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    code_server,
    docker_cli,
    graphql,
    releases,
    upgrade_image,
    upgrade_journal,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import watch_pause
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_database import (
    DatabaseError,
    Server,
    environment,
    superuser,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_plan import (
    POSTGRES,
    READ_ONLY,
    WEBSERVER,
    Plan,
    UpgradeError,
)

COMPOSE = "docker-compose-GCE.yml"
FAILURES = (
    UpgradeError,
    DatabaseError,
    docker_cli.DockerError,
    upgrade_image.ImageError,
    graphql.GraphQLError,
    OSError,
    ValueError,
)


@dataclass(frozen=True)
class Options:
    """What is wanted.

    Attributes:
        wait_for_runs: seconds for runs in flight to end; None: one hour where they have to, else not at all.
        answer_seconds: how long the old stack may take to be healthy again on the way back.
    """

    root: str = "/opt/dagster"
    image: str = ""
    postgres_image: str = ""
    postgres_volume: str = ""
    wait_for_runs: int | None = None
    expected_version: str = ""
    webserver_url: str = "http://127.0.0.1:3000"
    lock_wait: float = 60
    answer_seconds: int = 240
    who: str = ""
    confirm: bool = False


@dataclass
class Outcome:
    """What happened, for the play."""

    changed: bool = False
    pending: bool = False
    result: str = "unchanged"
    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    title: str = ""
    postgres_image: str = ""
    downtime: float | None = None
    database: dict[str, str] = field(default_factory=dict)


class Task:
    """One upgrade of this machine.

    Args:
        on_step: called with a step's name when it is in the journal (tests kill the process there).
    """

    def __init__(self, options: Options, on_step: Callable[[str], None] | None = None) -> None:
        self.options = options
        self.outcome = Outcome()
        self.store = releases.Store(options.root)
        self._on_step = on_step
        self._journal: upgrade_journal.Journal | None = None

    def _open(self) -> upgrade_journal.Journal:
        if self._journal is None:
            with told():
                self._journal = upgrade_journal.load(self.options.root)
        if self._journal is None:
            raise UpgradeError(f"no upgrade is under way ({upgrade_journal.path(self.options.root)} is not there)")
        return self._journal

    def _step(self, name: str) -> None:
        self._open().begin(name)
        if self._on_step:
            self._on_step(name)

    def _server(self) -> Server:
        """The stack's PostgreSQL, once it takes connections."""
        found = docker_cli.inspect("container", POSTGRES)
        if found is None:
            raise DatabaseError(f"there is no container {POSTGRES}")
        Server(POSTGRES, environment(found).get("POSTGRES_USER", "postgres")).wait(120)
        return Server(POSTGRES, superuser(POSTGRES))

    def _stop(self, *names: str) -> None:
        for name in [*names, *([READ_ONLY] if WEBSERVER in names else [])]:
            found = docker_cli.inspect("container", name)
            if found and found["State"]["Status"] not in ("exited", "created", "dead"):
                self._say(f"stopping {name}")
                docker_cli.run(["stop", name], timeout=300)

    def _compose_up(self, *services: str) -> None:
        seconds = str(self.options.answer_seconds)
        path = os.path.join(self.options.root, COMPOSE)
        if services:
            kept = os.path.join(self._open().folder, COMPOSE)
            # The old file's PostgreSQL, though the new one may stand there already.
            path = kept if os.path.exists(kept) else path
        docker_cli.run(
            ["compose", "--project-directory", self.options.root, "-f", path, "-p", "dagster", "up", "-d", "--no-build",
             "--pull", "missing", "--wait", "--wait-timeout", seconds, *(services or ("--remove-orphans",))],
            timeout=self.options.answer_seconds + 120,
        )  # fmt: skip

    def _answering(self) -> str:
        """Dagster's version, once the webserver answers.

        Raises:
            UpgradeError
        """
        deadline = time.monotonic() + self.options.answer_seconds
        while True:
            try:
                return graphql.Webserver(self.options.webserver_url).version()
            except graphql.GraphQLError as error:
                if time.monotonic() > deadline:
                    raise UpgradeError(f"the webserver does not answer after the way back: {error}") from error
                time.sleep(0.5)

    def _newer(self, server: Server, database: str, known: dict[str, int]) -> list[str]:
        """What a database has beyond ``known``, in sentences."""
        found = []
        for table, highest in known.items():
            count = int(server.value(f"SELECT count(*) FROM {table} WHERE id > {int(highest)}", database))
            if count and table == "runs":
                rows = server.script(
                    f"SELECT run_id, pipeline_name FROM runs WHERE id > {int(highest)} ORDER BY id LIMIT 5", database
                )
                named = ", ".join(f"{row[0]} ({row[1]})" for row in rows)
                found.append(f"{count} runs, the first of them {named}")
            elif count and table == "event_logs":
                found.append(f"{count} events")
        return found

    def _downtime(self, journal: upgrade_journal.Journal) -> float | None:
        down = journal.content.get("down")
        if not down:
            return None
        found = docker_cli.inspect("container", WEBSERVER)
        up = releases.now()
        if found:
            # The health check's first success; the proof that follows is no downtime.
            for probe in (found["State"].get("Health") or {}).get("Log") or ():
                if probe["ExitCode"] == 0:
                    up = min(up, code_server.instant(probe["End"]))
                    break
        return round(max(0.0, up - float(down)), 1)

    def _tell(self, plan: Plan) -> None:
        self.outcome.pending = plan.pending
        self._fill(plan)

    def _fill(self, plan: Plan) -> None:
        self.outcome.lines = plan.lines()
        self.outcome.title = plan.title
        self.outcome.postgres_image = plan.new_postgres.image

    def _say(self, text: str) -> None:
        """A line for whoever follows on the machine."""
        with contextlib.suppress(OSError):
            folder = os.path.join(self.options.root, "upgrades")
            path = os.path.join(folder, "progress.log")
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(handle, f"{releases.stamp()} {text}\n".encode())
            finally:
                os.close(handle)

    def _audit(self, journal: upgrade_journal.Journal, plan: Plan, result: str, failure: str = "") -> None:
        with contextlib.suppress(OSError):
            self.store.audit(
                {
                    "time": releases.stamp(),
                    "who": self.options.who or journal.content.get("who", ""),
                    "operation": "upgrade",
                    "result": result,
                    "release": plan.title,
                    "from": plan.old.get("id", ""),
                    "image": plan.new.get("id", ""),
                    "reference": plan.new.get("reference", ""),
                    "seconds": round(releases.now() - float(journal.content["started"]), 1),
                    "downtime": self._downtime(journal) if result == "ok" else None,
                    "failure": failure.splitlines()[0][:500] if failure else "",
                }
            )

    def _forget_old(self) -> None:
        """Keep the last few upgrades' dumps."""
        folder = os.path.join(self.options.root, "upgrades")
        names = sorted((name for name in os.listdir(folder) if name[:1].isdigit()), reverse=True)
        for name in names[upgrade_journal.KEPT :]:
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)

    def _hold_watch(self, seconds: float = 4 * 3600) -> None:
        """The watch would start again what is stopped here on purpose."""
        with contextlib.suppress(OSError):
            if watch_pause.read() is None:
                watch_pause.pause("upgrade", seconds=seconds, who="upgrade.yml")
                if self._journal:
                    self._journal.content["watch_held"] = True
                    self._journal.save()

    def _resume_watch(self, journal: upgrade_journal.Journal) -> None:
        if journal.content.get("watch_held"):
            with contextlib.suppress(OSError):
                watch_pause.resume()

    @contextlib.contextmanager
    def _locked(self, operation: str) -> Iterator[None]:
        """No deploy meanwhile.

        Raises:
            UpgradeError: somebody deploys.
        """
        about = {"who": self.options.who, "operation": operation, "image": self.options.image}
        try:
            with releases.lock(self.store.lock_path, about, wait=self.options.lock_wait):
                yield
        except releases.LockedError as error:
            raise UpgradeError(f"{error} Nothing was touched.") from error


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Every failure as the one that the module reports."""
    try:
        yield
    except UpgradeError:
        raise
    except FAILURES as error:
        raise UpgradeError(str(error)) from error
