# SPDX-License-Identifier: Apache-2.0
"""Google Cloud Storage over its JSON API, with the standard library: the machine has no library of Google's.

Objects are uploaded in resumable sessions with the MD5 that they must have, so Google itself refuses what was changed
on the way; an object that is there is never overwritten. https://cloud.google.com/storage/docs/performing-resumable-uploads
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    backup_manifest,
    backup_retention,
    backup_token,
    jobs,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.backup_files import (
    BLOCK,
    DamagedError,
    Stored,
    megabytes,
)

# A multiple of 256 KiB, as Google wants it.
CHUNK = 16 << 20
TIMEOUT = 60
PAUSES = (1, 2, 4, 8, 16)
_AGAIN = (408, 429, 500, 502, 503, 504)


class BucketError(jobs.JobError):
    """Google refused, or does not answer."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class Bucket:
    """Backups in a bucket, as a `backup_place.Place`; ``prefix`` is in front of every name."""

    def __init__(self, bucket: str, prefix: str, endpoint: str, token: Callable[[], str]) -> None:
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        self.endpoint = endpoint.rstrip("/")
        self.name = f"gs://{bucket}/{self.prefix}"
        self._token = token
        self._bearer = ""
        self._listed: dict[str, int] | None = None

    def stamps(self) -> list[str]:
        """See `backup_place.Place`."""
        found = [name.split("/") for name in self.objects()]
        return sorted(
            parts[0]
            for parts in found
            if len(parts) == 2 and parts[1] == backup_manifest.NAME and backup_retention.moment_of(parts[0]) is not None
        )

    def names(self, folder: str) -> dict[str, int]:
        """See `backup_place.Place`."""
        start = f"{folder}/"
        return {name[len(start) :]: size for name, size in self.objects().items() if name.startswith(start)}

    def objects(self) -> dict[str, int]:
        """Every object below the prefix with its size; listed once, and kept up to date."""
        if self._listed is None:
            found: dict[str, int] = {}
            page = ""
            while True:
                query = {
                    "prefix": f"{self.prefix}/",
                    "fields": "nextPageToken,items(name,size)",
                    **({"pageToken": page} if page else {}),
                }
                answer = self._json("GET", f"/storage/v1/b/{self._quoted_bucket}/o", query, f"list {self.name}")
                for item in answer.get("items", ()):
                    found[item["name"][len(self.prefix) + 1 :]] = int(item.get("size", 0))
                page = answer.get("nextPageToken", "")
                if not page:
                    break
            self._listed = found
        return dict(self._listed)

    def read(self, name: str) -> bytes:
        """See `backup_place.Place`."""
        try:
            with self._open("GET", self._path(name), {"alt": "media"}, f"read {self.name}/{name}") as answer:
                content: bytes = answer.read()
                return content
        except BucketError as error:
            if error.status == 404:
                raise DamagedError(f"{self.name}/{name}: there is no such object any more") from error
            raise

    def fetch(self, name: str, size: int, target: str) -> str:
        """See `backup_place.Place`; a broken download goes on where it stopped."""
        what = f"read {self.name}/{name}"
        with open(target, "wb") as stream:
            for pause in (*PAUSES, 0):
                have = stream.tell()
                if have >= size:
                    break
                headers = {"Range": f"bytes={have}-"} if have else {}
                try:
                    with self._open("GET", self._path(name), {"alt": "media"}, what, headers=headers) as answer:
                        if answer.status != 206:
                            stream.seek(0)
                            stream.truncate()
                        while block := answer.read(BLOCK):
                            stream.write(block)
                    break
                except BucketError as error:
                    if error.status == 404:
                        raise DamagedError(f"{self.name}/{name}: there is no such object any more") from error
                    raise
                except (OSError, http.client.HTTPException) as error:
                    if not pause:
                        raise BucketError(f"{what}: the connection breaks again and again ({error})") from error
                    time.sleep(pause)
            stream.flush()
            os.fsync(stream.fileno())
        return target

    def remove(self, name: str) -> None:
        """See `backup_place.Place`."""
        try:
            with self._open("DELETE", self._path(name), {}, f"remove {self.name}/{name}"):
                pass
        except BucketError as error:
            if error.status != 404:
                raise
        if self._listed is not None:
            self._listed.pop(name, None)

    def put(self, path: str, name: str, stored: Stored) -> None:
        """Upload a file under a name and make sure that Google has what was written.

        Raises:
            BucketError: Google refused.
            DamagedError: an object of this name is there and is another, or what arrived is.
        """
        what = f"write {self.name}/{name}"
        try:
            found = self._upload(path, name, stored, what)
        except BucketError as error:
            # Somebody (an earlier attempt, whose answer was lost) has written it already.
            if error.status != 412:
                raise
            found = self._json("GET", self._path(name), {}, what)
        if (found.get("md5Hash"), int(found.get("size", -1))) != (stored.md5, stored.size):
            size = megabytes(int(found.get("size", 0)))
            raise DamagedError(
                f"{self.name}/{name}: Google has {size} with MD5 {found.get('md5Hash')}, "
                f"expected {megabytes(stored.size)} with {stored.md5}"
            )
        if self._listed is not None:
            self._listed[name] = stored.size

    def _upload(self, path: str, name: str, stored: Stored, what: str) -> dict[str, Any]:
        body = json.dumps({"name": f"{self.prefix}/{name}", "md5Hash": stored.md5}).encode()
        query = {"uploadType": "resumable", "ifGenerationMatch": "0"}
        headers = {
            "Content-Type": "application/json; charset=UTF-8",
            "X-Upload-Content-Type": "application/octet-stream",
            "X-Upload-Content-Length": str(stored.size),
        }
        target = f"/upload/storage/v1/b/{self._quoted_bucket}/o"
        with self._open("POST", target, query, what, body=body, headers=headers) as answer:
            session = answer.headers["Location"]
        with open(path, "rb") as stream:
            sent, unsure, attempts = 0, False, iter(PAUSES)
            while True:
                stream.seek(sent)
                # After something went wrong the first question is how far Google got: it may even have all of it.
                chunk = b"" if unsure else stream.read(CHUNK)
                given = f"bytes {sent}-{sent + len(chunk) - 1}/{stored.size}" if chunk else f"bytes */{stored.size}"
                try:
                    done, has = self._send(session, chunk, given, what)
                except (OSError, http.client.HTTPException, BucketError) as error:
                    if isinstance(error, BucketError) and error.status not in _AGAIN:
                        raise
                    pause = next(attempts, None)
                    if pause is None:
                        raise BucketError(f"{what}: broken off again and again ({error})") from error
                    time.sleep(pause)
                    unsure = True
                    continue
                if done is not None:
                    return done
                if has > sent:
                    attempts = iter(PAUSES)
                sent, unsure = has, False

    def _send(self, session: str, chunk: bytes, content_range: str, what: str) -> tuple[dict[str, Any] | None, int]:
        """One piece: the finished object, or how many bytes Google has."""
        headers = {"Content-Range": content_range, "Content-Length": str(len(chunk))}
        request = urllib.request.Request(session, data=chunk, headers=headers, method="PUT")
        try:
            with _opener().open(request, timeout=TIMEOUT * 5) as answer:
                found: dict[str, Any] = json.load(answer)
                return found, 0
        except urllib.error.HTTPError as error:
            if error.code == 308:
                has = error.headers.get("Range", "")
                return None, int(has.rpartition("-")[2]) + 1 if has else 0
            raise self._refusal(error, what) from error

    def _json(self, verb: str, path: str, query: Mapping[str, str], what: str) -> dict[str, Any]:
        with self._open(verb, path, query, what) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    @property
    def _quoted_bucket(self) -> str:
        return urllib.parse.quote(self.bucket, safe="")

    def _path(self, name: str) -> str:
        return f"/storage/v1/b/{self._quoted_bucket}/o/{urllib.parse.quote(f'{self.prefix}/{name}', safe='')}"

    @contextlib.contextmanager
    def _open(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str],
        what: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Any]:
        """An answer, after as many attempts as it takes; errors of the reading itself are the caller's."""
        url = f"{self.endpoint}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        renewed = False
        for pause in (*PAUSES, 0):
            if not self._bearer:
                self._bearer = self._token()
            request = urllib.request.Request(
                url, data=body, method=verb, headers={**(headers or {}), "Authorization": f"Bearer {self._bearer}"}
            )
            try:
                answer = _opener().open(request, timeout=TIMEOUT)
                break
            except urllib.error.HTTPError as error:
                refusal = self._refusal(error, what)
                if error.code == 401 and not renewed:
                    renewed, self._bearer = True, ""
                    continue
                if error.code not in _AGAIN or not pause:
                    raise refusal from error
            except (OSError, http.client.HTTPException) as error:
                if not pause:
                    reason = getattr(error, "reason", None) or error
                    raise BucketError(f"{what}: {self.endpoint} does not answer ({reason})") from error
            time.sleep(pause)
        with answer:
            yield answer

    def _refusal(self, error: urllib.error.HTTPError, what: str) -> BucketError:
        text = error.read().decode("utf-8", "replace")
        try:
            found = json.loads(text)["error"]
            message, reason = str(found["message"]), str(found.get("errors", [{}])[0].get("reason", ""))
        except (ValueError, KeyError, TypeError, IndexError):
            message, reason = text.strip()[:300] or error.reason, ""
        advice = {
            401: "; the machine's token is not taken: does it have a service account with the scope cloud-platform?",
            403: f"; give the machine's service account roles/storage.objectUser on gs://{self.bucket}, and its token "
            "the scope cloud-platform (or devstorage.read_write)",
            404: f"; expected the bucket {self.bucket} (dagster_backup_bucket): make it with the module gcp_bucket",
        }
        code = f"{error.code} {reason}".strip()
        return BucketError(f"{what}: Google refused ({code}): {message}{advice.get(error.code, '')}", error.code)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """308 is Google's word for "go on", and no redirect of ours may carry the token elsewhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_NoRedirect)


def make(bucket: str, prefix: str, endpoint: str, key_file: str) -> Bucket:
    """A bucket with the machine's own service account, or a key's."""
    return Bucket(bucket, prefix, endpoint, lambda: backup_token.get(key_file))
