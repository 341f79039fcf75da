"""The lab's Cloud Storage, with Google's own library as the judge."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from google.api_core.exceptions import Conflict, Forbidden, NotFound, PreconditionFailed
from google.cloud import storage

from lab.google import Google
from lab.google.errors import Refusal

PROJECT = "example-project"


@pytest.fixture
def client(google: Google) -> storage.Client:
    return storage.Client(project=PROJECT)


def test_googles_library_makes_fills_reads_and_deletes(client: storage.Client, google: Google, tmp_path: Path) -> None:
    google.strict = False
    bucket = client.create_bucket("example-bucket", location="europe-west3")
    assert [found.name for found in client.list_buckets()] == ["example-bucket"]
    content = os.urandom(600_000)
    for name, size in (("folder/small", None), ("folder/pieces", 256 << 10)):
        bucket.blob(name, chunk_size=size).upload_from_string(content)
        blob = bucket.get_blob(name)
        assert blob.size == len(content)
        # It compares the checksum that Google states with what arrived.
        assert blob.download_as_bytes(checksum="crc32c") == content
        assert blob.download_as_bytes(start=10, end=19) == content[10:20]
    assert [blob.name for blob in client.list_blobs(bucket, prefix="folder/")] == ["folder/pieces", "folder/small"]
    with pytest.raises(PreconditionFailed):
        bucket.blob("folder/small").upload_from_string(b"another", if_generation_match=0)
    with pytest.raises(Conflict):
        bucket.delete()
    bucket.delete_blobs(list(client.list_blobs(bucket)))
    bucket.delete()
    with pytest.raises(NotFound):
        client.get_bucket("example-bucket")


def test_a_retention_policy_keeps_objects(client: storage.Client, google: Google) -> None:
    google.strict = False
    bucket = client.create_bucket("example-bucket")
    bucket.blob("one").upload_from_string(b"1")
    bucket.retention_period = 86400
    bucket.patch()
    with pytest.raises(Forbidden, match="retention policy"):
        bucket.blob("one").delete()


def test_rights_on_a_bucket_are_enough(google: Google) -> None:
    google.call("iam.projects.serviceAccounts.create", {"name": f"projects/{PROJECT}"}, {"accountId": "worker"})
    worker = f"worker@{PROJECT}.iam.gserviceaccount.com"
    google.call("storage.buckets.insert", {"project": PROJECT}, {"name": "example-bucket"})
    with pytest.raises(Refusal, match=r"storage\.objects\.list"):
        google.call("storage.objects.list", {"bucket": "example-bucket"}, email=worker)
    binding = {"role": "roles/storage.objectUser", "members": [f"serviceAccount:{worker}"]}
    google.call("storage.buckets.setIamPolicy", {"bucket": "example-bucket"}, {"bindings": [binding]})
    assert google.call("storage.objects.list", {"bucket": "example-bucket"}, email=worker) == {
        "kind": "storage#objects"
    }
    with pytest.raises(Refusal, match=r"storage\.buckets\.get"):
        google.call("storage.buckets.get", {"bucket": "example-bucket"}, email=worker)
