# SPDX-License-Identifier: Apache-2.0
"""What an upgrade would do: from which versions to which, what is stopped for it, and what speaks against it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    docker_cli,
    dotenv,
    graphql,
    postgres_volume,
    upgrade_image,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_database import (
    DatabaseError,
    Server,
    environment,
    superuser,
)

POSTGRES = "dagster-postgres"
WEBSERVER = "dagster-webserver"
# A second webserver, where the stack has one (dagster_read_only_webserver); it stops and starts with the first.
READ_ONLY = "dagster-webserver-read-only"
DAEMON = "dagster-daemon"
PROXY = "dagster-engine-proxy"


class UpgradeError(Exception):
    """Why there is no upgrade, or why it was taken back."""


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL: its image and its data."""

    image: str
    major: str
    volume: str
    image_id: str = ""


@dataclass
class Plan:
    """From → to. ``old`` and ``new`` are the facts of Dagster's images; empty where an image is not there yet."""

    old: dict[str, Any]
    new: dict[str, Any]
    schema: str
    postgres: Postgres
    new_postgres: Postgres
    database: str
    size: int = 0
    runs: int = 0
    recreated: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def dagster_changes(self) -> bool:
        return bool(self.old.get("id") != self.new.get("id"))

    @property
    def schema_changes(self) -> bool:
        # Before Dagster's first start there is no schema, and it makes today's itself.
        return bool(self.new.get("revision")) and bool(self.schema) and self.schema != self.new["revision"]

    @property
    def postgres_changes(self) -> bool:
        return self.postgres.major != self.new_postgres.major

    @property
    def database_changes(self) -> bool:
        """Whether going back would mean an older database, so that nobody may write meanwhile."""
        return self.schema_changes or self.postgres_changes

    @property
    def pending(self) -> bool:
        return self.dagster_changes or self.database_changes

    @property
    def title(self) -> str:
        """For the audit log and the report's first line."""
        parts = []
        old, new = self.old.get("dagster", ""), self.new.get("dagster", "")
        if old != new:
            parts.append(f"Dagster {old} → {new}")
        elif self.dagster_changes:
            parts.append(f"another image of Dagster {new}")
        if self.schema_changes:
            parts.append(f"schema {self.schema} → {self.new['revision']}")
        if self.postgres_changes:
            parts.append(f"PostgreSQL {self.postgres.major} → {self.new_postgres.major}")
        return ", ".join(parts) or "nothing to do"

    def lines(self) -> list[str]:
        """The plan as people read it."""
        found = [self.title]
        if not self.pending:
            return [
                f"nothing to do: Dagster {self.old.get('dagster')} (schema {self.schema}),"
                f" PostgreSQL {self.postgres.major} in the volume {self.postgres.volume}"
            ]
        for name, key in (("dagster-postgres", "postgres"), ("dagster-webserver", "webserver")):
            if self.old.get(key) != self.new.get(key) and self.new.get(key):
                found.append(f"{name} (Python package) {self.old.get(key)} → {self.new[key]}")
        if self.dagster_changes:
            found.append(f"image {self.old.get('reference')} → {self.new.get('reference')}")
        if not self.new.get("id"):
            found.append("the new image is not on the machine yet; its schema is known once it is")
        elif not self.schema_changes:
            found.append(f"the schema stays at {self.schema or 'none'}")
        if self.postgres_changes:
            found.append(f"volume {self.postgres.volume} → {self.new_postgres.volume}; the old one is kept")
        found.append(f"the database has {self.size / 1e6:.0f} MB; a dump comes first")
        found.append("new containers: " + ", ".join(self.recreated))
        if self.database_changes:
            found.append(f"{self.runs} runs in flight, which are waited for with the queue held")
        else:
            found.append(f"{self.runs} runs in flight, which go on")
        return found + [f"note: {each}" for each in self.warnings]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Plan:
        content = dict(content)
        content["postgres"] = Postgres(**content["postgres"])
        content["new_postgres"] = Postgres(**content["new_postgres"])
        return Plan(**content)


def read_environment(root: str) -> dict[str, str]:
    """`.env` of the machine.

    Raises:
        UpgradeError: there is none, or it cannot be read.
    """
    path = os.path.join(root, ".env")
    try:
        with open(path, encoding="utf-8") as stream:
            return dotenv.parse(stream.read())
    except (OSError, ValueError) as error:
        raise UpgradeError(f"{path}: {error}. Nothing was touched; site.yml makes it.") from error


