# SPDX-License-Identifier: Apache-2.0
"""``dagster-gce``: one command for operators and timers, with a module of its own for each word."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import config

# Each module offers add_arguments(parser) and main(arguments) -> int. It is imported when it is asked for.
COMMANDS = {
    "status": ("show", "everything at a glance"),
    "metrics": ("metrics", "the metrics once; --serve: the endpoint for Prometheus"),
    "notify": ("notify", "tell webhook and mail which problems came and which went"),
    "watch": ("watch", "reconcile runs, restart what is alive but does nothing"),
    "pause": ("watch_pause", "stop the watch from starting anything again"),
    "resume": ("watch_resume", "let the watch go on"),
    "guard": ("guard", "the disk guard"),
    "upkeep": ("upkeep", "remove what is old, by policy"),
    "backup": ("backup", "take a backup; list and verify backups"),
    "wal": ("wal", "keep what PostgreSQL writes, for any moment's restore; a service of its own receives it"),
    "restore": ("restore", "bring a backup back"),
    "gateway": ("gateway", "tell the gateway's nginx who may in; a service of its own runs it"),
    "drill": ("drill", "restore the newest backup into a throw-away container and prove it"),
}

_PACKAGE = __name__.rpartition(".")[0]


class Part(Protocol):
    """What a command's module offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own arguments."""

    def main(self, arguments: argparse.Namespace) -> int:
        """Do the work; returns the exit code."""


def load(name: str) -> Part | None:
    """The module behind a command; None where this version of the collection has none."""
    module = f"{_PACKAGE}.{COMMANDS[name][0]}"
    try:
        return cast(Part, importlib.import_module(module))
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None


def parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command line; only the asked-for command's module is imported."""
    top = argparse.ArgumentParser(prog="dagster-gce", description="Look after Dagster on this machine.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    asked = next((each for each in argv if not each.startswith("-")), "")
    for name, (_, text) in COMMANDS.items():
        added = commands.add_parser(name, help=text, description=text)
        if name == asked:
            part = load(name)
            if part is None:
                top.exit(2, f"dagster-gce {name}: not part of this version\n")
            else:
                part.add_arguments(added)
                added.set_defaults(part=part)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    arguments = parser(argv).parse_args(argv)
    try:
        return cast(Part, arguments.part).main(arguments)
    except config.ConfigError as error:
        print(f"dagster-gce: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # `dagster-gce status | head`
        return 0
    except KeyboardInterrupt:
        return 130
