"""What this computer's own apt configuration says: which mirror to take packages from.

No host name of a mirror stands in the project; a computer behind a company's mirror uses that one.
"""

from __future__ import annotations

import re
from pathlib import Path

from .shell import LabError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
ETC = Path("/etc/apt")


def _stanzas(text: str) -> list[dict[str, str]]:
    """The stanzas of a deb822 sources file as dicts with lower-case keys."""
    stanzas = []
    for block in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in block.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0].isspace() and key:
                fields[key] += " " + line.strip()
            elif ":" in line:
                key, value = line.split(":", 1)
                key = key.strip().lower()
                fields[key] = value.strip()
        if fields:
            stanzas.append(fields)
    return stanzas


def sources(etc: Path = ETC) -> list[tuple[str, str]]:
    """(URI, suite) of every enabled binary source of this computer, deb822 and one-line style."""
    found: list[tuple[str, str]] = []
    for path in sorted(etc.glob("sources.list.d/*.sources")):
        for stanza in _stanzas(path.read_text()):
            if "deb" in stanza.get("types", "").split() and stanza.get("enabled", "yes") != "no":
                found += [(uri, suite) for uri in stanza.get("uris", "").split() for suite in stanza["suites"].split()]
    for path in [etc / "sources.list", *sorted(etc.glob("sources.list.d/*.list"))]:
        for line in path.read_text().splitlines() if path.exists() else ():
            entry = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)", line)
            if entry:
                found.append((entry[1], entry[2]))
    return found


def debian_mirror(etc: Path = ETC) -> str:
    """The URI that this computer takes Debian itself from.

    Raises LabError where the computer has no Debian source (Ubuntu, Fedora, …).
    """
    for uri, suite in sources(etc):
        if not suite.endswith(("-security", "/updates")) and re.search(r"debian/?$", uri):
            return uri.rstrip("/")
    raise LabError(
        "found no Debian mirror in /etc/apt: the lab builds its base images with debootstrap where Docker Hub "
        "cannot be reached, and takes the mirror from this computer's own apt sources"
    )


def security_mirror(etc: Path = ETC) -> str | None:
    """The URI of Debian's security updates, if this computer has one."""
    for uri, suite in sources(etc):
        if suite.endswith("-security"):
            return uri.rstrip("/")
    return None
