"""How Google says no."""

from __future__ import annotations

from typing import Any

# HTTP status -> the reason of the classic APIs (compute) and the status of the newer ones.
REASONS: dict[int, tuple[str, str]] = {
    400: ("invalid", "INVALID_ARGUMENT"),
    401: ("authError", "UNAUTHENTICATED"),
    403: ("forbidden", "PERMISSION_DENIED"),
    404: ("notFound", "NOT_FOUND"),
    405: ("httpMethodNotAllowed", "UNIMPLEMENTED"),
    409: ("alreadyExists", "ALREADY_EXISTS"),
    412: ("conditionNotMet", "FAILED_PRECONDITION"),
    429: ("rateLimitExceeded", "RESOURCE_EXHAUSTED"),
    500: ("backendError", "INTERNAL"),
    501: ("notImplemented", "UNIMPLEMENTED"),
    503: ("backendError", "UNAVAILABLE"),
    504: ("backendError", "DEADLINE_EXCEEDED"),
}


class Refusal(Exception):
    """A handler raises it; the client gets ``status`` and Google's error body.

    :param reason: compute's word (``notFound``, ``resourceInUseByAnotherResource``…); by default the status's own.
    :param state: the newer APIs' word (``NOT_FOUND``, ``FAILED_PRECONDITION``…); by default the status's own.
    :param details: the newer APIs' ``details``, for example a ``google.rpc.ErrorInfo``.
    """

    def __init__(
        self,
        status: int,
        message: str,
        reason: str | None = None,
        *,
        state: str | None = None,
        details: list[dict[str, Any]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        default_reason, default_state = REASONS.get(status, ("backendError", "UNKNOWN"))
        self.reason = reason or default_reason
        self.state = state or default_state
        self.details = details or []
        self.headers = headers or {}

    def body(self, classic: bool) -> dict[str, Any]:
        """The JSON that Google sends: ``classic`` for compute, which has ``errors`` and mostly no ``status``."""
        error: dict[str, Any] = {"code": self.status, "message": self.message}
        if classic:
            error["errors"] = [{"message": self.message, "domain": "global", "reason": self.reason}]
        if not classic or self.details:
            error["status"] = self.state
        if self.details:
            error["details"] = self.details
        return {"error": error}


def not_found(path: str) -> Refusal:
    """Compute's answer for a resource that is not there; ``path`` begins with ``projects/``."""
    return Refusal(404, f"The resource '{path}' was not found", "notFound")


def invalid(field: str, value: object, why: str) -> Refusal:
    """Compute's answer for a value that it does not take; ``field`` is like ``resource.name``."""
    return Refusal(400, f"Invalid value for field '{field}': '{value}'. {why}", "invalid")
