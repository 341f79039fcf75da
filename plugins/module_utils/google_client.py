# SPDX-License-Identifier: Apache-2.0
"""Google's REST APIs, one call at a time.

    client = Client(module.params)          # options of google_auth.argument_spec()
    network = client.get("compute", "projects/p/global/networks/n")     # a dict, or None where it does not exist
    client.change("compute", "POST", "projects/p/global/networks", body={…}, what="create the network n")

- Every failure is a :class:`GoogleError` with a text for the user; nothing else is raised.
- Rate limits, 5xx and lost connections are tried again with growing pauses, ``Retry-After`` honoured.
- A change to Compute Engine carries a ``requestId``: sent again after a lost answer, it is still one change. The other
  APIs have none; ``GoogleError.unanswered`` says that an earlier attempt may have been carried out, and a creation that
  meets 409 is read again.
- :meth:`Client.change` waits for the operation that the answer names, until ``timeout``; its error is raised, its
  warnings are collected in ``Client.warnings``.
"""

from __future__ import annotations

import random
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_auth, google_errors, google_http
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_auth import GoogleAuthenticationError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError

# Pauses between attempts, in seconds; the last one repeats. A few per cent of chance are added, so that two controllers
# part.
PAUSES: tuple[float, ...] = (0.5, 1, 2, 4, 8, 15)
# How long one call is tried, in seconds. Where nothing has answered yet (a wrong proxy, no network) a few attempts are
# enough.
RETRY_SECONDS = 90.0
FIRST_ATTEMPTS = 4
# Google holds `operations.wait` for two minutes at most.
REQUEST_SECONDS = 60.0
WAIT_SECONDS = 150.0
# Between two looks at an operation of an API that has no `wait`.
POLL_PAUSES: tuple[float, ...] = (0.5, 1, 2, 3, 5)

# The few changes of ours for which Compute Engine takes no requestId; a fingerprint guards them.
_WITHOUT_REQUEST_ID = re.compile(r"/global/[^/]+/[^/]+/setLabels$")
_OPERATION = re.compile(r"/(projects/[^/]+/(?:global|zones/[^/]+|regions/[^/]+)/operations/[^/?]+)$")


