"""A bucket of the lab's Google as the machine uses it: uploads, downloads, what Google refuses, what breaks."""

from __future__ import annotations

import json
import os
import ssl
import urllib.request
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_bucket,
    backup_files,
    backup_token,
    jobs,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_bucket import Bucket, BucketError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_files import DamagedError, Stored
from lab.google import Google

PROJECT = "example-project"
WORKER = f"worker@{PROJECT}.iam.gserviceaccount.com"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between attempts."""
    monkeypatch.setattr(backup_bucket, "PAUSES", (1, 1, 1))
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.fixture
def bucket(google: Google) -> Bucket:
    google.call("storage.buckets.insert", {"project": PROJECT}, {"name": "example-backups", "location": "europe-west3"})
    return Bucket("example-backups", "machine", "https://storage.googleapis.com", google.token)


def file_of(folder: Path, content: bytes) -> tuple[str, Stored]:
    path = folder / "file"
    path.unlink(missing_ok=True)
    return str(path), backup_files.write(str(path), [content])


def test_there_and_back(bucket: Bucket, tmp_path: Path) -> None:
    path, stored = file_of(tmp_path, os.urandom(300_000))
    bucket.put(path, "20261123T000000Z/database.dump", stored)
    bucket.put(*(lambda each: (each[0], "20261123T000000Z/manifest.json", each[1]))(file_of(tmp_path, b"{}")))
    assert bucket.stamps() == ["20261123T000000Z"]
    again = Bucket("example-backups", "machine", bucket.endpoint, bucket._token)
    assert again.names("20261123T000000Z") == {"database.dump": 300_000, "manifest.json": 2}
    assert again.read("20261123T000000Z/manifest.json") == b"{}"
    fetched = again.fetch("20261123T000000Z/database.dump", 300_000, str(tmp_path / "fetched"))
    backup_files.check(fetched, stored.size, stored.sha256)
    again.remove("20261123T000000Z/manifest.json")
    again.remove("20261123T000000Z/manifest.json")
    assert again.stamps() == []


def test_pieces_and_pages(bucket: Bucket, google: Google, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_bucket, "CHUNK", 256 << 10)
    monkeypatch.setattr("lab.google.storage.PAGE", 2)
    path, stored = file_of(tmp_path, os.urandom(600_000))
    for number in range(5):
        bucket.put(path, f"logs/{number}", stored)
    listed = Bucket("example-backups", "machine", bucket.endpoint, bucket._token).names("logs")
    assert listed == {str(number): 600_000 for number in range(5)}
    assert google.calls.count("storage.objects.list") == 3


@pytest.mark.parametrize("kind", ["before", "drop", "after"])
def test_an_upload_that_breaks_goes_on(
    bucket: Bucket, google: Google, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """``after``: Google has the piece, and its answer is lost."""
    monkeypatch.setattr(backup_bucket, "CHUNK", 256 << 10)
    path, stored = file_of(tmp_path, os.urandom(600_000))
    google.fail("storage.upload", 503, kind=kind, times=2)
    bucket.put(path, "logs/one", stored)
    fetched = bucket.fetch("logs/one", stored.size, str(tmp_path / "fetched"))
    backup_files.check(fetched, stored.size, stored.sha256)


def test_an_upload_that_breaks_for_good_is_an_error(bucket: Bucket, google: Google, tmp_path: Path) -> None:
    path, stored = file_of(tmp_path, b"x" * 1000)
    google.fail("storage.upload", 503, times=50)
    with pytest.raises(BucketError, match=r"write gs://example-backups/machine/logs/one: broken off again and again"):
        bucket.put(path, "logs/one", stored)
    assert bucket.names("logs") == {}


def test_google_takes_nothing_that_was_changed_on_the_way(bucket: Bucket, tmp_path: Path) -> None:
    path, stored = file_of(tmp_path, b"x" * 1000)
    Path(path).write_bytes(b"y" * 1000)
    with pytest.raises(BucketError, match="Provided MD5 hash"):
        bucket.put(path, "logs/one", stored)
    assert bucket.names("logs") == {}


def test_what_is_there_is_not_overwritten(bucket: Bucket, tmp_path: Path) -> None:
    path, stored = file_of(tmp_path, b"one")
    bucket.put(path, "logs/one", stored)
    bucket.put(path, "logs/one", stored)
    with pytest.raises(DamagedError, match="logs/one: Google has"):
        bucket.put(*(lambda each: (each[0], "logs/one", each[1]))(file_of(tmp_path, b"another")))
    assert bucket.read("logs/one") == b"one"


def test_a_download_goes_on_where_it_broke(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, stored = file_of(tmp_path, os.urandom(3_000_000))
    bucket.put(path, "logs/one", stored)
    real = urllib.request.OpenerDirector.open
    breaks = [1_000_000, 1_500_000]

    class Broken:
        """An answer that ends in the middle."""

        def __init__(self, answer: object, left: int) -> None:
            self.answer, self.left = answer, left

        def __getattr__(self, name: str) -> object:
            return getattr(self.answer, name)

        def __enter__(self) -> Broken:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def read(self, size: int) -> bytes:
            if not self.left:
                raise ConnectionResetError("cut")
            data = self.answer.read(min(size, self.left))  # type: ignore[attr-defined]
            self.left -= len(data)
            return bytes(data)

    asked = []

    def open_url(self: urllib.request.OpenerDirector, request: urllib.request.Request, **more: object) -> object:
        answer = real(self, request, **more)  # type: ignore[arg-type]
        if "alt=media" in request.full_url:
            asked.append(request.get_header("Range"))
            if breaks:
                return Broken(answer, breaks.pop())
        return answer

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", open_url)
    fetched = bucket.fetch("logs/one", stored.size, str(tmp_path / "fetched"))
    backup_files.check(fetched, stored.size, stored.sha256)
    assert asked == [None, "bytes=1500000-", "bytes=2500000-"]


def test_no_such_bucket(google: Google) -> None:
    bucket = Bucket("no-such-bucket", "machine", "https://storage.googleapis.com", google.token)
    with pytest.raises(
        BucketError, match=r"404 notFound.*expected the bucket no-such-bucket \(dagster_backup_bucket\)"
    ):
        bucket.stamps()


@pytest.mark.parametrize("permission", ["list", "create", "delete", "get"])
def test_a_permission_that_is_missing(bucket: Bucket, google: Google, tmp_path: Path, permission: str) -> None:
    path, stored = file_of(tmp_path, b"one")
    bucket.put(path, "logs/one", stored)
    google.revoke(f"storage.objects.{permission}")
    calls = {
        "list": lambda: bucket.stamps() if bucket._listed is not None else bucket.objects(),
        "create": lambda: bucket.put(path, "logs/two", stored),
        "delete": lambda: bucket.remove("logs/one"),
        "get": lambda: bucket.read("logs/one"),
    }
    with pytest.raises(BucketError, match=r"403 forbidden.*roles/storage.objectUser on gs://example-backups"):
        calls[permission]()  # type: ignore[no-untyped-call]


def test_a_token_that_has_ended_is_renewed(bucket: Bucket, google: Google) -> None:
    bucket.stamps()
    google.expire_tokens()
    bucket._listed = None
    assert bucket.stamps() == []


def test_googles_bad_minute(bucket: Bucket, google: Google) -> None:
    google.fail("storage.objects.list", 503, times=2)
    assert bucket.stamps() == []
    bucket._listed = None
    google.fail("storage.objects.list", 503, times=9)
    with pytest.raises(BucketError, match="503"):
        bucket.stamps()


def test_a_token_for_a_key(google: Google, tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    key.write_text(json.dumps(google.service_account_key(WORKER)))
    token = backup_token.get(str(key))
    assert google.state.note("tokens")[token]["email"] == WORKER
    google.call("storage.buckets.insert", {"project": PROJECT}, {"name": "example-backups"})
    assert Bucket("example-backups", "m", "https://storage.googleapis.com", lambda: token).stamps() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"private_key": "none"}, "openssl cannot sign"),
        ({"client_email": f"other@{PROJECT}.iam.gserviceaccount.com"}, "for no login"),
        ({"token_uri": None}, None),
    ],
)
def test_a_key_that_is_none(google: Google, tmp_path: Path, change: dict[str, str | None], said: str | None) -> None:
    content = {**google.service_account_key(WORKER), **change}
    content = {name: value for name, value in content.items() if value is not None}
    key = tmp_path / "key.json"
    key.write_text(json.dumps(content))
    with pytest.raises(jobs.JobError, match=said or "is no service account's key"):
        backup_token.get(str(key))


def test_no_metadata_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(jobs.JobError, match=r"metadata server 127.0.0.1:9 does not answer .*dagster_backup_key_file"):
        backup_token.get()


def test_it_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssl, "create_default_context", ssl._create_unverified_context)
    bucket = Bucket("example-backups", "m", "https://127.0.0.1:9", lambda: "token")
    with pytest.raises(BucketError, match=r"https://127.0.0.1:9 does not answer"):
        bucket.stamps()
