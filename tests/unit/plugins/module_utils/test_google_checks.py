"""Labels, tags and metadata as Google takes them."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_checks


@pytest.mark.parametrize(
    "labels", [None, {}, {"a": ""}, {"a-b_1": "c-d_2"}, {"größe": "groß"}, {"a": 1}, {"a": "x" * 63}]
)
def test_good_labels(labels: dict[str, Any] | None) -> None:
    assert google_checks.labels("labels", labels) == []


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"A": "b"}, "found the key 'A'"),
        ({"1a": "b"}, "found the key '1a'"),
        ({"a.b": "c"}, "found the key 'a.b'"),
        ({"": "c"}, "found the key ''"),
        ({"a": "B"}, "labels.a: found 'B'"),
        ({"a": "b c"}, "labels.a: found 'b c'"),
        ({"a": "x" * 64}, "up to 63"),
        ({"a": None}, "labels.a: found None; expected text"),
        ({"a": True}, "labels.a: found True"),
        ({"a": ["b"]}, "labels.a: found ['b']; expected text"),
        ({f"a{number}": "b" for number in range(64)}, "found 64 labels"),
    ],
)
def test_bad_labels(labels: dict[str, Any], words: str) -> None:
    (line,) = google_checks.labels("labels", labels)
    assert words in line


def test_every_mistake_is_a_line() -> None:
    lines = [*google_checks.labels("labels", {"A": "B"}), *google_checks.tags(["x", "Y"])]
    assert len(lines) == 3
    assert google_checks.message(lines).startswith("3 options are wrong:\n- labels: found the key 'A'")
    assert google_checks.message(lines[:1]) == lines[0]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [({"a b": "c"}, "found the key 'a b'"), ({"a": []}, "found a list"), ({"a": "x" * 262145}, "found 262145 bytes")],
)
def test_bad_metadata(metadata: dict[str, Any], words: str) -> None:
    (line,) = google_checks.metadata(metadata)
    assert words in line
    assert google_checks.metadata({"a": None, "b": True, "c": 1, "d": "x" * 262144}) == []
