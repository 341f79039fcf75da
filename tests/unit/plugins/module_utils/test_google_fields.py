"""Forms, fields and labels: what counts as a difference."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_fields import (
    Field,
    boolean,
    integer,
    labels,
    link,
    listing,
    mapping,
    merge_labels,
    number,
    only_asked,
    pick,
    place,
    text,
    unordered,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_networks import canonical_range, full_path

PATH = "projects/p/global/networks/n"


@pytest.mark.parametrize(
    "spelling",
    [
        PATH,
        f"https://www.googleapis.com/compute/v1/{PATH}",
        f"https://compute.googleapis.com/compute/v1/{PATH}",
        f"https://compute.googleapis.com/compute/beta/{PATH}",
        f"https://compute-psc.p.googleapis.com/compute/v1/{PATH}",
        f"http://127.0.0.1:8555/compute/v1/{PATH}",
        f"compute/v1/{PATH}",
        f"v1/{PATH}",
        f"//compute.googleapis.com/{PATH}",
    ],
)
def test_a_link_is_its_path(spelling: str) -> None:
    assert link(spelling) == PATH


def test_a_reference_becomes_a_full_path() -> None:
    collection = "projects/p/global/networks"
    for spelling in ("n", "global/networks/n", PATH, f"https://www.googleapis.com/compute/v1/{PATH}"):
        assert full_path(spelling, collection) == PATH
    # A shared network of another project.
    assert full_path("projects/host/global/networks/n", collection) == "projects/host/global/networks/n"


def test_numbers_and_words() -> None:
    assert integer("50") == integer(50) == 50
    assert number(0.10000000149011612) == number(0.1)
    assert number(0.1) != number(0.11)
    assert text("007") != text("7")
    assert (boolean(None), integer(None), text(None), link(None), number(None)) == (None,) * 5


def test_lists() -> None:
    assert unordered(text)(["b", "a"]) == unordered(text)(["a", "b"])
    assert listing(text)(["b", "a"]) != listing(text)(["a", "b"])
    assert unordered(text)(["a", "a"]) != unordered(text)(["a"])
    rules = unordered(mapping(IPProtocol=text, ports=unordered(text)))
    assert rules([{"IPProtocol": "tcp", "ports": ["80", "22"], "extra": 1}]) == [
        {"IPProtocol": "tcp", "ports": ["22", "80"]}
    ]


def test_only_what_was_asked_for_counts() -> None:
    assert only_asked({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 9}}) == {"b": {"c": 2}}
    assert only_asked({"a": 1}, {"missing": 1}) == {}
    # A rule for all ports is not the rule for one port.
    assert only_asked([{"IPProtocol": "tcp", "ports": ["22"]}], [{"IPProtocol": "tcp"}]) != [{"IPProtocol": "tcp"}]


@pytest.mark.parametrize(
    ("field", "resource", "option", "same"),
    [
        (Field("mtu", "mtu", form=integer, default=1460), {}, 1460, True),
        (Field("mtu", "mtu", form=integer), {}, 1460, False),
        (Field("size", "sizeGb", form=integer), {"sizeGb": "50"}, 50, True),
        (Field("mode", "routing.mode"), {"routing": {"mode": "A", "more": 1}}, "A", True),
        (Field("mode", "routing.mode"), {}, "A", False),
        (Field("on", "on", form=boolean, default=False), {}, False, True),
        (Field("on", "on", form=boolean, default=False), {}, True, False),
        (Field("words", "words", default=""), {"words": "x"}, "", False),
    ],
)
def test_a_field_compares(field: Field, resource: dict[str, Any], option: Any, same: bool) -> None:
    wanted = field.wanted({field.option: option}, resource)
    there, asked = field.compare(resource, wanted)
    assert (there == asked) is same


def test_an_option_that_is_not_given_is_not_managed() -> None:
    assert Field("mtu", "mtu").wanted({"mtu": None}, {"mtu": 1}) is None


def test_values_at_dotted_paths() -> None:
    body: dict[str, Any] = {"a": {"x": 1}}
    place(body, "a.b.c", 2)
    assert body == {"a": {"x": 1, "b": {"c": 2}}}
    assert (pick(body, "a.b.c"), pick(body, "a.z.c"), pick(None, "a")) == (2, None, None)


def test_labels_of_others_stay() -> None:
    found = {"ours": "1", "cost": "x", "goog-ops": "y"}
    assert merge_labels({"ours": "2"}, found, {}) == {"ours": "2", "cost": "x", "goog-ops": "y"}
    assert merge_labels({"ours": "2"}, found, {"purge_labels": True}) == {"ours": "2", "goog-ops": "y"}
    assert merge_labels({"ours": 2}, None, {}) == {"ours": "2"}
    field = labels()
    there, asked = field.compare({"labels": found}, field.wanted({"labels": {"ours": "1"}}, {"labels": found}))
    assert there == asked
    there, asked = field.compare({}, field.wanted({"labels": {}}, {}))
    assert there == asked


def test_ranges_have_one_spelling() -> None:
    assert canonical_range("192.0.2.7") == canonical_range("192.0.2.7/32")
    assert canonical_range("2001:DB8::/32") == "2001:db8::/32"
