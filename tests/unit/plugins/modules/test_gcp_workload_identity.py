"""gcp_workload_identity_pool and gcp_workload_identity_provider: made, changed, and never open to everybody."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import (
    gcp_workload_identity_pool,
    gcp_workload_identity_provider,
)
from lab.google import Google
from tests.unit.plugins.modules.google_modules import PROJECT, Run, Task

NUMBER = "100000000001"
POOL = f"projects/{PROJECT}/locations/global/workloadIdentityPools/dagster-github-prod"
NAMED = POOL.replace(PROJECT, NUMBER)
GITHUB: dict[str, Any] = {
    "name": "github",
    "pool": "dagster-github-prod",
    "issuer_uri": "https://token.actions.githubusercontent.com",
    "attribute_mapping": {"google.subject": "assertion.sub", "attribute.repository": "assertion.repository"},
    "attribute_condition": "assertion.repository == 'example/pipelines'",
}


@pytest.fixture
def pool(google: Google, run_module: Run) -> Task:
    return Task(run_module, gcp_workload_identity_pool.main, google, name="dagster-github-prod")


@pytest.fixture
def provider(pool: Task, google: Google, run_module: Run) -> Task:
    pool.run()
    return Task(run_module, gcp_workload_identity_provider.main, google, **GITHUB)


def test_a_pool(google: Google, pool: Task) -> None:
    before = pool.run(check=True)
    assert before["principal"] == f"principal://iam.googleapis.com/{POOL}"
    made = pool.changes(display_name="GitHub", description="of a test")
    assert made["principal"] == f"principal://iam.googleapis.com/{NAMED}"
    assert pool.run()["principal"] == made["principal"]
    pool.changes(display_name="GitHub's")
    pool.changes(disabled=True)
    thing = google.thing(POOL, "iam") or {}
    assert (thing["displayName"], thing["disabled"]) == ("GitHub's", True)


def test_a_provider(google: Google, provider: Task) -> None:
    made = provider.changes()
    assert made["provider"] == f"{NAMED}/providers/github" == provider.run()["provider"]
    thing = google.thing(f"{POOL}/providers/github", "iam") or {}
    assert thing["oidc"] == {"issuerUri": GITHUB["issuer_uri"]}
    assert thing["attributeMapping"] == GITHUB["attribute_mapping"]
    assert thing["attributeCondition"] == GITHUB["attribute_condition"]
    provider.changes(attribute_condition="assertion.repository_id == '1'")
    # One that is not asked for any more is a way in that nobody knows of.
    provider.changes(
        attribute_condition="assertion.repository_id == '1'", attribute_mapping={"google.subject": "assertion.sub"}
    )
    thing = google.thing(f"{POOL}/providers/github", "iam") or {}
    assert thing["attributeMapping"] == {"google.subject": "assertion.sub"}


def test_a_condition_that_lets_everybody_in_is_refused_by_google(provider: Task) -> None:
    assert "must reference one of the provider's claims" in provider.refused(attribute_condition="true")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "gcp-github"}, "name: found 'gcp-github'; expected 4 to 32 lower-case letters"),
        ({"pool": "x"}, "pool: found 'x'; expected 4 to 32 lower-case letters"),
        ({"issuer_uri": "http://ci.example.com"}, "issuer_uri: found 'http://ci.example.com'; expected an address"),
    ],
)
def test_bad_input_makes_no_call(google: Google, provider: Task, options: dict[str, Any], words: str) -> None:
    google.calls.clear()
    assert words in provider.refused(**options)
    assert google.calls == []


def test_one_that_somebody_deleted(google: Google, pool: Task) -> None:
    pool.run()
    google.state.things[f"iam/{POOL}"]["state"] = "DELETED"
    assert "was deleted, and Google keeps its name for 30 days" in pool.refused()


def test_a_missing_permission_names_its_role(google: Google, pool: Task) -> None:
    google.revoke("iam.workloadIdentityPools.create")
    assert "roles/iam.workloadIdentityPoolAdmin" in pool.refused()
