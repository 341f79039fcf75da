"""What the programs of this folder do with the pages that they make: fill in text, and keep the files up to date."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def between(page: str, begin: str, end: str, text: str) -> str | None:
    """A page with what stands between two markers replaced, or None if it has no markers."""
    before, found_begin, rest = page.partition(begin)
    _old, found_end, after = rest.partition(end)
    return f"{before}{begin}\n{text}\n{end}{after}" if found_begin and found_end else None


def keep(pages: Mapping[Path, str], check: bool, wrong: str) -> list[str]:
    """Write what has changed, and say so; with ``check`` write nothing, and return a line for each such page.

    :param wrong: what a line says after the page's name.
    """
    found = []
    for page, new in pages.items():
        if page.exists() and page.read_text(encoding="utf-8") == new:
            continue
        if check:
            found.append(f"{page.relative_to(ROOT)}: {wrong}")
        else:
            page.write_text(new, encoding="utf-8")
            print(f"{page.relative_to(ROOT)}: written")
    return found
