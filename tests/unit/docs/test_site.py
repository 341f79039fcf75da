"""The pages of the web site: all of them, and links that lead somewhere on it."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from docs._generate import site

ROOT = Path(__file__).resolve().parents[3]


def test_links() -> None:
    known = site.pages()
    text = (
        "[a](../roles/dagster_core/README.md#variables) [b](pipeline.md) [c](../Makefile) [d](https://example.com)"
        " [e](#here) ![f](images/ui.png) [g](../roles) `[h](x.md)`\n```\n[i](y.md)\n```\n"
    )
    assert site.rewrite(text, "docs/redeploy.md", known, "https://git.example/r") == (
        "[a](roles/dagster_core.md#variables) [b](pipeline.md) [c](https://git.example/r/blob/main/Makefile)"
        " [d](https://example.com) [e](#here) ![f](images/ui.png) [g](https://git.example/r/tree/main/roles)"
        " `[h](x.md)`\n```\n[i](y.md)\n```\n"
    )
    back = site.rewrite(
        "[a](../../docs/pipeline.md) [b](../gce_project/README.md)", "roles/dagster_core/README.md", known, "x"
    )
    assert back == "[a](../pipeline.md) [b](gce_project.md)"


def test_every_page_is_there_once(tmp_path: Path) -> None:
    assert site.main(tmp_path / "pages") == 0
    known = site.pages()
    assert len(set(known.values())) == len(known)
    assert {"index.md", "pipeline.md", "roles/dagster_core.md", "examples/user-code-repository.md"} <= set(
        known.values()
    )
    written = {str(path.relative_to(tmp_path / "pages")) for path in (tmp_path / "pages").rglob("*.md")}
    assert written == set(known.values())
    assert (tmp_path / "pages/images/ui.png").exists()


def test_the_way_through_the_site_has_every_page() -> None:
    def pages(part: object) -> list[str]:
        if isinstance(part, str):
            return [part]
        inside = part.values() if isinstance(part, dict) else part
        assert not isinstance(inside, str)
        return [page for each in inside for page in pages(each)]  # type: ignore[attr-defined]

    listed = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(listed) == sorted(site.pages().values())


def test_every_playbook_has_a_page() -> None:
    """The table of docs/README.md names each, with a page of its own that says more."""
    rows = (ROOT / "docs/README.md").read_text(encoding="utf-8").splitlines()
    for playbook in sorted(path.name for path in (ROOT / "playbooks").glob("*.yml")):
        links = [re.findall(r"\]\(([\w-]+\.md)", row) for row in rows if f"`{playbook}`" in row]
        assert links, playbook
        assert any(playbook in (ROOT / "docs" / page).read_text(encoding="utf-8") for page in links[0]), playbook
