# SPDX-License-Identifier: Apache-2.0
""".env files as Docker Compose reads them.

Compose has a grammar of its own: a value without quotes ends at `` #`` and is interpolated, one in double quotes is
unescaped and then interpolated, one in single quotes is literal except that a backslash and a quote are a quote.
`render` uses the single quotes wherever it can, since they show a value as it is.
https://docs.docker.com/compose/how-tos/environment-variables/variable-interpolation/
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# What stands above the values that the collection writes.
HEADER = "Managed by Ansible (dataops.dagster_gce): local edits are lost, except generated secrets.\nHolds secrets."

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FORBIDDEN = {"\n": "a line end", "\r": "a carriage return", "\0": "a NUL character"}
# Safe without quotes in every program that reads such files (Compose, systemd, a shell).
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*=[ \t]*(.*)")
# What Compose unescapes inside of double quotes; other backslashes stay.
_ESCAPE = re.compile(r"\\([abfnrtv$\"\\])")
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class DotenvError(ValueError):
    """A name or a value that such a file cannot hold; the message names the variable and never shows the value."""


def render(values: Mapping[str, str], header: str = "") -> str:
    """The file's text, one ``NAME=value`` a line in the order given.

    Raises:
        DotenvError: a name that is none, a value with a line end or NUL, or one that is not valid Unicode.
    """
    lines = [f"# {line}".rstrip() for line in header.splitlines()]
    return "".join(
        f"{line}\n" for line in [*lines, *(f"{name}={quote(name, value)}" for name, value in values.items())]
    )


def quote(name: str, value: str) -> str:
    """One value as it stands in the file."""
    if not NAME.fullmatch(name):
        raise DotenvError(f"{name}: no name of an environment variable; expected letters, digits and _, no digit first")
    for character, called in _FORBIDDEN.items():
        if character in value:
            raise DotenvError(f"{name}: found a text with {called} in it; expected a text on one line")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DotenvError(f"{name}: found a text that is not valid Unicode") from error
    if _PLAIN.fullmatch(value):
        return value
    # Single quotes cannot hold a backslash before a quote, nor one at the end: there it would escape the quote.
    if not re.search(r"\\+(?:'|$)", value):
        return "'" + value.replace("'", "\\'") + "'"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$") + '"'


def parse(text: str) -> dict[str, str]:
    """What Compose would read from ``text``.

    Raises:
        DotenvError: a line that is no assignment, a quote that is not closed, or a reference to another variable
            (``${NAME}``), which would need Compose's own environment to resolve.
    """
    values: dict[str, str] = {}
    # Not splitlines(): that also splits at U+0085, U+2028 and others that may stand in a value.
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _ASSIGNMENT.fullmatch(line)
        if match is None:
            raise DotenvError(f"line {number}: expected NAME=value")
        values[match[1]] = _value(match[1], match[2])
    return values


def _value(name: str, raw: str) -> str:
    if raw[:1] not in ("'", '"'):
        # A comment begins at white space and `#`.
        return _interpolate(name, re.sub(r"\s#.*$", "", f" {raw}").strip())
    quote_character = raw[0]
    value = ""
    escaped = False
    for position, character in enumerate(raw[1:], 1):
        if escaped:
            # As Compose: an escaped quote loses its backslash, everything else keeps it.
            value += character if character == quote_character else "\\" + character
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == quote_character:
            rest = raw[position + 1 :].strip()
            if rest and not rest.startswith("#"):
                raise DotenvError(f"{name}: found text after the closing quote")
            return value if quote_character == "'" else _interpolate(name, _unescape(value))
        else:
            value += character
    raise DotenvError(f"{name}: found an opening quote that is never closed")


def _unescape(value: str) -> str:
    def replace(match: re.Match[str]) -> str:
        return "$$" if match[1] == "$" else _ESCAPED.get(match[1], match[1])

    return _ESCAPE.sub(replace, value)


def _interpolate(name: str, value: str) -> str:
    if re.search(r"(?<!\$)(?:\$\$)*\$(?:\{|[A-Za-z_])", value):
        raise DotenvError(
            f"{name}: refers to another variable ($NAME); put the value in single quotes if it is literal"
        )
    return value.replace("$$", "$")
