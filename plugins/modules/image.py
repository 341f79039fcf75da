#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""One image on the machine: pulled by its reference, or built from files of the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image
short_description: One image on the machine, pulled or built
description:
  - Pulls an image by its reference, or builds it from files of the controller under a tag that is their hash.
  - Files that did not change give the tag that is already there, which costs one remote call and no transfer.
  - Builds with BuildKit (docker buildx). Nothing needs to be installed beside the docker command.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: dataops.dagster_gce.attributes
attributes:
  check_mode:
    details: Works on a machine that has no Docker yet, too.
  diff_mode:
    details: Shows the reference.
  idempotent:
    details: An image that is there is left alone.
options:
  name:
    description: Name of the image that is built, without a tag. Ignored for O(reference).
    type: str
  reference:
    description:
      - Image to pull, by tag or digest. The tag C(latest) is refused, since nobody could say what runs nor go back.
      - Excludes O(source).
    type: str
  pull:
    description:
      - When to ask the registry about a tag. A tag can move, so C(always) is the way to get what it names now.
      - A digest names one image for ever and is pulled only where it is missing, whatever stands here.
    type: str
    choices: [always, missing]
    default: always
  source:
    description: Folder on the controller; O(include), O(exclude) and O(dockerfile) are relative to it.
    type: path
  include:
    description:
      - Files, folders and globs that the build sees. Each has to match something.
      - Secrets are refused by name (C(.env*), C(*.pem), C(service-account*.json), C(files/secrets)) and by content
        (private keys).
    type: list
    elements: str
    default: []
  exclude:
    description: Globs of paths that are left out.
    type: list
    elements: str
    default: []
  dockerfile:
    description: The Dockerfile, in O(source).
    type: str
    default: Dockerfile
  build_args:
    description: Build arguments; part of the hash. They stay readable in the image's history, so no secrets.
    type: dict
    default: {}
  unhashed_build_args:
    description:
      - Build arguments that say from where something is fetched and not what (a proxy, a mirror); not part of the hash.
    type: dict
    default: {}
  network:
    description: Network of the build's RUN steps.
    type: str
    choices: [default, host, none]
    default: default
  cache_from:
    description:
      - Where BuildKit finds what an earlier build left, as C(type=local,src=/var/cache/build) or a registry's image.
      - What is not there is built.
    type: list
    elements: str
    default: []
  cache_to:
    description:
      - Where BuildKit leaves its cache for the next build, as C(type=local,dest=/var/cache/build,mode=max).
      - All but C(type=inline) need another builder than the engine's own, which the environment variable
        BUILDX_BUILDER names.
    type: list
    elements: str
    default: []
  log:
    description: File on the machine that takes the build's output while it runs.
    type: path
    default: /var/log/dataops-dagster-image.log
  ignore_disk:
    description: Whether to pull or build although the disk guard refuses it for want of room.
    type: bool
    default: false
  prefetch:
    description:
      - Images that later tasks need. Where this one has to be pulled or built, the engine begins to pull those that are
        missing at the same time. Nobody waits for them here; what is wrong with one is said by the task that needs it.
    type: list
    elements: str
    default: []
    version_added: 1.1.0
  timeout:
    description: Seconds that a pull or a build may take.
    type: int
    default: 1800
  content_hash:
    description: Set by the action.
    type: str
  context:
    description: Set by the action, the packed files on the machine.
    type: path
"""

EXAMPLES = r"""
- name: Build the user code's image
  dataops.dagster_gce.image:
    name: docker_dagster_core
    source: "{{ playbook_dir }}"
    include: [dagster_core, requirements/dagster_core.txt]
    dockerfile: files/docker/dockerfile_dagster_core
  register: built

- name: Pull it by digest
  dataops.dagster_gce.image:
    reference: registry.example.com/team/docker_dagster_core@sha256:0d2b…
"""

RETURN = r"""
reference:
  description:
    - What to run. C(name:<first 12 of the content hash>) for a build, C(repository@sha256:…) for a pull, so that it
      keeps naming this image also when the tag moves.
  returned: success
  type: str
  sample: docker_dagster_core:5f0c8a1b2c3d
requested:
  description: The reference that was asked for, with its tag.
  returned: success
  type: str
