"""Images of user code on a machine, and the release that serves there."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.harness import Machine, Played

CODE = "/opt/dagster/dagster_home/dagster_core/__init__.py"
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Served:
    """What the webserver says about the location."""

    loaded: bool
    host: str
    image: str

    @property
    def release(self) -> str:
        return self.host.removeprefix("docker_dagster_core_")


class UserCode:
    """Builds variants of the load fixture on the machine and releases them."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        # The first release's image, under a name that retention leaves alone.
        machine.ssh(
            "docker image inspect e2e_base:1 >/dev/null 2>&1"
            " || docker tag $(docker images -q docker_dagster_core | tail -1) e2e_base:1"
        )

    def good(self, number: int) -> str:
        """A release that differs from its neighbours by what `quick` logs."""
        return self._build(f"docker_dagster_core:e2e-v{number}", f"ENV LOAD_RELEASE=v{number}")

    def broken(self, name: str, source: str) -> str:
        """A release whose ``dagster_core/__init__.py`` is ``source``."""
        encoded = base64.b64encode(source.encode()).decode()
        return self._build(
            f"docker_dagster_core:e2e-{name}", f"USER 0\nRUN echo {encoded} | base64 -d > {CODE}\nUSER 10001:10001"
        )

    def build(self, name: str, lines: str) -> str:
        """An image with these lines of a Dockerfile on top of the fixture's."""
        return self._build(f"docker_dagster_core:e2e-{name}", lines)

    def _build(self, tag: str, lines: str) -> str:
        # Again each time: retention may have removed it.
        self.machine.ssh(f"docker build -q -t {tag} - <<'E'\nFROM e2e_base:1\n{lines}\nE")
        return tag

    def deploy(self, image: str, **variables: Any) -> Played:
        """``deploy_core.yml`` with an image that is on the machine."""
        return self.machine.play(
            "deploy_core.yml", dagster_core_image=image, dagster_image_pull_policy="missing", **variables
        )

    def rollback(self, **variables: Any) -> Played:
        """``rollback_core.yml``."""
        return self.machine.play("playbooks/rollback_core.yml", **variables)

    def served(self) -> Served:
        """What the webserver serves now."""
        location = self.machine.locations()["dagster_core"]
        return Served(location.loaded, location.metadata.get("host", ""), location.metadata.get("image", ""))

    def image_id(self, image: str) -> str:
        return self.machine.ssh(f"docker image inspect -f '{{{{.Id}}}}' {image}").strip()

    def last_deploy(self) -> dict[str, Any]:
        """The newest line of the audit log."""
        found: dict[str, Any] = json.loads(self.machine.ssh("tail -n 1 /opt/dagster/deploys.jsonl"))
        return found

    def containers(self) -> dict[str, str]:
        """Names and ids of all containers that are neither releases nor runs."""
        shown = self.machine.ssh(
            "docker ps -a --no-trunc --format '{{.Names}} {{.ID}} {{.Label \"dataops.dagster_gce\"}}'"
        )
        rows = [line.split() for line in shown.splitlines()]
        return {row[0]: row[1] for row in rows if row[-1] not in ("release", "run")}

    def releases(self) -> dict[str, str]:
        """The releases that have a container, and its state."""
        shown = self.machine.ssh(
            "docker ps -a --filter label=dataops.dagster_gce=release --format '{{.Names}} {{.State}}'"
        )
        return {line.split()[0].removeprefix("docker_dagster_core_"): line.split()[1] for line in shown.splitlines()}

    def consistent(self) -> None:
        """Everything that says which release serves says the same."""
        served = self.served()
        assert served.loaded, served
        assert self.machine.ssh("readlink /opt/dagster/releases/current").strip() == served.release
        workspace = self.machine.ssh("cat /opt/dagster/dagster_home/workspace.yaml")
        assert f"host: {served.host}\n" in workspace, workspace
        shown = json.loads(self.machine.ssh(f"docker container inspect {served.host}"))[0]
        assert shown["State"]["Running"]
        assert f"DAGSTER_CURRENT_IMAGE={served.image}" in shown["Config"]["Env"]
        records = self.machine.ssh("cat /opt/dagster/releases/*/release.json")
        assert '"candidate"' not in records, records

    def send_plugins(self) -> None:
        """Put the collection's module_utils and the helpers of these tests on the machine."""
        self.machine.send_plugins(HERE / "kill_at.py")
