"""A release, the next one, and the way back."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.e2e.harness import Machine, long_form, wait
from tests.e2e.redeploy.user_code import UserCode


def test_a_redeploy_replaces_the_release_and_nothing_else(machine: Machine, user_code: UserCode) -> None:
    before, others = user_code.served(), user_code.containers()
    image = user_code.good(1)
    played = user_code.deploy(image).ok()
    served = user_code.served()
    assert served.host != before.host
    assert served.image == user_code.image_id(image)
    assert user_code.containers() == others
    user_code.consistent()
    # The one before stays warm.
    assert user_code.releases()[before.release] == "running"
    tasks = re.findall(r"^TASK ", played.output, re.MULTILINE)
    assert len(tasks) <= 20, tasks


def test_the_same_image_is_no_new_release(user_code: UserCode) -> None:
    user_code.deploy(user_code.good(1)).ok()
    before = user_code.served()
    assert user_code.deploy("docker_dagster_core:e2e-v1").ok().changed == 0
    assert user_code.served() == before
    assert user_code.deploy("docker_dagster_core:e2e-v1", dagster_core_force=True).ok().changed == 1
    assert user_code.served().host != before.host


def test_other_settings_are_a_new_release_of_the_same_image(machine: Machine, user_code: UserCode) -> None:
    user_code.deploy(user_code.good(1)).ok()
    before = user_code.served()
    variables = {"dagster_core_environment": {"LOAD_SENSOR_RUN_EVERY": "5"}, "dagster_core_memory": "1g"}
    assert user_code.deploy("docker_dagster_core:e2e-v1", **variables).ok().changed == 1
    served = user_code.served()
    assert served.image == before.image
    assert served.host != before.host
    shown = json.loads(machine.ssh(f"docker container inspect {served.host}"))[0]
    assert "LOAD_SENSOR_RUN_EVERY=5" in shown["Config"]["Env"]
    assert shown["HostConfig"]["Memory"] == 2**30
    # The containers of runs get the same settings.
    run = machine.launch("quick")
    assert machine.wait_for_run(run, "SUCCESS", "FAILURE") == "SUCCESS"
    worker = json.loads(machine.ssh(f"docker inspect $(docker ps -aq --filter label=dagster/run_id={run})"))[0]
    assert "LOAD_SENSOR_RUN_EVERY=5" in worker["Config"]["Env"]
    # One identity from the release to its runs.
    assert worker["Config"]["Image"] == served.image


def test_a_release_is_locked_down(machine: Machine, user_code: UserCode) -> None:
    shown = json.loads(machine.ssh(f"docker container inspect {user_code.served().host}"))[0]
    host = shown["HostConfig"]
    assert shown["Config"]["User"] == "10001:10001"
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert host["PidsLimit"] == 1024
    assert host["PortBindings"] in (None, {})
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert shown["Config"]["StopTimeout"] >= 70
    assert not any("docker.sock" in each for each in host["Binds"] or [])


def test_no_secret_shows_where_it_should_not(machine: Machine, user_code: UserCode) -> None:
    password = re.search(r"^POSTGRES_PASSWORD='?([^'\n]+)'?$", machine.ssh("cat /opt/dagster/.env"), re.MULTILINE)
    assert password
    image = user_code.good(2)
    played = machine.play(
        "deploy_core.yml", "-vvv", "--diff", dagster_core_image=image, dagster_image_pull_policy="missing"
    ).ok()
    assert password[1] not in played.output
    assert password[1] not in machine.ssh("cat /opt/dagster/deploys.jsonl /opt/dagster/releases/*/release.json")
    assert password[1] not in machine.ssh(f"docker logs {user_code.served().host} 2>&1")


def test_site_changes_nothing_after_a_deploy_and_the_other_way_round(machine: Machine, user_code: UserCode) -> None:
    variables: dict[str, Any] = {"dagster_core_image": user_code.good(2), "dagster_image_pull_policy": "missing"}
    machine.play("deploy_core.yml", **variables).ok()
    assert machine.play("site.yml", **variables).ok().changed == 0
    assert machine.play("deploy_core.yml", **variables).ok().changed == 0


@long_form
def test_the_daemon_moves_and_the_play_can_wait_for_it(user_code: UserCode) -> None:
    user_code.deploy(user_code.good(3), dagster_core_wait_for_daemon=True).ok()
    assert 0 <= user_code.last_deploy()["phases"]["daemon"] < 90


def test_check_mode_says_what_it_would_do_and_touches_nothing(user_code: UserCode) -> None:
    before, releases = user_code.served(), user_code.releases()
    image = user_code.good(4)
    variables: dict[str, Any] = {"dagster_core_image": image, "dagster_image_pull_policy": "missing"}
    played = user_code.machine.play("deploy_core.yml", "--check", "--diff", **variables).ok()
    assert played.changed == 1
    assert before.release in played.output
    assert user_code.machine.play("playbooks/rollback_core.yml", "--check").ok().changed == 1
    assert (user_code.served(), user_code.releases()) == (before, releases)


def test_rollback_twice_goes_further_back_and_needs_no_registry(machine: Machine, user_code: UserCode) -> None:
    names = []
    for number in (11, 12, 13):
        user_code.deploy(user_code.good(number)).ok()
        names.append(user_code.served().release)
    machine.ssh("docker image rm docker_dagster_core:e2e-v11 docker_dagster_core:e2e-v12 docker_dagster_core:e2e-v13")
    user_code.rollback().ok()
    assert user_code.served().release == names[1]
    user_code.rollback().ok()
    assert user_code.served().release == names[0]
    user_code.consistent()
    user_code.rollback(dagster_core_release=names[2]).ok()
    assert user_code.served().release == names[2]
    # Again, from an image alone: the container is gone.
    machine.ssh(f"docker rm -f docker_dagster_core_{names[1]}")
    user_code.rollback(dagster_core_release=names[1]).ok()
    assert user_code.served().release == names[1]
    assert user_code.rollback(dagster_core_release=names[1]).ok().changed == 0


def test_a_rollback_to_what_is_not_there_is_refused(machine: Machine, user_code: UserCode) -> None:
    before, containers = user_code.served(), user_code.releases()
    user_code.rollback(dagster_core_release="20200101T000000-0123456789ab").refused(
        "dagster_core_release: found '20200101T000000-0123456789ab'; expected one of the retained releases",
        "Nothing was touched",
    )
    user_code.rollback(dagster_core_release="the last one").refused("dagster_core_release", "the name of a release")
    assert (user_code.served(), user_code.releases()) == (before, containers)


def test_old_releases_go_and_none_in_use(machine: Machine, user_code: UserCode) -> None:
    """A run that waits or runs keeps its image, however many releases come after it."""
    image = user_code.good(20)
    user_code.deploy(image).ok()
    first = user_code.served()
    run = machine.launch("sleepy", {"ops": {"sleep": {"config": {"seconds": 600}}}})
    machine.wait_for_run(run, "STARTED")
    for number in range(21, 25):
        user_code.deploy(user_code.good(number), dagster_core_keep_releases=2).ok()
    assert machine.ssh(f"docker image inspect {first.image} -f ok").strip() == "ok"
    machine.terminate(run)
    machine.wait_for_run(run, "CANCELED")

    def gone() -> bool:
        # Runs of the schedule may have had the image too; finished ones keep their containers for a while.
        machine.ssh(f"docker ps -aq --filter ancestor={first.image} --filter status=exited | xargs -r docker rm")
        user_code.deploy(user_code.good(25), dagster_core_keep_releases=2, dagster_core_force=True).ok()
        return "ok" not in machine.ssh(f"docker image inspect {first.image} -f ok 2>&1", check=False)

    wait(gone, 120, f"that {first.image} is removed", user_code.releases)
    user_code.consistent()


def test_finished_run_containers_are_removed(machine: Machine, user_code: UserCode) -> None:
    for _ in range(4):
        assert machine.wait_for_run(machine.launch("quick"), "SUCCESS", "FAILURE") == "SUCCESS"
    user_code.deploy(user_code.good(30), dagster_core_keep_run_containers=2).ok()
    left = machine.ssh("docker ps -aq --filter label=dagster/run_id --filter status=exited").split()
    assert len(left) <= 3, left


def test_status_tells_what_serves(machine: Machine, user_code: UserCode) -> None:
    played = machine.play("playbooks/status.yml").ok()
    assert played.changed == 0
    assert re.search(rf"> {user_code.served().release}\s+serves", played.output), played.output
    assert "SENSOR ok" in played.output
    structured = machine.play("playbooks/status.yml", dagster_status_format="json").ok()
    assert f"serves: {user_code.served().release}" in structured.output or (
        f'"serves": "{user_code.served().release}"' in structured.output
    )


def test_hooks_and_the_webhook(machine: Machine, user_code: UserCode, tmp_path: object) -> None:
    before = f"{tmp_path}/before.yml"
    after = f"{tmp_path}/after.yml"
    with open(before, "w", encoding="utf-8") as stream:
        stream.write("- ansible.builtin.debug:\n    msg: the hook before\n")
    with open(after, "w", encoding="utf-8") as stream:
        stream.write("- ansible.builtin.debug:\n    msg: now {{ dagster_core_result.release }}\n")
    played = user_code.deploy(
        user_code.good(31), dagster_core_hooks_before=[before], dagster_core_hooks_after=[after],
        dagster_core_webhook="http://127.0.0.1:9/nobody-listens",
    ).ok()  # fmt: skip
    assert "the hook before" in played.output
    assert f"now {user_code.served().release}" in played.output
    assert "the webhook answered" in played.output
