# SPDX-License-Identifier: Apache-2.0
"""``dagster-gce resume``: the end of ``dagster-gce pause``."""

from __future__ import annotations

import argparse

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import watch_pause


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def main(arguments: argparse.Namespace) -> int:
    """Let the watch go on."""
    try:
        print("the watch goes on" if watch_pause.resume() else "the watch was not paused")
    except OSError as error:
        print(f"{watch_pause.path()} cannot be removed ({error.strerror}); run the command with sudo")
        return 1
    return 0
