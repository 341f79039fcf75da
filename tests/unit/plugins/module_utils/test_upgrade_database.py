"""Comparing two databases, and roles on their way to another server."""

from __future__ import annotations

from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_database import (
    differences,
    identifier,
    literal,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.upgrade_postgres import roles_without

MD5 = "PASSWORD 'md5" + "0" * 32 + "'"
SCRAM = "PASSWORD 'SCRAM-SHA-256$4096:abc=$def=:ghi='"
RIGHTS = "WITH SUPERUSER INHERIT CREATEROLE CREATEDB LOGIN REPLICATION BYPASSRLS"


def test_equal_databases_do_not_differ() -> None:
    contents = {"dagster": {"public.runs": 3, "sequence public.runs_id_seq": 3, "indexes": 40}}
    assert differences(contents, {name: dict(tables) for name, tables in contents.items()}) == []


def test_each_difference_is_told() -> None:
    before = {"dagster": {"public.runs": 3, "public.event_logs": 9, "indexes": 40}, "other": {}}
    after = {"dagster": {"public.runs": 2, "public.event_logs": 9, "indexes": 39}, "postgres": {}}
    assert differences(before, after) == [
        "dagster: indexes: found 39, expected 40",
        "dagster: public.runs: found 2, expected 3",
        "database other is missing",
        "database postgres is new",
    ]


def test_a_table_that_is_missing_differs() -> None:
    assert differences({"d": {"public.runs": 0}}, {"d": {}}) == ["d: public.runs: found none, expected 0"]


def test_the_superuser_keeps_the_new_server_s_password_where_the_old_one_was_md5() -> None:
    lines = ["CREATE ROLE dagster;", f"ALTER ROLE dagster {RIGHTS} {MD5};", "ALTER ROLE dagster SET work_mem TO '8MB';"]
    assert roles_without(lines, "dagster") == (["ALTER ROLE dagster SET work_mem TO '8MB';"], [])


def test_a_password_of_today_s_form_goes_along() -> None:
    lines = ["CREATE ROLE dagster;", f"ALTER ROLE dagster {RIGHTS} {SCRAM};"]
    assert roles_without(lines, "dagster") == (lines[1:], [])


def test_a_superuser_whose_name_is_quoted_is_known() -> None:
    assert roles_without(['CREATE ROLE "my user";', f'ALTER ROLE "my user" {RIGHTS} {MD5};'], "my user") == ([], [])


def test_other_roles_go_along_and_an_md5_password_is_told() -> None:
    lines = ["CREATE ROLE reader;", f"ALTER ROLE reader WITH LOGIN {MD5};", "CREATE ROLE dagster_b;"]
    kept, notes = roles_without(lines, "dagster")
    assert kept == lines
    assert len(notes) == 1
    assert "role reader was stored as MD5" in notes[0]


def test_what_is_quoted_stays_what_it_is() -> None:
    assert literal("it's") == "'it''s'"
    assert identifier('a"b') == '"a""b"'
