"""The player of the pages: a page that lies fails, and what is left out says why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.console import Command, PageIsWrong, Shell, check, commands, difference

ROOT = Path(__file__).resolve().parents[3]
PAGES = ("README.md", "docs/tutorial.md", "docs/coming-from.md")


def page(text: str) -> list[Command]:
    return commands("page.md", text)


def block(*lines: str, above: str = "") -> str:
    return "\n".join([*filter(None, [above]), "```console", *lines, "```", ""])


def test_commands_and_what_is_shown() -> None:
    first, second = page(
        "# A page\n\n" + block("$ ls", "a", "b", "$ cat > x <<'EOF'", "$ not a command", "EOF", "shown")
    )
    assert (first.text, first.shown, first.place) == ("ls", ["a", "b"], "page.md:4")
    assert (second.text, second.shown) == ("cat > x <<'EOF'\n$ not a command\nEOF", ["shown"])


def test_other_blocks_are_none_of_ours() -> None:
    assert page("```\n$ ls\n```\n```yaml\na: 1\n```\n") == []


def test_marks() -> None:
    lines = ("$ git clone x", "$ make demo", "$ make test mine")
    above = (
        "<!-- not run (`git`): it is far -->\n<!-- run by docs/tutorial.md (`make demo`) -->\n"
        "<!-- played with `mine` = `lab` -->"
    )
    clone, demo, test = page(block(*lines, above=above))
    assert (clone.skipped, demo.elsewhere, test.text) == ("it is far", "docs/tutorial.md", "make test lab")
    assert (test.skipped, test.elsewhere, test.fails) == ("", "", False)
    assert [command.skipped for command in page(block(*lines, above="<!-- not run: why -->"))] == ["why"] * 3
    assert [command.fails for command in page(block(*lines, above="<!-- fails (`make demo`) -->"))] == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("above", "lines"),
    [
        ("<!-- not run -->", ("$ ls",)),
        ("<!-- not run (`make`): why -->", ("$ ls",)),
        ("<!-- played with `a` = `b` -->", ("$ ls",)),
        ("", ("no command",)),
        ("", ("$ cat <<EOF", "without an end")),
    ],
)
def test_what_says_nothing_sensible_is_an_error(above: str, lines: tuple[str, ...]) -> None:
    with pytest.raises(PageIsWrong):
        page(block(*lines, above=above))


@pytest.mark.parametrize(
    ("shown", "came"),
    [
        (["a"], "a\n"),
        (["a", "…", "c"], "a\nb\nb\nc\n"),
        (["…", "c"], "a\nc\nb\nc\n"),
        (["a … c", "…"], "a b c\nd\n"),
        (["release 20261129T161120-a3fb2714ef0f in 4.71 s"], "release 20271231T000000-0123456789ab in 12 s\n"),
        (["dagster-lab : ok=15 changed=2"], "dagster-lab         : ok=17 changed=2\n"),
        (["TASK [x] ****"], "TASK [x] ***********\n"),
    ],
)
def test_what_is_true(shown: list[str], came: str) -> None:
    assert difference(shown, came) == ""


@pytest.mark.parametrize(
    ("shown", "came"),
    [
        (["a"], "b\n"),
        (["a"], "a\nb\n"),
        (["a", "b"], "a\n"),
        (["…", "c"], "c\nd\n"),
        (["a", "…", "b", "c"], "a\nb\nx\nc\n"),
        (["dagster-lab : ok=15 changed=2"], "dagster-lab : ok=15 changed=3\n"),
        (["release 20261129T161120-a3fb2714ef0f"], "release none\n"),
    ],
)
def test_what_is_not(shown: list[str], came: str) -> None:
    assert difference(shown, came)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    found = Shell(tmp_path, {"PATH": "/usr/bin:/bin"}, tmp_path / "logs")
    yield found
    found.close()


def test_a_terminal_keeps_its_folder_and_variables(shell: Shell, tmp_path: Path) -> None:
    shell.run("mkdir sub && cd sub && NAME=value   # a comment", 10)
    assert shell.run("echo $NAME; pwd", 10).output == f"value\n{tmp_path}/sub\n"
    assert shell.run("cat <<'END'\n$NAME\nEND", 10).output == "$NAME\n"
    assert shell.run("false", 10).status == 1


def test_a_command_that_does_not_end(shell: Shell) -> None:
    with pytest.raises(TimeoutError, match="did not end within"):
        shell.run("echo begun; sleep 60", 0.3)


def test_a_page_that_lies_fails(shell: Shell) -> None:
    (truth,) = page(block("$ echo one; echo two", "one", "two"))
    check(truth, shell.run(truth.text, 10))
    (lie,) = page(block("$ echo one; echo two", "one", "three"))
    with pytest.raises(PageIsWrong, match=r"page.md:2: .*\nshown: three\nfound: two"):
        check(lie, shell.run(lie.text, 10))
    (fails,) = page(block("$ false"))
    with pytest.raises(PageIsWrong, match="ended with status 1; expected success"):
        check(fails, shell.run(fails.text, 10))
    (succeeds,) = page(block("$ true", above="<!-- fails (`true`) -->"))
    with pytest.raises(PageIsWrong, match="ended with status 0; expected an error"):
        check(succeeds, shell.run(succeeds.text, 10))


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_can_be_played(name: str) -> None:
    found = commands(name, (ROOT / name).read_text(encoding="utf-8"))
    assert [command for command in found if not (command.skipped or command.elsewhere)]
    for command in found:
        if command.elsewhere:
            there = commands(command.elsewhere, (ROOT / command.elsewhere).read_text(encoding="utf-8"))
            assert command.name in [each.name for each in there if not each.skipped], command.place
