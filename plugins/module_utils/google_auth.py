# SPDX-License-Identifier: Apache-2.0
"""Who asks Google: credentials and one HTTP session from a plugin's options.

The options are those of :func:`argument_spec` (documented in the fragment ``dataops.dagster_gce.google``); lookups and
the inventory plugin hand over a plain mapping with the same names. A session fetches one token and keeps it: a module
run is one token, whatever the number of calls.
"""

from __future__ import annotations

import json
import logging
import os
import re
import traceback
import warnings
from collections.abc import Mapping
from typing import Any

# What only some kinds need is imported there: every module is a process of its own, and waits for each import.
IMPORT_ERROR: str | None = None
try:
    import google.auth
    import google.auth.exceptions
    import requests
    from google.auth.transport.requests import AuthorizedSession, Request
    from google.oauth2 import credentials as user_credentials
    from google.oauth2 import service_account
except ImportError:
    IMPORT_ERROR = traceback.format_exc()

# The one scope that Google advises: what a caller may do is IAM's to say.
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
DEFAULT_UNIVERSE = "googleapis.com"
KINDS = ("application", "serviceaccount", "accesstoken", "external")

# Each kind's own options: all belong to one kind, and one of them is required (``application`` has none).
_OPTIONS = {
    "serviceaccount": ("service_account_file", "service_account_contents"),
    "accesstoken": ("access_token",),
    "external": ("credentials_file",),
}


_ACCOUNT = re.compile(r"[\w.-]+@[\w.-]+\.gserviceaccount\.com")


class GoogleAuthenticationError(Exception):
    """No usable credentials; the message says what was tried and what to do."""


def argument_spec() -> dict[str, dict[str, Any]]:
    """The options that every module shares, for ``AnsibleModule``; see the doc fragment ``google``."""
    return {
        "project": {"type": "str", "required": True},
        "auth_kind": {"type": "str", "choices": list(KINDS), "default": "application"},
        "service_account_file": {"type": "path"},
        "service_account_contents": {"type": "jsonarg", "no_log": True},
        "access_token": {"type": "str", "no_log": True},
        "credentials_file": {"type": "path"},
        "impersonate_service_account": {"type": "str"},
        "impersonate_delegates": {"type": "list", "elements": "str", "default": []},
        "universe_domain": {"type": "str", "default": DEFAULT_UNIVERSE},
        "api_endpoints": {"type": "dict", "default": {}},
        "timeout": {"type": "int", "default": 600},
    }


def check(options: Mapping[str, Any]) -> None:
    """Refuse options that do not fit together.

    Raises:
        GoogleAuthenticationError: names the option, what was found and what is expected.
    """
    kind = options.get("auth_kind") or "application"
    given = {name for names in _OPTIONS.values() for name in names if options.get(name)}
    own = set(_OPTIONS.get(kind, ()))
    if foreign := sorted(given - own):
        fitting = next(other for other, names in _OPTIONS.items() if foreign[0] in names)
        raise GoogleAuthenticationError(
            f"{foreign[0]}: given with auth_kind={kind}, which does not use it; set auth_kind={fitting} or leave it out"
        )
    if own and len(given) != 1:
        found = "none is given" if not given else "both are given"
        raise GoogleAuthenticationError(f"auth_kind={kind} needs exactly one of {', '.join(_OPTIONS[kind])}; {found}")
    if (seconds := options.get("timeout")) is not None and seconds <= 0:
        raise GoogleAuthenticationError(f"timeout: found {seconds}; expected a number of seconds greater than 0")
    if options.get("impersonate_delegates") and not options.get("impersonate_service_account"):
        raise GoogleAuthenticationError("impersonate_delegates: given without impersonate_service_account")


def session(options: Mapping[str, Any]) -> AuthorizedSession:
    """An HTTP session that adds the token, fetched with the first request.

    Raises:
        GoogleAuthenticationError: the options do not fit together, or no credentials can be made of them.
    """
    check(options)
    base = _base_credentials(options)
    if target := options.get("impersonate_service_account"):
        from google.auth import impersonated_credentials

        base = impersonated_credentials.Credentials(
            source_credentials=base,
            target_principal=target,
            target_scopes=[SCOPE],
            delegates=list(options.get("impersonate_delegates") or []),
        )
    return AuthorizedSession(base)


