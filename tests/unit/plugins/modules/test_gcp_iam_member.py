"""gcp_iam_member: on every kind of thing, and with somebody else in between."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import gcp_iam_member
from lab.google import Google
from tests.unit.plugins.modules.google_modules import PROJECT, REGION, ZONE, Run, Task

ROBOT = f"serviceAccount:robot@{PROJECT}.iam.gserviceaccount.com"
BOB = "user:bob@example.com"
CONDITION = {"title": "until-2027", "expression": 'request.time < timestamp("2027-01-01T00:00:00Z")'}
READ, WRITE = "cloudresourcemanager.v3.projects.getIamPolicy", "cloudresourcemanager.v3.projects.setIamPolicy"

KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "project": ({}, f"projects/{PROJECT}"),
    "service_account": (
        {"kind": "service_account", "name": f"robot@{PROJECT}.iam.gserviceaccount.com"},
        f"projects/{PROJECT}/serviceAccounts/robot@{PROJECT}.iam.gserviceaccount.com",
    ),
    "repository": (
        {"kind": "repository", "location": REGION, "name": "images"},
        f"projects/{PROJECT}/locations/{REGION}/repositories/images",
    ),
    "secret": ({"kind": "secret", "name": "password"}, f"projects/{PROJECT}/secrets/password"),
    "bucket": ({"kind": "bucket", "name": "backups"}, "b/backups"),
    "tunnel to all": ({"kind": "tunnel"}, f"projects/{PROJECT}/iap_tunnel"),
    "tunnel to a zone": ({"kind": "tunnel", "zone": ZONE}, f"projects/{PROJECT}/iap_tunnel/zones/{ZONE}"),
    "tunnel to a machine": (
        {"kind": "tunnel", "zone": ZONE, "name": "dagster-prod"},
        f"projects/{PROJECT}/iap_tunnel/zones/{ZONE}/instances/dagster-prod",
    ),
}


class Policies(Task):
    """The module on a stand-in whose policies are compared, too."""

    def stored(self) -> dict[str, Any]:
        return {**super().stored(), "policies": copy.deepcopy(self.google.state.note("policies"))}


@pytest.fixture
def member(google: Google, run_module: Run, monkeypatch: pytest.MonkeyPatch) -> Policies:
    """The module, and one thing of each kind that it may be about."""
    monkeypatch.setattr(gcp_iam_member, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(gcp_iam_member, "MEMBER_PAUSE_SECONDS", 0.01)
    parent = f"projects/{PROJECT}/locations/{REGION}"
    google.call("iam.projects.serviceAccounts.create", {"name": f"projects/{PROJECT}"}, {"accountId": "robotic"})
    google.state.things[f"iam/{KINDS['service_account'][1]}"] = {
        **google.state.things[f"iam/projects/{PROJECT}/serviceAccounts/robotic@{PROJECT}.iam.gserviceaccount.com"],
        "name": KINDS["service_account"][1],
        "email": KINDS["service_account"][0]["name"],
    }
    google.call("storage.buckets.insert", {"project": PROJECT}, {"name": "backups"})
    google.call(
        "artifactregistry.projects.locations.repositories.create",
        {"parent": parent, "repositoryId": "images"},
        {"format": "DOCKER"},
    )
    google.call(
        "secretmanager.projects.secrets.create",
        {"parent": f"projects/{PROJECT}", "secretId": "password"},
        {"replication": {"automatic": {}}},
    )
    path = f"projects/{PROJECT}/zones/{ZONE}/instances/dagster-prod"
    google.state.put(f"compute/{path}", {"name": "dagster-prod", "id": "42"})
    return Policies(run_module, gcp_iam_member.main, google, members=[ROBOT], roles=["roles/viewer"])


@pytest.mark.parametrize("kind", KINDS)
def test_grant_and_revoke_on_every_kind(google: Google, member: Policies, kind: str) -> None:
    options, target = KINDS[kind]
    before = member.stored()
    wanted = {"members": [ROBOT, BOB], "roles": ["roles/viewer", "roles/browser"], **options}
    granted = member.changes(**wanted)
    assert granted["target"] == target
    assert len(granted["granted"]) == 4
    assert f"roles/viewer {BOB}\n" in granted["diff"]["after"]
    assert "owner" not in granted["text"]
    revoked = member.changes(state="absent", **wanted)
    assert sorted(revoked["revoked"]) == sorted(granted["granted"])
    key = next(key for key in member.stored()["policies"] if key.endswith(target))
    assert member.stored()["policies"][key]["bindings"] == before["policies"].get(key, {}).get("bindings", [])


def test_a_policy_is_read_and_written_once(google: Google, member: Policies) -> None:
    google.calls.clear()
    member.run(members=[ROBOT, BOB], roles=["roles/viewer", "roles/browser"])
    assert google.calls == [READ, WRITE]


def test_conditions_are_grants_of_their_own(google: Google, member: Policies) -> None:
    member.changes(condition=CONDITION)
    # Somebody who does not know of it leaves it alone, on both ways.
    member.changes()
    member.changes(state="absent")
    member.unchanged(condition=CONDITION)
    assert member.changes(condition={**CONDITION, "expression": "true"})["diff"]["before"] == ""
    member.changes(condition=CONDITION, state="absent")
    member.unchanged(condition={**CONDITION, "expression": "true"})


def test_somebody_else_in_between_loses_nothing(google: Google, member: Policies) -> None:
    def theirs(call: Any) -> None:
        policy = google.call(READ, {"resource": f"projects/{PROJECT}"}, {})
        policy["bindings"].append({"role": "roles/browser", "members": [BOB]})
        google.call(WRITE, {"resource": f"projects/{PROJECT}"}, {"policy": policy})

    for _ in range(3):
        google.before(WRITE, theirs)
    google.calls.clear()
    assert member.run()["changed"] is True
    assert google.calls[0] == READ
    assert google.calls[-1] == WRITE
    assert google.calls.count(WRITE) >= 2
    member.unchanged()
    member.unchanged(members=[BOB], roles=["roles/browser"])


def test_a_conflict_without_end_is_an_error(google: Google, member: Policies) -> None:
    google.fail(WRITE, 409, "aborted", "There were concurrent policy changes.", times=100)
    refused = member.refused()
    assert "HTTP 409" in refused
    assert google.calls.count(WRITE) == gcp_iam_member.ATTEMPTS + 1


def test_an_answer_that_is_lost(google: Google, member: Policies) -> None:
    google.fail(WRITE, kind="after")
    assert member.run()["changed"] is True
    member.unchanged()


def test_a_new_service_account_is_waited_for(google: Google, member: Policies) -> None:
    google.fail(
        WRITE, 400, message="Service account robot@example-project.iam.gserviceaccount.com does not exist.", times=2
    )
    assert member.run()["changed"] is True
    assert google.calls.count(WRITE) == 3


def test_one_that_never_comes_is_an_error(google: Google, member: Policies) -> None:
    nobody = f"serviceAccount:nobody@{PROJECT}.iam.gserviceaccount.com"
    assert "does not exist" in member.refused(members=[nobody], member_timeout=0)
    assert google.calls.count(WRITE) == 1


def test_check_mode_before_there_is_anything(google: Google, member: Policies) -> None:
    options: dict[str, Any] = {"kind": "repository", "location": REGION, "name": "not-yet"}
    assert member.run(check=True, **options)["granted"] == [f"roles/viewer {ROBOT}"]
    assert "HTTP 404" in member.refused(**options)
    assert member.run(state="absent", **options)["changed"] is False
    assert "HTTP 40" in member.refused(check=True, project="no-such-project")


def test_domain_restricted_sharing(google: Google, member: Policies) -> None:
    message = "One or more users named in the policy do not belong to a permitted customer."
    google.fail(WRITE, 400, message=message)
    refused = member.refused(members=["user:somebody@elsewhere.example"])
    assert "constraints/iam.allowedPolicyMemberDomains" in refused
    assert "ask its administrators" in refused


def test_no_permission(google: Google, member: Policies) -> None:
    google.revoke("resourcemanager.projects.setIamPolicy")
    refused = member.refused()
    assert "resourcemanager.projects.setIamPolicy" in refused
    assert "roles/resourcemanager.projectIamAdmin" in refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": ["bob@example.com"]}, "members: found 'bob@example.com'; expected user:, group:"),
        ({"roles": ["viewer"]}, "roles: found 'viewer'; expected roles/<name>"),
        ({"name": "x"}, "name: found 'x' with kind=project; expected no such option"),
        (
            {"kind": "service_account"},
            "name: found nothing with kind=service_account; expected the name of the service",
        ),
        ({"kind": "service_account", "name": "robot"}, "name: found 'robot'; expected the service account's address"),
        ({"kind": "repository", "name": "x"}, "location: found nothing with kind=repository"),
        ({"kind": "repository", "name": "x", "zone": ZONE}, f"zone: found '{ZONE}' with kind=repository"),
        ({"kind": "tunnel", "name": "x"}, "zone: found nothing with kind=tunnel and a name"),
    ],
)
def test_bad_input_makes_no_call(google: Google, member: Policies, options: dict[str, Any], message: str) -> None:
    google.calls.clear()
    assert message in member.refused(**options)
    assert google.calls == []
