"""What happens to a request: whose it is, whether they may, whether it fits, and what answers it."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from . import discovery, permissions, proxy
from .discovery import Document, Method
from .errors import Refusal
from .handlers import HANDLERS, Call, Caller, Raw
from .state import Thing

if TYPE_CHECKING:
    from .server import Google

MOST = 1000  # calls that a process remembers which runs for weeks
# Google's own clients send back what they read, read-only fields with it, and Google ignores those. Ours may not.
FOREIGN = ("google-cloud-sdk", "gapic/", "Google-Ansible-MM", "google-api-python-client")
# Problems that say nothing about the user's values: a client that sends such a thing is wrong in itself.
ALWAYS_WRONG = {"unknown", "read-only"}


def _foreign(headers: dict[str, str]) -> bool:
    """Whether a client is one of Google's own or of others, by what it says of itself."""
    says = headers.get("user-agent", "") + headers.get("x-goog-api-client", "")
    return any(name in says for name in FOREIGN)


@dataclass
class Request:
    """One call, as it was answered."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    caller: str
    status: int = 0
    answer: Any = None


@dataclass
class Fault:
    """What goes wrong, and how often."""

    kind: str
    times: int
    refusal: Refusal
    seconds: float = 0.0


@dataclass
class Answer:
    """What goes back; ``drop`` closes the connection instead."""

    status: int
    headers: dict[str, str]
    body: bytes
    drop: bool = False


def respond(google: Google, host: str, http: str, target: str, headers: dict[str, str], payload: bytes) -> Answer:
    """Answer one request; ``headers`` by lower-case name."""
    parts = urlsplit(target)
    queries = parse_qs(parts.query, keep_blank_values=True)
    alternate = proxy.route(host, http, parts.path)
    if alternate:
        return alternate(google, host, http, target, headers, payload)
    # Objects' content is also to be had here: mediaLink says so, no document does.
    path = parts.path.removeprefix("/download") if host == "storage.googleapis.com" else parts.path
    found = discovery.find(host, http, path)
    if found is None:
        return _refuse(
            google,
            Refusal(404, f"The requested URL {parts.path} was not found on this server."),
            True,
            f"{http} {host}{parts.path}",
        )
    document, method, values = found
    record = Request(method.key, parts.path, {name: texts[-1] for name, texts in queries.items()}, None, "")
    fault = None
    try:
        body = json.loads(payload) if payload else None
        record.body = copy.deepcopy(body)
        google.calls.append(method.key)
        google.seen.add(method.key)
        google.requests.append(record)
        if google.keep:
            del google.calls[:-MOST], google.requests[:-MOST]
        fault = google.take_fault(method.key)
        if fault and fault.kind == "slow":
            time.sleep(fault.seconds)
        if fault and fault.kind == "drop":
            return Answer(0, {}, b"", drop=True)
        if method.key.endswith("Operations.wait"):
            google.operations.join(
                discovery.expand(method, values).removeprefix(document.service_path).removesuffix("/wait")
            )
        with google.state.lock:
            caller = authenticate(google, headers)
            record.caller = caller.email
            if fault and fault.kind == "before":
                raise fault.refusal
            if not google.strict or _foreign(headers):
                body = document.without_read_only(method, body)
            call = make_call(google, document, method, path.lstrip("/"), values, queries, body, caller)
            for hook in google.take_hooks(method.key):
                hook(call)
            result = answer(google, call, body, fault)
            if isinstance(result, Raw):
                result = result.part(headers.get("range", ""))
            text = json.dumps(result).encode()
            record.answer = json.loads(text)
            if http != "GET":
                google.state.save()
        if fault and fault.kind == "answer":
            raise fault.refusal
        lost = fault is not None and fault.kind == "after"
        if isinstance(result, Raw):
            record.status = result.status
            return Answer(result.status, result.headers, result.content, lost)
        if method.response is None:
            record.status = 204
            return Answer(204, {}, b"", lost)
        record.status = 200
        return Answer(200, {"Content-Type": "application/json; charset=UTF-8"}, text, lost)
    except json.JSONDecodeError as error:
        return _refuse(google, Refusal(400, f"Invalid JSON payload received. {error}"), document.classic, "", record)
    except Refusal as refusal:
        return _refuse(google, refusal, document.classic, "", record)
    except NotImplementedError as error:
        return _refuse(google, Refusal(501, str(error)), document.classic, str(error), record)
    except Exception as error:
        return _refuse(
            google,
            Refusal(500, f"{type(error).__name__}: {error}"),
            document.classic,
            f"{method.key}: {error!r}",
            record,
        )


def _refuse(google: Google, refusal: Refusal, classic: bool, violation: str, record: Request | None = None) -> Answer:
    if violation:
        google.violations.append(violation)
    body = refusal.body(classic)
    if record:
        record.status, record.answer = refusal.status, body
    headers = {"Content-Type": "application/json; charset=UTF-8", **refusal.headers}
    return Answer(refusal.status, headers, json.dumps(body).encode())


def make_call(
    google: Google,
    document: Document,
    method: Method,
    path: str,
    values: dict[str, str],
    queries: dict[str, list[str]],
    body: Any,
    caller: Caller,
) -> Call:
    """What a handler gets; ``path`` is the request's, without a leading slash."""
    short = path.removeprefix(document.service_path)
    if not document.classic:
        short = short.split("/", 1)[1]  # v1/
    given = copy.deepcopy(body) if isinstance(body, dict) else {}
    return Call(google, document, method, values, queries, given, caller, short)


