# Copyright (c) 2026, the dataops.dagster_gce authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What Google takes as names, labels and metadata, checked before anything is asked: each mistake is one line."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_links import NAME, NAME_WORDS


def name(option: str, value: str) -> list[str]:
    """A mistake in the name of a resource."""
    return [] if re.fullmatch(NAME, value) else [f"{option}: found {value!r}; expected {NAME_WORDS}"]


def labels(option: str, value: dict[str, t.Any] | None) -> list[str]:
    """Mistakes in labels: https://cloud.google.com/compute/docs/labeling-resources#requirements."""
    lines = []
    for key, text in (value or {}).items():
        if not re.fullmatch(r"[^\W\d_A-Z][\w-]{0,62}", str(key)) or str(key) != str(key).lower():
            lines.append(
                f"{option}: found the key {key!r}; expected 1 to 63 lower-case letters, digits, _, -, a letter first"
            )
        if isinstance(text, (dict, list)) or text is None:
            lines.append(f"{option}.{key}: found {text!r}; expected text")
        elif not re.fullmatch(r"[\w-]{0,63}", str(text)) or str(text) != str(text).lower():
            lines.append(f"{option}.{key}: found {text!r}; expected up to 63 lower-case letters, digits, _ and -")
    if len(value or {}) > 63:
        lines.append(f"{option}: found {len(value or {})} labels; expected 63 at most (one more is the collection's)")
    return lines


def tags(value: list[str] | None) -> list[str]:
    """Mistakes in network tags."""
    return [line for tag in value or [] for line in name("tags", tag)]


def metadata(value: dict[str, t.Any] | None) -> list[str]:
    """Mistakes in metadata."""
    lines = []
    for key, text in (value or {}).items():
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", str(key)):
            lines.append(f"metadata: found the key {key!r}; expected up to 128 letters, digits, _ and -")
        if isinstance(text, (dict, list)):
            lines.append(f"metadata.{key}: found a {type(text).__name__}; expected text (to_json makes some of it)")
        elif len(str(text).encode()) > 262144:
            lines.append(f"metadata.{key}: found {len(str(text).encode())} bytes; expected 262144 at most")
    return lines


def message(lines: list[str]) -> str:
    """All mistakes as one error."""
    if len(lines) == 1:
        return lines[0]
    return f"{len(lines)} options are wrong:\n" + "\n".join(f"- {line}" for line in lines)
