"""What the benchmark needs: medians, and one line a row."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from tests.e2e.harness import Machine
from tests.e2e.load import served_host
from tests.webserver import LOST


def row(name: str, value: float, unit: str, note: str = "") -> None:
    """Print one row of the table: ``name: value unit``, and after ``#`` what it is made of."""
    text = f"{value:.2f}" if isinstance(value, float) else str(value)
    print(f"{name}: {text} {unit}".rstrip() + (f"  # {note}" if note else ""), flush=True)


def spread(values: list[float]) -> str:
    """Median, minimum and maximum as text."""
    return f"median {statistics.median(values):.2f}, {min(values):.2f}-{max(values):.2f}, n={len(values)}"


def seconds(work: Callable[[], object]) -> float:
    """Wall time of a call."""
    start = time.monotonic()
    work()
    return time.monotonic() - start


def count(number: int = 10_000_000) -> int:
    """What one processor is measured by: add 1 so many times."""
    found = 0
    for _ in range(number):
        found += 1
    return found


def host_or_nothing(machine: Machine) -> str:
    """The host of the code location that the webserver serves; empty while it serves none."""
    try:
        return served_host(machine, timeout=5)
    except LOST:
        return ""


def launches(machine: Machine) -> bool:
    """Whether a run can be launched."""
    try:
        return bool(machine.launch("quick"))
    except LOST:
        return False
