# SPDX-License-Identifier: Apache-2.0
"""What Google refused, why, and what to do.

Google answers errors in two shapes: Compute Engine's (``error.errors[].reason``) and the newer one (``error.status``,
``error.details[]``, https://cloud.google.com/apis/design/errors); an operation's error is a third. All become a
:class:`GoogleError`, whose text holds the call, the code, the reason, Google's words, and the way out where there is
one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_advice

# What another attempt may cure. Compute Engine spells its rate limit as 403, and a resource with a change under way as
# 400.
RETRY_CODES = frozenset({429, 500, 502, 503, 504})
RETRY_REASONS = google_advice.RATE_LIMITS | {"resourceNotReady"}

# What a 404 says is missing.
_NAMED = re.compile(r"'(projects/[^']+)' was not found")
# The codes of gRPC, which the newer APIs put into an operation's error (https://grpc.io/docs/guides/status-codes/).
_GRPC = {
    3: ("INVALID_ARGUMENT", 400),
    5: ("NOT_FOUND", 404),
    6: ("ALREADY_EXISTS", 409),
    7: ("PERMISSION_DENIED", 403),
    8: ("RESOURCE_EXHAUSTED", 429),
    9: ("FAILED_PRECONDITION", 400),
    10: ("ABORTED", 409),
    13: ("INTERNAL", 500),
    14: ("UNAVAILABLE", 503),
}


class GoogleError(Exception):
    """A call that failed for good.

    Attributes:
        code: HTTP status; None where no answer came.
        reason: Google's own word for it (``notFound``, ``IAM_PERMISSION_DENIED``, ``QUOTA_EXCEEDED``…); empty where
            none came.
        message: Google's sentence, or the connection's.
        attempts: how often the request was sent.
        lost: whether the (last) attempt got no answer at all.
        unanswered: whether one of the attempts got no answer of Google's own, so that it may have been carried out.
    """

    def __init__(
        self,
        what: str,
        *,
        code: int | None = None,
        reason: str = "",
        message: str = "",
        advice: str = "",
        attempts: int = 1,
        lost: bool = False,
        unanswered: bool = False,
        retry_after: float | None = None,
    ) -> None:
        self.what = what
        self.code = code
        self.reason = reason
        self.message = message
        self.advice = advice
        self.attempts = attempts
        self.lost = lost
        self.unanswered = unanswered or lost or code in (500, 502, 504)
        self.retry_after = retry_after
        status = " ".join(part for part in ("HTTP " + str(code) if code else "", reason) if part)
        parts = [f"{what}: {status}: {message}" if status else f"{what}: {message}"]
        if attempts > 1:
            parts.append(f"Tried {attempts} times.")
        if advice:
            parts.append(advice)
        super().__init__(" ".join(parts))

    def after(self, attempts: int, unanswered: bool) -> GoogleError:
        """The same error with its history: how many attempts, and whether an earlier one may have been carried out."""
        return GoogleError(
            self.what,
            code=self.code,
            reason=self.reason,
            message=self.message,
            advice=self.advice,
            attempts=attempts,
            lost=self.lost,
            unanswered=self.unanswered or unanswered,
            retry_after=self.retry_after,
        )

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed a little later."""
        if self.lost:
            return True
        if self.code == 429 and self.reason in ("quotaExceeded", "QUOTA_EXCEEDED"):
            return False
        return self.code in RETRY_CODES or self.reason in RETRY_REASONS

    @property
    def is_conflict(self) -> bool:
        """Whether the resource has changed since it was read (fingerprint or etag), so that reading it again helps."""
        if self.code == 409:
            return self.reason in ("ABORTED", "aborted", "conflict")
        return self.code == 412 and not google_advice.CONSTRAINT.search(self.message)

    @property
    def already_exists(self) -> bool:
        """Whether a creation found that name taken."""
        return self.code == 409 and self.reason in ("alreadyExists", "ALREADY_EXISTS", "RESOURCE_ALREADY_EXISTS", "")

    @property
    def is_disabled(self) -> bool:
        """Whether the API is not enabled in the project: there is nothing of its kind yet."""
        # The same reason for a sign-in without a quota project says nothing about the project in question.
        disabled = self.reason in ("SERVICE_DISABLED", "accessNotConfigured")
        return disabled and not google_advice.NO_QUOTA_PROJECT.search(self.message)

    @property
    def is_missing_project(self) -> bool:
        """Whether it is the project that is not there, and not something in it."""
        return self.code == 404 and bool(google_advice.NO_PROJECT.search(self.message))

    def is_absence_of(self, path: str) -> bool:
        """Whether the thing at ``path`` does not exist, in a project (and a region or zone) that does."""
        # Without a reason it is not Google who says so, but a proxy or a wrong endpoint.
        if self.code != 404 or not self.reason or self.is_missing_project:
            return False
        named = _NAMED.search(self.message)
        return not (named and path.startswith(f"{named.group(1)}/"))


def from_answer(
    what: str, code: int, text: str, *, project: str, member: str | None = None, retry_after: float | None = None
) -> GoogleError:
    """The error that an HTTP answer holds.

    Args:
        what: the call in words, for the beginning of the message.
        code: HTTP status.
        text: the body; JSON from Google, anything from a proxy on the way.
        project: the project that was asked for.
        member: the caller as an IAM member, where it is known.
        retry_after: seconds, from the answer's header.
    """
    try:
        error = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        error = {"message": " ".join(text.split())[:300] or "an answer without a body"}
    if not isinstance(error, dict):
        # The token endpoint's form: {"error": "invalid_grant", "error_description": "…"}
        error = {"message": str(error)}
    details = [part for part in error.get("details") or [] if isinstance(part, dict)]
    info = next((part for part in details if str(part.get("@type", "")).endswith("ErrorInfo")), {})
    classic = next((part for part in error.get("errors") or [] if isinstance(part, dict)), {})
    reason = str(info.get("reason") or classic.get("reason") or error.get("status") or "")
    message = " ".join(str(error.get("message") or classic.get("message") or "").split())
    return GoogleError(
        what,
        code=code,
        reason=reason,
        message=_sentence(message),
        advice=google_advice.advice(code, reason, message, project=project, member=member, details=details),
        retry_after=retry_after,
    )


def from_operation(what: str, operation: Mapping[str, Any], *, project: str, member: str | None = None) -> GoogleError:
    """The error with which an operation of Compute Engine, or a long-running one of another API, ended."""
    error = operation.get("error") or {}
    entries = error.get("errors") or [error]
    first = entries[0]
    parts = [part for entry in entries for part in entry.get("errorDetails") or entry.get("details") or []]
    # Compute Engine wraps each detail in a key that says its type.
    details = [part.get("errorInfo") or part for part in parts]
    reason, status = str(first.get("code") or ""), operation.get("httpErrorStatusCode")
    if isinstance(first.get("code"), int):
        reason, status = _GRPC.get(first["code"], (f"code {first['code']}", None))
        reason = next((part["reason"] for part in details if part.get("reason")), reason)
    message = "; ".join(_sentence(entry.get("message")).rstrip(".") for entry in entries) + "."
    return GoogleError(
        what,
        code=int(status) if status else None,
        reason=reason,
        message=message,
        advice=google_advice.advice(status, reason, message, project=project, member=member, details=details),
    )


def _sentence(text: Any) -> str:
    """Google's words in one line, with a full stop."""
    words = " ".join(str(text or "no message").split())
    return words if words.endswith(".") else f"{words}."
