"""gcp_artifact_repository: made, changed in place, and not deleted with images in it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import gcp_artifact_repository
from lab.google import Google
from tests.unit.plugins.modules.google_modules import PROJECT, Run, Task

LOCATION = "europe-west3"
PATH = f"projects/{PROJECT}/locations/{LOCATION}/repositories/dagster-core-prod"
POLICIES: list[dict[str, Any]] = [
    {"id": "old", "action": "delete", "older_than": "90d", "tag_state": "any"},
    {"id": "untagged", "action": "delete", "tag_state": "untagged"},
    {"id": "rollback", "action": "keep", "keep_count": 20, "package_name_prefixes": ["docker_dagster_core"]},
    {"id": "named", "action": "keep", "tag_prefixes": ["v", "release-"], "newer_than": "1h"},
]


@pytest.fixture
def repository(google: Google, run_module: Run) -> Task:
    options = {"name": "dagster-core-prod", "location": LOCATION}
    return Task(run_module, gcp_artifact_repository.main, google, **options)


def stored(google: Google) -> dict[str, Any]:
    found = google.thing(PATH, "artifactregistry")
    assert found is not None
    return found


def test_from_nothing_and_back(google: Google, repository: Task) -> None:
    made = repository.changes(
        description="of a test",
        labels={"team": "data"},
        immutable_tags=True,
        cleanup_policies=POLICIES,
        cleanup_dry_run=True,
        vulnerability_scanning="disabled",
    )
    assert made["registry"] == f"{LOCATION}-docker.pkg.dev/{PROJECT}/dagster-core-prod" == stored(google)["registryUri"]
    thing = stored(google)
    assert (thing["format"], thing["dockerConfig"], thing["labels"]) == (
        "DOCKER",
        {"immutableTags": True},
        {"team": "data"},
    )
    assert thing["cleanupPolicies"]["old"] == {
        "id": "old",
        "action": "DELETE",
        "condition": {"tagState": "ANY", "olderThan": "7776000s"},
    }
    assert thing["cleanupPolicies"]["rollback"]["mostRecentVersions"]["keepCount"] == 20
    assert thing["cleanupPolicies"]["named"]["condition"]["tagState"] == "TAGGED"
    repository.unchanged()
    repository.changes(state="absent")
    assert google.thing(PATH, "artifactregistry") is None


def test_check_mode_knows_the_address_of_one_that_is_not_there(repository: Task) -> None:
    assert repository.run(check=True)["registry"] == f"{LOCATION}-docker.pkg.dev/{PROJECT}/dagster-core-prod"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"description": "one"}, {"description": "two"}),
        ({"immutable_tags": False}, {"immutable_tags": True}),
        ({"cleanup_policies": POLICIES}, {"cleanup_policies": POLICIES[:1]}),
        ({"cleanup_policies": POLICIES}, {"cleanup_policies": []}),
        ({}, {"cleanup_policies": POLICIES}),
        ({"cleanup_policies": POLICIES[:1]}, {"cleanup_policies": [{**POLICIES[0], "older_than": "30d"}]}),
        ({"cleanup_dry_run": True}, {"cleanup_dry_run": False}),
        ({"vulnerability_scanning": "inherited"}, {"vulnerability_scanning": "disabled"}),
        ({"labels": {"team": "data"}}, {"labels": {"team": "platform"}}),
    ],
)
def test_changes_in_place(google: Google, repository: Task, before: dict[str, Any], after: dict[str, Any]) -> None:
    repository.run(**before)
    made = stored(google)["createTime"]
    repository.changes(**after)
    assert stored(google)["createTime"] == made


def test_labels_of_others_stay(google: Google, repository: Task) -> None:
    repository.run(labels={"team": "data"})
    google.call(
        "artifactregistry.projects.locations.repositories.patch",
        {"name": PATH, "updateMask": "labels"},
        {"labels": {"team": "data", "cost": "42", "goog-x": "y"}},
    )
    repository.unchanged(labels={"team": "data"})
    repository.changes(labels={"team": "data"}, purge_labels=True)
    assert stored(google)["labels"] == {"team": "data", "goog-x": "y"}


@pytest.mark.parametrize(
    "spelling",
    [
        [{"id": "old", "action": "delete", "older_than": "2160h"}],
        [{"id": "old", "action": "delete", "older_than": "7776000s", "tag_state": "any"}],
    ],
)
def test_spellings_that_mean_the_same(repository: Task, spelling: list[dict[str, Any]]) -> None:
    repository.run(cleanup_policies=POLICIES[:1])
    repository.unchanged(cleanup_policies=spelling)


def test_googles_spelling_of_the_same(google: Google, repository: Task) -> None:
    repository.run(cleanup_policies=POLICIES)
    policies = google.state.things[f"artifactregistry/{PATH}"]["cleanupPolicies"]
    policies["old"]["condition"] = {"olderThan": "7776000.000s", "tagPrefixes": []}
    policies["named"]["condition"]["tagPrefixes"].reverse()
    repository.unchanged(cleanup_policies=POLICIES)
    policies["old"]["condition"] = {"olderThan": "7776001s"}
    repository.changes(cleanup_policies=POLICIES)


def test_what_cannot_change_is_refused(google: Google, repository: Task) -> None:
    google.call(
        "artifactregistry.projects.locations.repositories.create",
        {"parent": f"projects/{PROJECT}/locations/{LOCATION}", "repositoryId": "dagster-core-prod"},
        {"format": "PYTHON"},
    )
    for check in (True, False):
        refused = repository.refused(check=check)
        assert "format: repository dagster-core-prod has 'PYTHON', asked for 'DOCKER'" in refused
        assert "another name" in refused


def test_images_are_not_deleted_without_the_word(google: Google, repository: Task) -> None:
    repository.run()
    google.state.things[f"artifactregistry/{PATH}"]["sizeBytes"] = "1500000"
    for check in (True, False):
        assert "holds 1.5 MB of images" in repository.refused(check=check, state="absent")
    repository.changes(state="absent", delete_images=True)


def test_images_whose_size_google_has_not_counted_yet(google: Google, repository: Task) -> None:
    repository.run()
    google.state.put(f"artifactregistry/{PATH}/packages/core", {"name": f"{PATH}/packages/core"})
    for check in (True, False):
        assert "holds images (core)" in repository.refused(check=check, state="absent")
    repository.changes(state="absent", delete_images=True)


@pytest.mark.parametrize("kind", ["after", "drop"])
def test_a_lost_answer_makes_one_repository(google: Google, repository: Task, kind: str) -> None:
    google.fail("artifactregistry.projects.locations.repositories.create", kind=kind)
    assert repository.run(description="one")["changed"] is True
    repository.unchanged(description="one")


def test_an_api_that_is_not_enabled(google: Google, run_module: Run) -> None:
    google.seed_project("bare-project", services=[])
    failed = run_module(
        gcp_artifact_repository.main, project="bare-project", location=LOCATION, name="dagster-core-prod"
    )
    assert "artifactregistry.googleapis.com" in failed["msg"]
    assert "gcloud services enable" in failed["msg"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "Dagster_Core"}, "name: found 'Dagster_Core'; expected"),
        ({"location": "europe-west3-c"}, "location: found 'europe-west3-c'; expected a region"),
        ({"cleanup_policies": [{**POLICIES[0], "older_than": "90 days"}]}, "[old].older_than: found '90 days'"),
        ({"cleanup_policies": [{"id": "x", "action": "delete"}]}, "[x]: found no condition"),
        (
            {"cleanup_policies": [{"id": "x", "action": "delete", "keep_count": 3}]},
            "[x].keep_count: found 3 with action",
        ),
        ({"cleanup_policies": [{"id": "x", "action": "keep", "keep_count": 0}]}, "expected 1 or more, with keep"),
        ({"cleanup_policies": [POLICIES[0], POLICIES[0]]}, "[old]: found two policies of this id"),
        (
            {"cleanup_policies": [{"id": "x", "action": "keep", "keep_count": 3, "older_than": "1d"}]},
            "[x].older_than: found together with keep_count",
        ),
        (
            {"cleanup_policies": [{"id": "x", "action": "keep", "tag_prefixes": ["v"], "tag_state": "untagged"}]},
            "[x].tag_state: found 'untagged' with tag_prefixes",
        ),
    ],
)
def test_bad_input_makes_no_call(google: Google, repository: Task, options: dict[str, Any], message: str) -> None:
    assert message in repository.refused(**options)
    assert google.calls == []
