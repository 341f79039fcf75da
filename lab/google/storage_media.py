"""Cloud Storage's uploads: in one request (``media``, ``multipart``), or in a session that can be taken up again.

Made after https://cloud.google.com/storage/docs/performing-resumable-uploads. A session belongs to whoever has its
address; pieces but the last one are multiples of 256 KiB.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from . import discovery, storage
from .dispatch import Answer, Request, authenticate
from .errors import Refusal
from .proxy import serves
from .secrets import crc32c
from .state import new_id

if TYPE_CHECKING:
    from .handlers import Caller
    from .server import Google

METHOD = "storage.objects.insert"
PIECE = 256 << 10
JSON = {"Content-Type": "application/json; charset=UTF-8"}


@serves("storage.googleapis.com", "POST", "/upload/storage/v1/b/*/o")
def begin(google: Google, host: str, http: str, target: str, headers: dict[str, str], payload: bytes) -> Answer:
    """An upload in one request (with what is said of the object or without), or the beginning of a session."""
    parts = urlsplit(target)
    queries = parse_qs(parts.query, keep_blank_values=True)
    query = {name: values[-1] for name, values in queries.items()}
    record = Request(METHOD, parts.path, query, None, "")
    google.calls.append(METHOD)
    google.seen.add(METHOD)
    google.requests.append(record)
    fault = google.take_fault(METHOD)
    if fault and fault.kind == "drop":
        return Answer(0, {}, b"", drop=True)
    try:
        with google.state.lock:
            caller = authenticate(google, headers)
            record.caller = caller.email
            if fault and fault.kind == "before":
                raise fault.refusal
            kind = query.get("uploadType")
            resumable = kind == "resumable"
            given = json.loads(payload or b"{}") if resumable else {}
            if kind == "multipart":
                given, payload = _parts(headers.get("content-type", ""), payload)
            _check(google, queries, caller, given)
            bucket = unquote(parts.path.split("/")[5])
            name = given.get("name") or query.get("name", "")
            if not name:
                raise Refusal(400, "Required", "required")
            storage.find_bucket(google, caller, bucket, "storage.objects.create")
            _precondition(google, bucket, name, query)
            if not resumable:
                if kind == "media":
                    given["contentType"] = headers.get("content-type", "application/octet-stream")
                return _done(google, bucket, name, given, query, payload)
            upload = secrets.token_urlsafe(16)
            google.state.note("storage uploads")[upload] = {
                "bucket": bucket, "name": name, "given": given, "query": query,
                "total": headers.get("x-upload-content-length", ""),
            }  # fmt: skip
            _path(google, upload).parent.mkdir(parents=True, exist_ok=True)
            _path(google, upload).write_bytes(b"")
        port = headers.get("host", host)
        location = f"https://{port}{parts.path}?uploadType=resumable&upload_id={upload}"
        record.status = 200
        return Answer(200, {"Location": location, "X-GUploader-UploadID": upload}, b"")
    except Refusal as refusal:
        record.status = refusal.status
        return _refused(refusal)


@serves("storage.googleapis.com", "PUT", "/upload/storage/v1/b/*/o")
def go_on(google: Google, host: str, http: str, target: str, headers: dict[str, str], payload: bytes) -> Answer:
    """A piece of a session, or the question how far it is."""
    fault = google.take_fault("storage.upload")
    if fault and fault.kind == "drop":
        return Answer(0, {}, b"", drop=True)
    upload = parse_qs(urlsplit(target).query).get("upload_id", [""])[0]
    try:
        with google.state.lock:
            known = google.state.note("storage uploads").get(upload)
            if known is None:
                raise Refusal(404, "No such upload", "notFound")
            if fault and fault.kind == "before":
                raise fault.refusal
            answer = _piece(google, upload, known, headers.get("content-range", ""), payload)
            if fault and fault.kind == "after":
                answer.drop = True
            return answer
    except Refusal as refusal:
        return _refused(refusal)


def _piece(google: Google, upload: str, known: dict[str, Any], given: str, payload: bytes) -> Answer:
    if "done" in known:
        return Answer(200, JSON, json.dumps(known["done"]).encode())
    path = _path(google, upload)
    have = path.stat().st_size
    match = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", given)
    if not match:
        raise Refusal(400, f"Failed to parse Content-Range header: '{given}'", "badRequest")
    if match[1] is not None:
        first, last = int(match[1]), int(match[2])
        if first > have or last - first + 1 != len(payload):
            raise Refusal(503, "Invalid request.  The piece does not begin where the last one ended.", "backendError")
        whole = match[3] != "*" and last + 1 == int(match[3])
        if not whole and len(payload) % PIECE:
            raise Refusal(400, "Invalid request.  A piece that is not the last one has to be a multiple of 256 KiB.")
        with path.open("r+b") as stream:
            stream.seek(first)
            stream.write(payload)
            stream.truncate()
        have = last + 1
    if match[3] == "*" or have < int(match[3]):
        return Answer(308, {"Range": f"bytes=0-{have - 1}"} if have else {}, b"")
    answer = _done(google, known["bucket"], known["name"], known["given"], known["query"], path.read_bytes())
    known["done"] = json.loads(answer.body)
    path.unlink()
    return answer


def _done(
    google: Google, bucket: str, name: str, given: dict[str, Any], query: dict[str, str], content: bytes
) -> Answer:
    md5 = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
    if given.get("md5Hash", md5) != md5:
        raise Refusal(
            400, f'Provided MD5 hash "{given["md5Hash"]}" doesn\'t match calculated MD5 hash "{md5}".', "invalid"
        )
    _precondition(google, bucket, name, query)
    more = {each: value for each, value in given.items() if each not in ("name", "bucket", "md5Hash", "crc32c")}
    crc = base64.b64encode(crc32c(content).to_bytes(4, "big")).decode()
    thing = storage.describe(
        bucket, name, generation=new_id(), size=str(len(content)), md5Hash=md5, crc32c=crc, etag=md5[:12], **more
    )
    path = storage.content_path(google, thing)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    before = storage.objects(google, bucket).get(name)
    if before:
        storage.content_path(google, before).unlink(missing_ok=True)
    storage.objects(google, bucket)[name] = thing
    google.state.save()
    document, method = discovery.method(METHOD)
    for problem in document.check_response(method, thing):
        google.violations.append(f"{METHOD} answered: {problem.rule} {problem.field}: {problem.message}")
    return Answer(200, dict(JSON), json.dumps(thing).encode())


def _precondition(google: Google, bucket: str, name: str, query: dict[str, str]) -> None:
    found = storage.objects(google, bucket).get(name)
    wanted = query.get("ifGenerationMatch")
    if wanted is not None and wanted != (found["generation"] if found else "0"):
        message = "At least one of the pre-conditions you specified did not hold."
        raise Refusal(412, message, "conditionNotMet")


def _check(google: Google, queries: dict[str, list[str]], caller: Caller, given: Any) -> None:
    document, method = discovery.method(METHOD)
    if not method.scopes & caller.scopes:
        google.violations.append(f"{METHOD}: the token has none of the scopes that it takes")
        raise Refusal(403, "Insufficient Permission", "insufficientPermissions")
    problems = document.check_query(method, queries) + document.check_request(method, given)
    google.violations += [f"{METHOD}: {each.rule} {each.field}: {each.message}" for each in problems]
    if problems:
        raise Refusal(400, problems[0].message, "invalid")


def _parts(content_type: str, payload: bytes) -> tuple[dict[str, Any], bytes]:
    """What is said of the object, and its content, of a request with both (RFC 2387)."""
    match = re.search(r'boundary="?([^";]+)"?', content_type)
    if not match:
        raise Refusal(400, "The request has no boundary.", "badRequest")
    line = b"--" + match[1].encode()
    parts = payload.split(line)
    if len(parts) != 4 or parts[3].strip() != b"--":
        raise Refusal(400, "The request has not two parts.", "badRequest")
    about, content = (part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts[1:3])
    given: dict[str, Any] = json.loads(about)
    given.setdefault("contentType", "application/octet-stream")
    return given, content


def _path(google: Google, upload: str) -> Any:
    return google.folder / "storage" / f"upload-{upload}"


def _refused(refusal: Refusal) -> Answer:
    return Answer(refusal.status, {**JSON, **refusal.headers}, json.dumps(refusal.body(True)).encode())
