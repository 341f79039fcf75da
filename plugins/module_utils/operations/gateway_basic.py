# SPDX-License-Identifier: Apache-2.0
"""Users and passwords: bcrypt hashes, asked once per process and password, and no more than a few guesses a minute."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.gateway_answer import (
    Answer,
    Headers,
    welcome,
)

# Wrong passwords of one address within this many seconds, after which it waits.
GUESSES, WINDOW = 10, 60.0
# What was right is remembered for so long: a page of the UI makes a hundred requests, a hash takes a tenth of a second.
REMEMBERED, MOST_REMEMBERED = 900.0, 1000
MOST_ADDRESSES = 10_000
# A hash keeps a processor busy: guesses wait for each other, and Dagster does not wait for them.
AT_ONCE = 1


class Basic:
    """Basic authentication (RFC 7617).

    Args:
        users: name → bcrypt hash.
        realm: what the browser's window says.
        now: seconds that only grow.
    """

    def __init__(self, users: Mapping[str, str], realm: str, now: Callable[[], float] = time.monotonic) -> None:
        import bcrypt

        self._check = bcrypt.checkpw
        self._users = {name: hashed.encode() for name, hashed in users.items()}
        # For names that nobody has, so that the answer takes as long.
        self._nobody = bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(cost_of(users)))
        self._challenge = {"WWW-Authenticate": f'Basic realm="{realm}", charset="UTF-8"'}
        self._now = now
        # Of this process alone: what is remembered is no hash that anybody could take away and guess at.
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, float] = {}
        self._failures: dict[str, deque[float]] = {}
        self._lock = threading.Lock()
        self._hashing = threading.Semaphore(AT_ONCE)

    def judge(self, headers: Headers, address: str) -> Answer:
        """See `gateway_answer.Judge`."""
        given = credentials(headers.get("Authorization") or "")
        if given is None:
            return Answer(401, self._challenge)
        name, password = given
        proof = hmac.digest(self._key, name.encode() + b"\0" + password, "sha256")
        if self._remembers(proof):
            return welcome(name)
        with self._hashing:
            # Looked at in the turn, so that many guesses at once are no more guesses.
            if self._remembers(proof):
                return welcome(name)
            if self._waits(address):
                self._tell(name, address, "too many wrong passwords, not looked at")
                return Answer(403)
            right = self._check(password[:72], self._users.get(name, self._nobody)) and name in self._users
            if len(password) > 72 or not right:
                self._fail(address)
                self._tell(name, address, "wrong password")
                return Answer(401, self._challenge)
        with self._lock:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[proof] = self._now() + REMEMBERED
        return welcome(name)

    def _remembers(self, proof: bytes) -> bool:
        with self._lock:
            until = self._known.get(proof)
            if until is not None and until < self._now():
                del self._known[proof]
                return False
            return until is not None

    def _waits(self, address: str) -> bool:
        with self._lock:
            found = self._failures.get(address)
            while found and found[0] < self._now() - WINDOW:
                found.popleft()
            return found is not None and len(found) >= GUESSES

    def _fail(self, address: str) -> None:
        with self._lock:
            if len(self._failures) >= MOST_ADDRESSES:
                self._failures.clear()
            self._failures.setdefault(address, deque(maxlen=GUESSES)).append(self._now())

    def _tell(self, name: str, address: str, why: str) -> None:
        # A name that nobody has may be a password, typed into the wrong field.
        who = name if name in self._users else "an unknown user"
        print(f"refused {who} from {address}: {why}", file=sys.stderr, flush=True)


def cost_of(users: Mapping[str, str]) -> int:
    """The cost of the users' hashes ($2b$11$…)."""
    return max([int(hashed.split("$")[2]) for hashed in users.values()] or [10])


def credentials(header: str) -> tuple[str, bytes] | None:
    """Name and password of an Authorization header; None where it is none of this kind."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(rest.strip(), validate=True).partition(b":")
        found = name.decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    # bcrypt takes no NUL, and there is none in a password that anybody typed.
    return (found, password) if colon and b"\0" not in password else None
