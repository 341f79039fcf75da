"""The tables of figures are made of what ``make bench`` prints."""

from __future__ import annotations

from tests.bench.table import Log

PRINTED = """# 2026-12-01, 2 processors, x86_64, Linux 6.18
deploy_core_seconds: 4.37 s  # median 4.37, 4.20-4.90, n=5
deploy_core_phase_gate: 903 ms  # median 903.00, 880.00-990.00, n=5
deploy_core_phase_check: 41 ms  # median 41.00, 38.00-52.00, n=5
"""


def test_a_row_that_was_not_measured_again_keeps_its_day() -> None:
    before = Log()
    before.read(PRINTED.replace("2026-12-01", "2026-11-23"))
    after = Log()
    after.read_table(before.table())
    after.read("# 2026-12-01, 2 processors, x86_64, Linux 6.18\ndeploy_core_seconds: 4.10 s\n")
    assert (after.rows["deploy_core_seconds"].value, after.rows["deploy_core_seconds"].day) == ("4.10", "2026-12-01")
    assert after.rows["deploy_core_phase_gate"].day == "2026-11-23"
    assert after.rows["deploy_core_phase_gate"].note == "median 903.00, 880.00-990.00, n=5"


def test_phases_stand_in_their_order_with_their_sum() -> None:
    log = Log()
    log.read(PRINTED)
    assert log.phases().splitlines()[-3:] == ["| check | gate | all |", "|---|---|---|", "| 41 | 903 | 944 |"]
    assert "(2026-12-01)" in log.phases()
