"""dev, staging and prod as they stand in inventory/, made at the lab's Google: none touches what is another one's."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.google import Google
from tests.e2e.harness import ROOT

READS = ("get", "list", "aggregatedList", "batchGet", "getIamPolicy", "getFromFamily", "getGuestAttributes")
SHARED = "example-shared"


@pytest.fixture(scope="module")
def google() -> Iterator[Google]:
    found = Google().start()
    yield found
    assert found.violations == []
    found.stop()


@pytest.fixture(scope="module")
def inventories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, since plays write the SSH files into it."""
    folder = tmp_path_factory.mktemp("environments") / "inventory"
    shutil.copytree(ROOT / "inventory", folder, symlinks=True, ignore=shutil.ignore_patterns(".ssh"))
    return folder


def play(google: Google, inventory: Path, playbook: str, *options: str, **variables: Any) -> str:
    """Run a playbook with an environment's inventory; returns what it said."""
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    # IAP's way needs gcloud, which is nothing that environments differ in.
    given = {"gce_api_environment": google.environment(), "gce_ssh_via": "internal", **variables}
    done = subprocess.run(
        [program, "-i", str(inventory), playbook, *options, "--extra-vars", json.dumps(given)],
        cwd=ROOT, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    return done.stdout


def written(google: Google) -> list[str]:
    """The paths that were written to since the last time."""
    paths = [each.path for each in google.requests if each.method.rsplit(".", 1)[1] not in READS]
    google.calls.clear()
    google.requests.clear()
    return paths


def roles(google: Google, resource: str, member: str) -> set[str]:
    """What a member has by the policy of one thing."""
    (policy,) = [each for key, each in google.state.note("policies").items() if key.endswith(resource)]
    return {each["role"] for each in policy["bindings"] if member in each["members"]}


def things(google: Google, environment: str) -> dict[str, Any]:
    """What an environment has: all that carries its name, as it is."""
    name = re.compile(rf"-{environment}(?![a-z])")
    found = {key: thing for key, thing in google.state.things.items() if name.search(key)}
    copied: dict[str, Any] = json.loads(json.dumps(found))
    return copied


def test_two_environments_in_one_project(google: Google, inventories: Path) -> None:
    google.seed_project(SHARED, services=[])
    made = {}
    for environment in ("dev", "staging"):
        play(google, inventories / environment, "playbooks/provision.yml", gcp_project=SHARED)
        made[environment] = things(google, environment)
        assert len(made[environment]) >= 9, sorted(made[environment])
    assert not made["dev"].keys() & made["staging"].keys()
    assert things(google, "dev") == made["dev"], "staging has changed what is dev's"
    written(google)

    # Whoever reads the repository has to be there first: dev's machine may run what staging has had. And workflows of
    # one repository may release in staging, from the environment of that name.
    reader = f"serviceAccount:dagster-vm-dev@{SHARED}.iam.gserviceaccount.com"
    lines = {
        "gcp_project": SHARED, "gce_project_repository_readers": [reader],
        "gce_project_github_repository": "example/pipelines", "gce_project_github_repository_id": "123456789",
    }  # fmt: skip
    said = play(google, inventories / "staging", "playbooks/provision.yml", **lines)
    workflows = f"dagster-deploy-staging@{SHARED}.iam.gserviceaccount.com"
    assert roles(google, "repositories/dagster-core-staging", reader) == {"roles/artifactregistry.reader"}
    assert roles(google, "repositories/dagster-core-staging", f"serviceAccount:{workflows}") == {
        "roles/artifactregistry.writer"
    }
    assert "roles/compute.osAdminLogin" in roles(google, f"projects/{SHARED}", f"serviceAccount:{workflows}")
    number = google.state.note("projects")[SHARED]["number"]
    pool = f"projects/{number}/locations/global/workloadIdentityPools/dagster-github-staging"
    job = f"principal://iam.googleapis.com/{pool}/subject/repo:example/pipelines:environment:staging"
    assert roles(google, f"serviceAccounts/{workflows}", job) == {"roles/iam.workloadIdentityUser"}
    provider = google.state.things[
        f"iam/projects/{SHARED}/locations/global/workloadIdentityPools/dagster-github-staging/providers/github"
    ]
    assert provider["attributeCondition"] == (
        "assertion.repository == 'example/pipelines' && assertion.repository_id == '123456789'"
    )
    assert f"WORKLOAD_IDENTITY_PROVIDER={pool}/providers/github" in said
    assert f"DEPLOY_SERVICE_ACCOUNT={workflows}" in said
    play_again = play(google, inventories / "staging", "playbooks/provision.yml", **lines)
    assert re.search(r"dagster-staging +: ok=\d+ +changed=0 ", play_again)

    # All of dev goes, and nothing of staging's is so much as asked to change.
    before = things(google, "staging")
    written(google)
    words = {
        "gce_destroy": "dev", "gce_destroy_data": "dagster-dev-data", "gce_destroy_repository": "dagster-core-dev",
        "gce_destroy_service_account": "dagster-vm-dev", "gce_destroy_snapshot": False,
    }  # fmt: skip
    play(google, inventories / "dev", "playbooks/destroy.yml", gcp_project=SHARED, **words)
    assert things(google, "dev") == {}
    assert things(google, "staging") == before
    assert not [path for path in written(google) if "staging" in path]


def test_an_environment_stays_in_its_project(google: Google, inventories: Path) -> None:
    others = {"example-dev", "example-staging"}
    for project in (*others, "example-prod"):
        google.seed_project(project, services=[])
    written(google)
    play(google, inventories / "prod", "playbooks/provision.yml")
    asked = {found[1] for each in google.requests if (found := re.search(r"projects/([a-z-]+)", each.path))}
    # debian-cloud has the image that the machine starts from.
    assert asked - {"debian-cloud"} == {"example-prod"}
    assert len(things(google, "prod")) >= 9
    keys = [key for key in google.state.things if re.search(rf"projects/({'|'.join(others)})/", key)]
    assert not [key for key in keys if "dagster" in key]


def test_the_word_for_one_environment_destroys_no_other(google: Google, inventories: Path) -> None:
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    google.seed_project("example-prod")
    given = {"gce_api_environment": google.environment(), "gce_destroy": "dev"}
    written(google)
    done = subprocess.run(
        [program, "-i", str(inventories / "prod"), "playbooks/destroy.yml", "--extra-vars", json.dumps(given)],
        cwd=ROOT, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert "gce_destroy: found 'dev'; expected" in said, said[-1500:]
    assert written(google) == []
