#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""dagster.yaml or workspace.yaml, written after Dagster itself has accepted it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dagster_yaml
short_description: dagster.yaml or workspace.yaml, written after Dagster itself has accepted it
description:
  - Writes the file if its content differs, in one step, and only after the Dagster of O(image) has loaded it.
    A file that Dagster refuses never reaches the machine's services.
  - Nothing is connected to; a run without a change starts no container.
  - The run launcher is not exchanged under runs that live in the code containers, since Dagster would fail them. The
    module waits a minute for them to end, then it refuses.
  - In C(workspace.yaml) the entry of the user code's location belongs to its releases and is kept.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: dataops.dagster_gce.attributes
attributes:
  check_mode:
    details: Validates as well if the image is on the machine, warns otherwise.
options:
  path:
    description: The file. Its folder is made (root, 0755) where it is missing.
    type: path
    required: true
  kind:
    description: What the file is, C(dagster.yaml) (V(instance)) or C(workspace.yaml) (V(workspace)).
    type: str
    choices: [instance, workspace]
    required: true
  content:
    description:
      - The document. A key of its top level whose value is null is left out, so that an override can take one away.
      - For V(workspace) only C(load_from) is read, the entries beside the user code's.
    type: dict
    required: true
  image:
    description: Image with the Dagster that is going to read the file.
    type: str
    required: true
  current_release:
    description: Link to the release that serves (V(workspace)); names the user code's host where the file does not.
    type: path
  core_location:
    description: Name of the user code's location (V(workspace)), whose entry belongs to its releases.
    type: str
    default: dagster_core
  timeout:
    description: Seconds that the validation may take.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Write dagster.yaml
  dataops.dagster_gce.dagster_yaml:
    path: /opt/dagster/dagster_home/dagster.yaml
    kind: instance
    content:
      telemetry: {enabled: false}
    image: dagster_daemon_webserver:5f0c8a1b2c3d
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
checksum:
  description: SHA-256 of the file's content, in check mode of what it would be; empty where that cannot be told.
  returned: success
  type: str
validated:
  description: Whether Dagster was asked; false where nothing differs.
  returned: success
  type: bool
