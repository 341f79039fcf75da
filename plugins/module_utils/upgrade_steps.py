# SPDX-License-Identifier: Apache-2.0
"""The steps of an upgrade, up to the point where the roles start what is new."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    docker_cli,
    files,
    postgres_volume,
    releases,
    swarm,
    upgrade_journal,
    upgrade_migrate,
    upgrade_plan,
    upgrade_postgres,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_database import (
    DatabaseError,
    superuser,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_plan import (
    DAEMON,
    POSTGRES,
    WEBSERVER,
    Plan,
    UpgradeError,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_task import COMPOSE, Task

DUMP = "before.dump"
# A tag keeps the image that was left from a prune.
_KEEP_TAG = "dagster_upgrade_before"
# What the roles after this one replace, and the way back puts back.
KEPT_FILES = (COMPOSE, "dagster_home/dagster.yaml")


class Steps(Task):
    """Each may be done again; the journal says that it begins."""

    def _begin(self, plan: Plan) -> None:
        journal = upgrade_journal.start(self.options.root, {"plan": plan.to_json(), "who": self.options.who})
        self._journal = journal
        owner = files.Owner(os.geteuid(), os.getegid(), 0o600)
        for name in KEPT_FILES:
            content = files.read(os.path.join(self.options.root, name))
            if content is None:
                raise UpgradeError(f"{os.path.join(self.options.root, name)} is missing; site.yml makes it")
            files.replace(os.path.join(journal.folder, os.path.basename(name)), content, owner)
        for image, tag in ((plan.old["id"], "dagster"), (plan.postgres.image_id, "postgres")):
            docker_cli.run(["tag", image, f"{_KEEP_TAG}:{tag}"])
        self._step("begun")

    def _back_up(self) -> None:
        """A whole backup where backups are set up: it also lies where the machine's disk does not."""
        command = "/usr/local/bin/dagster-gce"
        if not os.path.exists("/etc/dagster-gce/backup.json") or not os.path.exists(command):
            return
        self._say("taking a backup")
        done = subprocess.run(
            [command, "backup", "--reason", "upgrade", "--wait"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=6 * 3600, check=False,
        )  # fmt: skip
        if done.returncode:
            raise UpgradeError(
                "the backup before the upgrade failed, so nothing was stopped: "
                + docker_cli.last_lines(done.stderr or done.stdout, 5)
            )

    def _rehearse(self, plan: Plan) -> None:
        """The migration on a copy of the data, while everything runs: one that fails has stopped nothing."""
        self._step("rehearsing")
        journal, server = self._open(), self._server()
        scratch = scratch_name(journal)
        path = os.path.join(journal.folder, "rehearsal.dump")
        self._say("rehearsing the migration on a copy of the database")
        try:
            server.dump(plan.database, path)
            server.create(scratch, plan.database)
            server.restore(path, scratch)
            self._migrate_database(plan, scratch)
            found = server.revision(scratch)
            if found != plan.new["revision"]:
                raise UpgradeError(f"the rehearsal ended at the schema {found}; expected {plan.new['revision']}")
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)
            with contextlib.suppress(DatabaseError):
                server.drop(scratch)

    def _quiesce(self, plan: Plan) -> None:
        """Hold the queue; where the data changes hands, let the runs in flight end and close the UI."""
        journal = self._open()
        self._hold_watch()
        self._step("quiescing")
        self._stop(DAEMON)
        seconds = self.options.wait_for_runs
        if seconds is None:
            seconds = 3600 if plan.database_changes else 0
            must = plan.database_changes
        else:
            must = True
        if must:
            self._wait_for_runs(plan, seconds)
        if plan.database_changes:
            self._stop(WEBSERVER)
            journal.content["down"] = releases.now()
            journal.save()

    def _wait_for_runs(self, plan: Plan, seconds: int) -> None:
        server, deadline, told = self._server(), time.monotonic() + seconds, -1
        while True:
            runs = server.runs_in_flight(plan.database)
            shown = ["--filter", "label=dataops.dagster_gce=run", "--format", '{{.Label "dagster/run_id"}}']
            workers = docker_cli.run(["ps", *shown]).stdout.split()
            workers += [each.run_id for each in swarm.services() if each.goes and each.run_id not in workers]
            if not runs and not workers:
                return
            if len(runs) != told:
                told = len(runs)
                self._say(f"waiting for {told} runs to end (at most {max(0, deadline - time.monotonic()):.0f} s more)")
            if time.monotonic() >= deadline:
                named = ", ".join(f"{run[0]} ({run[1]}, {run[2]})" for run in runs[:5]) or ", ".join(workers)
                raise UpgradeError(
                    f"dagster_upgrade_wait_for_runs: found {len(runs) or len(workers)} runs in flight after"
                    f" {seconds} s; expected none, since what they write would be lost: {named}. Cancel them, or wait"
                    " longer"
                )
            time.sleep(2)

    def _dump(self, plan: Plan) -> None:
        journal, server = self._open(), self._server()
        self._step("dumping")
        journal.content["newest"] = server.newest(plan.database)
        journal.save()
        if not plan.postgres_changes:
            # A change of PostgreSQL's version dumps every database, with the new version's program.
            self._say(f"dumping {plan.database}")
            server.dump(plan.database, os.path.join(journal.folder, DUMP))

    def _copy(self, plan: Plan) -> None:
        journal = self._open()
        self._step("copying")
        user = superuser(POSTGRES)
        known = upgrade_plan.read_environment(self.options.root)
        password = known.get("POSTGRES_PASSWORD", "") if known.get("POSTGRES_USER") == user else ""
        self._stop(POSTGRES)
        copied = upgrade_postgres.run(
            upgrade_postgres.Copy(
                old_image=plan.postgres.image_id,
                old_volume=plan.postgres.volume,
                new_image=plan.new_postgres.image,
                new_volume=plan.new_postgres.volume,
                superuser=user,
                password=password,
                folder=journal.folder,
                upgrade=volume_label(plan),
            ),
            self._say,
        )
        journal.content["contents"] = copied.contents
        journal.content["notes"] = [*journal.content.get("notes", []), *copied.notes]
        journal.save()

    def _migrate(self, plan: Plan) -> None:
        self._step("migrating")
        self._stop(DAEMON, WEBSERVER)
        journal = self._open()
        journal.content.setdefault("down", releases.now())
        journal.save()
        self._say(f"migrating the schema to {plan.new['revision']}")
        if not plan.postgres_changes:
            self._migrate_database(plan, plan.database)
            return
        # The new volume has no container of the stack yet.
        with upgrade_migrate.server(plan.new_postgres.image, plan.new_postgres.volume):
            self._migrate_database(plan, plan.database)

    def _migrate_database(self, plan: Plan, database: str) -> None:
        """``dagster instance migrate`` with the new image, in a container of its own."""
        known = upgrade_plan.read_environment(self.options.root)
        variables = {
            "POSTGRES_USER": known.get("POSTGRES_USER", ""),
            "POSTGRES_PASSWORD": known.get("POSTGRES_PASSWORD", ""),
            "POSTGRES_DB": database,
        }
        upgrade_migrate.run(plan.new["id"], variables, os.path.join(self._open().folder, "migrate.log"))

    def _switch(self, plan: Plan) -> None:
        """From here on the machine's own files say what is new."""
        self._step("switching")
        if not plan.postgres_changes:
            return
        journal = self._open()
        self._stop(DAEMON, WEBSERVER, POSTGRES)
        docker_cli.run(["rm", POSTGRES], check=False)
        postgres_volume.save(
            self.options.root,
            {
                "volume": plan.new_postgres.volume,
                "image": plan.new_postgres.image,
                "major": plan.new_postgres.major,
                "database": plan.database,
                "since": releases.now(),
                "upgrade": journal.id,
                "newest": journal.content.get("newest", {}),
                "previous": {
                    "volume": plan.postgres.volume,
                    "image": plan.postgres.image,
                    "major": plan.postgres.major,
                },
            },
        )


def scratch_name(journal: upgrade_journal.Journal) -> str:
    """The database on which the migration is rehearsed."""
    return f"dagster_rehearsal_{journal.id}".lower()


def volume_label(plan: Plan) -> str:
    """What the new volume is marked with; it stays the same when an upgrade is run again."""
    return plan.new_postgres.volume
