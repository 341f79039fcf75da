# SPDX-License-Identifier: Apache-2.0
"""What a machine tells of its instance so that it can go on elsewhere: settings, images, the database; no secret.

Values of variables leave the machine only where they are settings of the user code that Dagster stores with each run
anyway, or names of Google's projects. Of all others it tells the names.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    docker_cli,
    dotenv,
    image_reference,
    releases,
    workspace,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_database,
    backup_files,
    backup_storage,
    config,
    database,
    jobs,
    queue_pause,
)

# The chart takes digests since https://github.com/dagster-io/dagster/pull/32570.
OLDEST_DAGSTER = (1, 12)
# Settings that are no secrets: the article's names of projects.
_PLAIN = ("GCP_PROJECT", "GCP_LOCATION", "BIGQUERY_PROJECT")
# The chart, or the release that comes, sets these itself.
_NOT_MOVED = ("POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD", "GOOGLE_APPLICATION_CREDENTIALS")
_OF_THE_RELEASE = ("DAGSTER_CURRENT_IMAGE", "DAGSTER_CORE_RELEASE", "DAGSTER_CONTAINER_CONTEXT")
# What is shorter may be any word, and is found everywhere.
_SHORTEST_SECRET = 16
_POSTGRES_PASSWORD = "PostgreSQL's password"  # noqa: S105 - what it is called
_PACKAGES = ("dagster", "dagster-postgres", "dagster-k8s", "dagster-gcp")
_LOOK = f"""
import importlib.metadata as metadata, json
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
print(json.dumps({{name: version(name) for name in {_PACKAGES!r}}}))
"""
_COUNT = """
SELECT count(*) FILTER (WHERE status IN ('STARTING', 'STARTED', 'CANCELING')),
       count(*) FILTER (WHERE status IN ('NOT_STARTED', 'QUEUED')) FROM runs
"""


class ExportError(Exception):
    """Nothing has been written; ``problems`` says all that is wrong, each with what to do."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True)
class Wanted:
    """What was asked for.

    Attributes:
        registry: where images go that have no registry yet; empty: such an image is refused.
        webserver_image: the image of webserver and daemon there; empty: the machine's, or the chart's.
        final: whether this is the export after which the machine does nothing any more.
    """

    registry: str = ""
    webserver_image: str = ""
    final: bool = False


def look(wanted: Wanted) -> dict[str, Any]:
    """All that the export needs to know.

    Raises:
        ExportError: something is missing; every finding is in it.
    """
    problems: list[str] = []
    found: dict[str, Any] = {"location": config.stack().location}
    for name, ask in (
        ("dagster_yaml", _dagster_yaml),
        ("workspace", _workspace),
        ("database", _database),
        ("core", lambda: _core(wanted)),
        ("webserver", lambda: _webserver(wanted)),
    ):
        try:
            found[name] = ask()
        except (
            ExportError,
            jobs.JobError,
            database.DatabaseError,
            docker_cli.DockerError,
            workspace.WorkspaceError,
            OSError,
        ) as error:
            problems += error.problems if isinstance(error, ExportError) else [str(error)]
    if "webserver" in found:
        problems += _too_old(found["webserver"]["packages"]["dagster"])
    if wanted.final and "database" in found:
        problems += _not_final(found["database"])
    if problems:
        raise ExportError(problems)
    found["queue_limit"] = _queue_limit()
    found["files"] = _files()
    return found


def _dagster_yaml() -> str:
    with open(queue_pause.path(), encoding="utf-8") as stream:
        return stream.read()


def _queue_limit() -> int | None:
    """The queue's limit before somebody paused it; None where dagster.yaml says it in another way."""
    with contextlib.suppress(queue_pause.PauseError):
        return queue_pause.state().number
    return None


def _workspace() -> list[Any]:
    path = os.path.join(config.stack().root, "dagster_home", "workspace.yaml")
    with open(path, encoding="utf-8") as stream:
        entries: list[Any] = workspace.parse(stream.read())["load_from"]
    return entries


def _database() -> dict[str, Any]:
    """Version and names, and how many runs go or wait."""
    counts = database.query(_COUNT)[0]
    rows = database.query("SELECT current_setting('server_version_num'), current_user, current_database()")[0]
    size = database.query("SELECT pg_database_size(current_database())")[0][0]
    return {
        "major": int(rows[0]) // 10000, "user": rows[1], "name": rows[2], "size": int(size),
        "in_flight": int(counts[0]), "waiting": int(counts[1]),
    }  # fmt: skip


