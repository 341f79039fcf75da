"""gcp_service_account_key: whether Google takes a key, and its end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import gcp_service_account_key
from lab.google import Google
from lab.google.iam import issue_key
from tests.unit.plugins.modules.google_modules import PROJECT, Run, Task

EMAIL = f"dagster-core@{PROJECT}.iam.gserviceaccount.com"


@pytest.fixture
def task(google: Google, run_module: Run) -> Task:
    return Task(run_module, gcp_service_account_key.main, google)


def test_a_key_is_deleted_once(google: Google, task: Task) -> None:
    old, new = issue_key(google, EMAIL), issue_key(google, EMAIL)
    options: dict[str, Any] = {"state": "absent", "email": EMAIL, "key_id": old["private_key_id"]}
    assert task.run(check=True, **options)["changed"] is True
    assert old["private_key_id"] in google.state.note("keys")
    assert task.run(**options)["changed"] is True
    assert old["private_key_id"] not in google.state.note("keys")
    assert new["private_key_id"] in google.state.note("keys")
    assert task.run(**options)["changed"] is False


def test_a_key_is_exchanged_for_a_token(google: Google, task: Task) -> None:
    key = issue_key(google, EMAIL)
    result = task.run(key=json.dumps(key))
    assert (result["changed"], result["email"]) == (False, EMAIL)
    task.run(state="absent", email=EMAIL, key_id=key["private_key_id"])
    said = task.refused(key=json.dumps(key))
    assert "Google gives no token" in said
    assert "Nothing was changed" in said


def test_what_is_no_key_or_meets_no_answer_is_refused_without_a_word_of_it(google: Google, task: Task) -> None:
    key = issue_key(google, EMAIL)
    # Nobody answers there: the same as a controller without a way to Google.
    said = task.refused(key=json.dumps({**key, "token_uri": "http://127.0.0.1:9/token"}))
    assert "no answer while a token was asked for" in said
    assert key["private_key"].splitlines()[3] not in said
    assert "expected the JSON key of a service account" in task.refused(key='{"type": "authorized_user"}')
