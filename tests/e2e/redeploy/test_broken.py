"""Images broken in the ways in which users break them: each is refused with its cause, and what served goes on."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from lab import machine as lab_machine
from tests.e2e.harness import LONG, ROOT, Machine, long_form, wait
from tests.e2e.redeploy.user_code import CODE, Served, UserCode

BROKEN = {
    "syntax": ("def broken(:\n    pass\n", ["Cause: SyntaxError: invalid syntax", f"{CODE}, line 1: def broken(:"]),
    "missing": (
        "import dagster\nimport pandas_that_is_missing\n",
        ["ModuleNotFoundError: No module named 'pandas_that_is_missing'", f"{CODE}, line 2"],
    ),
    "nothing": ("x = 1\n", ["No Definitions, RepositoryDefinition, Job, Pipeline, Graph, or AssetsDefinition found"]),
    "variable": (
        "import os\nimport dagster as dg\nKEY = os.environ['NEEDED_BUT_MISSING']\ndefs = dg.Definitions()\n",
        ["KeyError: 'NEEDED_BUT_MISSING'", f"{CODE}, line 3"],
    ),
    "job": (
        "import dagster as dg\n"
        "defs = dg.Definitions(jobs=[dg.define_asset_job('j', selection=dg.AssetSelection.assets('nowhere'))])\n",
        ["Cause: dagster._core.errors.Dagster", "nowhere"],
    ),
    "memory": (
        "hog = [bytearray(50_000_000) for _ in range(100)]\n"
        "for each in hog:\n    each[::4096] = b'x' * len(each[::4096])\n",
        ["was killed because it used more memory than dagster_core_memory allows"],
    ),
    "hangs": ("import time\ntime.sleep(10000)\n", ["does not serve gRPC (waited 15 s)"]),
    "exits": ("raise SystemExit(0)\n", ["exited with code 0 before it served"]),
}


@pytest.fixture
def untouched(user_code: UserCode) -> Iterator[Served]:
    """Whatever a test does to it: the same release serves after as before, and nothing is left over."""
    before, releases, others = user_code.served(), user_code.releases(), user_code.containers()
    yield before
    assert user_code.served() == before
    assert {name for name, state in user_code.releases().items() if state == "running"} <= set(releases)
    assert before.release in user_code.releases()
    assert user_code.containers() == others
    user_code.consistent()


@dataclass
class Chat:
    """What a webhook was sent."""

    address: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def chat() -> Iterator[Chat]:
    """A chat that the controller can reach."""
    found = Chat()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.address = f"http://127.0.0.1:{server.server_address[1]}/"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


# One that Python says, one that the engine says, one that nobody says; all of them in the long form.
@pytest.mark.parametrize("name", BROKEN if LONG else ["syntax"])
def test_code_that_does_not_load_is_refused_with_its_cause(user_code: UserCode, untouched: Served, name: str) -> None:
    source, expected = BROKEN[name]
    played = user_code.deploy(user_code.broken(name, source), dagster_core_start_timeout=15, dagster_core_memory="700m")
    played.refused(*expected, f"The release that served goes on: {untouched.release}")
    last = user_code.last_deploy()
    assert last["result"] == "failed"
    assert last["failure"]


def test_a_failure_is_told_once_and_the_chat_too(user_code: UserCode, untouched: Served, chat: Chat) -> None:
    image = user_code.broken("syntax", BROKEN["syntax"][0])
    played = user_code.deploy(image, dagster_core_webhook=chat.address).refused("exited with code 1 before it served")
    # As Ansible's error, and in the task's result.
    assert played.output.count("before it served") == 2
    (message,) = chat.messages
    assert (message["ok"], message["operation"], message["release"] != untouched.release) == (False, "deploy", True)
    assert message["error"].endswith("exited with code 1 before it served.")


def test_a_server_that_dies_after_a_while_is_rolled_back(user_code: UserCode, untouched: Served) -> None:
    source = (
        "import os, threading, time\nimport dagster as dg\n"
        "def end():\n    time.sleep(6)\n    print('giving up', flush=True)\n    os._exit(3)\n"
        "threading.Thread(target=end, daemon=True).start()\ndefs = dg.Definitions()\n"
    )
    user_code.deploy(user_code.broken("dies", source), dagster_core_soak_seconds=15).refused(
        "was rolled back: it did not stay up for dagster_core_soak_seconds=15", "giving up",
        f"The release that served goes on: {untouched.release}",
    )  # fmt: skip
    assert user_code.last_deploy()["result"] == "rolled_back"


@long_form
def test_a_server_that_keeps_dying_is_taken_back_after_the_play(user_code: UserCode, untouched: Served) -> None:
    source = (
        "import os, threading, time\nimport dagster as dg\n"
        "def end():\n    time.sleep(4)\n    print('giving up', flush=True)\n    os._exit(3)\n"
        "threading.Thread(target=end, daemon=True).start()\ndefs = dg.Definitions()\n"
    )
    user_code.deploy(user_code.broken("keeps-dying", source)).ok()
    bad = user_code.last_deploy()["release"]
    assert bad != untouched.release
    wait(lambda: user_code.last_deploy()["operation"] == "rollback", 60, "that it is taken back", user_code.last_deploy)
    assert "it died 2 times" in user_code.last_deploy()["failure"]
    assert "giving up" in user_code.machine.ssh(f"cat /opt/dagster/releases/{bad}/failure.txt")


@long_form
def test_an_image_without_python_or_a_command_is_refused(user_code: UserCode, untouched: Served) -> None:
    user_code.deploy(user_code.build("nocommand", 'CMD ["no-such-program"]')).refused(
        "the engine did not start", "the image's command is not in the image"
    )
    user_code.deploy(user_code.build("sleeps", 'CMD ["sleep", "1000"]'), dagster_core_start_timeout=5).refused(
        "does not serve gRPC"
    )


@long_form
def test_an_image_for_another_architecture_is_refused(user_code: UserCode, untouched: Served) -> None:
    # An executable of a machine type that no one has (e_machine = 0xFFFF), under the interpreter's name.
    lines = (
        "USER 0\nRUN head -c 18 /bin/true > /tmp/x && printf '\\377\\377' >> /tmp/x && tail -c +21 /bin/true >> /tmp/x"
        " && chmod 755 /tmp/x && mv /tmp/x /usr/local/bin/foreign\nUSER 10001:10001\n"
        'ENTRYPOINT ["/usr/local/bin/foreign"]'
    )
    user_code.deploy(user_code.build("foreign", lines)).refused("another architecture than this machine's")


def test_an_image_that_says_it_is_for_another_architecture_is_refused_before_it_starts(
    machine: Machine, user_code: UserCode, untouched: Served
) -> None:
    """A real image of arm64, as an engine on a laptop of that kind makes one; on the machine, and from a registry."""
    image = "registry.lab:5000/e2e/foreign:1"
    machine.ssh(
        f"printf 'FROM scratch\\nCMD [\"dagster\"]\\n' | docker build -q --platform linux/arm64 -t {image} -"
        f" && docker push -q {image}"
    )
    words = "found an image for linux/arm64; expected"
    user_code.deploy(image).refused(words)
    assert "start" not in user_code.last_deploy()["phases"]
    machine.ssh(f"docker rmi {image}")
    machine.play("deploy_core.yml", dagster_core_image=image).refused(words)


@pytest.fixture
def slow_registry(machine: Machine) -> Iterator[str]:
    """The lab's real registry once more, in a container of its own on the machine, with next to no processor."""
    name = "e2e-registry"
    image = subprocess.run(
        ["docker", "inspect", "-f", "{{.Config.Image}}", "dagster-gce-lab-registry"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
        subprocess.run(
            [*lab_machine.ssh_command(machine.name), "sudo", "docker", "load", "-q"], stdin=saved.stdout, check=True
        )
    machine.ssh(f"docker run -d --name {name} -p 127.0.0.1:5999:5000 {image}")
    yield name
    machine.ssh(f"docker rm -f -v {name} e2e-big; docker rmi {image}", check=False)


@long_form
def test_a_registry_that_goes_away_in_the_middle_of_the_pull_is_named(
    machine: Machine, user_code: UserCode, untouched: Served, slow_registry: str
) -> None:
    image = "127.0.0.1:5999/core:big"
    # Committed and not built: the engine would find the layer in its build cache, and pull nothing.
    machine.ssh(
        "docker run --name e2e-big --user 0 --entrypoint sh e2e_base:1 -c 'head -c 300M /dev/urandom > /var/big'"
        f" && docker commit e2e-big {image} && docker rm e2e-big && docker push -q {image} && docker rmi {image}"
        f" && docker update --cpus 0.01 {slow_registry}",
        timeout=300,
    )
    # The engine keeps what it has of a layer in a file of its own until the layer is whole.
    machine.ssh(
        "nohup timeout 120 sh -c \"until find /var/lib/docker/tmp -name 'GetImageBlob*' -size +1M | grep -q .;"
        f' do sleep 0.02; done; docker kill {slow_registry}" >/dev/null 2>&1 &'
    )
    play = machine.play_in_background("deploy_core.yml", dagster_core_image=image)
    assert play.wait(timeout=300) != 0
    said = " ".join((ROOT / "build" / "tests" / f"{machine.name}-background.log").read_text().split())
    assert "cannot pull 127.0.0.1:5999/core:big from 127.0.0.1:5999: no connection to the registry" in said, said
    assert said.count("[ERROR]") == 1, said
    assert machine.ssh(f"docker inspect -f '{{{{.State.Status}}}}' {slow_registry}").strip() == "exited"
    assert machine.ssh(f"docker images -q {image}") == ""


def test_an_image_that_does_not_exist_is_refused(user_code: UserCode, untouched: Served) -> None:
    user_code.machine.play("deploy_core.yml", dagster_core_image="registry.lab:5000/nowhere/core:v1").refused("nowhere")
    user_code.machine.play("deploy_core.yml", dagster_core_image="docker_dagster_core").refused("dagster_core_image")


def test_a_registry_that_is_down_is_named(user_code: UserCode, untouched: Served) -> None:
    user_code.machine.play("deploy_core.yml", dagster_core_image="127.0.0.1:9/core:v1").refused("127.0.0.1:9")


@long_form
def test_a_full_disk_is_named(machine: Machine, user_code: UserCode, untouched: Served) -> None:
    """The folder in which releases are recorded has no room; nothing may be half done."""
    machine.ssh(
        "mkdir -p /mnt/full && mount -t tmpfs -o size=64k tmpfs /mnt/full && cp -a /opt/dagster/releases/. /mnt/full/"
        " && mount --bind /mnt/full /opt/dagster/releases"
        " && (cat /dev/zero > /opt/dagster/releases/.fill 2>/dev/null; true)"
    )
    try:
        user_code.deploy(user_code.good(40)).refused("No space left on device")
    finally:
        machine.ssh("rm -f /opt/dagster/releases/.fill; umount /opt/dagster/releases /mnt/full")


def test_bad_values_are_refused_before_anything_is_touched(user_code: UserCode, untouched: Served) -> None:
    expected = ("dagster_core_memory: found 'lots'", "dagster_core_keep_releases: found", "dagster_core_hooks_before")
    user_code.deploy(
        user_code.good(1), dagster_core_memory="lots", dagster_core_keep_releases=0, dagster_core_hooks_before="x",
    ).refused(*expected)  # fmt: skip
