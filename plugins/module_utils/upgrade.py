# SPDX-License-Identifier: Apache-2.0
"""The careful part of an upgrade, on the machine: from the first look to the start of what is new, and the way back.

What follows (the compose file, the start, the proof) is the work of the roles that site.yml has for it; then
``finish``. Each step is in the journal before it begins. One that was killed is taken back if the old database was not
touched yet, and gone on with if it was.
"""

from __future__ import annotations

import os
import time

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    docker_cli,
    files,
    graphql,
    postgres_volume,
    releases,
    upgrade_adopt,
    upgrade_journal,
    upgrade_plan,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_plan import (
    DAEMON,
    POSTGRES,
    WEBSERVER,
    Plan,
    UpgradeError,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_return import Return
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_task import FAILURES, Options, Outcome, told

__all__ = ["Options", "Outcome", "Upgrade", "UpgradeError"]


class Upgrade(Return):
    """One upgrade of this machine."""

    def plan(self, missing_images: bool = False) -> Plan:
        """Look, and say what would be done.

        Raises:
            UpgradeError: a reason against it.
        """
        with told():
            found = upgrade_plan.make(
                self.options.root,
                self.options.image,
                self.options.postgres_image,
                volume=self.options.postgres_volume,
                upgrade=time.strftime("%Y%m%dT%H%M%S", time.gmtime()),
                webserver=graphql.Webserver(self.options.webserver_url),
                expected=self.options.expected_version,
                missing_images=missing_images,
            )
            self._tell(found)
            return found

    def interrupted(self) -> str:
        """In one sentence, the upgrade that was killed; empty where there is none.

        Raises:
            UpgradeError: its journal cannot be read.
        """
        with told():
            journal = upgrade_journal.load(self.options.root)
        if journal is None:
            return ""
        plan = Plan.from_json(journal.content["plan"])
        way = "gone on with" if self._goes_on(journal) else "taken back first"
        self._tell(plan)
        said = f"an upgrade ({plan.title}) was interrupted at the step {journal.step}; it is {way}"
        self.outcome.notes.append(said)
        return said

    def prepare(self) -> Outcome:
        """Everything up to the start of the new containers.

        Raises:
            UpgradeError: it failed; what is said of the way back is true.
        """
        with self._locked("upgrade"):
            with told():
                journal = upgrade_journal.load(self.options.root)
            if journal is not None:
                self._journal = journal
                self.interrupted()
                if self._goes_on(journal):
                    return self._go_on(Plan.from_json(journal.content["plan"]))
                with told():
                    self._return(f"interrupted at the step {journal.step}")
            plan = self.plan()
            if not plan.pending:
                return self.outcome
            with told():
                upgrade_plan.check_room(plan, self.options.root)
            self._begin(plan)
            return self._run(plan)

    def finish(self) -> Outcome:
        """The new stack works: say what became of everything, and close the journal.

        Raises:
            UpgradeError: there is no upgrade under way, or something is missing that was there before.
        """
        with self._locked("upgrade"):
            journal = self._open()
            plan = Plan.from_json(journal.content["plan"])
            with told():
                server, database = self._server(), plan.database
                newest = server.newest(database)
                lost = [
                    f"{table}: the newest is {newest.get(table, 0)}; expected {known} or more"
                    for table, known in journal.content.get("newest", {}).items()
                    if newest.get(table, 0) < known
                ]
            if lost:
                raise UpgradeError("something is missing after the upgrade: " + "; ".join(lost))
            self._fill(plan)
            self.outcome.changed, self.outcome.result = True, "ok"
            self.outcome.downtime = self._downtime(journal)
            self.outcome.notes += journal.content.get("notes", [])
            self._audit(journal, plan, "ok")
            journal.end("ok")
            self._say(f"done: {plan.title}")
            self._forget_old()
            self._resume_watch(journal)
            return self.outcome

    def back(self, reason: str) -> Outcome:
        """Take back the upgrade that is under way: files, images, data.

        Raises:
            UpgradeError: there is none, or the way back is blocked; the message says by what.
        """
        with self._locked("upgrade"):
            journal = self._open()
            with told():
                self._return(reason)
            plan = Plan.from_json(journal.content["plan"])
            self._fill(plan)
            self.outcome.changed, self.outcome.result = True, "rolled_back"
            return self.outcome

    def postgres_back(self) -> Outcome:
        """Go back to the volume before the last upgrade of PostgreSQL; the play then starts the stack on it.

        Raises:
            UpgradeError: there is none, or runs since then would be lost and nobody has confirmed that.
        """
        with self._locked("upgrade_back"), told():
            record = postgres_volume.record(self.options.root)
            previous = record.get("previous")
            if not previous:
                raise UpgradeError(
                    "dagster_upgrade_back: found no earlier volume of PostgreSQL on this machine; expected one that the"
                    " last upgrade left. Nothing was touched."
                )
            if docker_cli.inspect("volume", previous["volume"]) is None:
                raise UpgradeError(
                    f"dagster_upgrade_back: the volume {previous['volume']} is gone. Nothing was touched."
                )
            server, database = self._server(), record["database"]
            lost = self._newer(server, database, record.get("newest", {}))
            title = f"PostgreSQL {record['major']} → {previous['major']} (back)"
            self.outcome.title = title
            self.outcome.postgres_image = previous["image"]
            self.outcome.lines = [title, f"volume {record['volume']} → {previous['volume']}", *lost]
            if lost and not self.options.confirm:
                raise UpgradeError(
                    "dagster_upgrade_back: going back would lose what came since the upgrade: "
                    + "; ".join(lost)
                    + ". -e dagster_upgrade_confirm=true does it. Nothing was touched."
                )
            # No journal stands for this one: a pause that ends by itself, after the roles have started everything.
            self._hold_watch(900)
            self._stop(DAEMON, WEBSERVER)
            folder = os.path.join(
                self.options.root, "upgrades", f"back-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
            )
            files.make_folder(folder, files.Owner(os.geteuid(), os.getegid(), 0o700))
            server.dump(database, os.path.join(folder, "newer.dump"))
            self._stop(POSTGRES)
            docker_cli.run(["rm", POSTGRES])
            # Nothing of the newer volume is removed here: it is the way forward again.
            postgres_volume.save(
                self.options.root,
                {**previous, "database": database, "left": {"volume": record["volume"], "image": record["image"]}},
            )
            self.outcome.changed, self.outcome.result = True, "ok"
            self.outcome.notes = [f"a dump of what was left is {folder}/newer.dump"]
            self.store.audit(
                {"time": releases.stamp(), "who": self.options.who, "operation": "upgrade", "result": "ok",
                 "release": title, "from": record["volume"], "image": previous["image"], "lost": lost}
            )  # fmt: skip
            return self.outcome

    def confirm(self) -> Outcome:
        """The upgrade is good: remove the old volume of PostgreSQL.

        Raises:
            UpgradeError
        """
        with self._locked("upgrade_confirm"), told():
            record = postgres_volume.record(self.options.root)
            # After a way back, what was left is the newer volume.
            old = record.get("previous") or record.get("left")
            self.outcome.title = f"remove the volume {old['volume']}" if old else ""
            if not old or docker_cli.inspect("volume", old["volume"]) is None:
                self.outcome.lines = ["there is no old volume of PostgreSQL on this machine"]
                return self.outcome
            self.outcome.lines = [f"removed the volume {old['volume']} ({old['image']})"]
            users = docker_cli.run(["ps", "-aq", "--filter", f"volume={old['volume']}"]).stdout.split()
            ours = [name for name in users if _was_adopted(name)]
            if len(ours) != len(users):
                raise UpgradeError(
                    f"the volume {old['volume']} is in use by container {users[0]}. Nothing was touched."
                )
            for name in ours:
                docker_cli.run(["rm", name])
            docker_cli.run(["volume", "rm", old["volume"]])
            postgres_volume.save(
                self.options.root, {key: value for key, value in record.items() if key not in ("previous", "left")}
            )
            self.outcome.changed, self.outcome.result = True, "ok"
            return self.outcome

    def _run(self, plan: Plan) -> Outcome:
        """From a new journal to the point where the roles start what is new."""
        try:
            self._back_up()
            if plan.schema_changes and not plan.postgres_changes:
                self._rehearse(plan)
            if plan.pending:
                self._quiesce(plan)
            self._dump(plan)
            if plan.postgres_changes:
                self._copy(plan)
        except FAILURES as error:
            raise self._failed(error) from error
        return self._go_on(plan)

    def _go_on(self, plan: Plan) -> Outcome:
        """From the point where the data is safe; all of it may be done again."""
        journal = self._open()
        try:
            if not journal.past("starting"):
                self._hold_watch()
                if plan.old.get("dagster") != plan.new.get("dagster") or plan.schema_changes:
                    self._migrate(plan)
                self._switch(plan)
            # Where nothing had to be stopped before, the containers' replacement is all there is.
            journal.content.setdefault("down", releases.now())
            self._step("starting")
        except FAILURES as error:
            raise self._failed(error) from error
        self._fill(plan)
        self.outcome.changed = self.outcome.pending = True
        self.outcome.result = "prepared"
        return self.outcome

    def _failed(self, error: Exception) -> UpgradeError:
        """Take everything back, and say so."""
        said = str(error)
        try:
            self._return(said)
        except FAILURES as trouble:
            return UpgradeError(
                f"{said}\nThe way back failed, too: {trouble}\nRun the same command again: it goes on where this one"
                f" stopped. What was there before lies in {self._open().folder}."
            )
        back = "; ".join(self.outcome.notes[-2:])
        return UpgradeError(f"{said}\nThe upgrade was taken back: {back}")

    def _goes_on(self, journal: upgrade_journal.Journal) -> bool:
        """Whether what was interrupted is gone on with: past the point, and still what is wanted."""
        plan = Plan.from_json(journal.content["plan"])
        if journal.step == "returning" or not journal.past("migrating"):
            return False
        wanted = docker_cli.inspect("image", self.options.image)
        same = wanted is not None and wanted["Id"] == plan.new.get("id")
        return same and self.options.postgres_image in ("", plan.new_postgres.image)


def _was_adopted(container: str) -> bool:
    """Whether it is one of those that an adoption has stopped and kept."""
    found = docker_cli.inspect("container", container)
    return bool(found and found["Name"].endswith(upgrade_adopt.SUFFIX) and not found["State"]["Running"])
