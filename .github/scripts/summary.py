"""What a step of the pipeline tells people: Markdown for the summary of a run at GitHub."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

# GitHub takes 1 MiB a step.
LONGEST = 900_000
IMAGE = re.compile(r"dagster_core_image=([^\s'\"]+)")
CAUSE = re.compile(r"^\s*Cause: (.+)$", re.MULTILINE)
KEPT_LINES = 40
RECAP = re.compile(r"^(\S+)\s+: ok=\d+ +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", re.MULTILINE)


def _fence(lines: Sequence[str]) -> str:
    """Lines as they are: a fence that is longer than any in them."""
    text = "\n".join(lines)
    longest = max((len(found) for found in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _links() -> str:
    """The commit and the run, where GitHub says which they are."""
    server, repository = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    if not server or not repository:
        return ""
    commit, run = os.environ.get("GITHUB_SHA", ""), os.environ.get("GITHUB_RUN_ID", "")
    links = [f"[commit {commit[:12]}]({server}/{repository}/commit/{commit})"] if commit else []
    links += [f"[this run]({server}/{repository}/actions/runs/{run})"] if run else []
    if url := os.environ.get("DAGSTER_URL"):
        links.append(f"[Dagster]({url})")
    return " · ".join(links)


def _last(state: Mapping[str, Any], since: str) -> Mapping[str, Any]:
    """The newest line of the machine's audit log, if this play wrote it."""
    newest: Mapping[str, Any] = next(iter(state.get("deploys") or []), {})
    return newest if str(newest.get("time", "")) >= since else {}


def build(code: int, said: str, seconds: float) -> str:
    """The image, or why there is none."""
    flat = " ".join(said.split())
    images = IMAGE.findall(flat)
    if code or not images:
        return "\n".join(["### The image was not built or not pushed", "", _fence(said.splitlines()[-60:])])
    how = "was pushed before" if "was pushed before:" in flat else "built, tested and pushed"
    return f"### Image: {how} in {seconds:.0f} s\n\n`{images[-1]}`\n"


def change(
    playbook: str,
    code: int,
    said: str,
    seconds: float,
    states: Mapping[str, Mapping[str, Any]],
    taken_back: Mapping[str, str],
    since: str,
) -> str:
    """A release or a rollback.

    :param said: all that the play printed.
    :param states: what `status.yml` found at the end, by host.
    :param taken_back: hosts where the release did not stay, and what it was.
    :param since: the UTC time of the play's begin, as the machines' audit logs write it.
    """
    verb = "Release" if playbook == "deploy_core" else "Rollback"
    if taken_back:
        head = f"### {verb} taken back by the machine: the release before serves again"
    elif code or not states:
        head = f"### {verb} failed; what served before goes on"
    else:
        head = f"### {verb} in {seconds:.0f} s"
    lines = [
        head,
        "",
        _links(),
        "",
        "| machine | serves | image | result | seconds | phases |",
        "|---|---|---|---|---|---|",
    ]
    for host, state in states.items():
        last = _last(state, since)
        phases = ", ".join(f"{name} {value}" for name, value in (last.get("phases") or {}).items())
        image = (state.get("location") or {}).get("image") or ""
        cells = [host, state.get("serves"), image[:19], last.get("result", ""), last.get("seconds", ""), phases]
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    reasons = [
        f"**{host}:** {_cell(last['failure'])}"
        for host, last in ((host, _last(state, since)) for host, state in states.items())
        if last.get("failure")
    ]
    problems = [
        f"- {host}: {_cell(each['text'])}" for host, state in states.items() for each in state.get("problems", [])
    ]
    # The audit log has the first line only; what the code itself said stands in the play's.
    causes = dict.fromkeys(_cell(found[1]) for found in CAUSE.finditer(said)) if code else ()
    lines += ["", *reasons, *(f"Cause: {cause}" for cause in causes)]
    if problems:
        lines += ["", "Problems:", "", *problems]
    if code:
        lines += [
            "",
            "<details><summary>The last lines of the play</summary>",
            "",
            _fence(said.splitlines()[-KEPT_LINES:]),
            "",
            "</details>",
        ]
    return "\n".join(lines) + "\n"


def site(inventory: str, code: int, said: str, seconds: float, *, check: bool) -> str:
    """What would change, or has changed."""
    changed = sum(int(found[2]) for found in RECAP.finditer(said))
    what = "would change" if check else "changed"
    head = f"### {inventory}: " + ("failed" if code else f"{changed} {what}" if changed else f"nothing {what}")
    shown = said if len(said) <= LONGEST else f"… (the beginning is in the log)\n{said[-LONGEST:]}"
    body = ["<details><summary>The play</summary>", "", _fence(shown.splitlines()), "", "</details>"]
    return "\n".join([f"{head}, in {seconds:.0f} s", "", _links(), "", *body]) + "\n"
