"""The sum, and what is no sum."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.dataops.dagster_gce.plugins.filter import postgres_budget as plugin

budget = plugin.FilterModule().filters()["postgres_budget"]


def test_the_default_queue() -> None:
    # 3 + 10 + 3 x 21 + 20 + 3 x 5 + 5 x 8 = 151
    assert budget({"runs": 5}) == 160


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"runs": 1}, 120),
        ({"runs": 25}, 320),
        ({"runs": "5"}, 160),
        ({"runs": 5, "webserver_overflow": 0}, 100),
        ({"runs": 5, "webservers": 2}, 220),
        ({"runs": 5, "run_connections": 20}, 220),
        ({"runs": 5, "code_servers": 10}, 190),
        ({"runs": 5, "daemon_threads": 29}, 160),
        ({"runs": 5, "daemon_threads": 30}, 170),
        ({"runs": 5, "operations": 0, "reserved": 0}, 140),
    ],
)
def test_every_part_counts(settings: dict[str, Any], expected: int) -> None:
    assert budget(settings) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "found no key 'runs'"),
        ({"runs": 0}, "runs: found 0; expected a whole number of at least 1"),
        ({"runs": -5}, "runs: found -5"),
        ({"runs": 2.5}, "runs: found 2.5"),
        ({"runs": True}, "runs: found True"),
        ({"runs": "five"}, "runs: found 'five'"),
        ({"runs": "\u0665"}, "runs: found"),
        ({"runs": None}, "runs: found None"),
        ({"runs": 5, "operations": -1}, "operations: found -1; expected a whole number of at least 0"),
        ({"runs": 5, "run_conections": 1}, "found the key 'run_conections'; expected one of runs, run_connections"),
        ({"runs": 1000}, "expected at most 5000: put a pooler in front"),
        ([("runs", 5)], "found list; expected a dict"),
    ],
)
def test_an_error_says_what_was_found_and_expected(settings: Any, message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=re.escape(message)):
        budget(settings)


def test_the_documentation_has_the_defaults() -> None:
    options = plugin.DOCUMENTATION
    for key, value in plugin.DEFAULTS.items():
        assert re.search(rf"      {key}:\n(?:        .*\n)*        default: {value}\n", options), key
