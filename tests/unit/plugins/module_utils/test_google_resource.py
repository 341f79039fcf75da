"""The engine, seen through the modules for networks and addresses: races, lost answers, and what it says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_auth, google_client, google_resource
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_fields import Field, Fixed, Method, integer
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_resource import Kind, Plan, Refused, Resource
from ansible_collections.dataops.dagster_gce.plugins.modules import gce_address, gce_network, gce_subnetwork
from lab.google import Google

RunModule = Callable[..., dict[str, Any]]
PROJECT = {"project": "example-project"}
NETWORK = {**PROJECT, "name": "net"}
PATH = "projects/example-project/global/networks/net"


def inserts(google: Google, **more: Any) -> Callable[[Any], None]:
    """Somebody else, who makes the network when called."""

    def insert(_: Any = None) -> None:
        google.call("compute.networks.insert", PROJECT, {"name": "net", "autoCreateSubnetworks": False, **more})

    return insert


def test_another_operator_makes_the_same_thing_first(google: Google, run_module: RunModule) -> None:
    google.before("compute.networks.insert", inserts(google))
    done = run_module(gce_network.main, **NETWORK)
    assert done["failed"] is False, done["msg"]
    assert google.calls == ["compute.networks.get", "compute.networks.insert", "compute.networks.get"]
    assert done["resource"]["name"] == "net"


def test_several_operators_at_the_same_moment(google: Google) -> None:
    google.operation_polls = 3
    options = {**NETWORK, "state": "present", "description": None, "routing_mode": "GLOBAL", "mtu": 1500}
    together = threading.Barrier(4)

    def operator(_: int) -> dict[str, Any]:
        work = gce_network.Network(gce_network.KIND, options, google_client.Client(options))
        found = work.read()
        plan = work.plan(found)
        together.wait(10)
        return work.apply(plan, found)

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(operator, range(4)))
    assert {network["id"] for network in made} == {google.thing(PATH)["id"]}  # type: ignore[index]
    assert google.calls.count("compute.networks.insert") >= 4
    assert {network["mtu"] for network in made} == {1500}


def test_a_name_that_is_taken_before_the_thing_can_be_read(
    google: Google, run_module: RunModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begun(_: Any) -> None:
        inserts(google)(None)
        google.fail("compute.networks.get", 404, "notFound", f"The resource '{PATH}' was not found", times=1)

    google.before("compute.networks.insert", begun)
    monkeypatch.setattr(google_client, "PAUSES", (0.0, 0.0))
    done = run_module(gce_network.main, **NETWORK)
    assert done["failed"] is False, done["msg"]
    assert google.calls.count("compute.networks.get") == 3


def test_another_operator_makes_it_differently(google: Google, run_module: RunModule) -> None:
    google.before("compute.networks.insert", inserts(google, mtu=1500))
    done = run_module(gce_network.main, mtu=1400, **NETWORK)
    assert (done["failed"], done["resource"]["mtu"]) == (False, 1400)


def test_another_operator_makes_something_that_cannot_become_ours(google: Google, run_module: RunModule) -> None:
    google.before("compute.networks.insert", inserts(google, description="theirs"))
    done = run_module(gce_network.main, description="ours", **NETWORK)
    assert "description: network net has 'theirs', asked for 'ours'" in done["msg"]


def test_another_operator_deletes_it_first(google: Google, run_module: RunModule) -> None:
    inserts(google)(None)

    def faster(_: Any) -> None:
        google.call("compute.networks.delete", {**PROJECT, "network": "net"})

    google.before("compute.networks.delete", faster)
    done = run_module(gce_network.main, state="absent", **NETWORK)
    assert (done["failed"], done["changed"], done["resource"]) == (False, True, {})


@pytest.mark.parametrize("kind", ["drop", "after"])
def test_the_answer_to_an_insert_is_lost(google: Google, run_module: RunModule, kind: str) -> None:
    google.fail("compute.networks.insert", kind=kind)
    done = run_module(gce_network.main, **NETWORK)
    assert (done["failed"], done["changed"]) == (False, True)
    assert run_module(gce_network.main, **NETWORK)["changed"] is False


def test_no_answer_comes_at_all_and_the_next_run_finds_it(
    google: Google, run_module: RunModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google_client, "RETRY_SECONDS", 0.0)
    google.fail("compute.networks.insert", kind="after", times=20)
    failed = run_module(gce_network.main, **NETWORK)
    assert "no answer from compute.googleapis.com" in failed["msg"]
    assert "Running again is safe" in failed["msg"]
    again = run_module(gce_network.main, **NETWORK)
    assert (again["failed"], again["changed"]) == (False, False)


def test_an_operation_that_fails_leaves_nothing_and_says_so(google: Google, run_module: RunModule) -> None:
    google.fail("compute.networks.insert", reason="INTERNAL_ERROR", message="It broke.", kind="operation")
    failed = run_module(gce_network.main, **NETWORK)
    assert (failed["failed"], failed["reason"]) == (True, "INTERNAL_ERROR")
    assert "create network net" in failed["msg"]
    assert google.thing(PATH) is None


def test_what_was_done_before_an_error_is_told(google: Google, run_module: RunModule) -> None:
    google.revoke("compute.addresses.setLabels")
    failed = run_module(gce_address.main, **PROJECT, region="europe-west1", name="out", labels={"a": "1"})
    assert (failed["failed"], failed["changed"], failed["code"]) == (True, True, 403)
    assert failed["msg"].endswith("Done before that, and left as it is: create address out.")
    google.grant("compute.addresses.setLabels")
    again = run_module(gce_address.main, **PROJECT, region="europe-west1", name="out", labels={"a": "1"})
    assert (again["failed"], again["changed"]) == (False, True)


def test_a_conflict_is_read_again_once_and_then_told(google: Google, run_module: RunModule) -> None:
    run_module(gce_address.main, **PROJECT, region="europe-west1", name="out", labels={"a": "1"})
    google.calls.clear()
    google.fail("compute.addresses.setLabels", 412, "conditionNotMet", "Labels fingerprint is out of date.", times=2)
    failed = run_module(gce_address.main, **PROJECT, region="europe-west1", name="out", labels={"a": "2"})
    assert (failed["failed"], failed["code"]) == (True, 412)
    assert google.calls.count("compute.addresses.setLabels") == 2


def test_what_google_does_not_take_over_is_a_warning(google: Google, run_module: RunModule) -> None:
    inserts(google)(None)

    def undo(_: Any) -> None:
        google.call("compute.networks.patch", {**PROJECT, "network": "net"}, {"mtu": 1300})

    def undo_after_this(_: Any) -> None:
        google.before("compute.networks.get", undo)

    google.before("compute.networks.patch", undo_after_this)
    done = run_module(gce_network.main, mtu=1500, **NETWORK)
    assert done["changed"] is True
    assert "Google has accepted mtu but still has 1300" in done["text"]


def test_a_resource_with_a_change_under_way_is_waited_for(google: Google, run_module: RunModule) -> None:
    inserts(google)(None)
    google.fail("compute.networks.patch", 400, "resourceNotReady", "The resource is not ready", times=2)
    assert run_module(gce_network.main, mtu=1500, **NETWORK)["failed"] is False


def test_a_project_that_does_not_exist_is_not_an_empty_one(google: Google, run_module: RunModule) -> None:
    for state in ("present", "absent"):
        failed = run_module(gce_network.main, project="no-such-project", name="net", state=state)
        assert failed["failed"] is True
        assert "no-such-project" in failed["msg"]
    assert "compute.networks.insert" not in google.calls


@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_region_that_does_not_exist(google: Google, run_module: RunModule, state: str) -> None:
    options = {"name": "part", "network": "net", "ip_cidr_range": "10.0.0.0/24", "state": state}
    failed = run_module(gce_subnetwork.main, **PROJECT, region="moon-south1", **options)
    assert failed["failed"] is True
    assert "moon-south1" in failed["msg"]
    assert "gcloud compute regions list" in failed["msg"]
    assert google.calls == ["compute.subnetworks.get"]


# The engine by itself -------------------------------------------------------------------------------------------------

KIND = Kind(
    name="thing",
    collection="projects/{project}/things",
    fields=(
        Field("size", "sizeGb", form=integer, refuse=lambda old, new: "it only grows" if new < old else None),
        Field("secret", "secret", hidden=True),
        Field("color", "paint.color", change=Fixed("paint another one")),
        Field(
            "shape", "shape", change=Method("setShape", body=lambda wanted, found, options: {"shape": wanted["shape"]})
        ),
    ),
)


class Recorder:
    """Takes the client's place where only the calls count."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str, Any]] = []
        self.warnings: list[str] = []
        self.done: list[str] = []

    def change(
        self, api: str, verb: str, path: str, *, body: Any = None, query: Any = None, what: str
    ) -> dict[str, Any]:
        self.changes.append((verb, path.removeprefix("projects/p/things/"), body))
        return {}


