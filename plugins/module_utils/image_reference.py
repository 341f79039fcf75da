# SPDX-License-Identifier: Apache-2.0
"""References of images: their grammar, what is wrong with one, and its parts.

The grammar is Docker's: https://github.com/distribution/reference/blob/main/regexp.go
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_COMPONENT = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_COMPONENT}(?:\.{_COMPONENT})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PATH = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(
    rf"(?P<name>(?:{_DOMAIN}/)?{_PATH}(?:/{_PATH})*)(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?"
)
_IMAGE_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
# Docker's registries use no other.
_GOOD_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_BAD_DIGEST = "its digest is not sha256: and 64 hexadecimal digits"
_NAME = re.compile(rf"{_PATH}(?:/{_PATH})*")


@dataclass(frozen=True)
class Reference:
    """``repository[:tag][@digest]``; an absent part is empty."""

    repository: str
    tag: str
    digest: str

    @property
    def registry(self) -> str:
        """The registry's host and port; docker.io where the reference names none."""
        first, slash, _ = self.repository.partition("/")
        return first if slash and (first == "localhost" or "." in first or ":" in first) else "docker.io"


def split_reference(text: str) -> Reference:
    """Take a reference apart.

    Raises:
        ValueError: not a reference, neither tag nor digest, or the tag ``latest`` (which names another image
            every day, so that nobody can say what runs nor go back to it).
    """
    match = _REFERENCE.fullmatch(text)
    if match is None or (match["digest"] and not _GOOD_DIGEST.fullmatch(match["digest"])):
        raise ValueError(f"found {text!r}; expected an image reference like registry/name:tag or name@sha256:<64 hex>")
    tag, digest = match["tag"] or "", match["digest"] or ""
    if not digest and tag in ("", "latest"):
        found = "no tag" if not tag else "the tag latest"
        raise ValueError(f"found {text!r} with {found}; expected a tag that names one version, or a digest")
    return Reference(match["name"], tag, digest)


def valid_name(text: str) -> bool:
    """Whether ``text`` can name an image that is built (no registry, no tag)."""
    return _NAME.fullmatch(text) is not None


def problem(reference: str) -> str | None:
    """Say why a text is not a reference that always means the same image.

    :param reference: for example ``registry.example.com:5000/team/core:1.4`` or ``postgres@sha256:…``.
    :returns: the reason, to stand in brackets after what was found; None if it is good.
    """
    if re.search(r"\s", reference):
        return "it holds white space"
    if "://" in reference:
        return "a reference has no scheme"
    if _IMAGE_ID.fullmatch(reference):
        return "an image id, which no registry knows"
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        return _why_not(reference)
    if len(match["name"]) > 255:
        return f"its name has {len(match['name'])} characters, of at most 255"
    if match["digest"]:
        return None if _GOOD_DIGEST.fullmatch(match["digest"]) else _BAD_DIGEST
    if match["tag"] is None:
        return "it has no tag, which means latest"
    if match["tag"] == "latest":
        return "latest is another image every week"
    return None


def _why_not(reference: str) -> str:
    name, at, digest = reference.partition("@")
    if at and not re.fullmatch(_DIGEST, digest):
        return _BAD_DIGEST
    *_front, last = name.split("/")
    repository, colon, tag = last.partition(":")
    if colon and not re.fullmatch(_TAG, tag):
        return "its tag is empty or has characters that a tag cannot have"
    if repository != repository.lower():
        return "a repository is written in lower case"
    return "it does not follow the form registry/repository:tag"
