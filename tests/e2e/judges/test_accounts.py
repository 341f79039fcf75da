"""Who may do what, in gcloud's words: keys, tokens, missing permissions, secrets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import gcp_iam_member
from lab.google import Google
from tests.e2e.harness import ROOT
from tests.e2e.judges.conftest import PROJECT
from tests.e2e.judges.gcloud import Gcloud
from tests.unit.plugins.conftest import RunModule

READ = "compute networks describe default"
LOOKUP = "{{ lookup('dataops.dagster_gce.gcp_secret', 'password', project='example-e2e') }}"


@pytest.fixture
def bare(led: Google) -> Google:
    """A project in which nobody has made anything, with every API enabled."""
    led.reset()
    led.seed_project(PROJECT)
    return led


def test_gcloud_signs_in_with_a_service_accounts_key(bare: Google, gcloud: Gcloud, tmp_path: Path) -> None:
    email = f"ci-robot@{PROJECT}.iam.gserviceaccount.com"
    (tmp_path / "key.json").write_text(json.dumps(bare.service_account_key(email)))
    del gcloud.environment["CLOUDSDK_AUTH_ACCESS_TOKEN_FILE"], gcloud.environment["CLOUDSDK_CORE_ACCOUNT"]
    gcloud(f"auth activate-service-account --key-file={tmp_path}/key.json")
    gcloud("compute networks list")
    assert bare.requests[-1].caller == email


def revoke(google: Google) -> None:
    google.revoke("compute.networks.get")


def disable(google: Google) -> None:
    google.call("serviceusage.services.disable", {"name": f"projects/{PROJECT}/services/compute.googleapis.com"}, {})


REFUSALS: dict[str, tuple[Callable[[Google], None], str]] = {
    "permission": (
        revoke,
        "Required 'compute.networks.get' permission for 'projects/example-e2e/",
    ),
    "api": (disable, "service: compute.googleapis.com serviceTitle: Compute Engine API reason: SERVICE_DISABLED"),
    "token": (Google.expire_tokens, "Request had invalid authentication credentials"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_gcloud_understands_what_is_refused(what: str, bare: Google, gcloud: Gcloud) -> None:
    before, expected = REFUSALS[what]
    before(bare)
    assert expected in gcloud.refused(READ)


def test_a_secret_of_gclouds_is_read_by_our_lookup(bare: Google, gcloud: Gcloud, run_module: RunModule) -> None:
    def read() -> str:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ansible")), "localhost", "-m", "debug", "-a", f"msg={LOOKUP}"],
            cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return " ".join((done.stdout + done.stderr).split())

    (gcloud.folder / "value").write_text("Grüße")
    gcloud("secrets create password --replication-policy=automatic")
    gcloud("secrets versions add password --data-file=value")
    assert "Grüße" in read()
    result = run_module(
        gcp_iam_member.main,
        project=PROJECT,
        kind="secret",
        name="password",
        members=["user:ada@example.com"],
        roles=["roles/secretmanager.secretAccessor"],
    )
    assert result["changed"]
    (policy,) = gcloud.read("secrets get-iam-policy password")
    assert policy["bindings"] == [{"role": "roles/secretmanager.secretAccessor", "members": ["user:ada@example.com"]}]
    gcloud("secrets versions disable 1 --secret=password")
    assert "is in DISABLED state" in read()
