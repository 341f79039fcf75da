"""The ```console blocks of a page: what they say, played in a shell, and held against what came of it.

A line that begins with ``$ `` is a command; a here-document belongs to it. The lines up to the next command are its
output. In them ``…`` stands for any text, and a line of only that for any number of lines; times, durations, sizes and
identifiers need not be the same ones (``plain``). A command without lines below it claims success and nothing more.

What cannot be played says so in a comment above the block, which a reader of the source sees::

    <!-- not run: why -->                          the whole block
    <!-- not run (`git clone`): why -->            the commands that begin so
    <!-- run by docs/tutorial.md (`make demo`) --> the same command is played there
    <!-- played with `mine` = `lab` -->            another text in its place, in commands
    <!-- fails (`make deploy`) -->                 ends with an error, which is what the page shows
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = re.compile(r"(?P<above>(?:^<!--[^\n]*-->\n)*)^```console\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
MARKER = re.compile(
    r"<!-- (?:(?P<skip>not run)(?: \(`(?P<skipped>[^`]+)`\))?: (?P<reason>.+)"
    r"|run by (?P<page>\S+) \(`(?P<there>[^`]+)`\)"
    r"|played with `(?P<old>[^`]+)` = `(?P<new>[^`]+)`"
    r"|fails \(`(?P<failing>[^`]+)`\)) -->"
)
HERE_DOCUMENT = re.compile(r"<<-?\s*'?(\w+)'?")
# What is another one each time, and how it is written on both sides before they are compared.
DIFFERS = (
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<run>"),
    # Also as the end of a container's name, after an underscore.
    (r"(?<![0-9A-Za-z])\d{8}T\d{6}Z?-[0-9a-f]{12}\b", "<release>"),
    (r"\b\d{8}T\d{6}Z?\b", "<stamp>"),
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?", "<time>"),
    (r"\b[0-9a-f]{12,64}\b", "<id>"),
    (r"\b\d+(\.\d+)? ?(ms|s|B|kB|KB|KiB|MB|MiB|GB|GiB)\b", "<amount>"),
    (r"\b\d+\.\d+\.\d+\.\d+\b", "<address>"),
    (r"\b\d+\.\d+\.\d+\b", "<version>"),
    # A daemon's heartbeat more or less.
    (r"\b\d+ rows\b", "<some> rows"),
    # How many tasks a play has is nobody's business, whether something was changed or failed is.
    (r"\b(ok|skipped|rescued|ignored)=\d+", r"\1=<some>"),
    # Ansible fills a heading up with stars, Make says where in its file it was, columns move with their content.
    (r" ?\*{3,}$", " ***"),
    (r"\[Makefile:\d+: ", "[Makefile: "),
    (r"[ \t]+", " "),
)


class PageIsWrong(AssertionError):
    """A page shows something else than what happens."""


@dataclass
class Command:
    """One command of a page, and what the page says of it."""

    page: str
    line: int
    text: str
    shown: list[str] = field(default_factory=list)
    # Why it is not played; empty: it is.
    skipped: str = ""
    elsewhere: str = ""
    fails: bool = False

    @property
    def name(self) -> str:
        """Its first line, without what is said of it there."""
        return self.text.splitlines()[0].partition("  #")[0].strip()

    @property
    def place(self) -> str:
        """Where it stands."""
        return f"{self.page}:{self.line}"


@dataclass
class Ended:
    """What came of a command."""

    status: int
    output: str
    seconds: float


def commands(page: str, text: str) -> list[Command]:
    """The commands of a page in their order. Raises PageIsWrong for a comment or a block that says nothing sensible.

    :param page: its name, for messages.
    """
    found: list[Command] = []
    for block in BLOCK.finditer(text):
        start = text.count("\n", 0, block.start("text")) + 1
        inside = list(_inside(page, start, block["text"]))
        for comment in block["above"].splitlines():
            _mark(comment, inside, f"{page}:{start - 1}")
        found += inside
    return found


def _inside(page: str, start: int, text: str) -> Iterator[Command]:
    command: Command | None = None
    end = ""
    for number, line in enumerate(text.splitlines(), start):
        if end and command is not None:
            command.text += f"\n{line}"
            end = "" if line == end else end
        elif line.startswith("$ "):
            if command is not None:
                yield command
            command = Command(page, number, line.removeprefix("$ "))
            here = HERE_DOCUMENT.search(line)
            end = here[1] if here else ""
        elif command is None:
            raise PageIsWrong(f"{page}:{number}: found {line!r}; expected a command, `$ …`, at the start of a block")
        else:
            command.shown.append(line)
    if end or command is None:
        raise PageIsWrong(f"{page}:{start}: the block has no command, or a here-document without its end {end!r}")
    yield command


def _mark(comment: str, inside: list[Command], place: str) -> None:
    """Take a comment above a block into its commands."""
    marker = MARKER.fullmatch(comment.strip())
    if not marker:
        # Marks of other programs (<!-- benchmark -->) stand above blocks, too.
        if re.match(r"<!-- (not run|run by|played|fails)", comment):
            raise PageIsWrong(f"{place}: found {comment!r}, which is no mark that tests/e2e/console.py knows")
        return
    if marker["old"]:
        hits = [command for command in inside if marker["old"] in command.text]
        for command in hits:
            command.text = command.text.replace(marker["old"], marker["new"])
    else:
        prefix = marker["skipped"] or marker["there"] or marker["failing"] or ""
        hits = [command for command in inside if command.text.startswith(prefix)]
        for command in hits:
            command.skipped = command.skipped or (marker["reason"] or "")
            command.elsewhere = command.elsewhere or (marker["page"] or "")
            command.fails = command.fails or bool(marker["failing"])
    if not hits:
        raise PageIsWrong(f"{place}: {comment!r} means no command of the block below it")


def plain(line: str) -> str:
    """A line without what is another one each time."""
    for pattern, word in DIFFERS:
        line = re.sub(pattern, word, line)
    return line.strip()


def difference(shown: list[str], output: str) -> str:
    """The first line that a page shows and that did not come there; empty if it tells the truth."""
    if not shown:
        return ""
    came = [plain(line) for line in output.strip().splitlines() if line.strip()]
    expected = [line for line in shown if line.strip()]
    at, anywhere = 0, False
    for number, line in enumerate(expected):
        if line.strip() == "…":
            anywhere = True
            continue
        pattern = re.compile(".*".join(re.escape(plain(part)) for part in line.split("…")))
        places = range(at, len(came)) if anywhere else range(at, min(at + 1, len(came)))
        # The last line that a page shows after a gap is the last one that there is.
        if anywhere and number == len(expected) - 1:
            places = range(max(at, len(came) - 1), len(came))
        hit = next((place for place in places if pattern.fullmatch(came[place])), None)
        if hit is None:
            instead = came[at] if at < len(came) and not anywhere else "nothing like it from there on"
            return f"shown: {line}\nfound: {instead}"
        at, anywhere = hit + 1, False
    if not anywhere and at < len(came):
        return f"shown: nothing more\nfound: {came[at]}"
    return ""


class Shell:
    """One bash in which a page is played: folder, variables and activated environments stay, as in a terminal."""

    def __init__(self, folder: Path, environment: Mapping[str, str], logs: Path) -> None:
        self.logs = logs
        self.count = 0
        logs.mkdir(parents=True, exist_ok=True)
        for old in logs.iterdir():
            old.unlink()
        self.process = subprocess.Popen(
            ["bash", "--norc", "-s"], cwd=folder, env=dict(environment), stdin=subprocess.PIPE, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def run(self, text: str, seconds: float) -> Ended:
        """Run one command, as typed. Raises TimeoutError."""
        self.count += 1
        log, ended = self.logs / f"{self.count:02}.log", self.logs / f"{self.count:02}.status"
        assert self.process.stdin
        start = time.monotonic()
        # Renamed when it is whole, so that nobody reads a status that is half there.
        script = f"{{ {text}\n}} </dev/null >'{log}' 2>&1; echo $? >'{ended}.new'; mv '{ended}.new' '{ended}'\n"
        self.process.stdin.write(script)
        self.process.stdin.flush()
        while not ended.exists():
            if time.monotonic() - start > seconds:
                last = log.read_text(errors="replace")[-4000:] if log.exists() else ""
                raise TimeoutError(f"`{text}` did not end within {seconds:.0f} s:\n{last}")
            if self.process.poll() is not None:
                raise PageIsWrong(f"`{text}` ended the shell with status {self.process.returncode}")
            time.sleep(0.1)
        output = log.read_text(encoding="utf-8", errors="replace")
        return Ended(int(ended.read_text()), output, time.monotonic() - start)

    def close(self) -> None:
        """End the shell and what of it still runs in the foreground."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(timeout=30)


def check(command: Command, ended: Ended) -> None:
    """Raise PageIsWrong unless what came is what the page says."""
    first = command.name
    if bool(ended.status) != command.fails:
        expected = "an error" if command.fails else "success"
        raise PageIsWrong(
            f"{command.place}: `{first}` ended with status {ended.status}; expected {expected}. It said:\n"
            f"{ended.output[-6000:]}"
        )
    wrong = difference(command.shown, ended.output)
    if wrong:
        raise PageIsWrong(f"{command.place}: `{first}` says something else.\n{wrong}\nIt said:\n{ended.output[-8000:]}")