def answer(google: Google, call: Call, body: Any, fault: Fault | None = None) -> Thing:
    """Check a call, let its handler answer, check the answer.

    :raises Refusal: what Google refuses.
    :raises NotImplementedError: where no handler answers the method.
    """
    from .compute.common import check_scope_exists

    method, document = call.method, call.document
    permissions.check_scope(call)
    problems = document.check_query(method, call.queries) + document.check_request(method, body)
    google.violations += [
        f"{method.key}: {problem.rule} {problem.field}: {problem.message}"
        for problem in problems
        if problem.rule in ALWAYS_WRONG
    ]
    shape = [problem for problem in problems if problem.rule in ("unknown", "type", "read-only")]
    if shape:
        raise Refusal(400, shape[0].message)
    permissions.check(call)
    problems += document.check_path(method, call.path)
    if problems:
        raise Refusal(400, problems[0].message, "required" if problems[0].rule == "required" else "invalid")
    if call.api == "compute" and method.key not in ("compute.zones.get", "compute.regions.get"):
        check_scope_exists(call)
    handler = HANDLERS.get(method.key)
    if handler is None:
        raise NotImplementedError(f"the lab has no handler for {method.key}")
    earlier = google.operations.repeated(call)
    if earlier is not None:
        return earlier
    kept = google.state.copy() if fault and fault.kind == "operation" else None
    result = handler(call)
    google.operations.remember(call, result)
    if kept is not None and fault is not None:
        result = google.operations.fail(call, result, kept, fault.refusal)
    if fault and fault.kind == "stuck":
        google.operations.stick(call, result)
    for problem in () if isinstance(result, Raw) else document.check_response(method, result):
        google.violations.append(f"{method.key} answered: {problem.rule} {problem.field}: {problem.message}")
    return result


def authenticate(google: Google, headers: dict[str, str]) -> Caller:
    """Whose the token is. Raises Refusal: there is none, or one that is worth nothing."""
    kind, _, text = headers.get("authorization", "").partition(" ")
    known = google.state.note("tokens").get(text.strip()) if kind.lower() == "bearer" else None
    if not text:
        message = "Request is missing required authentication credential. Expected OAuth 2 access token."
        raise Refusal(
            401, message, "required", headers={"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/"'}
        )
    if known is None or known["expires"] < time.time():
        challenge = {"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/", error="invalid_token"'}
        message = "Request had invalid authentication credentials. Expected OAuth 2 access token."
        raise Refusal(401, message, "authError", headers=challenge)
    return Caller(known["email"], frozenset(known["scopes"]))
