#!/usr/bin/env python3
"""What the workflows do, one command a step; runs as well on a desk, and against the lab in the tests.

Usage: pipeline.py build    --inventory DIR [--cache DIR] [--repository NAME]
       pipeline.py test     [--project DIR] IMAGE
       pipeline.py reach    --inventory DIR
       pipeline.py release  --inventory DIR --image IMAGE [--watch SECONDS]
       pipeline.py rollback --inventory DIR [--release NAME] [--watch SECONDS]
       pipeline.py site     --inventory DIR [--check]

The working directory is the project: the folder with dagster_core/ and inventory/. Standard library only; Ansible and
the collection come from the checkout that this file is in. On GitHub each step adds a part to the run's summary
(GITHUB_STEP_SUMMARY) and has outputs (GITHUB_OUTPUT).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import summary

COLLECTION = Path(__file__).resolve().parents[2]
LOOK_EVERY = 10.0  # seconds
RESULT = re.compile(r"^ok: \[(?P<host>[^\]]+)\] => (?=\{)", re.MULTILINE)


def play(inventory: str, playbook: str, *options: str, **variables: Any) -> tuple[int, str]:
    """Run a playbook of the collection and show its output as it comes; returns exit status and output."""
    command = ["ansible-playbook", "--inventory", inventory, f"dataops.dagster_gce.{playbook}", *options]
    if variables:
        # JSON: a value is a value, whatever stands in it.
        command += ["--extra-vars", json.dumps(variables)]
    print("+", " ".join(command), flush=True)
    process = subprocess.Popen(
        command,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    return process.wait(), "".join(lines)


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of Ansible: this checkout's collection and, where the project has none, its ansible.cfg."""
    found = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTION / ".collections"), "PYTHONUNBUFFERED": "1"}
    if not Path("ansible.cfg").exists():
        found["ANSIBLE_CONFIG"] = str(COLLECTION / "ansible.cfg")
    return {**found, **(more or {})}


def tell(text: str) -> None:
    """Add to the run's summary; nothing away from GitHub."""
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(text + "\n")


def output(**values: str) -> None:
    """Set outputs of the step; nothing away from GitHub."""
    if path := os.environ.get("GITHUB_OUTPUT"):
        with open(path, "a", encoding="utf-8") as stream:
            stream.writelines(f"{name}={value}\n" for name, value in values.items())


