"""gcp_service_account: made, changed in place, switched off, removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import gcp_service_account
from lab.google import Google
from tests.unit.plugins.modules.google_modules import PROJECT, Run, Task

NAME = "dagster-vm-prod"
EMAIL = f"{NAME}@{PROJECT}.iam.gserviceaccount.com"
PATH = f"projects/{PROJECT}/serviceAccounts/{EMAIL}"


@pytest.fixture
def account(google: Google, run_module: Run) -> Task:
    return Task(run_module, gcp_service_account.main, google, name=NAME)


def stored(google: Google) -> dict[str, Any]:
    found = google.thing(PATH, "iam")
    assert found is not None
    return found


def test_from_nothing_and_back(google: Google, account: Task) -> None:
    made = account.changes(display_name="Dagster (prod)", description="of a test")
    assert (made["email"], made["member"]) == (EMAIL, f"serviceAccount:{EMAIL}")
    assert made["resource"]["email"] == EMAIL
    assert (stored(google)["displayName"], stored(google)["description"]) == ("Dagster (prod)", "of a test")
    account.unchanged()
    account.changes(state="absent")
    assert google.thing(PATH, "iam") is None


def test_check_mode_knows_the_address_of_one_that_is_not_there(account: Task) -> None:
    predicted = account.run(check=True)
    assert (predicted["email"], predicted["resource"]["email"]) == (EMAIL, EMAIL)


def test_changes_in_place(google: Google, account: Task) -> None:
    account.run(display_name="one", description="stays")
    unique = stored(google)["uniqueId"]
    changed = account.changes(display_name="two")
    assert changed["diff"]["before"] == {"name": NAME, "display_name": "one"}
    account.changes(display_name="")
    assert (stored(google)["uniqueId"], stored(google)["description"]) == (unique, "stays")


def test_switched_off_and_on(google: Google, account: Task) -> None:
    account.run()
    account.changes(disabled=True)
    assert stored(google)["disabled"] is True
    account.unchanged()
    account.changes(disabled=False)
    google.call("iam.projects.serviceAccounts.disable", {"name": PATH}, {})
    assert account.changes(disabled=False)["diff"]["before"]["disabled"] is True


def test_a_new_account_is_waited_for(google: Google, account: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcp_service_account, "PAUSE_SECONDS", 0.01)

    def unseen(call: Any) -> None:
        google.fail("iam.projects.serviceAccounts.get", 404, times=2, message="Unknown service account")

    google.before("iam.projects.serviceAccounts.create", unseen)
    assert account.run()["resource"]["email"] == EMAIL
    assert google.calls.count("iam.projects.serviceAccounts.get") >= 4
    assert google.calls.count("iam.projects.serviceAccounts.create") == 1


@pytest.mark.parametrize(("status", "reason"), [(404, "notFound"), (403, "forbidden")])
def test_not_every_server_knows_a_new_account(
    google: Google, account: Task, monkeypatch: pytest.MonkeyPatch, status: int, reason: str
) -> None:
    monkeypatch.setattr(gcp_service_account, "PAUSE_SECONDS", 0.0)
    get, create = "iam.projects.serviceAccounts.get", "iam.projects.serviceAccounts.create"

    def unknown(call: object) -> None:
        google.fail(get, status, reason, f"Service account {PATH} does not exist.")

    # Unknown, shown once, unknown again.
    google.before(create, unknown)
    google.before(create, lambda call: google.before(get, unknown))
    assert account.run()["resource"]["email"] == EMAIL
    assert google.calls[google.calls.index(create) + 1 :] == [get] * (3 + gcp_service_account.IN_A_ROW)


def test_one_that_never_shows_is_an_error(google: Google, account: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcp_service_account, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(gcp_service_account, "VISIBLE_SECONDS", 0.05)
    google.fail("iam.projects.serviceAccounts.get", 404, times=1000, message="Unknown service account")
    assert "does not show it" in account.refused()


def test_an_answer_that_is_lost_makes_one_account(google: Google, account: Task) -> None:
    google.fail("iam.projects.serviceAccounts.create", kind="after")
    assert account.run(display_name="Dagster (prod)")["changed"] is True
    assert stored(google)["displayName"] == "Dagster (prod)"


def test_somebody_else_was_quicker(google: Google, account: Task) -> None:
    def quicker(call: Any) -> None:
        body = {"accountId": NAME, "serviceAccount": {"displayName": "theirs"}}
        google.call("iam.projects.serviceAccounts.create", {"name": f"projects/{PROJECT}"}, body)

    google.before("iam.projects.serviceAccounts.create", quicker)
    account.run(display_name="ours")
    assert stored(google)["displayName"] == "ours"


def test_refusals(google: Google, account: Task) -> None:
    google.revoke("iam.serviceAccounts.create")
    refused = account.refused()
    assert "HTTP 403" in refused
    assert "iam.serviceAccounts.create" in refused
    assert "roles/iam.serviceAccountAdmin" in refused


@pytest.mark.parametrize("form", [dict, json.dumps])
def test_a_key_in_the_options_hides_nothing_but_itself(google: Google, account: Task, form: Callable[..., Any]) -> None:
    key = google.service_account_key(f"robot@{PROJECT}.iam.gserviceaccount.com")
    made = account.run(auth_kind="serviceaccount", service_account_contents=form(key))
    assert (made["email"], made["resource"]["projectId"]) == (EMAIL, PROJECT)
    assert key["private_key"].splitlines()[1] not in made["text"]


@pytest.mark.parametrize("name", ["short", "Dagster-VM", "dagster-", "a" * 31, EMAIL])
def test_bad_names(google: Google, account: Task, name: str) -> None:
    assert f"name: found {name!r}; expected 6 to 30" in account.refused(name=name)
    assert google.calls == []


def test_address_in_a_project_with_a_domain() -> None:
    assert gcp_service_account.email_of("robot", "example.com:project") == (
        "robot@project.example.com.iam.gserviceaccount.com"
    )