def public_values(options: Mapping[str, Any]) -> set[str]:
    """What of a key in the options is no secret.

    Ansible hides every value of a key that was given as a mapping, in whatever a module returns: the project's id and
    the address among them.
    """
    try:
        key = json.loads(options.get("service_account_contents") or "{}")
    except ValueError:
        return set()
    secret = ("private_key", "private_key_id")
    return {str(value) for name, value in key.items() if name not in secret} if isinstance(key, dict) else set()


def access_token(options: Mapping[str, Any]) -> str:
    """A token for clients that are none of ours, such as Docker's login at a registry.

    Raises:
        GoogleAuthenticationError: Google gives none.
    """
    credentials = session(options).credentials
    try:
        if not credentials.valid:
            credentials.refresh(Request())
    except google.auth.exceptions.GoogleAuthError as error:
        raise GoogleAuthenticationError(explain(error, options)) from error
    return str(credentials.token)


def caller(session: AuthorizedSession) -> str | None:
    """The IAM member that the session speaks as, where its credentials say so (``serviceAccount:…``)."""
    email = getattr(session.credentials, "service_account_email", None)
    return f"serviceAccount:{email}" if email and email != "default" else None


def explain(error: Exception, options: Mapping[str, Any]) -> str:
    """What a failed token request means, and what to do.

    Args:
        error: what google-auth raised while it fetched or refreshed a token.
        options: the plugin's options.
    """
    kind = options.get("auth_kind") or "application"
    target = options.get("impersonate_service_account")
    text = _words(error)
    if target or "iam.serviceAccounts.getAccessToken" in text:
        found = _ACCOUNT.search(text)
        account = target or (found.group() if found else "SERVICE_ACCOUNT")
        role = "roles/iam.serviceAccountTokenCreator" if target else "roles/iam.workloadIdentityUser"
        return (
            f"cannot act as {account}: {text[:400]}. The caller needs {role} on it: gcloud iam service-accounts "
            f"add-iam-policy-binding {account} --member=MEMBER --role={role} (MEMBER: the caller). "
            "iamcredentials.googleapis.com has to be enabled"
        )
    if kind == "accesstoken":
        return (
            "access_token: Google does not accept it (expired or revoked; it lives an hour): get a new one, for "
            "example with `gcloud auth print-access-token`"
        )
    if isinstance(error, google.auth.exceptions.TransportError):
        return (
            f"no answer while a token was asked for: {text[:400]}. Check network, proxy (HTTPS_PROXY) and CA bundle "
            "(REQUESTS_CA_BUNDLE)"
        )
    advice = {
        "serviceaccount": "is the key deleted, its service account disabled, or this machine's clock wrong? "
        "gcloud iam service-accounts keys list --iam-account=EMAIL",
        "external": "check the audience, the provider's attribute condition and the token's source in credentials_file",
        "application": "sign in again with `gcloud auth application-default login`, or name a service account",
    }[kind]
    return f"auth_kind={kind}: Google gives no token: {text[:400]}. {advice[0].upper()}{advice[1:]}"


def _words(error: Exception) -> str:
    """Google's own words in an error of google-auth, whose arguments are a sentence and the answer's body."""
    sentence = str(error.args[0]) if error.args else str(error)
    for part in error.args[1:]:
        try:
            body = json.loads(part) if isinstance(part, (str, bytes)) else part
            inner = body.get("error")
        except (ValueError, AttributeError):
            continue
        words = inner.get("message") if isinstance(inner, dict) else body.get("error_description")
        if words and words not in sentence:
            sentence = f"{sentence}: {words}"
    return " ".join(sentence.split()).rstrip(".")