def status(inventory: str) -> dict[str, dict[str, Any]]:
    """What `status.yml` finds, by host; a host that cannot be asked is left out."""
    command = ["ansible-playbook", "--inventory", inventory, "dataops.dagster_gce.status"]
    done = subprocess.run(
        [*command, "--extra-vars", json.dumps({"dagster_status_format": "json"})],
        env=environment({"ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_STDOUT_CALLBACK": "default"}),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = {}
    for match in RESULT.finditer(done.stdout):
        result, _end = json.JSONDecoder().raw_decode(done.stdout, match.end())
        if isinstance(result.get("msg"), dict):
            found[match["host"]] = result["msg"]
    if not found:
        print(done.stdout + done.stderr, file=sys.stderr)
    return found


def build(options: argparse.Namespace) -> int:
    """Build the image of the project's user code, test it, push it; nothing where this very code was pushed before."""
    variables: dict[str, Any] = {
        "dagster_project_dir": os.getcwd(),
        "build_core_test": [sys.executable, str(Path(__file__).resolve()), "test", "--project", os.getcwd()],
    }
    if options.repository:
        variables["dagster_core_repository"] = options.repository
    # The engine's own builder cannot hand its cache over.
    if options.cache and os.environ.get("BUILDX_BUILDER"):
        folder = Path(options.cache).resolve()
        # What was found is kept as it is: only the user code's layers would be new, and they are built in a second.
        if folder.exists():
            variables["dagster_image_cache_from"] = [f"type=local,src={folder}"]
        else:
            variables["dagster_image_cache_to"] = [f"type=local,dest={folder},mode=max"]
    started = time.monotonic()
    code, said = play(options.inventory, "build_core", **variables)
    tell(summary.build(code, said, time.monotonic() - started))
    return code


def test(options: argparse.Namespace) -> int:
    """Inside the image, as it will run: the definitions load, the project's tests pass."""
    project = Path(options.project).resolve()
    run = ["docker", "run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]
    run += ["--workdir", "/tmp"]
    home = "/opt/dagster/dagster_home"
    validate = ["dagster", "definitions", "validate", "-m", "dagster_core", "-d", home]
    if code := subprocess.run([*run, options.image, *validate], check=False).returncode:
        return code
    if not (project / "dagster_core_tests").is_dir():
        print("no dagster_core_tests/ in the project: only the definitions were loaded")
        return 0
    with tempfile.TemporaryDirectory() as tools:
        os.chmod(tools, 0o755)  # noqa: S103 - the image's user reads it
        asked = [*run, options.image, "python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        version = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
        lock = next(
            path for path in (project / "requirements/core_tests.txt", COLLECTION / "requirements/core_tests.txt")
            if path.exists()
        )  # fmt: skip
        install = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--target", tools]
        install += ["--python-version", version, "--only-binary", ":all:", "--no-deps", "--require-hashes"]
        subprocess.run([*install, "--requirement", str(lock)], check=True)
        mounts = ["--volume", f"{project}/dagster_core_tests:{home}/dagster_core_tests:ro"]
        mounts += ["--volume", f"{tools}:/tools:ro", "--env", f"PYTHONPATH=/tools:{home}"]
        pytest = [
            "python",
            "-m",
            "pytest",
            "--quiet",
            "--disable-warnings",
            "-p",
            "no:cacheprovider",
            f"{home}/dagster_core_tests",
        ]
        return subprocess.run([*run, *mounts, options.image, *pytest], check=False).returncode


def reach(options: argparse.Namespace) -> int:
    """Write how the machines are reached, and their host keys; asks Google only."""
    code, _said = play(options.inventory, "reach")
    return code


def release(options: argparse.Namespace) -> int:
    """Release an image, and look again once the guard on the machine has nothing more to say."""
    return _change(options, "deploy_core", dagster_core_image=options.image)


def rollback(options: argparse.Namespace) -> int:
    """Take the last release back, or go to a certain one."""
    given = {"dagster_core_release": options.release} if options.release else {}
    return _change(options, "rollback_core", **given)


def _change(options: argparse.Namespace, playbook: str, **variables: Any) -> int:
    started = time.monotonic()
    # The machine's clock may be a little behind.
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 5))
    code, said = play(options.inventory, playbook, **variables)
    seconds = time.monotonic() - started
    after = status(options.inventory)
    later, taken_back = _watch(options, after) if code == 0 else (after, {})
    tell(summary.change(playbook, code, said, seconds, later, taken_back, since))
    for host, name in taken_back.items():
        print(f"{host}: {name} does not serve any more: found {later.get(host, {}).get('serves')}", file=sys.stderr)
    serves = sorted({str(each["serves"]) for each in later.values()})
    output(release=" ".join(serves))
    return code or bool(taken_back) or not later or later.keys() != after.keys()


def _watch(
    options: argparse.Namespace, after: dict[str, dict[str, Any]]
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Look whether what serves stays; returns the last look, and what was taken back, by host."""
    later, deadline = after, time.monotonic() + options.watch
    print(f"watching for {options.watch:g} s", flush=True)
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, LOOK_EVERY))
        later = status(options.inventory)
        # A machine that does not answer once says nothing.
        gone = {host: str(after[host]["serves"]) for host in later if later[host]["serves"] != after[host]["serves"]}
        if gone:
            return later, gone
    return later, {}


def site(options: argparse.Namespace) -> int:
    """Bring everything to what the project says, or only say what would change."""
    arguments = ["--check", "--diff"] if options.check else ["--diff"]
    started = time.monotonic()
    code, said = play(options.inventory, "site", *arguments, dagster_project_dir=os.getcwd())
    tell(summary.site(options.inventory, code, said, time.monotonic() - started, check=options.check))
    return code


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="pipeline.py", description="What the workflows do, one command a step.")
    commands = parser.add_subparsers(required=True)
    for work in (build, test, reach, release, rollback, site):
        command = commands.add_parser(work.__name__, help=(work.__doc__ or "").partition("\n")[0])
        command.set_defaults(work=work)
        if work is test:
            command.add_argument("--project", default=".", help="the folder with dagster_core_tests/")
            command.add_argument("image")
            continue
        command.add_argument("--inventory", required=True)
        if work is build:
            command.add_argument("--cache", default="")
            command.add_argument("--repository", default="")
        if work is release:
            command.add_argument("--image", required=True)
        if work is rollback:
            command.add_argument("--release", default="")
        if work in (release, rollback):
            command.add_argument("--watch", type=float, default=65, help="seconds; the machine's guard takes 60")
        if work is site:
            command.add_argument("--check", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    chosen = parse(sys.argv[1:])
    sys.exit(int(chosen.work(chosen)))
