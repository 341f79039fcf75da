# SPDX-License-Identifier: Apache-2.0
"""The restore itself, in steps that a journal remembers: killed at any of them and started again, it ends the same.

Until the swap nothing of the present is touched but for the stop of webserver and daemon. After it, what is left to do
is done by whoever comes next, from the journal.
"""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files, releases
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_files,
    backup_place,
    backup_storage,
    backup_take,
    config,
    database,
    drill,
    jobs,
    restore_database,
    restore_plan,
    restore_settle,
    restore_swap,
    watch_pause,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_manifest import Manifest
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_settings import Settings
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.restore_plan import Wanted

FOLDER = ".restore"
JOURNAL = "restore-journal"
# The watch starts the stack again after so long, should everybody be gone.
PAUSE_SECONDS = 1800
_PAUSE = "restore of backup"
Progress = Callable[[str], Any]


def restore(settings: Settings, wanted: Wanted, progress: Progress = lambda text: None) -> jobs.Result:
    """Restore a backup, or finish a restore that was killed. Needs the lock of the job ``restore``.

    Raises:
        jobs.JobError: it cannot be done; what served before the swap serves again.
    """
    # A timer's backup would remove old ones meanwhile.
    with jobs.lock("backup", wait=True):
        return _restore(settings, wanted, progress)


def refuse(settings: Settings, wanted: Wanted, without_loss: bool = True) -> None:
    """Refuse what whoever asks has to put right, before the job begins: it is not kept as the job's failure.

    Args:
        without_loss: also refuse runs that would be lost, unless that is confirmed.

    Raises:
        jobs.JobError: why.
    """
    if wanted.source is None:
        drill.refuse(settings, wanted.backup, wanted.place, wanted.identity)
    plan = restore_plan.make(settings, wanted)
    if without_loss and not _swapped(_read()):
        _refuse_loss(plan, wanted)


def unfinished() -> str:
    """The backup whose restore was killed after the swap; empty where there is none such."""
    journal = _read()
    return str(journal["stamp"]) if _swapped(journal) else ""


def _swapped(journal: dict[str, Any]) -> bool:
    """Whether a restore was killed after the swap."""
    there = restore_swap.existing() if journal else []
    return bool(journal) and journal["old"] in there and journal["new"] not in there


def _refuse_loss(plan: restore_plan.Plan, wanted: Wanted) -> None:
    if plan.lost and not wanted.confirm:
        raise jobs.JobError(
            f"{plan.text()}\nNothing has been touched. To restore all the same: -e dagster_restore_confirm=true "
            "(--confirm); a backup of the present state is taken before"
        )


def _restore(settings: Settings, wanted: Wanted, progress: Progress) -> jobs.Result:
    started = time.monotonic()
    journal = _read()
    plan = restore_plan.make(settings, wanted)
    manifest = plan.manifest
    swapped = _swapped(journal)
    if swapped and journal["stamp"] != manifest.stamp:
        raise jobs.JobError(
            f"the restore of backup {journal['stamp']} was broken off after the swap: found backup {manifest.stamp} "
            f"asked for; expected that one to be finished first: restore {journal['stamp']}"
        )
    if swapped:
        progress(f"the restore of {journal['stamp']} was broken off after the swap; it goes on from there")
    else:
        progress(plan.text())
        _refuse_loss(plan, wanted)
    with _folder(settings) as folder, backup_files.identity_file(wanted.identity or settings.identity) as key:
        # Everything of the backup is read once before anything is stopped.
        paths = backup_place.fetch(plan.place, manifest, folder, settings)
        backup_files.check_identity(key, paths[manifest.file("database.dump")])
        with _deploy_lock():
            if not swapped:
                journal = _load(settings, wanted, manifest, paths, key, progress)
            journal["rows"] = sum(manifest.tables.values())
            with _watch_held(manifest):
                stopped = time.monotonic()
                try:
                    restore_settle.stop()
                    if not swapped:
                        progress("swapping the databases")
                        # Once more, now that nobody writes.
                        restore_plan.look_at_what_is_lost(plan)
                        journal["lost"] = plan.lost
                        _write(journal)
                        restore_swap.swap(journal["new"], journal["old"])
                    _settle(manifest, paths, key, journal, progress)
                finally:
                    restore_settle.start()
                restore_settle.prove(manifest)
                downtime = time.monotonic() - stopped
            seconds = time.monotonic() - started
            _audit(manifest, seconds)
        _forget()
    lost = f"; {journal['lost']} runs of before are in {journal['old']} only" if journal["lost"] else ""
    return jobs.Result(
        summary=f"backup {manifest.stamp} restored from {plan.place.name} in {seconds:.0f} s (nothing served for "
        f"{downtime:.0f} s): {journal['rows']} rows, {manifest.tables.get('runs', 0)} runs{lost}; the database of "
        f"before stays as {journal['old']}",
        details={
            "stamp": manifest.stamp,
            "place": plan.place.name,
            "old_database": journal["old"],
            "seconds": round(seconds, 1),
            "downtime_seconds": round(downtime, 1),
            "rows": journal["rows"],
            "lost_runs": journal["lost"],
            "ended_runs": journal.get("ended", 0),
            "missing_release": _missing_release(manifest),
        },
    )


