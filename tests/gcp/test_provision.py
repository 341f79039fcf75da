"""The tests of tests/e2e/test_provision.py against a real project: those that ask nothing that only the lab can tell.

They follow each other on one environment, in this order.
"""

from __future__ import annotations

from tests.e2e import test_provision as lab
from tests.gcp.project import ENVIRONMENT, Project

PLAYBOOK = "playbooks/provision.yml"
DESTROY = "playbooks/destroy.yml"

# Before there is anything.
test_a_project_that_does_not_exist = lab.test_a_project_that_does_not_exist
test_a_key_that_is_not_valid_any_more = lab.test_a_key_that_is_not_valid_any_more
test_an_empty_project_can_be_looked_at = lab.test_an_empty_project_can_be_looked_at

# The machine, and what happens to it.
test_from_nothing_to_a_machine_and_nothing_the_second_time = (
    lab.test_from_nothing_to_a_machine_and_nothing_the_second_time
)
test_the_ssh_files_name_the_machine_by_its_id = lab.test_the_ssh_files_name_the_machine_by_its_id
test_ways_to_the_machine = lab.test_ways_to_the_machine
test_a_way_that_does_not_lead_there = lab.test_a_way_that_does_not_lead_there


def test_site_brings_dagster_up_and_has_nothing_to_do_the_second_time(made: Project) -> None:
    """All of it: SSH through Google's tunnel, the data disk, the images, a run that reaches SUCCESS."""
    way = made.settings.ssh_via
    made.play("site.yml", gce_ssh_via=way).ok()
    assert made.play("site.yml", "--diff", gce_ssh_via=way).ok().changed == 0
    made.play("playbooks/status.yml").ok()


test_what_somebody_else_changed_is_shown_and_set_right = lab.test_what_somebody_else_changed_is_shown_and_set_right
test_a_machine_that_somebody_else_made = lab.test_a_machine_that_somebody_else_made
test_what_needs_a_stop_is_refused_or_done_with_the_word = lab.test_what_needs_a_stop_is_refused_or_done_with_the_word
test_a_stopped_machine_is_started = lab.test_a_stopped_machine_is_started
test_an_external_address_comes_and_goes = lab.test_an_external_address_comes_and_goes


def test_disks_grow_and_never_shrink(made: Project) -> None:
    lab.test_disks_grow_and_never_shrink(made)
    # It stays that large for the tests below.
    made.write(gce_instance_data_disk_gb=80)


# The end.
test_nothing_is_destroyed_without_the_word = lab.test_nothing_is_destroyed_without_the_word


def test_what_is_destroyed_leaves_the_data_and_a_snapshot(made: Project) -> None:
    disk = (made.thing("disks", "dagster-e2e-data") or {})["id"]
    made.play(DESTROY, gce_destroy=ENVIRONMENT).ok()
    # So does Google tell of what is done, which the tests above that nothing is done rely on.
    assert {"compute.instances.delete", "compute.networks.delete"} <= set(made.writes())
    assert made.play(DESTROY, gce_destroy=ENVIRONMENT).ok().changed == 0
    assert made.thing("instances", made.host) is None
    assert made.thing("networks", "dagster-network-e2e") is None
    (snapshot,) = made.snapshots()
    assert snapshot.startswith("dagster-e2e-data-last-")

    made.play(PLAYBOOK).ok()
    data = next(entry for entry in made.instance["disks"] if entry["deviceName"] == "dagster-data")
    assert data["source"].endswith("/disks/dagster-e2e-data")
    assert (made.thing("disks", "dagster-e2e-data") or {})["id"] == disk


def test_a_lost_disk_comes_back_from_its_snapshot(made: Project) -> None:
    made.play(DESTROY, gce_destroy=ENVIRONMENT, gce_destroy_data="dagster-e2e-data").ok()
    assert made.thing("disks", "dagster-e2e-data") is None
    last = sorted(made.snapshots())[-1]
    made.play(PLAYBOOK, gce_instance_data_disk_snapshot=last).ok()
    assert (made.thing("disks", "dagster-e2e-data") or {})["sourceSnapshot"].endswith(f"/{last}")


def test_a_zone_without_the_machine_type(made: Project) -> None:
    made.play(DESTROY, gce_destroy=ENVIRONMENT).ok()
    lab.test_a_zone_without_the_machine_type(made)


def test_nothing_is_left(cloud: Project) -> None:
    cloud.clean()
    assert cloud.leftovers() == []