class Client:
    """Calls with one session and one token.

    Args:
        options: those of :func:`google_auth.argument_spec`; ``project`` may be missing for a lookup that has full
            names.

    Attributes:
        warnings: what Google has warned of.
        done: the changes that were carried out, in words; an error after them has to tell.

    Raises:
        GoogleError: the options do not fit together or give no credentials.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options
        self.project: str = options.get("project") or ""
        self.universe: str = options.get("universe_domain") or google_auth.DEFAULT_UNIVERSE
        self.timeout: float = float(options.get("timeout") or 600)
        self.warnings: list[str] = []
        self.done: list[str] = []
        self.answered = False
        self._bases = google_http.bases(options.get("api_endpoints") or {}, self.universe)
        try:
            self.session = google_auth.session(options)
        except GoogleAuthenticationError as error:
            raise GoogleError("authentication", message=str(error)) from error

    @property
    def member(self) -> str | None:
        """The caller as an IAM member, where the credentials say who it is."""
        return google_auth.caller(self.session)

    def url(self, api: str, path: str) -> str:
        """The full URL of a path such as ``projects/p/global/networks/n``."""
        return f"{self._bases[api]}/{path}"

    def get(
        self, api: str, path: str, *, query: Mapping[str, Any] | None = None, what: str | None = None
    ) -> dict[str, Any] | None:
        """Read one thing.

        Returns:
            Google's answer, or None where the thing does not exist (in a project, region and zone that do).
        """
        try:
            return self.call(api, "GET", path, query=query, what=what or f"read {path}")
        except GoogleError as error:
            if error.is_absence_of(path):
                return None
            raise

    def pages(
        self,
        api: str,
        path: str,
        items: str = "items",
        *,
        query: Mapping[str, Any] | None = None,
        what: str | None = None,
    ) -> Iterator[Any]:
        """Every element of a list, page after page; of an aggregated list pairs of scope and content."""
        asked = dict(query or {})
        while True:
            answer = self.call(api, "GET", path, query=asked, what=what or f"list {path}")
            found = answer.get(items) or []
            yield from found.items() if isinstance(found, dict) else found
            if not answer.get("nextPageToken"):
                return
            asked["pageToken"] = answer["nextPageToken"]

    def change(
        self,
        api: str,
        verb: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        what: str,
    ) -> dict[str, Any]:
        """Change something and wait until it is done.

        Args:
            what: the change in words ("create the network n"); errors begin with it.

        Returns:
            The finished operation, or the answer itself where the API has none for it.
        """
        asked = dict(query or {})
        if api == "compute" and not _WITHOUT_REQUEST_ID.search(path):
            asked["requestId"] = str(uuid.uuid4())
        answer = self.call(api, verb, path, body=body, query=asked, what=what)
        if api == "compute" and answer.get("kind") == "compute#operation":
            answer = self.wait(answer, what=what)
        # One that has just begun may hold nothing but its name.
        elif "/operations/" in f"/{answer.get('name', '')}":
            answer = self.poll(api, answer, what=what)
        self.done.append(what)
        return answer

    def wait(self, operation: Mapping[str, Any], *, what: str) -> dict[str, Any]:
        """Wait for an operation of Compute Engine.

        Raises:
            GoogleError: it ended with an error, or did not end within ``timeout``.
        """
        deadline = time.monotonic() + self.timeout
        current = dict(operation)
        for pause in google_http.growing(POLL_PAUSES):
            if current.get("status") == "DONE":
                break
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._too_slow(
                    what, str(current.get("name")), f"{current.get('status')}, {current.get('progress', 0)} %"
                )
            asked = time.monotonic()
            path = f"{self._operation_path(current)}/wait"
            try:
                current = self.call(
                    "compute",
                    "POST",
                    path,
                    what=f"wait until Google has done: {what}",
                    seconds=min(WAIT_SECONDS, left + 5),
                )
            except GoogleError as error:
                # A line that breaks while the operation runs says nothing about the operation.
                if not error.lost or time.monotonic() >= deadline:
                    raise
            # `wait` answers when something has happened or after two minutes; one that answers at once must not be a
            # busy loop.
            if current.get("status") != "DONE" and time.monotonic() - asked < pause:
                time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        self._take_warnings(what, current)
        if current.get("error"):
            raise google_errors.from_operation(what, current, project=self.project, member=self.member)
        return current

    def poll(self, api: str, operation: Mapping[str, Any], *, what: str) -> dict[str, Any]:
        """Wait for a long-running operation of another API; as :meth:`wait`."""
        deadline = time.monotonic() + self.timeout
        current = dict(operation)
        for pause in google_http.growing(POLL_PAUSES):
            if current.get("done"):
                break
            if time.monotonic() >= deadline:
                raise self._too_slow(what, str(current.get("name")), "not done")
            time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
            current = self.call(api, "GET", str(current["name"]), what=f"wait until Google has done: {what}")
        if current.get("error"):
            raise google_errors.from_operation(what, current, project=self.project, member=self.member)
        return current

    def call(
        self,
        api: str,
        verb: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        what: str,
        seconds: float = REQUEST_SECONDS,
    ) -> dict[str, Any]:
        """One request, sent again while that may help; an operation in the answer is not waited for.

        Args:
            seconds: how long one attempt may take.

        Raises:
            GoogleError: Google refused it, no answer came in time, or no token could be had.
        """
        deadline = time.monotonic() + min(RETRY_SECONDS, self.timeout)
        attempts, unanswered = 0, False
        while True:
            attempts += 1
            answer = self._attempt(api, verb, path, body, query, what, seconds)
            if not isinstance(answer, GoogleError):
                return answer
            error = answer.after(attempts, unanswered)
            unanswered = error.unanswered
            pause = error.retry_after or PAUSES[min(attempts, len(PAUSES)) - 1] * random.uniform(1.0, 1.1)
            never = not self.answered and attempts >= FIRST_ATTEMPTS
            if not error.retryable or never or time.monotonic() + pause > deadline:
                raise error
            time.sleep(pause)

    def _attempt(
        self,
        api: str,
        verb: str,
        path: str,
        body: Mapping[str, Any] | None,
        query: Mapping[str, Any] | None,
        what: str,
        seconds: float,
    ) -> dict[str, Any] | GoogleError:
        """The parsed answer, or the error; only what no attempt can cure is raised."""
        url = self.url(api, path)
        try:
            response = self.session.request(
                verb, url, json=body, params=google_http.parameters(query), timeout=seconds, allow_redirects=False
            )
        except Exception as error:
            if google_auth.is_auth_error(error):
                refused = GoogleError(
                    what, message=google_auth.explain(error, self.options), lost=google_auth.is_transient(error)
                )
                if refused.lost:
                    return refused
                raise refused from error
            if google_auth.is_tls_error(error):
                raise GoogleError(
                    what,
                    message=f"the certificate of {urlsplit(url).netloc} is not trusted: {google_http.cause(error)}.",
                    advice="A proxy that opens TLS needs its CA in the file that REQUESTS_CA_BUNDLE names.",
                ) from error
            if google_auth.is_connection_error(error):
                return google_http.lost(what, urlsplit(url).netloc, error)
            raise
        self.answered = True
        if response.status_code >= 300:
            return google_errors.from_answer(
                what,
                response.status_code,
                response.text,
                project=self.project,
                member=self.member,
                retry_after=google_http.seconds(response.headers.get("Retry-After")),
            )
        if not response.content:
            return {}
        try:
            parsed: dict[str, Any] = response.json()
        except ValueError:
            raise GoogleError(
                what, code=response.status_code, message="the answer is not JSON.", advice="Is a proxy in between?"
            ) from None
        return parsed

    def _operation_path(self, operation: Mapping[str, Any]) -> str:
        """The operation's path below the API's base, whatever host its own links name."""
        found = _OPERATION.search(str(operation.get("selfLink", "")))
        if found:
            return found.group(1)
        scope = "global"
        for part in ("zone", "region"):
            if operation.get(part):
                scope = f"{part}s/{str(operation[part]).rsplit('/', 1)[-1]}"
        return f"projects/{self.project}/{scope}/operations/{operation['name']}"

    def _take_warnings(self, what: str, operation: Mapping[str, Any]) -> None:
        for warning in operation.get("warnings") or []:
            self.warnings.append(f"{what}: Google warns: {warning.get('code', '')}: {warning.get('message', '')}")

    def _too_slow(self, what: str, name: str, state: str) -> GoogleError:
        return GoogleError(
            what,
            reason="TIMEOUT",
            message=f"Google's operation {name} is not at its end after {self.timeout:.0f} s ({state}).",
            advice="It goes on there: run again later, or set a larger timeout.",
        )