def _base_credentials(options: Mapping[str, Any]) -> Any:
    """Credentials before impersonation."""
    kind = options.get("auth_kind") or "application"
    try:
        with warnings.catch_warnings():
            # google-auth warns of user credentials without a quota project, and of files it has to trust; both are the
            # user's choice here.
            warnings.simplefilter("ignore")
            if kind == "accesstoken":
                return user_credentials.Credentials(token=options["access_token"])
            if kind == "serviceaccount":
                return service_account.Credentials.from_service_account_info(_key(options), scopes=[SCOPE])
            if kind == "external":
                return _from_file(options["credentials_file"])
            return _application_default()
    except google.auth.exceptions.DefaultCredentialsError as error:
        if kind == "application":
            raise GoogleAuthenticationError(
                "no application default credentials: sign in with `gcloud auth application-default login`, set "
                f"GOOGLE_APPLICATION_CREDENTIALS, or choose another auth_kind ({', '.join(KINDS[1:])}). {error}"
            ) from error
        raise GoogleAuthenticationError(f"auth_kind={kind}: {error}") from error
    except (google.auth.exceptions.GoogleAuthError, ValueError, TypeError, KeyError) as error:
        raise GoogleAuthenticationError(f"auth_kind={kind}: the credentials cannot be read: {error}") from error


def _application_default() -> Any:
    """What ``google.auth.default`` finds, without the calls by which it looks for a project: that is an option here."""
    path = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if not path:
        folder = os.environ.get("CLOUDSDK_CONFIG") or os.path.expanduser("~/.config/gcloud")
        path = os.path.join(folder, "application_default_credentials.json")
        if not os.path.isfile(path):
            # It complains of the missing project, which it has not been asked for.
            logging.getLogger("google.auth._default").setLevel(logging.ERROR)
            return google.auth.default(scopes=[SCOPE])[0]
    return _from_file(path)


def _from_file(path: str) -> Any:
    """Credentials of any kind from a file."""
    path = os.path.expanduser(path)
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
    except (OSError, ValueError):
        found = {}
    if isinstance(found, dict) and found.get("type") == "external_account":
        # google-auth's own loader would fetch a token at once and look the project up with it.
        return _external(found)
    return google.auth.load_credentials_from_file(path, scopes=[SCOPE])[0]


def _external(configuration: dict[str, Any]) -> Any:
    """Workload identity federation: the subject's token comes from a file, a URL, AWS or a program."""
    from google.auth import aws, identity_pool, pluggable

    if configuration.get("subject_token_type") == "urn:ietf:params:aws:token-type:aws4_request":
        return aws.Credentials.from_info(configuration, scopes=[SCOPE])
    if "executable" in (configuration.get("credential_source") or {}):
        return pluggable.Credentials.from_info(configuration, scopes=[SCOPE])
    return identity_pool.Credentials.from_info(configuration, scopes=[SCOPE])


def _key(options: Mapping[str, Any]) -> dict[str, Any]:
    """The service account's key as a dict; nothing of its content reaches a message."""
    path, contents = options.get("service_account_file"), options.get("service_account_contents")
    where = "service_account_contents"
    if path:
        where = f"service_account_file {path}"
        try:
            with open(os.path.expanduser(path), encoding="utf-8") as stream:
                contents = stream.read()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise GoogleAuthenticationError(f"{where}: cannot be read: {reason}") from error
    try:
        key = json.loads(contents) if isinstance(contents, (str, bytes)) else contents
    except ValueError:
        key = None
    found = key.get("type") if isinstance(key, dict) else "something that is no JSON object"
    if not isinstance(key, dict) or found != "service_account":
        raise GoogleAuthenticationError(
            f'{where}: found {found!r}; expected the JSON key of a service account ("type": "service_account")'
        )
    if missing := [name for name in ("client_email", "private_key", "token_uri") if not key.get(name)]:
        raise GoogleAuthenticationError(f"{where}: the key lacks {', '.join(missing)}; download it again")
    return key


def is_auth_error(error: Exception) -> bool:
    """Whether google-auth raised it (no token) and not the call itself."""
    return isinstance(error, google.auth.exceptions.GoogleAuthError)


def is_transient(error: Exception) -> bool:
    """Whether another attempt may get the token: no answer, or an error on Google's side. A certificate stays
    refused.
    """
    if isinstance(error, google.auth.exceptions.TransportError):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    return bool(getattr(error, "retryable", False))


def is_connection_error(error: Exception) -> bool:
    """Whether no whole answer came: connection refused, dropped, timed out, cut off."""
    return isinstance(
        error,
        (requests.exceptions.ConnectionError, requests.exceptions.Timeout, requests.exceptions.ChunkedEncodingError),
    )


def is_tls_error(error: Exception) -> bool:
    """Whether the certificate was refused; asking again does not help."""
    return isinstance(error, requests.exceptions.SSLError)
