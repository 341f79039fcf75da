"""Waiting for a machine: its host keys, or the reason why there are none."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import gce_instance_ready
from lab.google import Google
from tests.unit.plugins.modules.google_machines import INSTANCE, NAME, behind, stored
from tests.unit.plugins.modules.google_modules import PROJECT, ZONE, Run, Task

ON: dict[str, Any] = {"metadata": {"enable-guest-attributes": True}}


@pytest.fixture
def ready(surroundings: Google, run_module: Run, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setattr(gce_instance_ready, "POLL_SECONDS", 0.01)
    return Task(run_module, gce_instance_ready.main, surroundings, zone=ZONE, name=NAME, wait=1)


def keys(google: Google, **values: str) -> None:
    """What the machine has published."""
    google.state.note("guest attributes")[INSTANCE] = {f"hostkeys/{kind}": value for kind, value in values.items()}


def test_a_machine_that_is_up_says_where_and_who_it_is(machine: Task, ready: Task, surroundings: Google) -> None:
    made = machine.run(**ON)
    keys(surroundings, **{"ssh-rsa": "BBBB", "ssh-ed25519": "AAAA\n"})
    surroundings.calls.clear()
    result = ready.run()
    assert not result["changed"]
    assert result["ready"]
    assert result["exists"]
    assert result["id"] == made["id"]
    assert result["internal_address"] == made["internal_address"]
    assert result["external_address"] == ""
    assert result["host_keys"] == [{"type": "ssh-ed25519", "key": "AAAA"}, {"type": "ssh-rsa", "key": "BBBB"}]
    assert surroundings.calls == ["compute.instances.get", "compute.instances.getGuestAttributes"]


def test_it_waits_for_the_keys(machine: Task, ready: Task, surroundings: Google) -> None:
    machine.run(**ON)
    keys(surroundings)
    for _ in range(2):
        surroundings.before("compute.instances.getGuestAttributes", lambda _call: None)
    surroundings.before(
        "compute.instances.getGuestAttributes", lambda _call: keys(surroundings, **{"ssh-ed25519": "AAAA"})
    )
    assert ready.run(wait=10)["host_keys"]


def test_it_waits_for_a_machine_that_is_being_started(
    machine: Task, ready: Task, surroundings: Google, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.run(**ON)
    thing = surroundings.state.get(f"compute/{INSTANCE}")
    assert thing
    thing["status"] = "STAGING"
    assert f"{NAME} in {ZONE} is still STAGING after 0 s" in ready.refused(wait=0)
    surroundings.before("compute.instances.get", lambda _call: None)
    looks: list[int] = []

    def start(_call: Any) -> None:
        looks.append(1)
        if len(looks) == 3:
            thing["status"] = "RUNNING"
        else:
            surroundings.before("compute.instances.get", start)

    surroundings.before("compute.instances.get", start)
    assert ready.run(wait=10)["status"] == "RUNNING"


def test_a_machine_that_never_boots_shows_the_end_of_its_console(
    machine: Task, ready: Task, surroundings: Google
) -> None:
    machine.run(**ON)
    keys(surroundings)
    lines = "".join(f"line {number}\r\n" for number in range(100))
    surroundings.state.note("serial")[INSTANCE] = f"{lines}\x1b[0;31mKernel panic\x1b[0m - not syncing\r\n\r\n"
    message = ready.refused()
    assert "runs, but has not published its SSH host keys within 1 s" in message
    shown = message.split("The last lines of its serial console:\n")[1].splitlines()
    assert shown[-1] == "Kernel panic - not syncing"
    assert shown[0] == "line 71"
    assert len(shown) == 30
    assert len(ready.refused(console_lines=5).splitlines()) == 6


def test_a_console_that_may_not_be_read_does_not_hide_the_reason(
    machine: Task, ready: Task, surroundings: Google
) -> None:
    machine.run(**ON)
    keys(surroundings)
    surroundings.revoke("compute.instances.getSerialPortOutput")
    message = ready.refused(wait=0)
    assert "has not published its SSH host keys" in message
    assert "Its serial console cannot be read:" in message
    assert "compute.instances.getSerialPortOutput" in message


def test_a_stopped_machine_is_not_waited_for(machine: Task, ready: Task) -> None:
    machine.run(state="stopped", **ON)
    assert f"{NAME} in {ZONE} is TERMINATED and does not come up by itself" in ready.refused(wait=20)


def test_a_machine_that_is_not_there(ready: Task, surroundings: Google) -> None:
    assert "there is none" in ready.refused(wait=20)


@pytest.mark.parametrize("metadata", [{}, {"enable-guest-attributes": "FALSE"}])
def test_without_guest_attributes_it_says_so_at_once(
    machine: Task, ready: Task, surroundings: Google, metadata: dict[str, str]
) -> None:
    machine.run(metadata=metadata)
    keys(surroundings)
    message = ready.refused(wait=20)
    assert "neither its metadata nor the project's have enable-guest-attributes=TRUE" in message
    assert ready.run(host_keys=False)["ready"]


def test_a_refusal_to_read_guest_attributes_is_said_with_its_cause(
    machine: Task, ready: Task, surroundings: Google
) -> None:
    machine.run()
    surroundings.fail(
        "compute.instances.getGuestAttributes", 412, "conditionNotMet", "Guest attributes are off.", times=3
    )
    assert not ready.run(check=True)["ready"]
    assert "neither its metadata nor the project's" in ready.refused()
    machine.run(**ON)
    assert "Guest attributes are off." in ready.refused()


def test_guest_attributes_switched_on_for_the_whole_project(machine: Task, ready: Task, surroundings: Google) -> None:
    machine.run()
    keys(surroundings)
    project = surroundings.call("compute.projects.get", {"project": PROJECT})
    items = {
        "items": [{"key": "enable-guest-attributes", "value": "true"}],
        "fingerprint": project["commonInstanceMetadata"]["fingerprint"],
    }
    surroundings.call("compute.projects.setCommonInstanceMetadata", {"project": PROJECT}, items)
    assert "has not published" in ready.refused(wait=0)


def test_check_mode_looks_once(machine: Task, ready: Task, surroundings: Google) -> None:
    result = ready.run(check=True, wait=20)
    assert (result["exists"], result["ready"], result["host_keys"]) == (False, False, [])
    machine.run(**ON)
    keys(surroundings)
    result = ready.run(check=True, wait=20)
    assert (result["exists"], result["ready"], result["status"]) == (True, False, "RUNNING")
    behind(surroundings, "stop")
    result = ready.run(check=True, wait=20)
    assert (result["status"], result["ready"]) == ("TERMINATED", False)
    assert stored(surroundings)["status"] == "TERMINATED"


def test_an_api_that_is_not_enabled_yet_is_no_machine_in_check_mode(ready: Task, surroundings: Google) -> None:
    surroundings.seed_project("empty-project", services=[])
    assert not ready.run(check=True, project="empty-project")["exists"]
    assert "compute.googleapis.com" in ready.refused(project="empty-project")


def test_what_is_no_key_is_not_taken_for_one(machine: Task, ready: Task, surroundings: Google) -> None:
    machine.run(**ON)
    keys(surroundings, **{"ssh-ed25519": "AAAA\n@cert-authority *", "ssh-rsa": "BBBB"})
    assert ready.run()["host_keys"] == [{"type": "ssh-rsa", "key": "BBBB"}]
