"""The pages of the web site: all of them, and links that lead somewhere on it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs/_generate/site.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links(site: ModuleType) -> None:
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


def test_every_page_is_there_once(site: ModuleType, tmp_path: Path) -> None:
    assert site.main(tmp_path / "pages") == 0
    known = site.pages()
    assert len(set(known.values())) == len(known)
    assert {"index.md", "pipeline.md", "roles/dagster_core.md", "examples/user-code-repository.md"} <= set(
        known.values()
    )
    written = {str(path.relative_to(tmp_path / "pages")) for path in (tmp_path / "pages").rglob("*.md")}
    assert written == set(known.values())
    assert (tmp_path / "pages/images/ui.png").exists()
