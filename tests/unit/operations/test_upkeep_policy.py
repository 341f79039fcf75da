"""The upkeep's settings, and the SQL that they become."""

from __future__ import annotations

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import upkeep_database, upkeep_policy
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.upkeep_policy import Policy, PolicyError


def test_what_is_not_named_has_its_default() -> None:
    found = upkeep_policy.read({"events_days": 3, "runs_days": {"SUCCESS": 10}, "guard": {"margin": 2}})
    assert found.events_days == 3
    assert found.runs_days == {"SUCCESS": 10, "FAILURE": 365, "CANCELED": 365}
    assert found.ticks_days == Policy().ticks_days


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"event_days": 3}, "found the setting event_days"),
        ({"events_days": -1}, "events_days: found -1, expected a number, 0 or more"),
        ({"events_days": "many"}, "events_days: found 'many'"),
        ({"exceptions": [{"jobs": "x"}]}, "exceptions[0]: found jobs, expected job, tag and days"),
        ({"exceptions": [{"runs_days": 3}]}, "exceptions[0]: found neither job nor tag"),
        ({"exceptions": [{"job": "x", "runs_days": -3}]}, "exceptions[0].runs_days: found -3"),
    ],
)
def test_a_wrong_setting_is_said(settings: dict[str, object], words: str) -> None:
    with pytest.raises(PolicyError) as refused:
        upkeep_policy.read(settings)
    assert words in str(refused.value)


def test_half_a_day_is_not_never() -> None:
    found = upkeep_policy.read({"events_days": 0.5, "images_days": "0.25", "batch_rows": 100.0})
    assert (found.events_days, found.images_days, found.batch_rows) == (0.5, 0.25, 100)
    assert isinstance(found.batch_rows, int)


def test_zero_days_are_never() -> None:
    assert upkeep_policy.days(upkeep_policy.read({"events_days": 0}), "events_days") == "NULL::float8"
    assert upkeep_policy.shortest(upkeep_policy.read({"events_days": 0}), "events_days") == 0


def test_the_first_exception_that_fits_decides() -> None:
    policy = upkeep_policy.read({"exceptions": [{"job": "a_*", "runs_days": 0}, {"tag": "k=v'", "runs_days": 7}]})
    sql = upkeep_policy.days(policy, "runs_days")
    assert sql.index(r"r.pipeline_name LIKE 'a\_%'") < sql.index("t.key = 'k' AND t.value = 'v'''")
    assert sql.index("t.value") < sql.index("r.status = 'SUCCESS'")
    assert upkeep_policy.shortest(policy, "runs_days") == 7
    # An exception says nothing of what it does not name.
    assert "CASE" not in upkeep_policy.days(policy, "events_days")


def test_no_text_breaks_out_of_its_quotes() -> None:
    assert upkeep_policy.texts(["a'b", 'c"d\\']) == "ARRAY['a''b','c\"d\\']::text[]"


def test_only_known_events_go_before_their_run() -> None:
    """What says how a run ended, what an asset's state is read from, and what is new to us stays."""
    from dagster import DagsterEventType

    known = {each.value for each in DagsterEventType}
    assert set(upkeep_database.STEP_BY_STEP) <= known
    assert set(upkeep_database.OF_ASSETS) <= known
    early = {*upkeep_database.STEP_BY_STEP, upkeep_database.ENGINE}
    assert not early & set(upkeep_database.OF_ASSETS)
    assert not [each for each in early if "FAILURE" in each or "PIPELINE" in each or "ERRORED" in each]
