"""Write the option tables of the roles' READMEs, and docs/variables.md, from the argument specs.

Usage: python docs/_generate/option_tables.py [--check]

A README holds its tables between the two markers below; a role whose README has none is an error.
With --check nothing is written, and the exit status says whether something would be.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from docs._generate import pages  # noqa: E402

BEGIN, END = "<!-- argument_specs -->", "<!-- /argument_specs -->"
NOTE = "<!-- Made by `make docs-tables` from meta/argument_specs.yml. -->"
LONGEST_DEFAULT = 60


class Loader(yaml.SafeLoader):
    """Reads Ansible's own tags as the text that follows them."""


Loader.add_multi_constructor("!", lambda loader, _suffix, node: loader.construct_scalar(node))


def plain(text: str) -> str:
    """Turn Ansible's markup (C(x), V(x), O(x), I(x), B(x), U(x), L(x,y)) into Markdown on one line of a table."""
    text = re.sub(r"\bL\(([^,)]+),\s*([^)]+)\)", r"[\1](\2)", text)
    text = re.sub(r"\bU\(([^)]+)\)", r"<\1>", text)
    text = re.sub(r"\b[CVOE]\(([^)]+)\)", r"`\1`", text)
    text = re.sub(r"\bI\(([^)]+)\)", r"*\1*", text)
    text = re.sub(r"\bB\(([^)]+)\)", r"**\1**", text)
    return " ".join(text.split()).replace("|", "\\|")


def described(option: dict[str, Any]) -> str:
    """The description of an option with its choices."""
    description = option.get("description", "")
    sentences = description if isinstance(description, list) else [description]
    text = " ".join(plain(str(sentence)) for sentence in sentences)
    if option.get("choices"):
        text += " One of " + ", ".join(f"`{shown(choice)}`" for choice in option["choices"]) + "."
    return text


def shown(value: object) -> str:
    """A value as it would stand in YAML, on one line."""
    if isinstance(value, str):
        return value or "''"
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def default(name: str, option: dict[str, Any], defaults: dict[str, Any]) -> str:
    """The default of an option; what is too long for a table is named by where it stands."""
    if option.get("required"):
        return "**required**"
    if name not in defaults and "default" not in option:
        return "-"
    # The spec's word first: in defaults/main.yml it may be a template that falls back to it.
    text = " ".join(shown(option["default"] if "default" in option else defaults[name]).split())
    if len(text) > LONGEST_DEFAULT:
        return "[see defaults](defaults/main.yml)"
    return "`" + text.replace("|", "\\|") + "`"


def load(path: Path) -> dict[str, Any]:
    """A YAML file, empty if it is not there."""
    loaded = yaml.load(path.read_text(encoding="utf-8"), Loader) if path.exists() else None  # noqa: S506 (a SafeLoader)
    return loaded if isinstance(loaded, dict) else {}


def type_of(option: dict[str, Any]) -> str:
    """The type of an option, with that of its elements."""
    elements = f" of {option['elements']}" if option.get("elements") else ""
    return f"{option.get('type', 'str')}{elements}"


def tables(role: Path) -> str:
    """The Markdown between the markers of one role."""
    entries: dict[str, Any] = load(role / "meta/argument_specs.yml").get("argument_specs", {})
    defaults = load(role / "defaults/main.yml")
    parts = [NOTE]
    shown_before: dict[str, str] = {}
    for entry, spec in entries.items():
        options = spec.get("options") or {}
        rows = "\n".join(
            f"| `{name}` | {type_of(option)} | {default(name, option, defaults)} | {described(option)} |"
            for name, option in sorted(options.items(), key=lambda item: (not item[1].get("required"), item[0]))
        )
        head = f"### Entry point `{entry}`\n\n{plain(str(spec.get('short_description', '')))}".rstrip()
        if not rows:
            parts.append(f"{head}\n\nNo variables.")
        elif rows in shown_before:
            parts.append(f"{head}\n\nThe variables of `{shown_before[rows]}`.")
        else:
            shown_before[rows] = entry
            parts.append(f"{head}\n\n| variable | type | default | what it is |\n|---|---|---|---|\n{rows}")
    return "\n\n".join(parts)


def overview(roles: list[Path]) -> str:
    """docs/variables.md: every variable of every role on one page."""
    parts = [
        f"{NOTE}\n\n# Variables",
        "Every input of every role, to search. What several roles share (`gcp_project`…) stands in\n"
        "[architecture.md](architecture.md#variables-that-belong-to-the-collection).",
    ]
    for role in roles:
        entries: dict[str, Any] = load(role / "meta/argument_specs.yml").get("argument_specs", {})
        defaults = load(role / "defaults/main.yml")
        options = {name: option for spec in entries.values() for name, option in (spec.get("options") or {}).items()}
        rows = [
            f"| `{name}` | {default(name, options[name], defaults)} | {described(options[name])} |"
            for name in sorted(options)
        ]
        link = f"## [{role.name}](../roles/{role.name}/README.md)"
        head = f"{link}\n\n{plain(str(entries.get('main', {}).get('short_description', '')))}".rstrip()
        table = "\n".join(["| variable | default | what it is |", "|---|---|---|", *rows])
        parts.append(f"{head}\n\n{table}".replace("](defaults/", f"](../roles/{role.name}/defaults/"))
    return "\n\n".join(parts) + "\n"


def rewritten(readme: str, text: str) -> str | None:
    """A README with its tables replaced, or None if it has no markers."""
    return pages.between(readme, BEGIN, END, text)


def main() -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if something is out of date")
    check = parser.parse_args().check
    wrong = []
    roles = sorted(path.parent.parent for path in (ROOT / "roles").glob("*/meta/argument_specs.yml"))
    made = {ROOT / "docs/variables.md": overview(roles)}
    for role in roles:
        readme = role / "README.md"
        new = rewritten(readme.read_text(encoding="utf-8") if readme.exists() else "", tables(role))
        if new is None:
            name = readme.relative_to(ROOT)
            wrong.append(f"{name}: found no markers; expected {BEGIN} and {END} where the option tables belong")
        else:
            made[readme] = new
    wrong += pages.keep(made, check, "the option tables are out of date; run `make docs-tables`")
    print("\n".join(wrong) or f"{len(roles)} option tables")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
