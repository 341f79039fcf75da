"""``make test-gcp``: the lane for a real project. Never part of ``make test``.

Usage: python -m tests.gcp [--dry-run] [argument of pytest…]
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.gcp.project import ENVIRONMENT, HOST, LaneError, Settings

FOLDER = Path(__file__).parent
# By Google's list prices for europe-west3 as we remember them; nobody has seen the bill of a run.
COST = "about 45 minutes of an e2-standard-2, 100 GB of pd-balanced, Cloud NAT and one address: less than 1 USD"


def main(arguments: list[str]) -> int:
    """Say what will be done, and do it; 2 where it was not begun."""
    try:
        settings = Settings.read()
    except LaneError as error:
        print(error, file=sys.stderr)
        return 2
    dry = "--dry-run" in arguments
    print(
        f"project:  {settings.project}, {settings.zone}, as application default credentials say\n"
        f"makes:    machine {HOST} and what belongs to it (…-{ENVIRONMENT}), labelled managed-by=dataops-dagster-gce,\n"
        f"          dagster-environment={ENVIRONMENT}, purpose=test-gcp; enables services, which stay enabled\n"
        f"removes:  all of it at the end, also after a failure or Ctrl-C; after a kill -9: GCP_TEST_CLEAN=yes\n"
        f"costs:    {COST}",
        flush=True,
    )
    if dry:
        print("dry run: Google was asked nothing\n", flush=True)
    more = [argument for argument in arguments if argument != "--dry-run"]
    flags = ["--collect-only", "--quiet"] if dry else ["--verbose", "--exitfirst"]
    return int(pytest.main([*flags, *more, str(FOLDER)]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
