"""The tables made from argument specs, on a role small enough to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs._generate import option_tables


@pytest.fixture
def role(tmp_path: Path) -> Path:
    for name in ("meta", "defaults"):
        (tmp_path / name).mkdir()
    (tmp_path / "meta/argument_specs.yml").write_text(
        """
argument_specs:
  main:
    short_description: Does it
    options:
      x_source: {type: str, choices: [a, b], description: ["Where V(a|b) comes from.", "See O(x_list)."]}
      x_list: {type: list, elements: str, description: Some.}
      x_shared: {type: int, default: 5, description: Shared.}
      x_name: {type: str, required: true, description: Its name.}
      x_long: {type: str, description: Long.}
  validate:
    short_description: Looks first
    options: {}
"""
    )
    (tmp_path / "defaults/main.yml").write_text(
        f'x_source: a\nx_list: []\nx_shared: "{{{{ shared | default(5) }}}}"\nx_long: {"l" * 90}\n'
    )
    return tmp_path


def test_tables(role: Path) -> None:
    lines = option_tables.tables(role).splitlines()

    assert "### Entry point `main`" in lines
    assert "| `x_source` | str | `a` | Where `a\\|b` comes from. See `x_list`. One of `a`, `b`. |" in lines
    assert "| `x_list` | list of str | `[]` | Some. |" in lines
    assert "| `x_shared` | int | `5` | Shared. |" in lines
    assert "| `x_name` | str | **required** | Its name. |" in lines
    assert "| `x_long` | str | [see defaults](defaults/main.yml) | Long. |" in lines
    assert next(line for line in lines if line.startswith("| `")).startswith("| `x_name`"), (
        "what is required comes first"
    )
    assert "No variables." in lines


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    begin, end = option_tables.BEGIN, option_tables.END
    assert option_tables.rewritten(f"a\n{begin}\nold\n{end}\nb\n", "new") == f"a\n{begin}\nnew\n{end}\nb\n"
    assert option_tables.rewritten("a\n", "new") is None
    assert option_tables.rewritten(f"{end}\n{begin}\n", "new") is None
