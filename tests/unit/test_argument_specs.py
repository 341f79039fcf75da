"""A role's inputs stand in three places (defaults, argument specs, README), which have to say the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").glob("*") if (path / "tasks").is_dir())
SECRET = re.compile(r"(password|secret|token|private_key|service_account)$")


class Loader(yaml.SafeLoader):
    """Reads !vault and !unsafe as the text that follows."""


Loader.add_multi_constructor("!", lambda loader, _suffix, node: loader.construct_scalar(node))


def load(role: str, path: str) -> dict[str, Any]:
    file = ROOT / "roles" / role / path
    loaded = yaml.load(file.read_text(encoding="utf-8"), Loader) if file.exists() else None
    return loaded if isinstance(loaded, dict) else {}


def entry_points(role: str) -> dict[str, dict[str, Any]]:
    specs: dict[str, dict[str, Any]] = load(role, "meta/argument_specs.yml").get("argument_specs") or {}
    return specs


def options(role: str) -> dict[str, dict[str, Any]]:
    """The options of all entry points; one that stands in several is described alike everywhere."""
    return {
        name: option for spec in entry_points(role).values() for name, option in (spec.get("options") or {}).items()
    }


def all_options(given: dict[str, dict[str, Any]], prefix: str = "") -> dict[str, dict[str, Any]]:
    """Options with their sub-options, by dotted name."""
    found = {}
    for name, option in given.items():
        found[prefix + name] = option
        found |= all_options(option.get("options") or {}, f"{prefix}{name}.")
    return found


def test_there_are_roles() -> None:
    assert ROLES


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_required_options_are_the_options(role: str) -> None:
    declared = options(role)
    required = {name for name, option in declared.items() if option.get("required")}
    defaults = set(load(role, "defaults/main.yml"))

    assert not required & defaults, "a required input has no default"
    assert sorted(defaults | required) == sorted(declared)


@pytest.mark.parametrize("role", ROLES)
def test_every_option_is_described_and_typed(role: str) -> None:
    assert "main" in entry_points(role)
    for entry, spec in entry_points(role).items():
        assert spec.get("short_description"), f"{entry}: short_description"
        assert (ROOT / "roles" / role / "tasks" / f"{entry}.yml").exists(), f"{entry}: tasks/{entry}.yml"
    for name, option in all_options(options(role)).items():
        assert option.get("description"), f"{name}: description"
        assert option.get("type"), f"{name}: type"


@pytest.mark.parametrize("role", ROLES)
def test_a_default_that_is_told_twice_is_the_same(role: str) -> None:
    defaults = load(role, "defaults/main.yml")
    for name, option in options(role).items():
        # A template falls back to the default that the spec tells, after a variable of the whole collection.
        if "default" in option and name in defaults and "{{" not in str(defaults[name]):
            assert option["default"] == defaults[name], name


@pytest.mark.parametrize("role", ROLES)
def test_secret_options_are_not_logged(role: str) -> None:
    for name, option in options(role).items():
        if SECRET.search(name):
            assert option.get("no_log") is True, f"{name}: no_log"


@pytest.mark.parametrize("role", ROLES)
def test_names_say_whose_they_are(role: str) -> None:
    for name in load(role, "defaults/main.yml"):
        assert name.startswith(f"{role}_"), f"defaults/main.yml: {name}"
    for name in load(role, "vars/main.yml"):
        assert name.startswith(f"__{role}_"), f"vars/main.yml: {name}"


@pytest.mark.parametrize("role", ROLES)
def test_every_default_has_a_comment(role: str) -> None:
    lines = (ROOT / "roles" / role / "defaults/main.yml").read_text(encoding="utf-8").splitlines()
    keys = re.compile(r"[a-z_0-9]+:")
    for number, line in enumerate(lines):
        if keys.match(line) and "#" not in line:
            # The comment stands above; neighbours that belong together share one.
            above = number - 1
            while above >= 0 and lines[above].strip() and not lines[above].startswith("#"):
                above -= 1
            assert above >= 0, f"line {number + 1}"
            assert lines[above].startswith("#"), f"line {number + 1}: {line}"


@pytest.mark.parametrize("role", ROLES)
def test_readme_lists_every_variable(role: str) -> None:
    readme = (ROOT / "roles" / role / "README.md").read_text(encoding="utf-8")
    missing = [name for name in options(role) if not re.search(rf"\b{name}\b", readme)]
    assert not missing


@pytest.mark.parametrize("role", ROLES)
def test_no_role_reads_the_inputs_of_another(role: str) -> None:
    others = {name for other in ROLES if other != role for name in options(other)} - set(options(role))
    for part in ("tasks", "templates", "handlers", "vars"):
        for path in (ROOT / "roles" / role / part).rglob("*"):
            if path.is_file():
                words = set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
                assert not words & others, path.relative_to(ROOT)
