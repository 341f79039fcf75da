"""Runs in a container beside Dagster's: writes events through Dagster's own API and says which ones were acknowledged.

Usage: writer.py RUN FIRST         prints a number once the event of that number is committed
"""

from __future__ import annotations

import sys
import time


def main() -> None:
    """Write until killed; what fails is written again, so an event may be there twice but never not at all."""
    from dagster import DagsterInstance

    run, number = sys.argv[1], int(sys.argv[2])
    instance = DagsterInstance.get()
    while True:
        try:
            instance.report_engine_event(f"written {number}.", run_id=run, job_name="writer")
        except Exception as error:
            print(f"# {number}: {type(error).__name__}", file=sys.stderr, flush=True)
            time.sleep(0.5)
            continue
        print(number, flush=True)
        number += 1
        time.sleep(0.02)


main()
