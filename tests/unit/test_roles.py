"""House rules for roles that no linter checks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").glob("*") if (path / "tasks").is_dir())
WRITERS = ("ansible.builtin.copy", "ansible.builtin.template", "ansible.builtin.file", "ansible.builtin.get_url")
SHOWS_A_DIFF = (
    "ansible.builtin.copy",
    "ansible.builtin.template",
    "ansible.builtin.lineinfile",
    "ansible.builtin.blockinfile",
)
# These formats have no comments, or a header of their own.
WITHOUT_HEADER = (".json.j2", ".md.j2")


class Loader(yaml.SafeLoader):
    """Reads Ansible's own tags as the text that follows them."""


Loader.add_multi_constructor("!", lambda loader, _suffix, node: loader.construct_scalar(node))


def flat(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for task in tasks or []:
        yield task
        for part in ("block", "rescue", "always"):
            yield from flat(task.get(part, []))


def tasks(role: str) -> list[tuple[str, dict[str, Any]]]:
    """The tasks of a role with the file and the name by which they are found."""
    found = []
    for folder in ("tasks", "handlers"):
        for path in sorted((ROOT / "roles" / role / folder).glob("*.yml")):
            loaded = yaml.load(path.read_text(encoding="utf-8"), Loader)
            found += [(f"{path.relative_to(ROOT)}: {task.get('name')}", task) for task in flat(loaded)]
    assert found
    return found


@pytest.mark.parametrize("role", ROLES)
def test_what_is_written_has_an_owner_a_group_and_a_mode(role: str) -> None:
    for where, task in tasks(role):
        for module in WRITERS:
            arguments = task.get(module)
            if arguments is None or arguments.get("state") in ("absent", "link"):
                continue
            assert {"owner", "group", "mode"} <= arguments.keys(), where
            assert isinstance(arguments["mode"], str), where


@pytest.mark.parametrize("role", ROLES)
def test_what_is_not_logged_shows_no_diff(role: str) -> None:
    for where, task in tasks(role):
        if task.get("no_log") and any(module in task for module in SHOWS_A_DIFF):
            assert task.get("diff") is False, where


@pytest.mark.parametrize("role", ROLES)
def test_main_is_a_table_of_contents_that_validates_first(role: str) -> None:
    main = yaml.load((ROOT / "roles" / role / "tasks/main.yml").read_text(encoding="utf-8"), Loader)
    first = main[0].get("ansible.builtin.import_tasks", main[0].get("ansible.builtin.include_tasks"))
    assert first in ("validate.yml", {"file": "validate.yml"})


@pytest.mark.parametrize("role", ROLES)
def test_templates_say_who_manages_them(role: str) -> None:
    for path in (ROOT / "roles" / role / "templates").rglob("*.j2"):
        if not path.name.endswith(WITHOUT_HEADER):
            text = re.sub(r"\A(\{#.*?#\}\s*)+", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
            assert text.startswith("{{ ansible_managed | comment"), path.relative_to(ROOT)


@pytest.mark.parametrize("role", ROLES)
def test_every_input_is_checked(role: str) -> None:
    specs = yaml.load((ROOT / "roles" / role / "meta/argument_specs.yml").read_text(encoding="utf-8"), Loader)[
        "argument_specs"
    ]
    checked = {
        name
        for _where, task in tasks(role)
        for name in (task.get("dataops.dagster_gce.check_inputs") or {}).get("checks", {})
    }
    options = {name: option for spec in specs.values() for name, option in (spec.get("options") or {}).items()}
    # A text may be free; Ansible checks booleans and choices itself, though not together with all others.
    free = {name for name, option in options.items() if option["type"] in ("bool", "str") or "choices" in option}
    unchecked = options.keys() - free
    assert sorted(unchecked - checked) == []
    assert sorted(checked - options.keys()) == []


def test_site_begins_to_pull_the_database_that_the_stack_takes() -> None:
    """The role's default is not there yet when the first image is pulled."""
    defaults = yaml.safe_load((ROOT / "roles/dagster_stack/defaults/main.yml").read_text(encoding="utf-8"))
    site = (ROOT / "playbooks/site.yml").read_text(encoding="utf-8")
    assert f"dagster_stack_postgres_image | default('{defaults['dagster_stack_postgres_image']}')" in site
