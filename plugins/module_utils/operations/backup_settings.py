# SPDX-License-Identifier: Apache-2.0
"""What the role dagster_backup wants: ``/etc/dagster-gce/backup.json``."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config, jobs


@dataclass(frozen=True)
class Keep:
    """How many backups stay: the newest of each of so many hours, days and weeks; none older than ``days`` (0: any)."""

    hourly: int = 24
    daily: int = 7
    weekly: int = 4
    days: int = 0


@dataclass(frozen=True)
class Settings:
    """The settings; every default is the role's.

    Attributes:
        directory: where backups stand on the machine.
        bucket: a bucket of Google Cloud Storage; empty: none.
        prefix: what the names of our objects in it begin with.
        endpoint: where Google Cloud Storage answers.
        key_file: a service account's key; empty: the machine's own service account, by the metadata server.
        prune_bucket: whether old backups in the bucket are ours to remove (or a lifecycle rule's).
        recipients: age's public keys; empty: not encrypted.
        identity: age's private key, for restores and drills; the machine may do without.
        secrets: whether .env and the service account's key are part of a backup.
        storage: what of the files of I/O managers and compute logs is part of it: ``logs`` (those), ``all``, ``none``.
        logs_full_days: days after which compute logs are written as a whole again.
        min_free_bytes, min_free_percent: what a backup leaves free on its disk, whichever is more.
        compression: of pg_dump, 0 to 9.
        drill_memory: what the PostgreSQL of a drill or a recovery may take.
        continuous: whether the WAL is received, so that any moment can be restored.
        continuous_days: of how many days.
        continuous_base_hours: hours after which a backup gets a new base.
        continuous_slot_bytes: WAL that PostgreSQL keeps at most while nobody receives it.
        continuous_overdue: seconds after which WAL that is not received, or not in the bucket, is a problem.
    """

    directory: str = "/opt/dagster/backups"
    bucket: str = ""
    prefix: str = "dagster"
    endpoint: str = "https://storage.googleapis.com"
    key_file: str = ""
    prune_bucket: bool = True
    recipients: tuple[str, ...] = ()
    identity: str = ""
    secrets: bool = False
    storage: str = "logs"
    logs_full_days: int = 7
    keep: Keep = field(default_factory=Keep)
    bucket_keep: Keep = field(default_factory=Keep)
    min_free_bytes: int = 2 << 30
    min_free_percent: int = 10
    compression: int = 6
    drill_memory: str = "1g"
    continuous: bool = False
    continuous_days: int = 7
    continuous_base_hours: int = 24
    continuous_slot_bytes: int = 2 << 30
    continuous_overdue: int = 300


def load() -> Settings:
    """The settings of this machine.

    Raises:
        jobs.JobError: backups are not set up here.
    """
    given = config.load("backup")
    if not given:
        raise jobs.JobError(
            "backups are not set up on this machine: found no settings in /etc/dagster-gce/backup.json; run site.yml"
        )
    return make(given)


def make(given: dict[str, Any]) -> Settings:
    """Settings from plain data; names that are not known (of another version) are left out."""
    known = {each.name for each in fields(Settings)}
    values = {name: value for name, value in given.items() if name in known}
    for name in ("keep", "bucket_keep"):
        if name in values:
            values[name] = Keep(**{key: int(value) for key, value in values[name].items()})
    values["recipients"] = tuple(values.get("recipients", ()))
    return Settings(**values)
