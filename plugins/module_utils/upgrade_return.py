# SPDX-License-Identifier: Apache-2.0
"""The way back of an upgrade, from wherever it stands."""

from __future__ import annotations

import contextlib
import os

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    docker_cli,
    files,
    postgres_volume,
    upgrade_journal,
    upgrade_plan,
    upgrade_postgres,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_database import DatabaseError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_plan import DAEMON, POSTGRES, WEBSERVER, Plan
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_steps import (
    DUMP,
    KEPT_FILES,
    Steps,
    scratch_name,
    volume_label,
)


class Return(Steps):
    """Files, images and data as they were."""

    def _return(self, reason: str) -> None:
        """Files, images and data as before, healthy; the journal closed."""
        journal = self._open()
        plan = Plan.from_json(journal.content["plan"])
        self._hold_watch()
        journal.content.setdefault("reason", reason)
        self._step("returning")
        self._say(f"going back: {reason.splitlines()[0] if reason else ''}")
        if journal.past("starting") or plan.database_changes:
            self._stop(DAEMON, WEBSERVER)
        lost = self._return_data(journal, plan)
        for name in KEPT_FILES:
            content = files.read(os.path.join(journal.folder, os.path.basename(name)))
            target = os.path.join(self.options.root, name)
            if content is not None and files.read(target) != content:
                files.replace(target, content, files.Owner(0, 0, 0o644))
        self._name_again(plan)
        self._compose_up()
        version = self._answering()
        self.outcome.notes.append(f"Dagster {version} answers as before, PostgreSQL {plan.postgres.major}")
        self.outcome.notes += lost
        journal.content["lost"] = lost
        self._audit(journal, plan, "rolled_back", reason)
        journal.end("rolled_back")
        self._resume_watch(journal)

    def _name_again(self, plan: Plan) -> None:
        """The names by which the old compose file knows its images; upkeep may have taken them away."""
        for image, name in ((plan.old["id"], plan.old["reference"]), (plan.postgres.image_id, plan.postgres.image)):
            if "@" not in name and docker_cli.inspect("image", name) is None:
                docker_cli.run(["tag", image, name])

    def _return_data(self, journal: upgrade_journal.Journal, plan: Plan) -> list[str]:
        """The old database, if it was left or changed; what was written to the new one meanwhile, in sentences."""
        if plan.postgres_changes:
            return self._return_volume(journal, plan)
        if not plan.schema_changes:
            return []
        self._compose_up(POSTGRES)
        server = self._server()
        server.drop(scratch_name(journal))
        if not journal.past("migrating"):
            return []
        aside, restored = f"dagster_left_{journal.id}".lower(), f"dagster_back_{journal.id}".lower()
        lost: list[str] = []
        if not server.exists(aside):
            if server.revision(plan.database) == plan.schema:
                # The migration was one transaction that never ended: nothing differs.
                return []
            lost = self._newer(server, plan.database, journal.content.get("newest", {}))
            if lost:
                server.dump(plan.database, os.path.join(journal.folder, "left.dump"))
                lost.append(f"it is kept in {journal.folder}/left.dump")
            self._say("restoring the database as it was before the migration")
            server.drop(restored)
            server.create(restored, plan.database)
            server.restore(os.path.join(journal.folder, DUMP), restored)
            server.swap(restored, plan.database, aside)
        server.drop(aside)
        return lost

    def _return_volume(self, journal: upgrade_journal.Journal, plan: Plan) -> list[str]:
        lost: list[str] = []
        found = docker_cli.inspect("container", POSTGRES)
        if found and upgrade_plan.volume_of(found) == plan.new_postgres.volume:
            with contextlib.suppress(DatabaseError, docker_cli.DockerError):
                if found["State"]["Running"]:
                    server = self._server()
                    lost = self._newer(server, plan.database, journal.content.get("newest", {}))
                    if lost:
                        server.dump(plan.database, os.path.join(journal.folder, "left.dump"))
                        lost.append(f"it is kept in {journal.folder}/left.dump")
            self._stop(POSTGRES)
            docker_cli.run(["rm", "--force", POSTGRES])
        record = postgres_volume.record(self.options.root)
        if record.get("upgrade") == journal.id:
            old = {key: value for key, value in record["previous"].items() if value}
            postgres_volume.save(
                self.options.root,
                None if old["volume"] == postgres_volume.DEFAULT else {**old, "database": plan.database},
            )
        upgrade_postgres.discard(plan.new_postgres.volume, volume_label(plan))
        return lost
