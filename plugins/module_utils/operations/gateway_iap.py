# SPDX-License-Identifier: Apache-2.0
"""Google's Identity-Aware Proxy: the signed header that says who is there.

https://cloud.google.com/iap/docs/signed-headers-howto
"""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.gateway_answer import (
    Answer,
    Headers,
    welcome,
)

HEADER = "X-Goog-IAP-JWT-Assertion"
ISSUER = "https://cloud.google.com/iap"
# Google allows so much between its clocks and ours.
SKEW = 30
# Keys change now and then; one that is not known is asked for at once, but not for each forged header.
KEYS_SECONDS, AGAIN_SECONDS = 3600.0, 30.0
FETCH_SECONDS = 5.0


class Keys:
    """Google's public keys by their ids, as a JSON Web Key Set.

    Args:
        url: where they are.
        now: seconds that only grow.
    """

    def __init__(self, url: str, now: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._now = now
        self._keys: dict[str, Any] = {}
        self._fetched = self._tried = float("-inf")
        self._lock = threading.Lock()

    def get(self, identifier: str) -> Any:
        """The key, None where Google has none of this id. Known keys go on while Google does not answer."""
        with self._lock:
            now = self._now()
            missing = identifier not in self._keys
            if (missing or now - self._fetched > KEYS_SECONDS) and now - self._tried > AGAIN_SECONDS:
                self._tried = now
                try:
                    self._keys = self._fetch()
                    self._fetched = now
                except (OSError, ValueError, KeyError, TypeError) as error:
                    print(f"{self._url}: no keys ({type(error).__name__}: {error})", file=sys.stderr, flush=True)
            return self._keys.get(identifier)

    def _fetch(self) -> dict[str, Any]:
        from jwt.algorithms import ECAlgorithm

        with urllib.request.urlopen(self._url, timeout=FETCH_SECONDS) as answer:
            listed = json.load(answer)["keys"]
        return {each["kid"]: ECAlgorithm.from_jwk(json.dumps(each)) for each in listed if each.get("kty") == "EC"}


class Iap:
    """Lets in whom the proxy has let in: a header of its own signature, for this very backend.

    Args:
        audience: ``/projects/NUMBER/global/backendServices/ID``.
        keys: Google's.
    """

    def __init__(self, audience: str, keys: Keys) -> None:
        import jwt

        self._jwt = jwt
        self._audience = audience
        self._keys = keys

    def judge(self, headers: Headers, address: str) -> Answer:
        """See `gateway_answer.Judge`."""
        token = headers.get(HEADER) or ""
        if not token:
            return self._refused(address, "no header of the proxy")
        try:
            key = self._keys.get(str(self._jwt.get_unverified_header(token).get("kid", "")))
            if key is None:
                return self._refused(address, "signed with a key that Google does not name")
            claims = self._jwt.decode(
                token, key, algorithms=["ES256"], audience=self._audience, issuer=ISSUER, leeway=SKEW,
                options={"require": ["exp", "iat", "aud", "iss", "email"]},
            )  # fmt: skip
        except self._jwt.PyJWTError as error:
            return self._refused(address, f"{type(error).__name__}")
        return welcome(str(claims["email"]).rpartition(":")[2])

    def _refused(self, address: str, why: str) -> Answer:
        print(f"refused a request from {address}: {why}", file=sys.stderr, flush=True)
        return Answer(403)