def make(
    root: str,
    image: str,
    postgres_image: str,
    *,
    volume: str = "",
    upgrade: str = "",
    webserver: graphql.Webserver | None = None,
    expected: str = "",
    missing_images: bool = False,
) -> Plan:
    """Look at the machine and at the images.

    Args:
        image: of the webserver and the daemon, to which to go.
        postgres_image: of the database, to which to go; empty: the one that runs.
        volume: of PostgreSQL's data, where it is not the one that the machine remembers.
        upgrade: name of this upgrade, for the volume's.
        expected: Dagster's version in ``image``, where that is not on the machine yet.
        missing_images: whether an image that is not there yet is no error (check mode).

    Raises:
        UpgradeError: there is nothing to upgrade here, or a reason against it.
    """
    database = docker_cli.inspect("container", POSTGRES)
    serving = docker_cli.inspect("container", WEBSERVER)
    if database is None or serving is None:
        missing = ", ".join(name for name, found in ((POSTGRES, database), (WEBSERVER, serving)) if found is None)
        raise UpgradeError(
            f"there is no container {missing} on this machine; expected a Dagster that site.yml has made. Nothing was"
            " touched."
        )
    labels = database["Config"]["Labels"] or {}
    if labels.get("dataops.dagster_gce") != "stack":
        raise UpgradeError(
            f"{POSTGRES} was not made by this collection (Compose project"
            f" {labels.get('com.docker.compose.project', 'unknown')} in"
            f" {labels.get('com.docker.compose.project.working_dir', 'unknown')}): playbooks/adopt.yml takes it over"
            " with its data. Nothing was touched."
        )
    if not database["State"]["Running"]:
        raise UpgradeError(f"{POSTGRES} does not run; expected a healthy stack (site.yml). Nothing was touched.")
    outside = environment(database).get("PGHOST")
    if outside:
        raise UpgradeError(
            f"dagster_postgres_host: found {outside}; expected PostgreSQL in the stack, of which an upgrade makes a"
            " copy to come back to. docs/upgrade.md says how Dagster is upgraded on one outside. Nothing was touched."
        )
    name = read_environment(root).get("POSTGRES_DB", "dagster")
    try:
        # Made with pg_isready in mind: the container may just be starting.
        user = environment(database).get("POSTGRES_USER", "postgres")
        Server(POSTGRES, user).wait(60)
        server = Server(POSTGRES, superuser(POSTGRES))
        revision, size, runs = server.revision(name), server.size(), len(server.runs_in_flight(name))
        running_major = server.value("SHOW server_version_num")[:2]
    except DatabaseError as error:
        raise UpgradeError(f"{error}. Nothing was touched.") from error
    now = Postgres(
        str(database["Config"]["Image"]), running_major, volume_of(database) or postgres_volume.name(root),
        str(database["Image"]),
    )  # fmt: skip
    old = upgrade_image.dagster(str(serving["Image"])).facts() | {"reference": str(serving["Config"]["Image"])}
    new, known = _target(image, expected, missing_images)
    plan = Plan(
        old=old,
        new=new,
        schema=revision,
        postgres=now,
        new_postgres=_target_postgres(postgres_image or now.image, now, volume, upgrade, missing_images),
        database=name,
        size=size,
        runs=runs,
    )
    plan.recreated = _recreated(plan)
    _refuse(plan, known)
    if webserver is not None:
        plan.warnings += skew(webserver, plan.new.get("dagster", ""))
    return plan


