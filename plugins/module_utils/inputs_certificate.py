# Copyright (c) 2026, the dataops.dagster_gce authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Checks a web server's certificate, its key, and passwords, on the controller; never repeats a secret."""

from __future__ import annotations

import datetime
import itertools
import re
import typing as t

CERTIFICATE = "a certificate in PEM form, the server's own first and then those that lead to its authority"
KEY = "the certificate's private key in PEM form, without a password"
PASSWORDS = "a mapping of at least one user to a password of 12 to 72 bytes"
USER = re.compile(r"[A-Za-z0-9._@+-]{1,64}")
# bcrypt reads no further than 72 bytes.
SHORTEST, LONGEST, FEWEST_DIFFERENT = 12, 72, 5

Found = tuple[str, str] | None


def check_certificate(text: t.Any, name: str = "") -> Found:
    """What is wrong with a certificate chain.

    :param text: PEM.
    :param name: the host name that it has to be for; empty accepts any.
    :returns: what was found and what was expected; None for a good one.
    """
    chain = _chain(text)
    if isinstance(chain, str):
        return chain, CERTIFICATE
    leaf = chain[0]
    ends, begins = leaf.not_valid_after_utc, leaf.not_valid_before_utc
    now = datetime.datetime.now(datetime.UTC)
    if ends < now:
        return f"a certificate that expired at {ends:%Y-%m-%d %H:%M} UTC", "one that is valid today"
    if begins > now:
        return f"a certificate that is valid from {begins:%Y-%m-%d %H:%M} UTC on", "one that is valid today"
    names = _names(leaf)
    if name and not any(_covers(each, name) for each in names):
        return f"a certificate for {', '.join(names[:5]) or 'no host name'}", f"one for {name}"
    for issued, issuer in itertools.pairwise(chain):
        if issued.issuer != issuer.subject:
            return (
                f"{issuer.subject.rfc4514_string()} after {issued.subject.rfc4514_string()}, which another one issued",
                CERTIFICATE,
            )
    return None


def check_key(text: t.Any, certificate: t.Any = "") -> Found:
    """The same for the private key of a certificate, which may be wrong itself (then its own check says so)."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    if not isinstance(text, str) or "-----BEGIN" not in text:
        return "a text that is not PEM (hidden)", KEY
    try:
        key = load_pem_private_key(text.encode(), password=None)
    except TypeError:
        return "a key with a password", KEY
    # The exception's own text is left out, since it may quote the key.
    except (ValueError, UnsupportedAlgorithm):
        return "a key that cannot be read (hidden)", KEY
    chain = _chain(certificate)
    if isinstance(chain, str):
        return None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != chain[0].public_key().public_bytes(*form):
        return "the key of another certificate", KEY
    return None


def check_passwords(users: t.Any) -> Found:
    """What is wrong with a mapping from users to passwords."""
    if not isinstance(users, dict):
        return f"a {type(users).__name__}", PASSWORDS
    if not users:
        return "an empty mapping", PASSWORDS
    # By position: a password may have been typed in the place of a name.
    for position, (name, password) in enumerate(users.items(), start=1):
        if not isinstance(name, str) or not USER.fullmatch(name):
            return f"the name of user {position} (hidden)", "letters, digits and . _ @ + -, at most 64 of them"
        problem = _weakness(name, password)
        if problem:
            return f"{problem} for user {position}", f"{PASSWORDS} (openssl rand -base64 18 makes one)"
    return None


def _weakness(name: str, password: t.Any) -> str:
    if not isinstance(password, str):
        return "a password that is no text; put it in quotes"
    if not password.strip():
        return "an empty password"
    length = len(password.encode("utf-8", "surrogatepass"))
    if length < SHORTEST:
        return f"a password of {length} bytes"
    if length > LONGEST:
        return f"a password of {length} bytes, of which bcrypt would read {LONGEST}"
    if not password.isprintable():
        return "a password with a line end or another character that cannot be typed"
    if len(set(password)) < FEWEST_DIFFERENT:
        return f"a password of fewer than {FEWEST_DIFFERENT} different characters"
    if len(name) > 2 and name.lower() in password.lower():
        return "a password with the name in it"
    return ""


def _chain(text: t.Any) -> t.Any:
    """The certificates of a PEM text, or what is wrong with it as a text."""
    from cryptography import x509

    if not isinstance(text, str) or "-----BEGIN" not in text:
        return "a text that is not PEM (lookup('ansible.builtin.file', …) reads a file)"
    if "PRIVATE KEY-----" in text:
        return "a text with a private key in it (hidden)"
    try:
        chain = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        return "PEM that holds no certificate"
    return chain or "PEM that holds no certificate"


def _names(certificate: t.Any) -> list[str]:
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []  # browsers do not look at the common name
    return [str(each).lower() for each in found.get_values_for_type(x509.DNSName)]


def _covers(pattern: str, name: str) -> bool:
    name = name.lower()
    if pattern.startswith("*."):
        return name.partition(".")[2] == pattern[2:]
    return pattern == name
