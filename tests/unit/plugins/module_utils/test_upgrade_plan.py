"""What an upgrade says it would do, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    docker_cli,
    graphql,
    upgrade_image,
    upgrade_plan,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_plan import Plan, Postgres, UpgradeError

OLD = {"reference": "web:1", "id": "sha256:1", "dagster": "1.9.13", "webserver": "1.9.13", "postgres": "0.25.13"}
NEW = {"reference": "web:2", "id": "sha256:2", "dagster": "1.13.27", "webserver": "1.13.27", "postgres": "0.29.27"}
SERVER = Postgres("postgres:13", "13", "dagster-postgres", "sha256:a")


def plan(**changes: Any) -> Plan:
    made = Plan(
        old={**OLD, "revision": "aaa"}, new={**NEW, "revision": "bbb"}, schema="aaa", postgres=SERVER,
        new_postgres=SERVER, database="dagster", size=5_000_000, runs=2,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def test_a_plan_says_from_which_version_to_which() -> None:
    found = plan(new_postgres=Postgres("postgres:17", "17", "dagster-postgres-17"))
    text = "\n".join(found.lines())
    assert found.title == "Dagster 1.9.13 → 1.13.27, schema aaa → bbb, PostgreSQL 13 → 17"
    assert "dagster-postgres (Python package) 0.25.13 → 0.29.27" in text
    assert "volume dagster-postgres → dagster-postgres-17; the old one is kept" in text
    assert "2 runs in flight, which are waited for" in text


def test_runs_go_on_where_the_schema_stays() -> None:
    found = plan(new={**NEW, "revision": "aaa"})
    assert found.pending
    assert not found.database_changes
    assert "2 runs in flight, which go on" in found.lines()


def test_the_same_again_is_nothing_to_do() -> None:
    found = plan(new={**OLD, "revision": "aaa"})
    assert not found.pending
    assert found.lines() == ["nothing to do: Dagster 1.9.13 (schema aaa), PostgreSQL 13 in the volume dagster-postgres"]


def test_a_schema_that_was_left_behind_is_something_to_do() -> None:
    assert plan(new={**OLD, "revision": "bbb"}).pending


def test_before_dagster_s_first_start_there_is_nothing_to_migrate() -> None:
    assert not plan(schema="").schema_changes


def test_a_plan_survives_the_journal() -> None:
    found = plan(warnings=["one"])
    assert Plan.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_an_older_postgresql_is_refused() -> None:
    with pytest.raises(UpgradeError, match=r"found PostgreSQL 12, expected 13 or newer.*Nothing was touched"):
        upgrade_plan._refuse(plan(new_postgres=Postgres("postgres:12", "12", "x")), ("aaa", "bbb"))


def test_a_dagster_that_does_not_know_the_schema_is_refused() -> None:
    with pytest.raises(UpgradeError, match=r"does not know the schema aaa of the database"):
        upgrade_plan._refuse(plan(), ("bbb",))
    upgrade_plan._refuse(plan(), ("aaa", "bbb"))


def test_a_full_disk_is_refused_before_anything_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_cli, "run", lambda *_args, **_more: docker_cli.Result(0, f"{tmp_path}\n", ""))
    upgrade_plan.check_room(plan(), str(tmp_path))
    with pytest.raises(UpgradeError, match=r"GB free; expected .* GB for a dump and a copy"):
        upgrade_plan.check_room(plan(size=1 << 60), str(tmp_path))


class Served(graphql.Webserver):
    """A webserver whose answer is given."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__("http://127.0.0.1:1")
        self.answer = answer

    def query(self, *_args: Any, **_more: Any) -> dict[str, Any]:
        return self.answer


def test_user_code_with_another_dagster_is_named() -> None:
    libraries = [{"name": "dagster", "version": "1.9.13"}, {"name": "dagster-shared", "version": "0.25.13"}]
    entry = {"name": "dagster_core", "locationOrLoadError": {"dagsterLibraryVersions": libraries}}
    served = Served({"workspaceOrError": {"locationEntries": [entry, {"name": "x", "locationOrLoadError": None}]}})
    (found,) = upgrade_plan.skew(served, "1.13.27")
    assert "dagster_core has Dagster 1.9.13, the webserver will have 1.13.27" in found
    assert upgrade_plan.skew(served, "1.9.13") == []


def test_a_webserver_that_is_away_says_nothing_of_user_code() -> None:
    assert upgrade_plan.skew(graphql.Webserver("http://127.0.0.1:1"), "1.13.27") == []


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ([{"Type": "volume", "Destination": "/var/lib/postgresql/data", "Name": "app_dagster-postgres"}],
         "app_dagster-postgres"),
        ([{"Type": "bind", "Destination": "/var/lib/postgresql/data", "Source": "/srv/data"}], ""),
        ([], ""),
    ],
)  # fmt: skip
def test_the_volume_is_the_one_that_is_mounted(mounts: list[dict[str, str]], expected: str) -> None:
    assert upgrade_plan.volume_of({"Mounts": mounts}) == expected


def test_postgresql_s_version_is_in_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_cli, "inspect", lambda *_: {"Config": {"Env": ["PATH=/bin", "PG_MAJOR=13"]}})
    assert upgrade_image.postgres_major("postgres:13") == "13"
    monkeypatch.setattr(docker_cli, "inspect", lambda *_: {"Config": {"Env": None}})
    answers = [docker_cli.Result(0, "postgres (PostgreSQL) 17.6 (Debian 17.6-1)\n", ""), docker_cli.Result(1, "", "no")]
    monkeypatch.setattr(docker_cli, "run", lambda *_args, **_more: answers.pop(0))
    assert upgrade_image.postgres_major("own/database") == "17"
    with pytest.raises(upgrade_image.ImageError, match="is no PostgreSQL: no"):
        upgrade_image.postgres_major("own/database")
    monkeypatch.setattr(docker_cli, "inspect", lambda *_: None)
    with pytest.raises(upgrade_image.ImageError, match="is not on this machine"):
        upgrade_image.postgres_major("postgres:99")


def test_a_database_outside_is_not_upgraded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    container = {
        "Config": {"Labels": {"dataops.dagster_gce": "stack"}, "Env": ["PGHOST=10.20.0.3"]}, "State": {"Running": True}
    }  # fmt: skip
    monkeypatch.setattr(docker_cli, "inspect", lambda *_: container)
    with pytest.raises(
        UpgradeError, match=r"dagster_postgres_host: found 10\.20\.0\.3; expected PostgreSQL in the stack"
    ):
        upgrade_plan.make(str(tmp_path), "web:2", "")
