# SPDX-License-Identifier: Apache-2.0
"""The line of a container's log that the user has to look at.

A code server that cannot load its definitions prints a chain of tracebacks, mostly of Dagster's own frames. The cause
is the first of the chain, and the place is its innermost frame outside of installed packages.
"""

from __future__ import annotations

import re

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_CHAIN = re.compile(
    r"\n(?:The above exception was the direct cause of the following exception"
    r"|During handling of the above exception, another exception occurred):?\n"
)
_START = "Traceback (most recent call last):"
_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in .*)?$')
_PACKAGES = ("/bin/", "/site-packages/", "/dist-packages/", "/lib/python", "<frozen")


def cause(log: str) -> str:
    """The first error of the last chain of tracebacks, with file and line; empty if the log holds none."""
    text = plain(log)
    found = None
    for each in _chains(text):
        found = _first(each) or found
    return found or ""


def plain(log: str) -> str:
    """The log without colours."""
    return _ANSI.sub("", log).replace("\r", "")


def _chains(text: str) -> list[str]:
    """The log cut into chains; the tracebacks of one chain are joined by Python's own sentences."""
    joined = _CHAIN.sub("\n\0\n", text)
    chains: list[str] = []
    for part in joined.split(_START):
        # The part before the first traceback is no chain; a traceback that follows a joint belongs to the one before.
        if chains and "\0" in chains[-1][-200:]:
            chains[-1] += _START + part
        else:
            chains.append(part)
    return chains[1:]


def _first(chain: str) -> str:
    lines = chain.split("\0")[0].splitlines()
    places: list[tuple[str, str, str]] = []
    message = ""
    for number, line in enumerate(lines):
        frame = _FRAME.match(line)
        if frame:
            source = lines[number + 1].strip() if number + 1 < len(lines) else ""
            places.append((frame["file"], frame["line"], source))
        elif line and not line.startswith((" ", "\t")) and places:
            message = line.strip()
            break
    if not message:
        return ""
    own = [each for each in places if not any(part in each[0] for part in _PACKAGES)]
    place = (own or places)[-1]
    return f"{message}\n  {place[0]}, line {place[1]}: {place[2]}"