"""

import hashlib
import inspect
import json
import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    dagster_validation,
    docker_cli,
    file_task,
    files,
    launcher_change,
    swarm,
    workspace,
)

# The container only reads two texts.
CONFINED = (*docker_cli.CONFINED, "--interactive", "--security-opt", "no-new-privileges")
# Found inside Ansible's zip, too.
SCRIPT = inspect.getsource(dagster_validation)
CONTAINER_PREFIX = "docker_dagster_core_"
# Seconds that a change of the run launcher waits for runs inside the code containers.
RUNS_MAY_TAKE = 60


class DagsterYaml(file_task.FileTask):
    """The module's work; every method that fails ends the module."""

    def __init__(self, module: AnsibleModule) -> None:
        super().__init__(module)
        self.kind: str = module.params["kind"]

    def run(self) -> None:
        """Compare, ask Dagster, write, end the module."""
        before = self.read()
        after = self.wanted(before)
        differs = before != after
        regrant = not differs and files.differs(self.path, workspace.OWNER)
        if differs and self.kind == "instance":
            self.may_change_launcher(before)
        validated = differs and self.validate(after)
        if not self.module.check_mode:
            try:
                if differs:
                    after = self.write(after)
                elif regrant:
                    files.give(self.path, workspace.OWNER)
            except OSError as error:
                self.fail_to_write(error)
        checksum = hashlib.sha256(after.encode()).hexdigest()
        self.end(differs or regrant, before or "", after, path=self.path, checksum=checksum, validated=validated)

    def read(self) -> str | None:
        """The file as it is."""
        try:
            found = files.read(self.path)
            return None if found is None else found.decode()
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"cannot read {self.path}: {error}")

    def may_change_launcher(self, before: str | None) -> None:
        """End the module where runs in flight would be failed by what is to be written; short ones are waited for."""
        deadline = time.monotonic() + (0 if self.module.check_mode else RUNS_MAY_TAKE)
        try:
            document = workspace.parse(before)
            while reason := launcher_change.refusal(document, self.module.params["content"]):
                if time.monotonic() > deadline:
                    self.fail(reason)
                time.sleep(2)
        except (docker_cli.DockerError, workspace.WorkspaceError):
            # Where nothing can be asked nothing runs, and a file that cannot be read is replaced, not argued with.
            return

    def wanted(self, before: str | None) -> str:
        """The file's text; a workspace keeps the user code's entry of ``before``."""
        content: dict[str, Any] = self.module.params["content"]
        if self.kind == "instance":
            document = {key: value for key, value in content.items() if value is not None}
            return workspace.render(self.with_launcher(document))
        try:
            extra = content.get("load_from") or []
            name = self.module.params["core_location"]
            if workspace.core_host({"load_from": extra}, name) is not None:
                self.fail(
                    f"load_from: found an entry with the location_name {name}, which belongs to the releases "
                    "of the user code; expected another name"
                )
            text = workspace.with_extra_locations(before, extra, name)
            host = self.serving_host()
            if workspace.core_host(text, name) is None and host is not None:
                text = workspace.with_core_location(text, host, name=name)
        except workspace.WorkspaceError as error:
            self.fail(f"{self.path}: {error}")
        return text

    def with_launcher(self, document: dict[str, Any]) -> dict[str, Any]:
        """On a machine with a swarm, the form of the Docker launcher that sees to the end of runs of Swarm's, too."""
        try:
            return launcher_change.with_swarm(document) if swarm.network_id() else document
        except docker_cli.DockerError:
            # A machine without an engine has no swarm.
            return document

    def serving_host(self) -> str | None:
        """The container of the release that serves; None before the first."""
        link = self.module.params["current_release"]
        try:
            return CONTAINER_PREFIX + os.path.basename(os.readlink(link)) if link else None
        except OSError:
            return None

    def write(self, after: str) -> str:
        """Put the file there; returns its text, which for a workspace may name a release that came meanwhile."""
        folder = os.path.dirname(os.path.abspath(self.path))
        if not os.path.isdir(folder):
            files.make_folder(folder, files.Owner(0, 0, 0o755))
        if self.kind == "workspace":
            return workspace.update(self.path, self.wanted)[1]
        files.replace(self.path, after.encode(), workspace.OWNER)
        return after

    def validate(self, text: str) -> bool:
        """Ask Dagster; ends the module where it refuses. False where it could not be asked (check mode only)."""
        name = os.path.basename(self.path)
        image = self.module.params["image"]
        try:
            result = docker_cli.run(
                ["run", *CONFINED, "--entrypoint", "python3", image, "-I", "-c", SCRIPT],
                input=json.dumps({"kind": self.kind, "text": text}),
                timeout=self.module.params["timeout"],
            )
            answer = json.loads(result.stdout)
        except docker_cli.DockerError as error:
            if self.module.check_mode and (
                isinstance(error, docker_cli.DockerMissingError) or docker_cli.not_found(error.result)
            ):
                self.module.warn(f"{name}: predicted without asking Dagster, since {image} is not on the machine yet")
                return False
            self.fail(f"cannot ask Dagster whether it accepts {name}: {error}")
        except ValueError:
            self.fail(f"cannot ask Dagster whether it accepts {name}: {image} answered {result.stdout[:200]!r}")
        if "error" in answer:
            self.fail(f"cannot ask Dagster whether it accepts {name}: {image}: {answer['error']}")
        if answer["problems"]:
            told = "\n".join(f"- {problem}" for problem in answer["problems"])
            self.fail(f"Dagster {answer['dagster']} refuses {name}; the file was not touched:\n{told}")
        return True


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "kind": {"type": "str", "choices": ["instance", "workspace"], "required": True},
            "content": {"type": "dict", "required": True},
            "image": {"type": "str", "required": True},
            "current_release": {"type": "path"},
            "core_location": {"type": "str", "default": workspace.CORE},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    if not workspace.available():
        missing = "PyYAML is missing on the machine; the role docker_engine installs it (python3-yaml)"
        if not module.check_mode:
            module.fail_json(msg=missing)
        module.warn(f"{module.params['path']}: predicted without its content, since {missing}")
        module.exit_json(changed=True, path=module.params["path"], checksum="", validated=False)
    DagsterYaml(module).run()


if __name__ == "__main__":
    main()
