"""What roles leave on the machine is read, and what cannot be read is said."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config
from tests.unit.operations.conftest import Configure


def test_settings_of_a_part(configure: Configure) -> None:
    configure("backup", {"backup": {"every_at_most": 60}}, keep=3)
    assert config.load("backup") == {"keep": 3}
    assert config.load("upkeep") == {}


def test_where_the_stack_stands(here: Path) -> None:
    stack = config.stack()
    assert (stack.root, stack.state) == (str(here / "root"), str(here / "root/state"))
    assert stack.location == "dagster_core"
    (here / "etc/command.json").unlink()
    assert config.stack() == config.Stack()


def test_the_jobs_of_all_parts(configure: Configure, here: Path) -> None:
    configure("backup", {"backup": {"every_at_most": 60, "unknown": 1}, "drill": {"every_at_most": None}})
    configure("watch", {"watch": {"stays": False, "every": "30s"}})
    os.utime(here / "etc/watch.json", (1000, 1000))
    found = config.jobs()
    assert sorted(found) == ["backup", "drill", "watch"]
    assert (found["backup"].part, found["backup"].every_at_most) == ("backup", 60)
    assert (found["watch"].every, found["watch"].since) == ("30s", 1000)
    assert abs(found["backup"].since - time.time()) < 60


@pytest.mark.parametrize(("content", "says"), [("{", "cannot be read"), ("[]", "found list"), ("", "cannot be read")])
def test_a_broken_file_is_an_error_with_its_name(here: Path, content: str, says: str) -> None:
    (here / "etc/backup.json").write_text(content)
    with pytest.raises(config.ConfigError, match=rf"backup.json.*{says}.*site.yml"):
        config.load("backup")
    assert config.jobs() == {}
    assert len(config.broken()) == 1
