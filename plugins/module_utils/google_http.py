# SPDX-License-Identifier: Apache-2.0
"""The small parts of a call: where an API is, how parameters are spelled, what a lost connection says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError

# The path in front of every method's own, by API; the host is `<api>.<universe domain>`.
APIS = {
    "compute": "compute/v1",
    "iam": "v1",
    "cloudresourcemanager": "v3",
    "serviceusage": "v1",
    "artifactregistry": "v1",
    "secretmanager": "v1",
    "oslogin": "v1",
    "iap": "v1",
    "storage": "storage/v1",
}


def lost(what: str, host: str, error: Exception) -> GoogleError:
    """No answer; the request may have been carried out."""
    return GoogleError(
        what,
        message=f"no answer from {host}: {cause(error)}.",
        advice="Check network, proxy (HTTPS_PROXY, NO_PROXY) and DNS. Running again is safe: nothing is made twice.",
        lost=True,
    )


def bases(endpoints: Mapping[str, Any], universe: str) -> dict[str, str]:
    """The URL in front of each API's paths."""
    if unknown := sorted(set(endpoints) - set(APIS)):
        raise GoogleError("api_endpoints", message=f"found {unknown[0]!r}; expected one of {', '.join(APIS)}")
    bases = {}
    for api, prefix in APIS.items():
        given = endpoints.get(api)
        if not given:
            bases[api] = f"https://{api}.{universe}/{prefix}"
            continue
        parts = urlsplit(str(given))
        # The token goes there: without TLS only to this very machine.
        secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost"))
        if not secure or not parts.netloc or parts.query:
            raise GoogleError(
                f"api_endpoints.{api}",
                message=f"found {given!r}; expected an https URL such as https://{api}-psc.p.googleapis.com",
            )
        own = parts.path.strip("/")
        bases[api] = f"{parts.scheme}://{parts.netloc}/{own or prefix}"
    return bases


def parameters(query: Mapping[str, Any] | None) -> dict[str, Any]:
    """Query parameters as Google spells them."""
    return {
        name: ("true" if value else "false") if isinstance(value, bool) else value
        for name, value in (query or {}).items()
        if value is not None
    }


def seconds(text: str | None) -> float | None:
    """The header ``Retry-After`` where it is a number of seconds (Google's is)."""
    return float(text) if text and text.isdigit() else None


def growing(pauses: tuple[float, ...]) -> Iterator[float]:
    """The pauses one after the other; the last one for ever."""
    yield from pauses
    while True:
        yield pauses[-1]


def cause(error: BaseException) -> str:
    """The innermost reason, without the addresses of Python objects."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return cause(reason)
    text = re.sub(r"<[^>]*object at 0x[0-9a-f]+>:? ?", "", str(error))
    return " ".join(text.split())[:300]
