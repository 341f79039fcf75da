# Copyright (c) 2026, the dataops.dagster_gce authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Checks the JSON key of a Google service account without ever repeating it."""

from __future__ import annotations

import json
import typing as t

EXPECTED = "the JSON key of a Google service account"
FIELDS = ("type", "project_id", "private_key_id", "private_key", "client_email", "token_uri")

# Google's other credential files, in the words their owners know them by (google-auth, google/auth/_default.py).
OTHER_TYPES = {
    "authorized_user": "a user's own credential (`gcloud auth application-default login` makes it)",
    "external_account": "a workload identity federation configuration, which holds no key",
    "external_account_authorized_user": "a workforce identity credential of a user",
    "impersonated_service_account": "an impersonation configuration, which holds no key",
    "gdch_service_account": "a key for Google Distributed Cloud",
}


def check(content: str, project: str = "") -> tuple[str, str] | None:
    """Look for the first thing that is wrong with a key.

    :param content: the JSON text.
    :param project: the project it has to belong to; empty accepts any.
    :returns: what was found and what was expected, neither with a secret in it; None for a good key.
    """
    try:
        key = json.loads(content)
    except ValueError as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        return f"a text that is not JSON{where}", EXPECTED
    return check_mapping(key, project)


def check_mapping(key: t.Any, project: str = "") -> tuple[str, str] | None:
    """The same for a key that is already parsed."""
    if not isinstance(key, dict):
        return f"JSON that is a {type(key).__name__}, not an object", EXPECTED
    kind = key.get("type")
    if kind != "service_account":
        for client in ("installed", "web"):
            if isinstance(key.get(client), dict):
                return "an OAuth client secret", EXPECTED
        if kind is None:
            return "JSON without the field type", f"{EXPECTED}, with type: service_account"
        found = OTHER_TYPES.get(kind) if isinstance(kind, str) else None
        return found or "a credential of an unknown type", f"{EXPECTED}, with type: service_account"
    missing = [field for field in FIELDS if not (isinstance(key.get(field), str) and key[field].strip())]
    if missing:
        return f"a key without {', '.join(missing)}", f"{EXPECTED} with {', '.join(FIELDS)}"
    if project and key["project_id"] != project:
        return f"a key of the project {key['project_id'][:64]!r}", f"a key of the project {project!r}"
    if "@" not in key["client_email"]:
        return "a client_email that is not an address", EXPECTED
    if not key["token_uri"].startswith(("https://", "http://")):
        return "a token_uri that is not a URL", EXPECTED
    return _check_private_key(key["private_key"])


def _check_private_key(text: str) -> tuple[str, str] | None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    expected = "a private_key that is an unencrypted RSA key in PEM form, as Google hands it out"
    if "\\n" in text:
        return "a private_key whose line ends were escaped twice (a backslash and an n)", expected
    try:
        key = load_pem_private_key(text.encode(), password=None)
    # TypeError: the key is encrypted. The exception's own text is left out, since it may quote the key.
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "a private_key that cannot be read", expected
    if not isinstance(key, RSAPrivateKey):
        return "a private_key that is not an RSA key", expected
    return None
