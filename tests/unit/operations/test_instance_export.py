"""What leaves the machine with an export, and what does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli, instance_export

PASSWORD = "a long and secret password"
CONTEXT = {"docker": {"env_vars": ["FLAVOUR=sweet", "DAGSTER_CURRENT_IMAGE=sha256:1", "DAGSTER_CORE_RELEASE=r"]}}


def test_only_settings_leave_with_their_values() -> None:
    variables = [
        "PATH=/opt/venv/bin", "POSTGRES_USER=dagster", "POSTGRES_DB=dagster", "GCP_PROJECT=a-project", "GCP_LOCATION=",
        "API_TOKEN=hidden", "FLAVOUR=sweet", "DAGSTER_CURRENT_IMAGE=sha256:1", "DAGSTER_CORE_RELEASE=r",
        "GOOGLE_APPLICATION_CREDENTIALS=/x", f"DAGSTER_CONTAINER_CONTEXT={json.dumps(CONTEXT)}",
    ]  # fmt: skip
    found = instance_export.split_environment(variables, ["PATH=/opt/venv/bin"])
    assert found == {"settings": {"FLAVOUR": "sweet", "GCP_PROJECT": "a-project"}, "secret_names": ["API_TOKEN"]}


def test_a_container_of_somebody_else_has_names_only() -> None:
    found = instance_export.split_environment(["A=1", "DAGSTER_CONTAINER_CONTEXT={"], [])
    assert found == {"settings": {}, "secret_names": ["A"]}


@pytest.mark.parametrize(
    ("digests", "expected"),
    [
        ([], ""),
        (["", f"docker_dagster_core@sha256:{'1' * 64}"], ""),
        (
            [f"docker_dagster_core@sha256:{'1' * 64}", f"r.dev/p/core@sha256:{'2' * 64}"],
            f"r.dev/p/core@sha256:{'2' * 64}",
        ),
    ],
)  # fmt: skip
def test_a_digest_that_only_the_engine_knows_is_none(digests: list[str], expected: str) -> None:
    assert instance_export.registry_digest(digests) == expected


def test_a_text_with_a_secret_is_named_and_the_secret_not_shown(here: Path) -> None:
    (here / "root/dagster_home/database").mkdir(parents=True)
    (here / "root/dagster_home/database/password").write_text(f"{PASSWORD}\n")
    (here / "root/.env").write_text(
        "POSTGRES_USER=dagster\nGCP_PROJECT=a-project-with-a-name\nAPI_TOKEN=0123456789abcdef0123\nSTAGE=production\n"
    )
    good = {"values.yaml": "a-project-with-a-name dagster production"}
    assert instance_export.secrets_in(good) == []
    bad = {**good, "dagster.yaml": f"password: {PASSWORD}", "README.md": "0123456789abcdef0123"}
    assert instance_export.secrets_in(bad) == [
        "README.md would hold the value of API_TOKEN",
        "dagster.yaml would hold the value of PostgreSQL's password",
    ]


def test_everything_that_is_missing_is_said_at_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a machine on which nothing was ever set up."""
    monkeypatch.setattr(docker_cli, "DOCKER", "there-is-no-such-command")
    (here / "root/dagster_home").mkdir(parents=True)
    with pytest.raises(instance_export.ExportError) as caught:
        instance_export.look(instance_export.Wanted())
    said = "\n".join(caught.value.problems)
    assert "dagster.yaml" in said
    assert "workspace.yaml" in said
    assert "no release serves on this machine; expected one that does: deploy_core.yml first" in said
    assert "the docker command is not installed" in said
    assert len(caught.value.problems) == 5


def test_nothing_is_left_behind(here: Path) -> None:
    assert instance_export.remove() is False
    (here / "root/export/dump-x").mkdir(parents=True)
    assert instance_export.remove() is True
    assert not (here / "root/export").exists()
