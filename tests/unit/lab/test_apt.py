"""The lab takes the mirrors from the computer's own apt configuration, whichever way it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import apt
from lab.shell import LabError

DEB822 = """\
# comment
Types: deb deb-src
URIs: https://mirror.example.com/debian/
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: https://mirror.example.com/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: https://other.example.com/debian
Suites: sid
Components: main
"""


def write(etc: Path, name: str, text: str) -> None:
    (etc / name).parent.mkdir(parents=True, exist_ok=True)
    (etc / name).write_text(text)


def test_deb822(tmp_path: Path) -> None:
    write(tmp_path, "sources.list.d/debian.sources", DEB822)
    assert apt.debian_mirror(tmp_path) == "https://mirror.example.com/debian"
    assert apt.security_mirror(tmp_path) == "https://mirror.example.com/debian-security"
    assert ("https://other.example.com/debian", "sid") not in apt.sources(tmp_path)


def test_one_line_style_with_options(tmp_path: Path) -> None:
    write(
        tmp_path, "sources.list",
        "# deb http://commented.example.com/debian x main\n"
        "deb [signed-by=/k.gpg arch=amd64] http://m.example.com/debian bookworm main\n",
    )  # fmt: skip
    assert apt.debian_mirror(tmp_path) == "http://m.example.com/debian"
    assert apt.security_mirror(tmp_path) is None


@pytest.mark.parametrize("text", ["", "deb http://archive.example.com/ubuntu noble main\n"])
def test_a_computer_without_debian_is_told_so(tmp_path: Path, text: str) -> None:
    write(tmp_path, "sources.list", text)
    with pytest.raises(LabError, match="no Debian mirror"):
        apt.debian_mirror(tmp_path)
