"""The tags of site.yml: every part has one, and docs/interfaces.md lists them all."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def listed() -> set[str]:
    """What `--list-tags` says."""
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    done = subprocess.run(
        [program, "-i", "inventory/local", "site.yml", "--list-tags"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {tag for tags in re.findall(r"TAGS: \[(.*)\]", done.stdout) for tag in tags.split(", ") if tag}


def test_the_documentation_lists_every_tag(listed: set[str]) -> None:
    table = (ROOT / "docs/interfaces.md").read_text(encoding="utf-8").partition("| `--tags` |")[2].partition("\n\n")[0]
    first = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert {tag for cell in first for tag in re.findall(r"`(\w+)`", cell)} | {"always"} == listed


def parts() -> list[dict[str, Any]]:
    """What has to have tags: plays, and the tasks of those plays that have none themselves."""
    plays: list[dict[str, Any]] = yaml.safe_load((ROOT / "playbooks/site.yml").read_text(encoding="utf-8"))
    return [part for play in plays for part in ([play] if "tags" in play else play.get("tasks", [play]))]


def test_every_part_of_site_has_a_tag() -> None:
    assert [part["name"] for part in parts() if not part.get("tags")] == []


def test_a_role_that_is_included_hands_its_tags_on() -> None:
    """What include_role brings does not inherit the tags of the task."""
    for part in parts():
        if included := part.get("ansible.builtin.include_role"):
            assert included.get("apply") == {"tags": part["tags"]}, part["name"]
