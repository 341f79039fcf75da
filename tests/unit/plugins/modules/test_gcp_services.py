"""gcp_services: what is missing is enabled in one call and answers afterwards; nothing is disabled unless asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import gcp_services
from lab.google import Google

RunModule = Callable[..., dict[str, Any]]
COMPUTE, IAM, BIGQUERY = "compute.googleapis.com", "iam.googleapis.com", "bigquery.googleapis.com"
BARE = {"project": "bare-project"}


@pytest.fixture(autouse=True)
def project(google: Google) -> None:
    google.seed_project("bare-project", services=["serviceusage.googleapis.com", "storage.googleapis.com"])


def enabled(google: Google) -> set[str]:
    services: list[str] = google.state.note("services")["bare-project"]
    return set(services)


def test_what_is_missing_is_enabled_and_nothing_else_touched(google: Google, converge: RunModule) -> None:
    made = converge(gcp_services.main, services=[COMPUTE, "storage.googleapis.com", BIGQUERY], **BARE)
    assert made["changed_services"] == [COMPUTE, BIGQUERY]
    assert made["diff"]["before"] == {COMPUTE: "DISABLED", BIGQUERY: "DISABLED", "storage.googleapis.com": "ENABLED"}
    assert set(made["diff"]["after"].values()) == {"ENABLED"}
    assert {COMPUTE, BIGQUERY, "storage.googleapis.com"} <= enabled(google)


def test_one_call_enables_them_all(google: Google, run_module: RunModule) -> None:
    google.calls.clear()
    run_module(gcp_services.main, services=[COMPUTE, BIGQUERY], **BARE)
    assert google.calls.count("serviceusage.services.batchEnable") == 1


def test_it_waits_until_the_api_answers(google: Google, run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcp_services, "PROBE_PAUSE", 0.0)
    google.fail("compute.networks.get", 403, "SERVICE_DISABLED", "It is disabled.", times=3)
    google.calls.clear()
    done = run_module(gcp_services.main, services=[COMPUTE], **BARE)
    assert (done["failed"], done["changed"]) == (False, True)
    assert google.calls.count("compute.networks.get") == 4


def test_it_waits_for_an_api_that_has_nothing_to_get(
    google: Google, run_module: RunModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcp_services, "PROBE_PAUSE", 0.0)
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SERVICE_DISABLED"}]
    google.fail("iap.getIamPolicy", 403, message="It is disabled.", details=details, times=2)
    run_module(gcp_services.main, services=["iap.googleapis.com"], **BARE)
    assert google.calls.count("iap.getIamPolicy") == 3


def test_an_api_that_does_not_answer_in_time_is_a_warning(
    google: Google, run_module: RunModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcp_services, "PROBE_SECONDS", 0.0)
    google.fail("compute.networks.get", 403, "SERVICE_DISABLED", "It is disabled.", times=3)
    done = run_module(gcp_services.main, services=[COMPUTE], **BARE)
    assert (done["failed"], done["changed"]) == (False, True)
    assert "compute.googleapis.com is enabled, but does not answer yet" in done["text"]


def test_apis_are_disabled_only_where_that_is_asked_for(google: Google, converge: RunModule) -> None:
    done = converge(gcp_services.main, services=["storage.googleapis.com", BIGQUERY], state="absent", **BARE)
    assert done["changed_services"] == ["storage.googleapis.com"]
    assert enabled(google) == {"serviceusage.googleapis.com"}


def test_an_enabling_whose_answer_is_lost(google: Google, run_module: RunModule) -> None:
    google.fail("serviceusage.services.batchEnable", kind="after")
    done = run_module(gcp_services.main, services=[COMPUTE], **BARE)
    assert (done["failed"], done["changed"], COMPUTE in enabled(google)) == (False, True, True)


IN_PROGRESS = "Another activation or deactivation is in progress for the following service(s): compute.googleapis.com"


def test_somebody_else_enables_it_at_the_same_moment(
    google: Google, run_module: RunModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcp_services, "PROBE_PAUSE", 0.0)
    google.fail("serviceusage.services.batchEnable", 400, message=IN_PROGRESS, times=2)
    done = run_module(gcp_services.main, services=[COMPUTE], **BARE)
    assert (done["failed"], done["changed"]) == (False, True)
    assert COMPUTE in enabled(google)


def test_somebody_else_enables_it_and_does_not_get_ready(
    google: Google, run_module: RunModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcp_services, "PROBE_SECONDS", 0.0)
    google.fail("serviceusage.services.batchEnable", 400, message=IN_PROGRESS, times=9)
    refused = run_module(gcp_services.main, services=[COMPUTE], **BARE)
    assert refused["failed"]
    assert IN_PROGRESS in refused["msg"]
    assert google.calls.count("serviceusage.services.batchEnable") == 1


def test_a_missing_permission(google: Google, run_module: RunModule) -> None:
    google.revoke("serviceusage.services.enable")
    refused = run_module(gcp_services.main, services=[COMPUTE], **BARE)
    assert refused["code"] == 403
    assert "roles/serviceusage.serviceUsageAdmin" in refused["msg"]


def test_a_project_without_billing(google: Google, run_module: RunModule) -> None:
    google.fail(
        "serviceusage.services.batchEnable",
        400,
        "UREQ_PROJECT_BILLING_NOT_FOUND",
        "Billing account for project '1' is not found. Billing must be enabled for activation of service(s).",
    )
    refused = run_module(gcp_services.main, services=[COMPUTE], **BARE)
    assert "gcloud billing projects link bare-project --billing-account=" in refused["msg"]


def test_an_api_that_does_not_exist(google: Google, run_module: RunModule) -> None:
    refused = run_module(gcp_services.main, services=["compte.googleapis.com"], **BARE)
    assert "compte.googleapis.com" in refused["msg"]
    assert "gcloud services list --available" in refused["msg"]


def test_many_apis_are_asked_for_in_parts(google: Google, run_module: RunModule) -> None:
    assert [len(part) for part in gcp_services.chunks([str(number) for number in range(65)], 30)] == [30, 30, 5]


def test_bad_input_makes_no_call(google: Google, run_module: RunModule) -> None:
    google.calls.clear()
    refused = run_module(gcp_services.main, services=["compute"], **BARE)
    assert refused["msg"] == "services: found 'compute'; expected an API's name such as compute.googleapis.com"
    assert google.calls == []
