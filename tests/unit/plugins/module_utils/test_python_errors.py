"""The cause of a code server's end, from what real ones printed (Dagster 1.13.27, recorded with `docker run`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import python_errors

RECORDED = Path(__file__).resolve().parents[3] / "fixtures" / "user_code_errors"
FOLDER = "/opt/dagster/dagster_home/dagster_core"
# Where no frame is the user's own (the definitions load, and contradict each other), the innermost one has to do: the
# outermost, /opt/venv/bin/dagster, stands in every log and tells nothing.
DAGSTER = "/opt/venv/lib/python3.13/site-packages/dagster/_core"

CASES = [
    ("syntax_error", "SyntaxError: '(' was never closed", f"{FOLDER}/__init__.py, line 3: defs = dg.Definitions("),
    ("syntax_error_in_submodule", "SyntaxError: '(' was never closed", f"{FOLDER}/sub.py, line 1: x = (1"),
    (
        "missing_import",
        "No module named 'pandas_is_not_here'",
        f"{FOLDER}/__init__.py, line 2: import pandas_is_not_here",
    ),
    ("missing_variable", "KeyError: 'NOT_SET'", f'{FOLDER}/__init__.py, line 3: TOKEN = os.environ["NOT_SET"]'),
    (
        "no_definitions",
        "No Definitions, RepositoryDefinition, Job, Pipeline, Graph, or AssetsDefinition found in",
        f"{DAGSTER}/workspace/autodiscovery.py, line 120: raise DagsterInvariantViolationError(",
    ),
    (
        "duplicate_asset",
        "Duplicate asset key: AssetKey(['a'])",
        f"{DAGSTER}/definitions/repository_definition/repository_data_builder.py, line 274: raise ",
    ),
    (
        "bad_job",
        "AssetKey(s) ['does_not_exist'] were selected",
        f"{DAGSTER}/definitions/asset_selection.py, line 1428: raise DagsterInvalidSubsetError(",
    ),
]


@pytest.mark.parametrize(("name", "message", "place"), CASES)
def test_the_cause_is_the_first_error_of_the_chain(name: str, message: str, place: str) -> None:
    found = python_errors.cause((RECORDED / f"{name}.log").read_text())
    assert message in found.splitlines()[0]
    assert f"\n  {place}" in found


def test_a_log_without_a_traceback_has_no_cause() -> None:
    assert python_errors.cause("started\nstopped\n") == ""


def test_a_second_traceback_is_another_one() -> None:
    one = 'Traceback (most recent call last):\n  File "/a.py", line 1, in x\n    f()\nValueError: first\n'
    other = 'noise\nTraceback (most recent call last):\n  File "/b.py", line 2, in y\n    g()\nKeyError: second\n'
    assert python_errors.cause(one + other) == "KeyError: second\n  /b.py, line 2: g()"
    chained = one + "\nThe above exception was the direct cause of the following exception:\n\n" + other[6:]
    assert python_errors.cause(chained) == "ValueError: first\n  /a.py, line 1: f()"


def test_every_recorded_log_has_a_case() -> None:
    assert {path.stem for path in RECORDED.glob("*.log")} == {name for name, _message, _place in CASES}
