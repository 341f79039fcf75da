"""``python -m lab``: the lab's commands."""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker

from . import demo, engine, images, machine
from .google import background
from .shell import LabError, say


def main() -> int:
    """Run one command; 0 when it is done, 1 with one line of explanation when it cannot be."""
    arguments = _parser().parse_args()
    try:
        arguments.command(arguments)
    except LabError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the same command goes on where this one stopped")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab", description="The lab: see docs/lab.md.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="have the engine, base images, registry and machines running")
    up.add_argument("name", nargs="*", help="machines; none: everything but a machine")
    up.add_argument("--fresh", action="store_true", help="remove each machine first")
    up.add_argument(
        "--like", metavar="NAME", default=os.environ.get("LAB_LIKE", ""),
        help="new machines begin with the disk of NAME, if `keep` has kept it (LAB_LIKE)",
    )  # fmt: skip
    up.set_defaults(command=_up)

    keep = commands.add_parser("keep", help="stop a machine and keep its disk for `up --like`")
    keep.add_argument("name")
    keep.set_defaults(command=_keep)

    down = commands.add_parser("down", help="remove machines; with the last one go registry and network")
    down.add_argument("name", nargs="*")
    down.add_argument("--all", action="store_true", help="every machine")
    down.add_argument("--google", action="store_true", help="the lab's Google and all that it has started")
    down.add_argument("--engine", action="store_true", help="the engine too, if the lab started it")
    down.add_argument("--images", action="store_true", help="the lab's images too")
    down.set_defaults(command=_down)

    demo_ = commands.add_parser("demo", help="a machine with Dagster on it, and its UI on this computer")
    demo_.set_defaults(command=_demo)

    google = commands.add_parser("google", help="the lab's Google, a stand-in for Google's API")
    google.add_argument("verb", choices=["up", "down", "status", "env", "serve"], metavar="up|down|status|env")
    google.set_defaults(command=_google)

    image = commands.add_parser("image", help=f"have {images.POSTGRES_13} in the registry, which few tests need")
    image.add_argument("name", choices=[images.POSTGRES_13])
    image.set_defaults(command=_image)

    ssh = commands.add_parser("ssh-config", help="print the path of the SSH configuration")
    ssh.set_defaults(command=lambda _: print(machine.ssh_config()))

    registry = commands.add_parser("registry", help="print the registry's address on this computer")
    registry.set_defaults(command=lambda _: print(machine.registry_address(docker.from_env())))

    tunnel = commands.add_parser("tunnel", help="forward a port of this computer to one of a machine")
    tunnel.add_argument("name")
    tunnel.add_argument("local", type=int)
    tunnel.add_argument("remote", type=int)
    tunnel.set_defaults(command=lambda given: machine.tunnel(given.name, given.local, given.remote))
    return parser


def _up(arguments: argparse.Namespace) -> None:
    for name in arguments.name:
        machine.check_name(name)
    machine.key()
    with _alone():
        client = _shared()
        for name in arguments.name:
            if arguments.fresh:
                machine.down(client, name)
            machine.up(client, name, like=arguments.like)


def _keep(arguments: argparse.Namespace) -> None:
    with _alone():
        machine.keep(_shared(), arguments.name)


@contextmanager
def _alone() -> Iterator[None]:
    """One command at a time, of whichever checkout: they share the engine, its images, the registry and the network."""
    with (Path(tempfile.gettempdir()) / f"dagster-gce-lab-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _shared() -> docker.DockerClient:
    """Have what every machine needs: engine, images, registry."""
    engine.ensure()
    client = docker.from_env()
    machine.registry(client, images.ensure())
    return client


def _image(_: argparse.Namespace) -> None:
    with _alone():
        client = _shared()
        machine.registry(client, [images.ensure_postgres_13(client)])


def _google(arguments: argparse.Namespace) -> None:
    if arguments.verb == "serve":
        background.serve()
    elif arguments.verb == "up":
        machine.key()
        with _alone():
            _shared()
            background.up()
    elif arguments.verb == "down":
        with _alone():
            _google_down()
    elif arguments.verb == "status":
        print(background.status())
    else:
        for name, value in background.environment().items():
            print(f"export {name}={shlex.quote(value)}")


def _google_down() -> None:
    demo.close()
    background.down(docker.from_env() if engine.answers() else None)


def _demo(_: argparse.Namespace) -> None:
    started = time.monotonic()
    demo.port()
    _google(argparse.Namespace(verb="up"))
    demo.run(started)


def _down(arguments: argparse.Namespace) -> None:
    if arguments.google:
        _google_down()
    if not engine.answers():
        say("no Docker Engine answers: no machine runs")
        return
    client = docker.from_env()
    with _alone():
        for name in machine.every(client) if arguments.all else arguments.name:
            machine.down(client, name)
        # Several tests at once: the machine that was the last one is not for long.
        if not machine.any_left(client) and not background.pid() and not os.environ.get("LAB_KEEP_SHARED"):
            machine.remove_shared(client)
            shutil.rmtree(machine.STATE, ignore_errors=True)
    if arguments.images:
        images.remove()
    if arguments.engine:
        engine.stop()


if __name__ == "__main__":
    sys.exit(main())