def _not_final(found: Mapping[str, Any]) -> list[str]:
    """Why this cannot be the last export."""
    problems = []
    daemon = config.stack().daemon_container
    for name in (daemon, config.stack().webserver_container, config.stack().read_only_container):
        state = docker_cli.inspect("container", name)
        if state and state["State"]["Running"]:
            problems.append(
                f"dagster_export_final: found {name} running, which goes on writing; expected it stopped"
                f" (`dagster-gce pause 'moves to Kubernetes'`, then `docker stop {name}`)"
            )
    if found["in_flight"]:
        problems.append(
            f"dagster_export_final: found {found['in_flight']} runs in flight, which would stay STARTED for ever there;"
            f" expected none: stop {daemon}, let them end or end them, then export again"
        )
    return problems


def _too_old(version: str) -> list[str]:
    numbers = tuple(int(each) for each in re.findall(r"\d+", version)[:2])
    if numbers >= OLDEST_DAGSTER:
        return []
    wanted = ".".join(map(str, OLDEST_DAGSTER))
    return [
        f"Dagster: found {version or 'no version'}; expected {wanted} or newer, whose Helm chart takes images by"
        " digest: playbooks/upgrade.yml first"
    ]


def _core(wanted: Wanted) -> dict[str, Any]:
    """The release that serves: its image, its command, its settings, and the names of its other variables."""
    store = releases.Store(config.stack().root)
    release = store.load(store.current() or "")
    container = docker_cli.inspect("container", release.container) if release else None
    if release is None or container is None or not container["State"]["Running"]:
        what = f"the release {release.release}, whose container does not run" if release else "no release"
        raise ExportError([f"{what} serves on this machine; expected one that does: deploy_core.yml first"])
    image = docker_cli.inspect("image", str(container["Image"])) or {}
    return {
        "release": release.release,
        "git_sha": release.git_sha,
        "image": _image(image, release.digest, wanted.registry, "the release's image"),
        "words": [str(container["Path"]), *(str(each) for each in container["Args"])],
        "memory": int(container["HostConfig"].get("Memory") or 0),
        "packages": _packages(str(container["Image"])),
        **split_environment(container["Config"].get("Env") or (), image.get("Config", {}).get("Env") or ()),
    }


def split_environment(variables: Sequence[str], of_the_image: Sequence[str]) -> dict[str, Any]:
    """A container's variables without its image's: ``settings`` with their values, ``secret_names`` without."""
    given = dict(each.split("=", 1) for each in variables if each not in of_the_image and "=" in each)
    # What the user code's own settings are is in here, since Dagster stores them with each run.
    context: Any = {}
    with contextlib.suppress(ValueError):
        context = json.loads(given.get("DAGSTER_CONTAINER_CONTEXT", "{}"))
    own = {str(each).split("=", 1)[0] for each in context.get("docker", {}).get("env_vars", ())}
    ignored = {*_NOT_MOVED, *_OF_THE_RELEASE}
    settings = {
        name: value for name, value in sorted(given.items()) if name in {*own, *_PLAIN} - ignored and value != ""
    }
    return {
        "settings": settings,
        "secret_names": sorted(set(given) - set(settings) - ignored - own - set(_PLAIN)),
    }


def _webserver(wanted: Wanted) -> dict[str, Any]:
    """The image of webserver and daemon; with ``digest`` only where it can be had and knows Kubernetes."""
    name = config.stack().webserver_container
    container = docker_cli.inspect("container", name)
    if container is None:
        raise ExportError([f"found no container {name}; expected the stack: run site.yml"])
    if wanted.webserver_image and (why := image_reference.problem(wanted.webserver_image)):
        raise ExportError([f"dagster_export_webserver_image: found {wanted.webserver_image!r} ({why})"])
    image = docker_cli.inspect("image", str(container["Image"])) or {}
    return {
        "id": str(container["Image"]),
        "digest": registry_digest(image.get("RepoDigests") or ()),
        "packages": _packages(str(container["Image"])),
    }


def _image(image: Mapping[str, Any], preferred: str, registry: str, what: str) -> dict[str, Any]:
    digest = registry_digest([preferred, *(image.get("RepoDigests") or ())])
    if not digest and not registry:
        raise ExportError(
            [
                f"{what} {image.get('Id', '')[:19]} has no digest of a registry, since it was built on this machine;"
                " expected one that a cluster can pull: deploy what playbooks/build_core.yml has pushed, or name in"
                " dagster_export_registry where you will push it (europe-west1-docker.pkg.dev/PROJECT/REPOSITORY)"
            ]
        )
    return {
        "id": str(image.get("Id", "")),
        "digest": digest,
        "platform": f"{image.get('Os')}/{image.get('Architecture')}",
    }


