# SPDX-License-Identifier: Apache-2.0
"""Taking over a Dagster that the article's own compose file has made: its database stays where it is.

Its containers are stopped, renamed and kept. site.yml then starts ours on the same volume.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from dataclasses import dataclass, field

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    docker_cli,
    dotenv,
    files,
    postgres_volume,
    releases,
    upgrade_image,
    upgrade_migrate,
    upgrade_plan,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_database import (
    DatabaseError,
    Server,
    environment,
    superuser,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_plan import DAEMON, POSTGRES, UpgradeError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_task import FAILURES, Outcome, Task, told

# What the old containers are called afterwards.
SUFFIX = "-adopted"
_SCRATCH = "dagster_rehearsal_adoption"
_VARIABLES = ("POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB")


@dataclass
class Found:
    """What is on the machine."""

    project: str
    folder: str
    image: str
    major: str
    volume: str
    revision: str
    runs: int
    variables: dict[str, str] = field(repr=False)
    # Name → restart policy.
    containers: dict[str, str] = field(default_factory=dict)


class Adopt(Task):
    """One adoption."""

    def look(self) -> Found | None:
        """The Dagster that is not ours; None where there is none.

        Raises:
            UpgradeError: it is none that can be taken over.
        """
        database = docker_cli.inspect("container", POSTGRES)
        if database is None:
            return None
        labels = database["Config"]["Labels"] or {}
        if labels.get("dataops.dagster_gce"):
            return None
        variables = {name: value for name, value in environment(database).items() if name in _VARIABLES}
        variables.setdefault("POSTGRES_DB", variables.get("POSTGRES_USER", ""))
        missing = [name for name in _VARIABLES if not variables.get(name)]
        volume = upgrade_plan.volume_of(database)
        if missing or not volume:
            raise UpgradeError(
                f"{POSTGRES}: found {'no ' + ', '.join(missing) if missing else 'no volume'}; expected the article's"
                " variables and a Docker volume with its data. Nothing was touched."
            )
        if not database["State"]["Running"]:
            raise UpgradeError(f"{POSTGRES} does not run; start the old stack first. Nothing was touched.")
        Server(POSTGRES, variables["POSTGRES_USER"]).wait(30)
        server = Server(POSTGRES, superuser(POSTGRES))
        project = labels.get("com.docker.compose.project", "")
        return Found(
            project=project,
            folder=labels.get("com.docker.compose.project.working_dir", ""),
            image=str(database["Config"]["Image"]),
            major=server.value("SHOW server_version_num")[:2],
            volume=volume,
            revision=server.revision(variables["POSTGRES_DB"]),
            runs=len(server.runs_in_flight(variables["POSTGRES_DB"])),
            variables=variables,
            containers=_project(project),
        )

    def predict(self) -> Outcome:
        """Say what would be taken over."""
        with told():
            found = self.look()
        self._describe(found)
        self.outcome.changed = found is not None
        return self.outcome

    def adopt(self) -> Outcome:
        """Stop it, keep it, and remember where its data is.

        Raises:
            UpgradeError: it failed; the old stack was started again.
        """
        with self._locked("adopt"):
            with told():
                self._finish_interrupted()
                found = self.look()
            self._describe(found)
            if found is None:
                return self.outcome
            with told():
                image = upgrade_image.dagster(self.options.image) if self.options.image else None
            known = image.revisions if image else ()
            if found.revision and known and found.revision not in known:
                raise UpgradeError(
                    f"the database has the schema {found.revision}, which Dagster"
                    f" {image.dagster if image else ''} does not know: it was made by a newer one. Nothing was touched."
                )
            folder = os.path.join(
                self.options.root, "upgrades", time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + "-adopted"
            )
            try:
                self._take(found, image, folder)
            except FAILURES as error:
                with contextlib.suppress(*FAILURES):
                    self._give_back(found.containers)
                raise UpgradeError(f"{error}\nThe old stack was started again.") from error
            self.outcome.changed, self.outcome.result = True, "ok"
            return self.outcome

    def _take(self, found: Found, image: upgrade_image.Dagster | None, folder: str) -> None:
        files.make_folder(os.path.dirname(folder), files.Owner(os.geteuid(), os.getegid(), 0o700))
        files.make_folder(folder, files.Owner(os.geteuid(), os.getegid(), 0o700))
        server, database = Server(POSTGRES, superuser(POSTGRES)), found.variables["POSTGRES_DB"]
        migrates = bool(image and found.revision and found.revision != image.revision)
        network = docker_cli.inspect("network", upgrade_migrate.NETWORK) is not None
        if migrates and image and network:
            self._rehearse(server, found, image, folder)
        self._write(os.path.join(folder, "containers.json"), json.dumps(found.containers))
        self._write(_mark(self.options.root), folder)
        # The queue first: what it launches now would have to be waited for.
        self._stop(*(name for name in found.containers if name == DAEMON))
        self._wait_until_idle(server, database)
        self._stop(*(name for name in found.containers if name != POSTGRES))
        server.dump(database, os.path.join(folder, "before.dump"))
        if migrates and image and network:
            self._say(f"migrating the schema to {image.revision}")
            upgrade_migrate.run(image.id, found.variables, os.path.join(folder, "migrate.log"))
        self._stop(POSTGRES)
        self._keep_files(found, folder)
        for name in found.containers:
            docker_cli.run(["update", "--restart", "no", name])
            docker_cli.run(["rename", name, name + SUFFIX])
        if network:
            # Compose refuses a network of another project.
            docker_cli.run(["network", "rm", upgrade_migrate.NETWORK])
        postgres_volume.save(
            self.options.root,
            {"volume": found.volume, "image": found.image, "major": found.major, "database": database,
             "since": releases.now(), "adopted": folder},
        )  # fmt: skip
        self._environment(found)
        os.unlink(_mark(self.options.root))

    def _rehearse(self, server: Server, found: Found, image: upgrade_image.Dagster, folder: str) -> None:
        self._say("rehearsing the migration on a copy of the database")
        path = os.path.join(folder, "rehearsal.dump")
        try:
            server.dump(found.variables["POSTGRES_DB"], path)
            server.drop(_SCRATCH)
            server.create(_SCRATCH, found.variables["POSTGRES_DB"])
            server.restore(path, _SCRATCH)
            variables = {**found.variables, "POSTGRES_DB": _SCRATCH}
            upgrade_migrate.run(image.id, variables, os.path.join(folder, "migrate.log"))
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)
            with contextlib.suppress(DatabaseError):
                server.drop(_SCRATCH)

    def _wait_until_idle(self, server: Server, database: str) -> None:
        seconds = 3600 if self.options.wait_for_runs is None else self.options.wait_for_runs
        deadline = time.monotonic() + seconds
        while runs := server.runs_in_flight(database):
            if time.monotonic() > deadline:
                named = ", ".join(f"{run[0]} ({run[1]}, {run[2]})" for run in runs[:5])
                raise UpgradeError(
                    f"dagster_upgrade_wait_for_runs: found {len(runs)} runs in flight after {seconds} s; expected none,"
                    f" since they run in the container that is taken away: {named}. Cancel them, or wait longer"
                )
            time.sleep(2)

    def _keep_files(self, found: Found, folder: str) -> None:
        """What lies where ours will lie."""
        for name in (".env", "docker-compose-GCE.yml", "docker-compose.yml"):
            source = os.path.join(found.folder, name)
            if found.folder and os.path.isfile(source):
                shutil.copy2(source, os.path.join(folder, name.lstrip(".")))
        home = os.path.join(found.folder, "dagster_home")
        kept = os.path.join(folder, "dagster_home")
        if os.path.isdir(home) and not os.path.exists(kept):
            # Compute logs and the like may be large; the configuration is what site.yml replaces.
            os.mkdir(kept, 0o700)
            for name in ("dagster.yaml", "workspace.yaml"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copy2(os.path.join(home, name), os.path.join(kept, name))
        if os.path.realpath(found.folder or "/") == os.path.realpath(self.options.root):
            # It names the old code server, whose place the first release takes.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(home, "workspace.yaml"))

    def _environment(self, found: Found) -> None:
        """The database's user and password, where site.yml looks for them."""
        path = os.path.join(self.options.root, ".env")
        content = files.read(path)
        values = dotenv.parse(content.decode()) if content else {}
        values.update(found.variables)
        files.replace(
            path, dotenv.render(values, "From the stack that was adopted.").encode(), files.Owner(0, 0, 0o600)
        )

    def _give_back(self, containers: dict[str, str]) -> None:
        """The old stack as it was."""
        for name in containers:
            if docker_cli.inspect("container", name) is None:
                docker_cli.run(["rename", name + SUFFIX, name])
        if docker_cli.inspect("network", upgrade_migrate.NETWORK) is None:
            docker_cli.run(["network", "create", upgrade_migrate.NETWORK])
        for name in sorted(containers, key=lambda each: each != POSTGRES):
            docker_cli.run(["update", "--restart", containers[name], name])
            docker_cli.run(["start", name], timeout=180)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_mark(self.options.root))

    def _finish_interrupted(self) -> None:
        """One that was killed is taken back first; what it dumped stays."""
        mark = files.read(_mark(self.options.root))
        if mark is None:
            return
        listed = files.read(os.path.join(mark.decode(), "containers.json"))
        if postgres_volume.record(self.options.root).get("adopted") == mark.decode():
            # All but the environment was done.
            postgres_volume.save(self.options.root, None)
        self._give_back(json.loads(listed or b"{}"))
        self.outcome.notes.append("an adoption was interrupted; it was taken back and begun again")

    def _write(self, path: str, text: str) -> None:
        files.replace(path, text.encode(), files.Owner(os.geteuid(), os.getegid(), 0o600))

    def _describe(self, found: Found | None) -> None:
        if found is None:
            self.outcome.lines = ["there is no Dagster on this machine that could be adopted"]
            return
        self.outcome.title = f"adopt the Compose project {found.project or 'unknown'}"
        self.outcome.pending = True
        self.outcome.postgres_image = found.image
        self.outcome.database = {"user": found.variables["POSTGRES_USER"], "name": found.variables["POSTGRES_DB"]}
        self.outcome.lines = [
            f"adopt the Compose project {found.project or 'unknown'} in {found.folder or 'an unknown folder'}",
            f"its database stays in the volume {found.volume} (PostgreSQL {found.major},"
            f" schema {found.revision or 'none'})",
            f"its containers are stopped and kept: {', '.join(found.containers)} get the ending {SUFFIX}",
            f"{found.runs} runs in flight, which are waited for with the queue held",
        ]
        if found.variables["POSTGRES_USER"] != "dagster" or found.variables["POSTGRES_DB"] != "dagster":
            self.outcome.lines.append(
                f"set dagster_postgres_user: {found.variables['POSTGRES_USER']} and dagster_postgres_db:"
                f" {found.variables['POSTGRES_DB']} in the inventory"
            )


def _mark(root: str) -> str:
    return os.path.join(root, "upgrades", "adoption")


def _project(project: str) -> dict[str, str]:
    """The containers of a Compose project, with their restart policies; without one, those of the article."""
    listed: list[str] = []
    if project:
        chosen = ["ps", "-a", "--filter", f"label=com.docker.compose.project={project}", "--format", "{{.Names}}"]
        listed = docker_cli.run(chosen).stdout.split()
    known = (POSTGRES, "dagster-webserver", DAEMON, "docker_dagster_core")
    policies = {}
    for name in sorted({*listed, *known}):
        found = docker_cli.inspect("container", name)
        if found is not None:
            policies[name] = found["HostConfig"]["RestartPolicy"]["Name"] or "no"
    return policies
