"""What an adoption does to the files of the machine."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli, dotenv, upgrade_adopt
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_plan import UpgradeError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_task import Options

VARIABLES = {"POSTGRES_USER": "me", "POSTGRES_PASSWORD": "it's $ecret", "POSTGRES_DB": "mine"}


def found(folder: Path) -> upgrade_adopt.Found:
    return upgrade_adopt.Found(
        project="article", folder=str(folder), image="postgres:13", major="13", volume="article_dagster-postgres",
        revision="aaa", runs=0, variables=VARIABLES, containers={"dagster-postgres": "no"},
    )  # fmt: skip


def adoption(root: Path) -> upgrade_adopt.Adopt:
    return upgrade_adopt.Adopt(Options(root=str(root)))


def inspected(**changes: Any) -> dict[str, Any]:
    mount = {"Type": "volume", "Destination": "/var/lib/postgresql/data", "Name": "article_dagster-postgres"}
    return {
        "Config": {
            "Labels": {},
            "Env": [f"{name}={value}" for name, value in VARIABLES.items()],
            "Image": "postgres:13",
        },
        "Mounts": [mount],
        "State": {"Running": True},
        **changes,
    }


def test_the_database_s_password_is_kept_and_other_settings_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GCP_PROJECT=acme\nPOSTGRES_USER=old\n")
    adoption(tmp_path)._environment(found(tmp_path))
    assert dotenv.parse((tmp_path / ".env").read_text()) == {"GCP_PROJECT": "acme", **VARIABLES}
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


def test_what_site_yml_would_replace_is_copied_first(tmp_path: Path) -> None:
    root, kept = tmp_path / "root", tmp_path / "kept"
    (root / "dagster_home").mkdir(parents=True)
    kept.mkdir()
    for name in (".env", "docker-compose-GCE.yml", "dagster_home/dagster.yaml", "dagster_home/workspace.yaml"):
        (root / name).write_text(name)
    adoption(root)._keep_files(found(root), str(kept))
    assert (kept / "env").read_text() == ".env"
    assert (kept / "docker-compose-GCE.yml").exists()
    assert (kept / "dagster_home" / "workspace.yaml").read_text() == "dagster_home/workspace.yaml"
    # It names the old code server, which is stopped.
    assert not (root / "dagster_home" / "workspace.yaml").exists()


def test_a_folder_that_is_not_ours_is_left_as_it_is(tmp_path: Path) -> None:
    article, kept = tmp_path / "article", tmp_path / "kept"
    (article / "dagster_home").mkdir(parents=True)
    kept.mkdir()
    (article / "dagster_home" / "workspace.yaml").write_text("theirs")
    adoption(tmp_path / "root")._keep_files(found(article), str(kept))
    assert (article / "dagster_home" / "workspace.yaml").read_text() == "theirs"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"Mounts": [{"Type": "bind", "Destination": "/var/lib/postgresql/data"}]}, "found no volume"),
        ({"Config": {"Labels": {}, "Env": ["POSTGRES_USER=me"], "Image": "postgres:13"}}, "found no POSTGRES_PASSWORD"),
        ({"State": {"Running": False}}, "does not run; start the old stack first"),
    ],
)
def test_what_cannot_be_taken_over_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], expected: str
) -> None:
    monkeypatch.setattr(docker_cli, "inspect", lambda *_: inspected(**changes))
    with pytest.raises(UpgradeError, match=f"{expected}.*Nothing was touched"):
        adoption(tmp_path).predict()


def test_ours_is_nothing_to_adopt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = inspected(Config={"Labels": {"dataops.dagster_gce": "stack"}, "Env": [], "Image": "postgres:17"})
    for answer in (ours, None):
        monkeypatch.setattr(docker_cli, "inspect", lambda *_, answer=answer: answer)
        outcome = adoption(tmp_path).predict()
        assert outcome.changed is False
        assert outcome.lines == ["there is no Dagster on this machine that could be adopted"]


def test_another_user_than_the_default_is_told(tmp_path: Path) -> None:
    task = adoption(tmp_path)
    task._describe(found(tmp_path))
    assert "set dagster_postgres_user: me and dagster_postgres_db: mine in the inventory" in task.outcome.lines
    assert task.outcome.database == {"user": "me", "name": "mine"}
    assert "it's $ecret" not in str(task.outcome)
