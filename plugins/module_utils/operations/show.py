# SPDX-License-Identifier: Apache-2.0
"""``dagster-gce status``: what ``status.yml`` shows, without Ansible."""

from __future__ import annotations

import argparse
import json

from ansible_collections.dataops.dagster_gce.plugins.module_utils import status, workspace
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import problems
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.jobs import CRITICAL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``dagster-gce status``."""
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--deploys", type=int, default=5, metavar="N", help="how many of the last deploys (5)")


def main(arguments: argparse.Namespace) -> int:
    """Print the state; 0 where nothing is wrong, 1 where something critical is (Nagios would call it so, too)."""
    if not workspace.available():
        print("PyYAML is not installed; expected the package python3-yaml (apt-get install python3-yaml)")
        return 2
    state = problems.gather(arguments.deploys, patience=10)
    print(json.dumps(state, indent=1) if arguments.json else status.render(state), end="\n" if arguments.json else "")
    return int(any(each["severity"] == CRITICAL for each in state["problems"]))
