"""docs/troubleshooting.md: what it quotes is still said, and each entry names a test that is there."""

from __future__ import annotations

import ast
import functools
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/troubleshooting.md"
CODE = ("plugins", "lab", "files/docker")
YAML = ("roles", "playbooks")
TEST = re.compile(r"\[(test_\w+)\]\(\.\./((?:tests|molecule)/[\w/]+\.py)\)")
QUOTE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Entry:
    """One symptom."""

    title: str
    text: str

    @property
    def tests(self) -> list[tuple[str, str]]:
        """Name and file of each test."""
        return TEST.findall(self.text)

    @property
    def quotes(self) -> list[str]:
        """What is quoted in the heading; without a quote there, all of the text."""
        return QUOTE.findall(self.title) or QUOTE.findall(self.text)


def entries() -> list[Entry]:
    parts = re.split(r"^### +(.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return [
        Entry(title, re.split(r"^## ", text, flags=re.MULTILINE)[0])
        for title, text in zip(parts[::2], parts[1::2], strict=True)
    ]


def strings(path: Path) -> list[str]:
    """The texts in a Python file as a user may see them: joined, without placeholders, without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
    ]


@functools.cache
def said() -> str:
    """Every text of the code, one a line."""
    texts = [text for folder in CODE for path in sorted((ROOT / folder).rglob("*.py")) for text in strings(path)]
    texts += [path.read_text(encoding="utf-8") for folder in YAML for path in sorted((ROOT / folder).rglob("*.yml"))]
    return "\n".join(texts)


def is_said(quote: str, files: list[str]) -> bool:
    """Whether every part of a quote stands in the code or in one of the tests."""
    there = "\n".join([said(), *(text for name in files for text in strings(ROOT / name))])
    return all(part.strip(" ,") in there for part in quote.split("…") if part.strip(" ,"))


def test_there_are_entries() -> None:
    assert len(entries()) > 30
    assert len({entry.title for entry in entries()}) == len(entries())


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.title)
def test_an_entry_is_reproduced_and_says_what_is_said(entry: Entry) -> None:
    assert entry.tests, "expected [test_…](../tests/…py)"
    for name, file in entry.tests:
        assert re.search(rf"^ *def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), (name, file)
    files = [file for _name, file in entry.tests]
    found = [quote for quote in entry.quotes if is_said(quote, files)]
    if QUOTE.search(entry.title):
        assert found == entry.quotes
    else:
        assert found, "expected a quote of what is said in the heading or in the text"
