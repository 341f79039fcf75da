"""Tokens: for refresh tokens, signed assertions, and other issuers' tokens (workload identity federation)."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from .dispatch import Answer
from .errors import Refusal
from .proxy import serves
from .server import OWNER, PLATFORM, REFRESH_TOKEN

if TYPE_CHECKING:
    from .server import Google

LIFE = 3600
AUDIENCE = "https://oauth2.googleapis.com/token"
SKEW = 300  # seconds that clocks may differ
JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
EXCHANGE_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name


def _json(status: int, body: dict[str, Any]) -> Answer:
    return Answer(status, {"Content-Type": "application/json; charset=utf-8"}, json.dumps(body).encode())


def _form(payload: bytes) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(payload.decode()).items()}


@serves("oauth2.googleapis.com", "POST", "/token")
def token(google: Google, host: str, http: str, target: str, headers: dict[str, str], payload: bytes) -> Answer:
    """RFC 6749's token endpoint: RFC 7523's signed assertions, and refresh tokens."""
    fault = google.take_fault("token")
    if fault and fault.kind == "drop":
        return Answer(0, {}, b"", drop=True)
    if fault:
        return _json(fault.refusal.status, {"error": fault.refusal.reason, "error_description": fault.refusal.message})
    with google.state.lock:
        try:
            email, scopes = _who(google, _form(payload))
        except Refusal as refusal:
            return _json(refusal.status, {"error": refusal.reason, "error_description": refusal.message})
        text = google.token(email, scopes, LIFE)
        google.state.save()
    answer = {"access_token": text, "expires_in": LIFE - 1, "token_type": "Bearer", "scope": " ".join(scopes)}
    return _json(200, answer)


def _who(google: Google, form: dict[str, str]) -> tuple[str, list[str]]:
    """The account and the scopes that a request is for."""
    grant = form.get("grant_type")
    if grant == "refresh_token":
        if form.get("refresh_token") != REFRESH_TOKEN:
            raise Refusal(400, "Token has been expired or revoked.", "invalid_grant")
        return OWNER, form.get("scope", PLATFORM).split()
    if grant == JWT_GRANT:
        return _assertion(google, form.get("assertion", ""))
    raise Refusal(400, f"Invalid grant_type: {grant}", "unsupported_grant_type")


def _assertion(google: Google, text: str) -> tuple[str, list[str]]:
    try:
        head, body, signature = text.split(".")
        header, claims = json.loads(_decode(head)), json.loads(_decode(body))
        mark = _decode(signature)
    except (ValueError, binascii.Error):
        raise Refusal(400, "Bad Request", "invalid_grant") from None
    known = google.state.note("keys").get(header.get("kid", ""))
    if known is None or known["email"] != claims.get("iss"):
        email = str(claims.get("iss"))
        account = any(thing.get("email") == email for thing in google.state.things.values())
        raise Refusal(400, "Invalid JWT Signature." if account else "Invalid grant: account not found", "invalid_grant")
    public = serialization.load_pem_public_key(known["public"].encode())
    assert isinstance(public, rsa.RSAPublicKey)  # noqa: S101 - we made it
    try:
        public.verify(mark, f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise Refusal(400, "Invalid JWT Signature.", "invalid_grant") from None
    now = time.time()
    if header.get("alg") != "RS256" or claims.get("aud") != AUDIENCE:
        raise Refusal(400, f"Invalid JWT: the audience must be {AUDIENCE} and the algorithm RS256.", "invalid_grant")
    if not now - SKEW < claims.get("exp", 0) <= claims.get("iat", 0) + LIFE or claims["iat"] > now + SKEW:
        message = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."
        raise Refusal(400, f"{message} Check your iat and exp values in the JWT claim.", "invalid_grant")
    if not claims.get("scope"):
        raise Refusal(400, "Invalid OAuth scope or ID token audience provided.", "invalid_scope")
    account_thing = next((thing for thing in google.state.things.values() if thing.get("email") == known["email"]), {})
    if account_thing.get("disabled"):
        raise Refusal(401, "The service account is disabled.", "disabled_client")
    return known["email"], str(claims["scope"]).split()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# -- workload identity federation


def federate(google: Google, project: str, impersonate: str | None, subject: str) -> dict[str, Any]:
    """An external account's configuration (for a file), with a subject token that the security token service takes.

    :param impersonate: the service account to become; None: the federated identity itself.
    """
    number = google.state.note("projects")[project]["number"]
    pool = f"projects/{number}/locations/global/workloadIdentityPools/lab"
    audience = f"//iam.googleapis.com/{pool}/providers/lab"
    text = f"subject-{secrets.token_urlsafe(16)}"
    google.state.note("subject tokens")[text] = {
        "audience": audience,
        "principal": f"principal://iam.googleapis.com/{pool}/subject/{subject}",
    }
    source = google.folder / f"subject-{secrets.token_hex(4)}"
    source.write_text(text)
    configuration = {
        "type": "external_account",
        "audience": audience,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "credential_source": {"file": str(source)},
        "universe_domain": "googleapis.com",
    }
    if impersonate:
        base = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts"
        configuration["service_account_impersonation_url"] = f"{base}/{impersonate}:generateAccessToken"
    return configuration


@serves("sts.googleapis.com", "POST", "/v1/token")
def exchange(google: Google, host: str, http: str, target: str, headers: dict[str, str], payload: bytes) -> Answer:
    """RFC 8693's exchange of somebody else's token; clients send a form, not the document's JSON."""
    form = _form(payload)
    with google.state.lock:
        known = google.state.note("subject tokens").get(form.get("subject_token", ""))
        if form.get("grant_type") != EXCHANGE_GRANT or form.get("requested_token_type") != ACCESS_TOKEN_TYPE:
            return _json(400, {"error": "invalid_request", "error_description": "Invalid grant or token type."})
        if known is None or known["audience"] != form.get("audience"):
            message = "The given credential is rejected by the attribute condition."
            return _json(400, {"error": "invalid_grant", "error_description": message})
        text = google.token(known["principal"], form.get("scope", PLATFORM).split(), LIFE)
        google.state.save()
    answer = {"access_token": text, "issued_token_type": ACCESS_TOKEN_TYPE, "token_type": "Bearer", "expires_in": LIFE}
    return _json(200, answer)


@serves("iamcredentials.googleapis.com", "GET", "/v1/*/allowedLocations")
def allowed_locations(
    google: Google, host: str, http: str, target: str, headers: dict[str, str], payload: bytes
) -> Answer:
    """No restriction of places. google-auth asks in a thread of its own, whenever it likes: no call to be counted."""
    return _json(200, {"locations": [], "encodedLocations": "0x0"})
