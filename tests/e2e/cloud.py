"""The lab's Google with an inventory of its own, and playbooks run against both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from lab.google import Google
from tests.e2e.harness import ROOT, Played

READS = ("get", "list", "aggregatedList", "batchGet", "getIamPolicy", "getFromFamily", "getGuestAttributes")


class Cloud:
    """A Google and the inventory of one environment in it."""

    def __init__(
        self,
        google: Google,
        folder: Path,
        host: str = "dagster-e2e",
        project: str = "example-e2e",
        zone: str = "europe-west3-c",
    ) -> None:
        self.google = google
        self.folder = folder
        self.host = host
        self.project = project
        self.hosts = [host]
        self.workers: list[str] = []
        self.zone = zone
        # What provision.yml makes at least, in a project that has no service enabled.
        self.first_changes = 13
        self.variables: dict[str, Any] = {
            "gce_provision": True,
            "dagster_environment": "e2e",
            "gcp_project": project,
            "gce_zone": self.zone,
            "gce_ssh_via": "internal",
            "gce_api_environment": google.environment(),
            "gce_ssh_dir": str(folder / ".ssh"),
            "ansible_ssh_common_args": f"-F {folder}/.ssh/ssh_config",
        }
        self.write()

    def write(self, **variables: Any) -> None:
        """Write the inventory, with other variables from now on."""
        self.variables |= variables
        self.folder.mkdir(parents=True, exist_ok=True)
        hosts: dict[str, Any] = {"dagster": {"hosts": {host: {} for host in self.hosts}, "vars": self.variables}}
        if self.workers:
            hosts["dagster_workers"] = {"hosts": {host: {} for host in self.workers}, "vars": self.variables}
        (self.folder / "hosts.yml").write_text(json.dumps(hosts))

    def command(self, playbook: str, *arguments: str, **variables: Any) -> list[str]:
        """The command line of a playbook."""
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        extra = ["--extra-vars", json.dumps(variables)] if variables else []
        return [program, "-i", str(self.folder / "hosts.yml"), playbook, *arguments, *extra]

    def play(self, playbook: str, *arguments: str, **variables: Any) -> Played:
        """Run a playbook with extra variables."""
        start = time.monotonic()
        done = subprocess.run(
            self.command(playbook, *arguments, **variables), cwd=ROOT, text=True, check=False,
            env={**os.environ, "ANSIBLE_FORCE_COLOR": "0"}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return Played(done.returncode, done.stdout, time.monotonic() - start)

    def forget_calls(self) -> None:
        """Count from now on."""
        self.google.calls.clear()
        self.google.requests.clear()

    def writes(self) -> list[str]:
        """The calls so far that were no reading."""
        return [call for call in self.google.calls if call.rsplit(".", 1)[1] not in READS]

    def reads(self) -> Counter[tuple[str, str]]:
        """How often each thing was read."""
        return Counter((request.method, request.path) for request in self.google.requests)

    def read_twice(self) -> list[tuple[str, str]]:
        """What was read more than once."""
        return [thing for thing, times in self.reads().items() if times > 1]

    def path(self, kind: str, name: str) -> str:
        """Where a thing of ours is: ``disks`` is the zone's, ``routers`` the region's, ``networks`` the project's."""
        places = {"instances": f"zones/{self.zone}", "disks": f"zones/{self.zone}"}
        places |= dict.fromkeys(
            ("routers", "subnetworks", "addresses", "resourcePolicies"), f"regions/{self.zone[:-2]}"
        )
        return f"projects/{self.project}/{places.get(kind, 'global')}/{kind}/{name}"

    def thing(self, kind: str, name: str) -> dict[str, Any] | None:
        """A thing as Google has it now."""
        return self.google.thing(self.path(kind, name))

    @property
    def instance(self) -> dict[str, Any]:
        """The machine as Google has it now."""
        found = self.thing("instances", self.host)
        assert found is not None
        return found

    def behind_our_back(self, method: str, body: Any = None, **parameters: str) -> None:
        """What somebody else does: a method of compute's on a thing of ours."""
        given = {"project": self.project, **parameters}
        if method.startswith(("compute.instances.", "compute.disks.")):
            given["zone"] = self.zone
        if method.startswith("compute.instances."):
            given["resource" if method.endswith("DeletionProtection") else "instance"] = self.host
        self.google.call(method, given, body)