id:
  description: The image's id; empty in check mode where the image is not there yet.
  returned: success
  type: str
  sample: sha256:10f59988…
digest:
  description: The repository digest (C(repository@sha256:…)); empty for an image that was built on the machine.
  returned: success
  type: str
content_hash:
  description: Hash over what the image was built from; empty for a pull.
  returned: success
  type: str
"""

import os
import re
import subprocess
import time
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli, image_pull
from ansible_collections.dataops.dagster_gce.plugins.module_utils.image_reference import Reference, split_reference
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import guard_disks

CONTENT_LABEL = "dataops.dagster_gce.content_hash"


def failing_step(output: str, limit: int = 40) -> str:
    """The part of BuildKit's plain output that tells which step failed, why, and where in the Dockerfile it stands."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].startswith(" > ["):
            return "\n".join(lines[index:][-limit:])
    return "\n".join(lines[-limit:])


class Image:
    """The module's work; every method that fails ends the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.options: dict[str, Any] = module.params

    def run(self) -> None:
        """Pull or build."""
        if bool(self.options["reference"]) == bool(self.options["content_hash"]):
            found = "both" if self.options["reference"] else "neither"
            self.fail(f"expected either reference (pull) or source (build), found {found}")
        try:
            if self.options["reference"]:
                self.pull()
            else:
                self.build()
        except docker_cli.DockerMissingError as error:
            if not self.module.check_mode:
                self.fail(str(error))
            requested = self.options["reference"] or self.built_reference
            self.done(None, requested, changed=True, warning=f"{requested}: predicted, since {error}")
        except (docker_cli.DockerError, image_pull.PullError) as error:
            self.fail(str(error))

    @property
    def built_reference(self) -> str:
        """The tag that stands for the files' hash."""
        return f"{self.options['name']}:{self.options['content_hash'][:12]}"

    # --- pull ---------------------------------------------------------------------------------------------------

    def pull(self) -> None:
        """Get what a reference names."""
        requested: str = self.options["reference"]
        try:
            parts = split_reference(requested)
        except ValueError as error:
            self.fail(f"reference: {error}")
        before = docker_cli.inspect("image", requested)
        if image_pull.settles(before, parts, self.options["pull"]):
            self.done(before, requested, changed=False, parts=parts)
        if self.module.check_mode:
            # Asking the registry means pulling: `docker manifest` knows neither the engine's mirrors nor its logins.
            warning = f"{requested}: the registry was not asked whether the tag has moved" if before else ""
            self.done(before, requested, changed=before is None, parts=parts, warning=warning)
        self.refuse_a_full_disk()
        self.prefetch()
        after = image_pull.fetch(requested, parts, before, self.options["timeout"])
        self.done(after, requested, changed=before is None or before["Id"] != after["Id"], parts=parts, before=before)

    def prefetch(self) -> None:
        """Begin to pull what later tasks need."""
        for reference in self.options["prefetch"]:
            if docker_cli.inspect("image", reference) is None:
                # It outlives the module, so it must hold none of its files: Ansible would wait for their end.
                subprocess.Popen(
                    ["docker", "pull", "--quiet", reference],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )

    def refuse_a_full_disk(self) -> None:
        """PostgreSQL is to have the room that an image would take."""
        found = "" if self.options["ignore_disk"] else guard_disks.refusal()
        if found:
            self.fail(f"{found}; or set dagster_ignore_disk. Nothing was pulled or built.")

    # --- build --------------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Say whether the image is there; if not, ask for its files, and build once they are here."""
        reference = self.built_reference
        before = docker_cli.inspect("image", reference)
        if before or self.module.check_mode:
            self.done(before, reference, changed=before is None)
        self.refuse_a_full_disk()
        if not self.options["context"]:
            # The action sends the files only now that they are needed.
            self.module.exit_json(changed=False, needs_context=True, reference=reference)
        self.prefetch()
        command = ["build", "--progress=plain", "--file", self.options["dockerfile"], "--tag", reference]
        command += ["--label", f"{CONTENT_LABEL}={self.options['content_hash']}"]
        # An attestation makes a list of manifests out of one image, with an id that changes with every build.
        command += ["--provenance=false", "--network", self.options["network"]]
        for name, value in sorted({**self.options["build_args"], **self.options["unhashed_build_args"]}.items()):
            command += ["--build-arg", f"{name}={value}"]
        for option in ("cache_from", "cache_to"):
            for value in self.options[option]:
                command += [f"--{option.replace('_', '-')}", value]
        if os.environ.get("BUILDX_BUILDER"):
            # A builder of its own keeps what it has built to itself, unless it is told otherwise.
            command += ["--load"]
        started = time.time()
        with open(self.options["context"], "rb") as context:
            result = docker_cli.stream(
                [*command, "-"],
                log=self.options["log"],
                stdin=context,
                env={"DOCKER_BUILDKIT": "1"},
                timeout=self.options["timeout"],
            )
        if not result.ok:
            self.fail_build(reference, result.stdout)
        after = docker_cli.inspect("image", reference)
        if after is None:
            self.fail(f"{reference} was built and is not there; see {self.options['log']} on the machine")
        self.done(after, reference, changed=True, seconds=round(time.time() - started, 1))

    def fail_build(self, reference: str, output: str) -> NoReturn:
        """End the module with the step that failed."""
        lowered = output.lower()
        if "buildx component is missing" in lowered or "unknown flag" in lowered:
            self.fail("cannot build: the docker command has no buildx plugin; run the role docker_engine first")
        # Only the engine's own words: a program in a RUN step may say "not found" about anything.
        own = "\n".join(line for line in output.splitlines() if "ERROR: failed to" in line)
        base = re.search(r"source metadata for (\S+):", own)
        cause = image_pull.cause_of(own, f"of the base image {base[1]}", docker_cli.own_platform()) if base else ""
        if "no space left on device" in lowered:
            cause = image_pull.cause_of("no space left on device", "", "")
        self.fail(
            f"cannot build {reference}{': ' + cause if cause else ''}\n{failing_step(output)}\n"
            f"The whole output is on the machine in {self.options['log']}"
        )

    # --- ends ---------------------------------------------------------------------------------------------------

    def done(
        self,
        image: dict[str, Any] | None,
        requested: str,
        *,
        changed: bool,
        parts: Reference | None = None,
        before: dict[str, Any] | None = None,
        warning: str = "",
        seconds: float = 0,
    ) -> NoReturn:
        """End the module with the image that is there, or that would be."""
        digest = docker_cli.repository_digest(image, requested) if image and parts else ""
        if warning:
            self.module.warn(warning)
        self.module.exit_json(
            changed=changed,
            reference=digest or requested,
            requested=requested,
            id=image["Id"] if image else "",
            digest=digest,
            content_hash=self.options["content_hash"] or "",
            seconds=seconds,
            diff={
                "before": f"{requested} {before['Id']}\n" if before else ("" if changed else f"{requested}\n"),
                "after": f"{requested} {image['Id'] if image and before else ''}".strip() + "\n",
            },
        )

    def fail(self, message: str) -> NoReturn:
        """End the module with an error."""
        self.module.fail_json(msg=message)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str"},
            "reference": {"type": "str"},
            "pull": {
                "type": "str",
                "choices": [docker_cli.ALWAYS, docker_cli.MISSING],
                "default": docker_cli.ALWAYS,
            },
            "source": {"type": "path"},
            "include": {"type": "list", "elements": "str", "default": []},
            "exclude": {"type": "list", "elements": "str", "default": []},
            "dockerfile": {"type": "str", "default": "Dockerfile"},
            "build_args": {"type": "dict", "default": {}},
            "unhashed_build_args": {"type": "dict", "default": {}},
            "network": {"type": "str", "choices": ["default", "host", "none"], "default": "default"},
            "cache_from": {"type": "list", "elements": "str", "default": []},
            "cache_to": {"type": "list", "elements": "str", "default": []},
            "log": {"type": "path", "default": "/var/log/dataops-dagster-image.log"},
            "prefetch": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 1800},
            "ignore_disk": {"type": "bool", "default": False},
            "content_hash": {"type": "str"},
            "context": {"type": "path"},
        },
        supports_check_mode=True,
    )
    os.umask(0o077)
    Image(module).run()


if __name__ == "__main__":
    main()
