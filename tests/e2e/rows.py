"""One line of docs/reliability.md's table, as a test leaves it in build/reliability/<part>.jsonl.

``python -m tests.e2e.faults.table`` puts the lines into the table.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "reliability"


def write(
    part: str,
    fault: str,
    times: int,
    lost: str,
    seconds: Sequence[float] = (),
    note: str = "",
    test: str = "",
) -> None:
    """Leave a row.

    :param part: whose row it is; names the file.
    :param fault: what was done, in the words of the table; a later row with the same words takes its place.
    :param times: how often it was done.
    :param lost: what was lost, ``nothing`` where nothing was.
    :param seconds: each time's seconds until all was healthy again.
    :param note: what else was seen, in a few words.
    :param test: the test that shows it; what pytest runs just now where it is left out.
    """
    row = {
        "fault": fault,
        "times": times,
        "lost": lost,
        "seconds": [round(each, 1) for each in seconds],
        "note": note,
        "test": test or os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0].split("[")[0],
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        # Seconds that were measured while the computer had much else to do are too long.
        "load": round(os.getloadavg()[0]),
        "machine": f"{os.cpu_count()} processors, {platform.machine()}, Linux {platform.release()}",
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{part}.jsonl").open("a") as stream:
        stream.write(json.dumps(row) + "\n")
