"""Compute's operations: PENDING, RUNNING, DONE; and requests that are sent twice."""

from __future__ import annotations

import copy
import secrets
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import Refusal
from .state import State, Thing, new_id, timestamp

if TYPE_CHECKING:
    from .handlers import Call

KEPT = 500  # operations that are remembered: a demo may run for weeks
WAIT_SECONDS = 110  # operations.wait answers within two minutes
# HTTP status -> the code in the error of a newer API's operation (google.rpc.Code).
CODES = {400: 3, 403: 7, 404: 5, 409: 6, 412: 9, 429: 8, 500: 13, 503: 14}
PREFIX = "https://www.googleapis.com/compute/v1/"


class Operations:
    """All operations of a state.

    :ivar polls: how many looks it takes until an operation is DONE.
    :ivar seconds: how long it takes when nobody looks.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.polls = 1
        self.seconds = 2.0
        self._working: dict[str, threading.Thread] = {}

    def start(
        self,
        call: Call,
        target: str,
        kind: str,
        *,
        work: Callable[[], None] | None = None,
        error: Refusal | None = None,
        target_id: str | None = None,
    ) -> Thing:
        """Make an operation.

        :param target: the path of the thing that it changes.
        :param kind: ``insert``, ``delete``, ``setLabels``…
        :param work: what takes real time (a machine that boots): runs in a thread, without the state's lock; the
            operation is DONE when it returns, and has an error if it raises Refusal.
        :param error: ends the operation with this error.
        """
        self._forget()
        scope = [*target.split("/"), "global"]
        local = scope[2] in ("zones", "regions")
        where = "/".join(scope[:4] if local else [*scope[:2], "global"])
        name = (
            f"operation-{int(time.time() * 1000)}-{secrets.token_hex(6)}-{secrets.token_hex(4)}-{secrets.token_hex(4)}"
        )
        path = f"{where}/operations/{name}"
        thing = self.state.get(f"compute/{target}") or {}
        now = timestamp()
        operation: Thing = {
            "kind": "compute#operation",
            "id": new_id(),
            "name": name,
            "operationType": kind,
            "targetLink": PREFIX + target,
            "targetId": target_id or thing.get("id", "0"),
            "status": "RUNNING" if self.polls < 2 else "PENDING",
            "progress": 0,
            "user": call.caller.email,
            "insertTime": now,
            "startTime": now,
            "selfLink": PREFIX + path,
        }
        if local:
            operation[scope[2][:-1]] = PREFIX + where
        self.state.put(f"compute/{path}", operation)
        note: dict[str, Any] = {"polls": self.polls, "at": time.time() + self.seconds, "target": target}
        if error:
            note["error"] = _error(error)
        self.state.note("operations")[path] = note
        if kind in ("insert", "delete"):
            self.state.note("busy")[target] = path
        if work:
            self._work(path, work)
        return operation

    def _forget(self) -> None:
        """Let the oldest operations go that are done, and the request ids that led to them."""
        done = [key for key, thing in self.state.things.items() if "/operations/" in key and thing["status"] == "DONE"]
        for key in done[:-KEPT]:
            self.state.delete(key)
        requests = self.state.note("request ids")
        for request in [
            name for name, known in requests.items() if f"compute/{known['operation']}" not in self.state.things
        ]:
            del requests[request]

    def _work(self, path: str, work: Callable[[], None]) -> None:
        def run() -> None:
            outcome: Refusal | None = None
            try:
                work()
            except Refusal as refusal:
                outcome = refusal
            except Exception as problem:
                outcome = Refusal(500, f"{type(problem).__name__}: {problem}", "INTERNAL_ERROR")
            with self.state.lock:
                self._working.pop(path, None)
                note = self.state.note("operations").get(path, {})
                note["working"] = False
                if outcome:
                    note["error"] = _error(outcome)
                self._settle(path)
                self.state.save()

        self.state.note("operations")[path]["working"] = True
        thread = threading.Thread(target=run, daemon=True, name=path.rsplit("/", 1)[-1])
        self._working[path] = thread
        thread.start()

    def look(self, call: Call) -> Thing:
        """The operation that a call names, one look further."""
        path = call.target
        note = self.state.note("operations").get(path)
        if note:
            note["polls"] -= 1
        self._settle(path)
        return call.thing(path)

    def _settle(self, path: str) -> None:
        """Bring an operation to where it is by now."""
        operation = self.state.get(f"compute/{path}")
        note = self.state.note("operations").get(path)
        if operation is None or note is None:
            return
        if note.get("working") and path not in self._working:
            # The process that did the work is gone.
            note["working"] = False
            note["error"] = _error(
                Refusal(500, "The lab's Google was stopped in the middle of this.", "INTERNAL_ERROR")
            )
        if note.get("stuck") or note.get("working"):
            operation["status"], operation["progress"] = "RUNNING", 30
            return
        if note["polls"] > 0 and time.time() < note["at"]:
            operation["status"] = "RUNNING"
            return
        operation["status"], operation["progress"], operation["endTime"] = "DONE", 100, timestamp()
        operation.update(note.get("error", {}))
        del self.state.note("operations")[path]
        busy = self.state.note("busy")
        if busy.get(note["target"]) == path:
            del busy[note["target"]]

    def join(self, path: str) -> None:
        """For ``operations.wait``: until the operation's real work is done. The state's lock must not be held."""
        thread = self._working.get(path)
        if thread:
            thread.join(WAIT_SECONDS)
        elif self.state.note("operations").get(path, {}).get("stuck"):
            time.sleep(0.2)  # in place of two minutes

    def finish(self, operation: Thing) -> Thing:
        """Make an operation DONE now; waits for its work."""
        path = str(operation["selfLink"]).removeprefix(PREFIX)
        thread = self._working.get(path)
        if thread:
            self.state.lock.release()
            try:
                thread.join(WAIT_SECONDS)
            finally:
                self.state.lock.acquire()
        note = self.state.note("operations").get(path)
        if note:
            note["polls"] = 0
        self._settle(path)
        return self.state.get(f"compute/{path}") or operation

    def finish_all(self) -> None:
        """Make every operation DONE that only waits to be looked at."""
        for path, note in list(self.state.note("operations").items()):
            note["polls"] = 0
            self._settle(path)

    def busy(self, path: str) -> bool:
        """Whether a thing is being made or deleted."""
        running = self.state.note("busy").get(path)
        if running:
            self._settle(running)
            # A snapshot's operation is the disk's: it does not know what else waits for it.
            if running not in self.state.note("operations"):
                self.state.note("busy").pop(path, None)
        return path in self.state.note("busy")

    # -- the same request again

    def repeated(self, call: Call) -> Thing | None:
        """What was answered to the same ``requestId`` before: the operation as it is now."""
        request = call.query("requestId")
        if not request:
            return None
        known = self.state.note("request ids").get(request)
        if known is None:
            return None
        if known["request"] != f"{call.method.key} {call.request_path}":
            raise Refusal(400, f"Invalid value for field 'requestId': '{request}'. It was used for another request.")
        self._settle(known["operation"])
        return self.state.get(f"compute/{known['operation']}")

    def remember(self, call: Call, answer: Thing) -> None:
        """Keep which operation a ``requestId`` led to."""
        if call.query("requestId") and answer.get("kind") == "compute#operation":
            self.state.note("request ids")[call.query("requestId")] = {
                "request": f"{call.method.key} {call.request_path}",
                "operation": str(answer["selfLink"]).removeprefix(PREFIX),
            }

    # -- faults

    def fail(self, call: Call, answer: Thing, kept: Any, refusal: Refusal) -> Thing:
        """Undo what an operation did, and let it end with an error; of compute's or of a newer API's."""
        topic, path = self._place(call, answer)
        answer, note = copy.deepcopy(answer), copy.deepcopy(self.state.note(topic).get(path))
        if note is None:
            raise ValueError(f"{call.method.key} has no operation that could fail")
        self.state.restore(kept)
        if call.document.classic:
            self.state.put(f"compute/{path}", answer)
            note["error"] = _error(refusal)
            self.remember(call, answer)
        else:
            code = CODES.get(refusal.status, 2)
            note["error"] = {"code": code, "message": refusal.message, "details": refusal.details}
            note.pop("enable", None)
        self.state.note(topic)[path] = note
        return answer

    def stick(self, call: Call, answer: Thing) -> None:
        """Let an operation never end."""
        topic, path = self._place(call, answer)
        self.state.note(topic)[path]["stuck"] = True

    def _place(self, call: Call, answer: Thing) -> tuple[str, str]:
        """Where an operation's notes are: topic and path."""
        if call.document.classic:
            return "operations", str(answer.get("selfLink", "")).removeprefix(PREFIX)
        return f"{call.api} operations", str(answer.get("name", ""))


def _error(refusal: Refusal) -> dict[str, Any]:
    error: dict[str, Any] = {"code": refusal.reason, "message": refusal.message}
    if refusal.details:
        error["errorDetails"] = refusal.details
    return {
        "error": {"errors": [error]},
        "httpErrorStatusCode": refusal.status,
        "httpErrorMessage": refusal.state.replace("_", " "),
    }