def thing(**options: Any) -> Resource:
    given = {
        "project": "p",
        "name": "t",
        "state": "present",
        "size": None,
        "secret": None,
        "color": None,
        "shape": None,
    }
    return Resource(KIND, {**given, **options}, Recorder())  # type: ignore[arg-type]


def test_a_plan_shows_managed_options_only_and_hides_secrets() -> None:
    found = {"name": "t", "sizeGb": "10", "secret": "old", "paint": {"color": "red"}, "shape": "round"}
    plan = thing(size=20, secret="new").plan(found)
    assert plan.before == {"name": "t", "size": 10, "secret": "(hidden)"}
    assert plan.after == {"name": "t", "size": 20, "secret": "(new, hidden)"}
    assert thing(size=10, secret="old").plan(found).action == "none"
    assert "old" not in str(thing(secret="old").plan(found).after)
    assert thing(secret="new").plan(None).after == {"name": "t", "secret": "(new, hidden)"}


def test_every_refusal_is_in_one_error() -> None:
    found = {"sizeGb": "10", "paint": {"color": "red"}}
    with pytest.raises(Refused) as caught:
        thing(size=5, color="blue").plan(found)
    assert str(caught.value).splitlines() == [
        "size: thing t has 10, asked for 5; it only grows",
        "color: thing t has 'red', asked for 'blue'; Google cannot change it in place, and nothing is replaced here: "
        "paint another one",
    ]


