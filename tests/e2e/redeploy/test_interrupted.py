"""A deploy that is killed, one that meets another, a release that dies: it converges, and nothing served is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lab import machine as lab_machine
from tests.e2e.harness import LONG, ROOT, Machine, long_form, wait
from tests.e2e.redeploy.user_code import UserCode

PHASES = ["check", "start", "gate", "cutover", "current", "reload", "assert", "retire"]
TO_KILL = PHASES if LONG else ["cutover"]


@pytest.mark.parametrize("phase", TO_KILL)
def test_a_deploy_killed_in_a_phase_is_finished_by_the_next(machine: Machine, user_code: UserCode, phase: str) -> None:
    before = user_code.served()
    image = user_code.good(100 + PHASES.index(phase))
    user_code.send_plugins()
    killed = machine.ssh(f"cd /root/e2e && PYTHONPATH=. python3 kill_at.py {phase} {image}; echo code=$?")
    assert "code=137" in killed, killed
    during = user_code.served()
    assert during.loaded
    served = (before.image, user_code.image_id(image))
    assert during.image in served
    user_code.deploy(image).ok()
    assert user_code.served().image == user_code.image_id(image)
    user_code.consistent()


@long_form
@pytest.mark.parametrize("phase", ["gate", "cutover", "reload"])
def test_another_image_after_a_kill_leaves_the_true_way_back(machine: Machine, user_code: UserCode, phase: str) -> None:
    before = user_code.served()
    user_code.send_plugins()
    machine.ssh(f"cd /root/e2e && PYTHONPATH=. python3 kill_at.py {phase} {user_code.good(120)}; true")
    killed_served = phase == "reload"
    user_code.deploy(user_code.good(121)).ok()
    assert user_code.served().image == user_code.image_id("docker_dagster_core:e2e-v121")
    user_code.consistent()
    user_code.rollback().ok()
    # At the cutover, workspace.yaml had not been replaced yet; once it is, the release has been live.
    expected = user_code.image_id("docker_dagster_core:e2e-v120") if killed_served else before.image
    assert user_code.served().image == expected


@pytest.mark.parametrize("seconds", [2.5, 4.0, 5.5] if LONG else [4.0])
def test_a_play_that_is_killed_can_be_run_again(machine: Machine, user_code: UserCode, seconds: float) -> None:
    image = user_code.good(130 + int(seconds * 10))
    play = machine.play_in_background("deploy_core.yml", dagster_core_image=image, dagster_image_pull_policy="missing")
    time.sleep(seconds)
    os.killpg(play.pid, signal.SIGKILL)
    play.wait()
    assert user_code.served().loaded
    user_code.deploy(image).ok()
    assert user_code.served().image == user_code.image_id(image)
    user_code.consistent()


def test_two_deploys_at_once_are_put_in_order(machine: Machine, user_code: UserCode) -> None:
    images = [user_code.good(140), user_code.good(141)]
    plays = [
        machine.play_in_background("deploy_core.yml", dagster_core_image=image, dagster_image_pull_policy="missing")
        for image in images
    ]
    assert [play.wait(timeout=180) for play in plays] == [0, 0]
    assert user_code.served().image in [user_code.image_id(image) for image in images]
    user_code.consistent()


@long_form
def test_who_finds_the_lock_taken_is_told_by_whom(machine: Machine, user_code: UserCode) -> None:
    before = user_code.served()
    holder = (
        "import fcntl, json, os, time\n"
        "f = open('/opt/dagster/deploy.lock', 'a+'); fcntl.flock(f, fcntl.LOCK_EX); f.truncate(0)\n"
        "about = dict(who='alice', since=time.time() - 60, operation='deploy', image='x', phase='soak')\n"
        "about['pid'] = os.getpid()\n"
        "f.write(json.dumps(about)); f.flush(); time.sleep(300)\n"
    )
    machine.ssh(f'nohup python3 -c "{holder}" >/dev/null 2>&1 & sleep 1')
    image = user_code.good(142)
    user_code.deploy(image, dagster_core_lock_wait=1).refused("is held by alice since", "phase soak", "force_unlock")
    assert user_code.served() == before
    user_code.deploy(image, dagster_core_force_unlock=True).ok()
    assert user_code.served().image == user_code.image_id(image)


def test_a_release_killed_after_the_cutover_comes_back(machine: Machine, user_code: UserCode) -> None:
    user_code.deploy(user_code.good(143)).ok()
    served = user_code.served()
    machine.ssh(f"kill -9 $(docker inspect -f '{{{{.State.Pid}}}}' {served.host})")
    wait(lambda: user_code.releases().get(served.release) == "running", 30, "that the engine starts it again")
    run = ""

    def runs() -> bool:
        nonlocal run
        try:
            run = machine.launch("quick")
        except (AssertionError, OSError):
            return False
        return True

    wait(runs, 60, "that a job can be launched again")
    assert machine.wait_for_run(run, "SUCCESS", "FAILURE") == "SUCCESS"
    user_code.consistent()


@long_form
def test_a_release_whose_container_was_removed_is_put_back(machine: Machine, user_code: UserCode) -> None:
    user_code.deploy(user_code.good(144)).ok()
    served = user_code.served()
    machine.ssh(f"docker rm -f {served.host}")
    user_code.deploy("docker_dagster_core:e2e-v144").ok()
    assert user_code.served().image == served.image
    user_code.consistent()


def test_the_machine_reboots_in_the_middle(machine: Machine, user_code: UserCode) -> None:
    """Power off and on, between the switch of workspace.yaml and the reload."""
    before = user_code.served()
    image = user_code.good(145)
    user_code.send_plugins()
    machine.ssh(f"cd /root/e2e && PYTHONPATH=. python3 kill_at.py current {image}; true")
    _reboot(machine)
    wait(lambda: _loaded(user_code), 180, "that the webserver serves again")
    assert user_code.served().host != before.host  # the cutover had been made
    user_code.deploy(image).ok()
    assert user_code.served().image == user_code.image_id(image)
    user_code.consistent()


@long_form
def test_a_deploy_seconds_after_a_reboot_waits_for_what_served(machine: Machine, user_code: UserCode) -> None:
    """Neither the webserver nor the release is up then; that the release is slow to start is no reason to leave it."""
    user_code.deploy(user_code.good(146)).ok()
    source = (
        "import time\ntime.sleep(12)\nimport dagster as dg\n@dg.op\ndef a() -> None: ...\n"
        "@dg.job\ndef platform_check() -> None:\n    a()\ndefs = dg.Definitions(jobs=[platform_check])\n"
    )
    user_code.deploy(user_code.broken("slow", source)).ok()
    before = user_code.served()
    broken = user_code.broken("after-reboot", "def broken(:\n    pass\n")
    _reboot(machine)
    wait(lambda: "ok" in machine.ssh("docker version >/dev/null 2>&1 && echo ok", check=False), 60, "an engine")
    user_code.deploy(broken).refused(
        "Cause: SyntaxError: invalid syntax", f"The release that served goes on: {before.release}"
    )
    assert user_code.served() == before
    record = json.loads(machine.ssh(f"cat /opt/dagster/releases/{before.release}/release.json"))
    assert record["state"] == "live"
    user_code.consistent()
    user_code.deploy(user_code.good(147)).ok()
    user_code.consistent()


@long_form
def test_a_rollback_from_a_release_that_hangs_goes_back_one_step(machine: Machine, user_code: UserCode) -> None:
    user_code.deploy(user_code.good(148)).ok()
    user_code.deploy(user_code.good(149)).ok()
    before = user_code.served()
    user_code.deploy(user_code.good(150)).ok()
    hung = user_code.served()
    machine.ssh(f"kill -STOP $(pgrep -f 'dagster.*grpc' --ns $(docker inspect -f '{{{{.State.Pid}}}}' {hung.host}))")
    wait(lambda: not _loaded(user_code), 60, "that the webserver notices")
    user_code.rollback(dagster_core_start_timeout=5).ok()
    assert user_code.served() == before
    assert user_code.last_deploy()["from"] == hung.release
    user_code.deploy(user_code.good(151)).ok()
    user_code.consistent()


def _reboot(machine: Machine) -> None:
    subprocess.run(["docker", "restart", "--time", "1", lab_machine.container_name(machine.name)], check=True)
    subprocess.run([sys.executable, "-m", "lab", "up", machine.name], cwd=ROOT, check=True)


def _loaded(user_code: UserCode) -> bool:
    try:
        return user_code.served().loaded
    except (OSError, AssertionError, KeyError, TypeError, subprocess.SubprocessError):
        return False
