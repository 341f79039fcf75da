# SPDX-License-Identifier: Apache-2.0
"""``dagster-gce notify``: which problems came and which went, once each, by webhook and mail.

A problem has to stand for a while before anybody is told, and to be gone for as long before it counts as gone: a
redeploy or a restart is no news. What could not be delivered is tried again at the next look, and is a problem itself.
"""

from __future__ import annotations

import argparse
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import releases
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    config,
    health,
    jobs,
    notify_channels,
    notify_memory,
    problems,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.jobs import CRITICAL, WARNING, Problem
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.notify_channels import Message
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.notify_memory import Known, Memory, News

AFTER = 90.0
AGAIN = 86400.0
HEARTBEAT_EVERY = 300.0

# A chat shows no more, and a stack trace tells nothing there.
_LONGEST = 400


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``dagster-gce notify``."""
    parser.add_argument("--test", action="store_true", help="send a test message through each channel now")


def main(arguments: argparse.Namespace) -> int:
    """Look, and tell what is new."""
    settings = config.load("monitoring")
    if arguments.test:
        return _test(settings)
    return jobs.run("notify", lambda: work(settings), quiet=True)


def work(
    settings: Mapping[str, Any],
    look: Callable[[], Sequence[Problem]] = problems.all,
    now: Callable[[], float] = time.time,
) -> jobs.Result:
    """One look; ``look`` and ``now`` are what is wrong and what time it is."""
    options = settings.get("notify") or {}
    after, again = float(options.get("after", AFTER)), float(options.get("again", AGAIN))
    channels = notify_channels.of(settings)
    found, moment = list(look()), now()
    memory = notify_memory.load()
    memory.look(found, moment)
    memory.forget_channels(each.name for each in channels)
    failed, sent = [], 0
    for channel in channels:
        news = memory.news(channel.name, moment, after, again)
        if not news:
            continue
        try:
            channel.send(message(machine(settings), news, moment))
        except notify_channels.ChannelError as error:
            failed.append(_failure(channel.name, error))
            memory.owe(channel.name, news)
            continue
        sent += 1
        memory.told(channel.name, news, moment)
        notify_memory.save(memory, moment)
    failed += _heartbeat(settings, memory, found, moment)
    notify_memory.save(memory, moment)
    return jobs.Result(
        f"{len(found)} problems; {sent} messages sent, {len(failed)} failed",
        problems=failed,
        details={"channels": [each.name for each in channels], "problems": [each.name for each in found]},
    )


def _failure(channel: str, error: Exception) -> Problem:
    return Problem(
        notify_memory.OWN + channel, WARNING,
        f"notification by {channel} failed, is tried again each minute: {error}; `dagster-gce notify --test` tries it",
    )  # fmt: skip


def _heartbeat(settings: Mapping[str, Any], memory: Memory, found: Sequence[Problem], moment: float) -> list[Problem]:
    """The sign of life to an outside service, which raises the alarm when it stops: nobody else can when this
    machine is gone. Held back while something critical is wrong, so that a channel of ours that fails hides nothing."""
    options = settings.get("heartbeat") or {}
    if not options.get("url") or any(each.severity == CRITICAL for each in found):
        return []
    every = float(options.get("every") or HEARTBEAT_EVERY)
    # The timer comes a little early or late.
    if 0 <= moment - memory.heartbeat < every - 30:
        return []
    try:
        notify_channels.request(str(options["url"]), None)
    except notify_channels.ChannelError as error:
        return [_failure("heartbeat", error)]
    memory.heartbeat = moment
    return []


def machine(settings: Mapping[str, Any]) -> str:
    """What this machine is called in messages."""
    return str((settings.get("notify") or {}).get("machine") or socket.gethostname())


def message(name: str, news: News, moment: float) -> Message:
    """The news as people and programs read them."""
    lines = []
    for title, listed in (("NEW", news.came), ("STILL THERE", news.still), ("OVER", news.went)):
        lines += [
            f"{title} ({each.problem.severity}): {_short(each.problem.text)} {_span(each, moment)}" for each in listed
        ]
    counts = ((len(news.came), "new"), (len(news.still), "still there"), (len(news.went), "over"))
    told = ", ".join(f"{count} {what}" for count, what in counts if count)
    worst = next(iter([*news.came, *news.still, *news.went]))
    subject = f"[Dagster] {name}: {told}: {_short(worst.problem.text, 100)}"
    return Message(
        subject,
        "\n".join([f"Dagster on {name}, problems: {told}", *lines]),
        {
            "machine": name,
            "time": releases.stamp(moment),
            "came": [_plain(each) for each in news.came],
            "still": [_plain(each) for each in news.still],
            "went": [_plain(each) for each in news.went],
        },
    )


def _plain(known: Known) -> dict[str, str]:
    problem = known.problem
    since = releases.stamp(known.since)
    return {"name": problem.name, "severity": problem.severity, "text": problem.text, "since": since}


def _short(text: str, longest: int = _LONGEST) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _span(known: Known, moment: float) -> str:
    if known.gone is not None:
        return f"(it stood for {health.duration(known.gone - known.since)})"
    return f"(for {health.duration(moment - known.since)})"


def _test(settings: Mapping[str, Any]) -> int:
    """Send a message through each channel, and say how that went."""
    name = machine(settings)
    test = Message(
        f"[Dagster] {name}: test", f"Dagster on {name}: a test of the notifications, nothing is wrong",
        {"machine": name, "time": releases.stamp(), "came": [], "still": [], "went": [], "test": True},
    )  # fmt: skip
    channels = notify_channels.of(settings)
    failures = 0
    for channel in channels:
        try:
            channel.send(test)
            print(f"{channel.name}: sent")
        except notify_channels.ChannelError as error:
            failures += 1
            print(f"{channel.name}: {error}")
    if not channels:
        print("no channel is set up: dagster_monitoring_webhook_url, dagster_monitoring_mail_host")
    return int(failures > 0 or not channels)