def registry_digest(digests: Sequence[str]) -> str:
    """The first ``registry/name@sha256:…``; empty where there is none.

    An engine with containerd's image store gives a digest to what was built on the machine, too, under its bare name.
    """
    return next((each for each in digests if "/" in each.partition("@")[0] and "@sha256:" in each), "")


def _packages(image: str) -> dict[str, str]:
    """The versions of Dagster's packages in an image; empty texts for what it does not have."""
    try:
        done = docker_cli.run(["run", *docker_cli.CONFINED, "--entrypoint", "python3", image, "-I", "-c", _LOOK])
        found: dict[str, str] = json.loads(done.stdout)
    except (docker_cli.DockerError, ValueError) as error:
        raise ExportError([f"the image {image[:19]} cannot tell which Dagster it has: {error}"]) from error
    return found


def _files() -> dict[str, int]:
    """How much lies in the volume, which a cluster does not have."""
    try:
        there = backup_storage.look(backup_storage.mountpoint(), "all")
    except jobs.JobError:
        there = {}
    logs = [size for path, (size, _) in there.items() if path.startswith(f"{backup_storage.COMPUTE_LOGS}/")]
    return {
        "logs": len(logs), "logs_bytes": sum(logs),
        "others": len(there) - len(logs), "others_bytes": sum(size for size, _ in there.values()) - sum(logs),
    }  # fmt: skip


def secrets_in(texts: Mapping[str, str]) -> list[str]:
    """Which of the texts hold a secret of this machine: ``FILE holds the value of NAME``, the value never shown."""
    return [
        f"{name} would hold the value of {secret}"
        for secret, value in sorted(_secrets().items())
        for name, text in texts.items()
        if ((secret == _POSTGRES_PASSWORD and value) or len(value) >= _SHORTEST_SECRET) and value in text
    ]


def _secrets() -> dict[str, str]:
    root = config.stack().root
    found = {}
    with contextlib.suppress(OSError), open(os.path.join(root, ".env"), encoding="utf-8") as stream:
        known = (*_PLAIN, "POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD")
        found = {name: value for name, value in dotenv.parse(stream.read()).items() if name not in known}
    with contextlib.suppress(OSError):
        path = os.path.join(root, "dagster_home", "database", "password")
        with open(path, encoding="utf-8") as stream:
            found[_POSTGRES_PASSWORD] = stream.read().strip()
    return found


def folder() -> str:
    """Where a dump waits until it is fetched."""
    return os.path.join(config.stack().root, "export")


def dump(compression: int, reader: int | None) -> dict[str, Any]:
    """Dump the database into a new file, and read it back; tells where it is and what is in it.

    Args:
        compression: of pg_dump, 0 to 9.
        reader: the user who fetches it; None: root.

    Raises:
        jobs.JobError: there is no dump; nothing is left of it.
    """
    # The lock of backups: they end what they take for a killed one's leftovers.
    with jobs.lock("backup", wait=True), _removed_on_failure():
        remove()  # what a killed one left
        os.makedirs(folder(), mode=0o711)
        place = tempfile.mkdtemp(prefix="dump-", dir=folder())
        path = os.path.join(place, "database.dump")
        container = config.stack().postgres_container
        backup_database.end_leftovers()
        floor = backup_files.floor_of(place, 1 << 30, 5)
        estimate = int(database.query("SELECT pg_database_size(current_database())")[0][0]) // 2
        backup_files.require_room(place, floor, "the dump", estimate)
        with backup_database.snapshot(container) as seen:
            contents = seen.contents()
            revision = seen.schema_revision()
            stored = backup_files.write(path, backup_database.dump(container, seen.id, compression), (), floor)
        backup_files.check(path, stored.size, stored.sha256)
        if reader is not None:
            for each in (place, path):
                os.chown(each, reader, -1)
    return {
        "path": path, "size": stored.size, "sha256": stored.sha256,
        "database": contents, "schema_revision": revision,
    }  # fmt: skip


@contextlib.contextmanager
def _removed_on_failure() -> Iterator[None]:
    try:
        yield
    except BaseException:
        remove()
        raise


def remove() -> bool:
    """Remove what was left to be fetched; False where there was nothing."""
    there = os.path.isdir(folder())
    shutil.rmtree(folder(), ignore_errors=True)
    return there
