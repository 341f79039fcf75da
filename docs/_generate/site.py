"""Gather what the web site shows: README, docs/, the roles' READMEs, with links that lead somewhere on it.

Usage: python docs/_generate/site.py FOLDER

What is linked to and is no page of the site becomes a link to the repository.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^()\s#]+)(#[^()\s]*)?(\))")
# Code is shown as it is.
PARTS = re.compile(r"(^```.*?^```$|`[^`\n]*`)", re.MULTILINE | re.DOTALL)


def pages() -> dict[str, str]:
    """Files of the repository, and what they are called on the site."""
    found = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
    found |= {f"docs/{path.name}": path.name for path in (ROOT / "docs").glob("*.md")}
    # The site's own first page is the README.
    found["docs/README.md"] = "start.md"
    found |= {
        f"roles/{path.parent.name}/README.md": f"roles/{path.parent.name}.md" for path in ROOT.glob("roles/*/README.md")
    }
    examples = (ROOT / "docs/examples").glob("*/README.md")
    return found | {str(path.relative_to(ROOT)): f"examples/{path.parent.name}.md" for path in examples}


def rewrite(text: str, name: str, known: dict[str, str], repository: str) -> str:
    """The links of a page, as they have to be on the site.

    :param name: the page's file in the repository.
    """

    def link(found: re.Match[str]) -> str:
        target = os.path.normpath(os.path.join(os.path.dirname(name), found[2]))
        if target in known:
            place = os.path.relpath(known[target], os.path.dirname(known[name]) or ".")
        elif target.startswith("docs/images/"):
            place = os.path.relpath(target.removeprefix("docs/"), os.path.dirname(known[name]) or ".")
        else:
            kind = "tree" if (ROOT / target).is_dir() else "blob"
            place = f"{repository}/{kind}/main/{target}"
        return f"{found[1]}{place}{found[3] or ''}{found[4]}"

    parts = PARTS.split(text)
    return "".join(part if index % 2 else LINK.sub(link, part) for index, part in enumerate(parts))


def main(folder: Path) -> int:
    """Write the pages; returns the exit status."""
    repository = str(yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["repository"])
    shutil.rmtree(folder, ignore_errors=True)
    known = pages()
    for name, place in known.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        text = (ROOT / name).read_text(encoding="utf-8")
        (folder / place).write_text(rewrite(text, name, known, repository), encoding="utf-8")
    shutil.copytree(ROOT / "docs/images", folder / "images")
    print(f"{len(known)} pages")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
