"""Policies change in the grants that are asked for, and in nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_policy
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_policy import Grant

ROBOT = "serviceAccount:dagster-vm-prod@example-project.iam.gserviceaccount.com"
CONDITION = {"title": "until-2027", "expression": 'request.time < timestamp("2027-01-01T00:00:00Z")'}
POLICY: dict[str, Any] = {
    "version": 1,
    "etag": "BwYz",
    "auditConfigs": [{"service": "allServices", "auditLogConfigs": [{"logType": "DATA_READ"}]}],
    "bindings": [
        {"role": "roles/owner", "members": ["user:Alice@example.com"]},
        {"role": "roles/logging.logWriter", "members": ["deleted:serviceAccount:old@example.com?uid=1", ROBOT]},
        {"role": "roles/viewer", "members": ["group:team@example.com"], "condition": CONDITION},
    ],
}


def test_grant_and_revoke_are_each_others_inverse() -> None:
    before = copy.deepcopy(POLICY)
    wanted = google_policy.grants(["roles/viewer", "roles/owner"], [ROBOT, "user:bob@example.com"], None)
    granted = google_policy.with_grants(POLICY, wanted)
    assert before == POLICY
    assert all(google_policy.holds(granted, grant) for grant in wanted)
    # The binding with a condition is another one.
    assert [binding for binding in granted["bindings"] if binding["role"] == "roles/viewer"] == [
        POLICY["bindings"][2],
        {"role": "roles/viewer", "members": [ROBOT, "user:bob@example.com"]},
    ]
    assert google_policy.without_grants(granted, wanted) == {**POLICY, "version": 3}


def test_what_is_not_asked_for_comes_back() -> None:
    changed = google_policy.with_grants(POLICY, [Grant("roles/browser", ROBOT)])
    assert (changed["etag"], changed["auditConfigs"]) == ("BwYz", POLICY["auditConfigs"])
    assert changed["bindings"][:3] == POLICY["bindings"]
    assert changed["version"] == 3


def test_addresses_compare_without_case() -> None:
    assert google_policy.holds(POLICY, Grant("roles/owner", "user:alice@Example.com"))
    assert (
        google_policy.with_grants(POLICY, [Grant("roles/owner", "user:alice@example.com")])["bindings"]
        == (POLICY["bindings"])
    )
    pool = "principalSet://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/ci/attribute.repo/{}"
    policy = {"bindings": [{"role": "roles/viewer", "members": [pool.format("team/App")]}]}
    assert google_policy.holds(policy, Grant("roles/viewer", pool.format("team/App")))
    assert not google_policy.holds(policy, Grant("roles/viewer", pool.format("team/app")))


def test_conditions() -> None:
    grant = google_policy.grants(["roles/viewer"], ["group:team@example.com"], CONDITION)[0]
    assert google_policy.holds(POLICY, grant)
    assert not google_policy.holds(POLICY, Grant("roles/viewer", "group:team@example.com"))
    other = google_policy.grants(["roles/viewer"], [ROBOT], {**CONDITION, "description": "words"})
    assert google_policy.with_grants(POLICY, other)["bindings"][3] == {
        "role": "roles/viewer",
        "members": [ROBOT],
        "condition": {**CONDITION, "description": "words"},
    }
    assert google_policy.without_grants(POLICY, [grant])["bindings"] == POLICY["bindings"][:2]


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("user:alice@example.com", True),
        (ROBOT, True),
        ("domain:example.com", True),
        ("allUsers", True),
        ("principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/ci/subject/x", True),
        ("alice@example.com", False),
        ("user: alice@example.com", False),
        ("serviceaccount:robot@example.com", False),
        ("serviceAccount:dagster-vm-prod", False),
        ("", False),
    ],
)
def test_members(text: str, good: bool) -> None:
    assert (google_policy.MEMBER.fullmatch(text) is not None) is good