def _target(image: str, expected: str, missing: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    if missing and docker_cli.inspect("image", image) is None:
        empty = {"reference": image, "id": "", "dagster": expected, "webserver": "", "postgres": "", "revision": ""}
        return empty, ()
    try:
        found = upgrade_image.dagster(image)
    except upgrade_image.ImageError as error:
        raise UpgradeError(f"dagster_upgrade_image: {error}. Nothing was touched.") from error
    return found.facts(), found.revisions


def _target_postgres(image: str, now: Postgres, volume: str, upgrade: str, missing: bool) -> Postgres:
    inspected = docker_cli.inspect("image", image)
    if inspected is None and missing:
        # The tag tells, if anything does.
        tag = image.rpartition(":")[2].partition(".")[0].partition("-")[0]
        major = tag if tag.isdigit() else now.major
    else:
        try:
            major = upgrade_image.postgres_major(image)
        except upgrade_image.ImageError as error:
            raise UpgradeError(f"dagster_upgrade_postgres_image: {error}. Nothing was touched.") from error
    identity = str(inspected["Id"]) if inspected else ""
    if major == now.major:
        return Postgres(image, major, now.volume, identity)
    if volume and volume == now.volume:
        raise UpgradeError(
            f"dagster_stack_postgres_volume: found {volume}, which has the data of PostgreSQL {now.major}; expected"
            " another name, or none. Nothing was touched."
        )
    return Postgres(image, major, volume or _new_volume(major, upgrade), identity)


def _new_volume(major: str, upgrade: str) -> str:
    # One that exists may hold data that somebody wants.
    name = f"{postgres_volume.DEFAULT}-{major}"
    return name if docker_cli.inspect("volume", name) is None else f"{name}-{upgrade}"


def volume_of(inspected: Mapping[str, Any]) -> str:
    """The volume in which a container of PostgreSQL has its data; empty where it is none."""
    for mount in inspected.get("Mounts") or ():
        if mount["Destination"] == "/var/lib/postgresql/data" and mount["Type"] == "volume":
            return str(mount["Name"])
    return ""


def _recreated(plan: Plan) -> list[str]:
    if not plan.pending:
        return []
    found = [POSTGRES] if plan.postgres_changes or plan.postgres.image != plan.new_postgres.image else []
    if plan.dagster_changes and docker_cli.inspect("container", PROXY) is not None:
        found.append(PROXY)
    read_only = [READ_ONLY] if docker_cli.inspect("container", READ_ONLY) is not None else []
    return [*found, WEBSERVER, *read_only, DAEMON]


def _refuse(plan: Plan, known: tuple[str, ...]) -> None:
    if int(plan.new_postgres.major) < int(plan.postgres.major):
        raise UpgradeError(
            f"dagster_upgrade_postgres_image: found PostgreSQL {plan.new_postgres.major}, expected"
            f" {plan.postgres.major} or newer, since the data is of that version. (Back to the version before the last"
            " upgrade: -e dagster_upgrade_back=true.) Nothing was touched."
        )
    unknown = [each for each in plan.schema.split(",") if each and known and each not in known]
    if unknown:
        raise UpgradeError(
            f"dagster_upgrade_image: found Dagster {plan.new['dagster']}, which does not know the schema"
            f" {', '.join(unknown)} of the database; expected the version that made it"
            f" ({plan.old['dagster']} runs now) or a newer one. Nothing was touched."
        )


def check_room(plan: Plan, root: str) -> None:
    """Refuse before the disk is full: a dump, and for a change of the database a second copy of it.

    Raises:
        UpgradeError
    """
    # A dump is compressed; the copy has no bloat but write-ahead log of its own.
    needed: dict[int, tuple[str, int]] = {}
    engine = docker_cli.run(["info", "--format", "{{.DockerRootDir}}"]).stdout.strip()
    wanted = [(root, plan.size), (engine, plan.size + (1 << 30) if plan.database_changes else 0)]
    for folder, size in wanted:
        device = os.stat(folder).st_dev
        needed[device] = (folder, needed.get(device, ("", 0))[1] + size)
    for folder, size in needed.values():
        free = shutil.disk_usage(folder).free
        # What is left then has to be enough to go on with.
        if free < size + (256 << 20):
            enough = (size + (256 << 20)) / 1e9
            raise UpgradeError(
                f"the disk of {folder}: found {free / 1e9:.1f} GB free; expected {enough:.1f} GB for a dump and a"
                " copy of the database. Make room (upkeep.yml, docker image prune) or grow the disk."
                " Nothing was touched."
            )


def skew(webserver: graphql.Webserver, version: str) -> list[str]:
    """Code locations with another Dagster than the webserver will have."""
    query = (
        "{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {"
        " ... on RepositoryLocation { dagsterLibraryVersions { name version } } } } } } }"
    )
    try:
        entries = webserver.query(query)["workspaceOrError"].get("locationEntries", [])
    except graphql.GraphQLError:
        return []
    found = []
    for entry in entries:
        libraries = (entry["locationOrLoadError"] or {}).get("dagsterLibraryVersions") or []
        has = next((each["version"] for each in libraries if each["name"] == "dagster"), "")
        if has and version and has != version:
            found.append(
                f"code location {entry['name']} has Dagster {has}, the webserver will have {version}: they understand"
                " each other within Dagster 1.x; bring the user code to the same version with deploy_core.yml"
            )
    return found
