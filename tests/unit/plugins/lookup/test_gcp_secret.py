"""gcp_secret: values of Secret Manager, errors that help, and no value where it does not belong."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible import constants
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from ansible_collections.dataops.dagster_gce.plugins.lookup import gcp_secret
from lab.google import Google

PROJECT = "example-project"
NAME = "dagster-postgres-password-prod"
CANARY = "c4n4ry-Grüße"


@pytest.fixture
def secret(google: Google) -> Google:
    """A secret with two versions."""
    google.call(
        "secretmanager.projects.secrets.create",
        {"parent": f"projects/{PROJECT}", "secretId": NAME},
        {"replication": {"automatic": {}}},
    )
    for value in ("old", CANARY):
        add(google, value.encode())
    google.calls.clear()
    return google


def add(google: Google, value: bytes) -> None:
    payload = {"payload": {"data": base64.b64encode(value).decode()}}
    google.call("secretmanager.projects.secrets.addVersion", {"parent": f"projects/{PROJECT}/secrets/{NAME}"}, payload)


def lookup(*terms: str, variables: dict[str, Any] | None = None, **options: Any) -> list[str]:
    """Run the lookup as a worker would, which lives for one task."""
    gcp_secret._READ.clear()
    given = {"gcp_project": PROJECT} if variables is None else variables
    # What Ansible's loader does; its own would need the collection to be found twice in this process.
    plugin = gcp_secret.LookupModule(loader=DataLoader(), templar=Templar(DataLoader(), variables=given))
    plugin._load_name = "dataops.dagster_gce.gcp_secret"
    documented = yaml.safe_load(gcp_secret.DOCUMENTATION)["options"]
    constants.config.initialize_plugin_configuration_definitions("lookup", plugin._load_name, documented)
    return plugin.run(list(terms), given, **options)


def refused(*terms: str, **options: Any) -> str:
    with pytest.raises(AnsibleError) as error:
        lookup(*terms, **options)
    return str(error.value)


@pytest.mark.parametrize(
    ("term", "options", "value"),
    [
        (NAME, {}, CANARY),
        (NAME, {"version": "1"}, "old"),
        (f"{NAME}/versions/1", {}, "old"),
        (f"projects/{PROJECT}/secrets/{NAME}", {"variables": {}}, CANARY),
        (f"projects/{PROJECT}/secrets/{NAME}/versions/latest", {"project": "other-project"}, CANARY),
        (NAME, {"variables": {}, "project": PROJECT}, CANARY),
        (NAME, {"binary": True}, base64.b64encode(CANARY.encode()).decode()),
    ],
)
def test_values(secret: Google, term: str, options: dict[str, Any], value: str) -> None:
    assert lookup(term, **options) == [value]


def test_a_version_is_read_once_in_a_task(secret: Google) -> None:
    assert lookup(NAME, NAME, f"{NAME}/versions/1") == [CANARY, CANARY, "old"]
    assert secret.calls == ["secretmanager.projects.secrets.versions.access"] * 2


def test_refusals(secret: Google) -> None:
    missing = refused("nowhere")
    assert "HTTP 404" in missing
    assert f"gcloud secrets versions list projects/{PROJECT}/secrets/nowhere" in missing
    secret.call(
        "secretmanager.projects.secrets.versions.disable", {"name": f"projects/{PROJECT}/secrets/{NAME}/versions/1"}, {}
    )
    assert "disabled or destroyed" in refused(NAME, version="1")
    secret.revoke("secretmanager.versions.access")
    denied = refused(NAME)
    assert "secretmanager.versions.access" in denied
    assert "roles/secretmanager.secretAccessor" in denied
    assert CANARY not in missing + denied


def test_an_api_that_is_not_enabled(google: Google) -> None:
    google.seed_project("bare-project", services=[])
    assert "gcloud services enable secretmanager.googleapis.com" in refused("x", project="bare-project")


def test_bytes_that_are_no_text(secret: Google) -> None:
    add(secret, b"\xff\x00")
    assert "no UTF-8 text; expected text, or binary=true" in refused(NAME)
    assert lookup(NAME, binary=True) == ["/wA="]


def test_a_damaged_value_is_refused(secret: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = secret.state.note("secret versions")[f"projects/{PROJECT}/secrets/{NAME}"]
    versions[1]["data"] = base64.b64encode(b"1").decode()
    assert lookup(NAME) == ["1"]
    assert gcp_secret.crc32c(b"123456789") == 0xE3069283  # RFC 3720's own check
    monkeypatch.setattr(gcp_secret, "crc32c", lambda data: 0)
    assert "the checksum of what came is wrong" in refused(NAME)


@pytest.mark.parametrize(
    ("terms", "options", "message"),
    [
        ((), {}, "found no name"),
        (("a b",), {}, "found the name 'a b'; expected"),
        (("projects/p/secret/x",), {}, "found the name 'projects/p/secret/x'"),
        ((NAME,), {"variables": {}}, "found no project"),
        ((NAME,), {"auth_kind": "serviceaccount"}, "needs exactly one of service_account_file"),
    ],
)
def test_bad_input(google: Google, terms: tuple[str, ...], options: dict[str, Any], message: str) -> None:
    assert message in refused(*terms, **options)
    assert google.calls == []


def test_a_regional_secret_is_asked_for_in_its_region() -> None:
    path = gcp_secret.path_of("projects/p/locations/europe-west3/secrets/x", {"version": "latest"})
    assert path == "projects/p/locations/europe-west3/secrets/x/versions/latest"
    assert gcp_secret.regional_endpoint("europe-west3", "googleapis.com") == (
        "https://secretmanager.europe-west3.rep.googleapis.com"
    )


def play(
    folder: Path, environment: dict[str, str], google: Google, task: dict[str, Any]
) -> subprocess.CompletedProcess[str]:
    """A task with the password as group_vars would have it, as talkative as can be."""
    variables = {
        "gcp_project": PROJECT,
        "dagster_postgres_password": "{{ lookup('dataops.dagster_gce.gcp_secret', '" + NAME + "') }}",
    }
    plays = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": variables, "tasks": [task]}]
    (folder / "play.yml").write_text(json.dumps(plays))
    return subprocess.run(
        ["ansible-playbook", "-i", "localhost,", "-vvv", "--diff", str(folder / "play.yml")],
        env={**environment, **google.environment()},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_check_of_the_inputs_tells_why(secret: Google, tmp_path: Path, ansible_environment: dict[str, str]) -> None:
    """A variable that is secret shows no error of its template; what the lookup says holds no value."""
    secret.revoke("secretmanager.versions.access")
    checks = {"dagster_postgres_password": {"rule": "dotenv_value", "secret": True}}
    task = {"name": "Check", "dataops.dagster_gce.check_inputs": {"checks": checks}}
    said = " ".join(play(tmp_path, ansible_environment, secret, task).stdout.split())
    assert "dagster_postgres_password: found a template that fails: gcp_secret: read the secret projects/" in said
    assert "roles/secretmanager.secretAccessor" in said


def test_no_value_in_a_plays_output(secret: Google, tmp_path: Path, ansible_environment: dict[str, str]) -> None:
    task: dict[str, Any] = {
        "name": "Write .env",
        "dataops.dagster_gce.env_file": {
            "path": str(tmp_path / ".env"),
            "values": {},
            "secrets": {"POSTGRES_PASSWORD": "{{ dagster_postgres_password }}"},
            "owner": os.getuid(),
            "group": os.getgid(),
        },
    }
    done = play(tmp_path, ansible_environment, secret, task)
    assert done.returncode == 0, done.stdout + done.stderr
    assert CANARY in (tmp_path / ".env").read_text()
    assert "c4n4ry" not in done.stdout + done.stderr
