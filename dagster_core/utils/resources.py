"""Resources, chosen by the environment: Google Cloud where GCP_PROJECT is set, files everywhere else."""

import csv
import io
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from dagster_core.utils.io_manager import JsonFilesIOManager, write_atomically
from dagster_core.utils.storage import storage_dir

Row = Mapping[str, Any]


class Publisher(dg.ConfigurableResource["Publisher"]):
    """Where finished tables go."""

    @abstractmethod
    def publish(self, table: str, rows: Sequence[Row]) -> str:
        """Replace a table by these rows; returns where it is."""


class FilePublisher(Publisher):
    """Tables as CSV files in the shared storage folder."""

    def publish(self, table: str, rows: Sequence[Row]) -> str:
        """Write `published/<table>.csv`."""
        path = storage_dir() / "published" / f"{table}.csv"
        write_atomically(path, _csv(rows))
        return str(path)


class BigQueryPublisher(Publisher):
    """Tables in BigQuery, replaced by one load job; with a bucket, also as CSV in Cloud Storage.

    Google's libraries are imported when they are used: they cost every process half a second otherwise.
    """

    project: str
    dataset: str = "dagster_core"
    location: str = ""
    bucket: str = ""

    def publish(self, table: str, rows: Sequence[Row]) -> str:
        """Replace `<project>.<dataset>.<table>`."""
        from google.cloud import bigquery

        client = bigquery.Client(project=self.project, location=self.location or None)
        client.create_dataset(self.dataset, exists_ok=True)
        target = f"{self.project}.{self.dataset}.{table}"
        client.load_table_from_json(
            [dict(row) for row in rows],
            target,
            job_config=bigquery.LoadJobConfig(
                autodetect=True, write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE
            ),
        ).result()
        if self.bucket:
            self._copy_to_bucket(table, rows)
        return target

    def _copy_to_bucket(self, table: str, rows: Sequence[Row]) -> None:
        from google.cloud import storage

        blob = storage.Client(project=self.project).bucket(self.bucket).blob(f"{self.dataset}/{table}.csv")
        blob.upload_from_string(_csv(rows), content_type="text/csv")


def resources_for_environment(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The resources of this environment.

    BIGQUERY_PROJECT says whose BigQuery is used (GCP_PROJECT when it is empty), GCP_LOCATION where, GCP_BUCKET which
    bucket gets a copy.
    """
    environment = os.environ if environment is None else environment
    project = environment.get("GCP_PROJECT", "")
    publisher: Publisher
    if project:
        publisher = BigQueryPublisher(
            project=environment.get("BIGQUERY_PROJECT") or project,
            location=environment.get("GCP_LOCATION", ""),
            bucket=environment.get("GCP_BUCKET", ""),
        )
    else:
        publisher = FilePublisher()
    return {"io_manager": JsonFilesIOManager(), "publisher": publisher}


def _csv(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