def _missing_release(manifest: Manifest) -> dict[str, Any]:
    """The record of the release that served when the backup was taken, where this machine never had it; else {}.

    Where the machine knows it, another one serves because somebody has released it, and a restore of data is no
    rollback of code.
    """
    found = manifest.content.get("release") or {}
    store = releases.Store(config.stack().root)
    known = any(each.identity == found.get("identity") for each in store.all())
    return {} if known or not found else dict(found)


def _load(
    settings: Settings, wanted: Wanted, manifest: Manifest, paths: dict[str, str], key: str, progress: Progress
) -> dict[str, Any]:
    """The backup as a database of its own, beside the present one, proven; the journal that names both."""
    if not wanted.without_backup:
        progress("taking a backup of the present state")
        # Only on this machine: the bucket gets it with the next one.
        taken = backup_take.take(dataclasses.replace(settings, bucket=""), restore_plan.BEFORE_A_RESTORE, prune=False)
        progress(f"backup {taken.summary}")
    moment = time.strftime("%Y%m%d%H%M%S", time.gmtime())
    for name in restore_swap.existing():
        if name.startswith(restore_swap.NEW):
            restore_swap.drop(name)
    new, old = restore_swap.NEW + moment, restore_swap.OLD + moment
    progress(f"restoring {manifest.stamp} into a database of its own")
    restore_swap.create(new)
    try:
        restore_database.load(config.stack().postgres_container, new, paths[manifest.file("database.dump")], key)
        restore_database.compare(manifest, new)
        database.execute("ANALYZE", timeout=3600, database=new)
    except BaseException:
        with contextlib.suppress(database.DatabaseError):
            restore_swap.drop(new)
        raise
    journal = {"stamp": manifest.stamp, "new": new, "old": old, "lost": 0}
    _write(journal)
    return journal


def _settle(manifest: Manifest, paths: dict[str, str], key: str, journal: dict[str, Any], progress: Progress) -> None:
    """What has to be right before the daemon sees the restored database."""
    progress("bringing compute logs back")
    root = backup_storage.mountpoint()
    for name in manifest.logs:
        with backup_files.plain(paths[name], key) as stream:
            backup_storage.unpack(stream, root)
    restore_settle.migrate(manifest, journal["old"])
    journal["ended"] = restore_settle.end_runs_in_flight(manifest)


def back() -> jobs.Result:
    """Swap the database that the newest restore put aside back.

    Raises:
        jobs.JobError: there is none.
    """
    aside = [name for name in restore_swap.existing() if name.startswith(restore_swap.OLD)]
    if not aside:
        raise jobs.JobError("no restore has put a database aside here; there is nothing to go back to")
    moment = time.strftime("%Y%m%d%H%M%S", time.gmtime())
    with _deploy_lock(), watch_pause.held("restore taken back", PAUSE_SECONDS):
        try:
            restore_settle.stop()
            restore_swap.swap(aside[-1], restore_swap.OLD + moment)
        finally:
            restore_settle.start()
        restore_settle.prove(None)
    _forget()
    return jobs.Result(
        summary=f"the database of before the restore ({aside[-1]}) serves again; what was restored is "
        f"{restore_swap.OLD}{moment}"
    )


def drop_old() -> str:
    """Remove every database that restores have put aside; returns what was done."""
    gone = [name for name in restore_swap.existing() if name.startswith(restore_swap.OLD)]
    for name in gone:
        restore_swap.drop(name)
    return f"removed {', '.join(gone)}" if gone else "nothing to remove"


@contextlib.contextmanager
def _watch_held(manifest: Manifest) -> Iterator[None]:
    """Hold the watch; a pause that a killed restore left is ours to end."""
    found = watch_pause.read()
    if found and found.reason.startswith(_PAUSE):
        watch_pause.resume()
    with watch_pause.held(f"{_PAUSE} {manifest.stamp}", PAUSE_SECONDS):
        yield


@contextlib.contextmanager
def _deploy_lock() -> Iterator[None]:
    store = releases.Store(config.stack().root)
    try:
        with releases.lock(store.lock_path, {"who": getpass.getuser(), "operation": "restore"}):
            yield
    except releases.LockedError as error:
        raise jobs.JobError(f"something is being released right now: {error}") from error


def _audit(manifest: Manifest, seconds: float) -> None:
    store = releases.Store(config.stack().root)
    store.audit(
        {
            "time": releases.stamp(),
            "operation": "restore",
            "result": "done",
            "release": store.current() or "",
            "backup": manifest.stamp,
            "seconds": round(seconds, 3),
            "who": os.environ.get("SUDO_USER") or getpass.getuser(),
        }
    )


def _path() -> str:
    return os.path.join(config.stack().state, f"{JOURNAL}.json")


def _read() -> dict[str, Any]:
    try:
        with open(_path(), encoding="utf-8") as stream:
            found: dict[str, Any] = json.load(stream)
            return found
    except (OSError, ValueError):
        return {}


def _write(journal: dict[str, Any]) -> None:
    files.replace(_path(), (json.dumps(journal) + "\n").encode(), jobs.STATE_FILE)


def _forget() -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_path())


@contextlib.contextmanager
def _folder(settings: Settings) -> Iterator[str]:
    path = os.path.join(settings.directory, FOLDER)
    shutil.rmtree(path, ignore_errors=True)
    backup_place.Directory(settings.directory).prepare()
    os.makedirs(path, mode=0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