def test_what_is_missing_in_the_answer_is_a_difference() -> None:
    with pytest.raises(Refused, match="color: thing t has nothing, asked for 'blue'"):
        thing(color="blue").plan({"name": "t"})


def test_one_patch_and_one_call_a_method() -> None:
    work = thing(size=20, secret="new", shape="square")
    found = {"sizeGb": "10", "secret": "old", "shape": "round"}
    work.update(work.plan(found), found)
    assert isinstance(work.client, Recorder)
    assert work.client.changes == [
        ("PATCH", "t", {"sizeGb": 20, "secret": "new"}),
        ("POST", "t/setShape", {"shape": "square"}),
    ]


def test_an_absent_thing_that_is_not_there_needs_nothing() -> None:
    assert thing(state="absent").plan(None) == Plan("none")
    assert thing(state="absent", size=1).plan({"sizeGb": "10"}).before == {"name": "t", "size": 10}


@pytest.mark.parametrize(
    ("option", "good", "bad"),
    [
        ("name", ["a", "a-1", "a" * 63], ["", "A", "1a", "a-", "a_b", "a" * 64, "a\n"]),
        ("project", ["my-project-1", "example.com:my-project"], ["short", "Upper-case", "123456", "p" * 31, "ends-"]),
        ("region", ["europe-west1", "northamerica-northeast2"], ["europe-west1-b", "europe", "Europe-west1"]),
        ("zone", ["europe-west1-b", "us-central1-a"], ["europe-west1", "europe-west1-", "europe-west1-b-c"]),
    ],
)
def test_names_that_google_refuses(option: str, good: list[str], bad: list[str]) -> None:
    for value in good:
        assert google_resource.bad_names({option: value}, KIND) == []
    for value in bad:
        assert google_resource.bad_names({option: value}, KIND)[0].startswith(f"{option}: found {value!r}; expected ")


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(google_auth, "IMPORT_ERROR", "Traceback…")
    with patch_module_args(NETWORK), pytest.raises(SystemExit):
        gce_network.main()
    assert "google-auth and requests" in capsys.readouterr().out
