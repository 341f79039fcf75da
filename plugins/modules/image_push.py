#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""An image from this machine's engine in a registry."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_push
short_description: Push an image to a registry
description:
  - Has an image of the local engine in a registry under a tag, and tells its digest.
  - A tag that the registry has is left alone. It should therefore name one content for ever, as those of
    M(dataops.dagster_gce.image) do; then an image that was pushed before need not even be built.
  - Logs in to Artifact Registry with the credentials of the other modules for Google Cloud, elsewhere with O(username)
    and O(password), or as Docker is logged in. The login is for this push only; it is in no process's arguments, and
    stays nowhere.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: [dataops.dagster_gce.attributes, dataops.dagster_gce.google]
options:
  project:
    description: Not needed here.
    type: str
    required: false
  image:
    description: The image as the local engine knows it, C(name:tag).
    type: str
    required: true
  repository:
    description: Where it goes, registry and name without a tag.
    type: str
    required: true
  tag:
    description: The tag there. Default is the tag of O(image).
    type: str
  force:
    description: Whether to push although the registry has the tag, which then names this image.
    type: bool
    default: false
  username:
    description: User of a registry that is not Google's.
    type: str
  password:
    description: The user's password or token.
    type: str
  push_timeout:
    description: Seconds that the push may take.
    type: int
    default: 1800
"""

EXAMPLES = r"""
- name: Push to Artifact Registry
  dataops.dagster_gce.image_push:
    image: docker_dagster_core:5f0c8a1b2c3d
    repository: europe-west1-docker.pkg.dev/example-project/dagster-core-prod/docker_dagster_core
  register: pushed

- name: Say how to release it
  ansible.builtin.debug:
    msg: ansible-playbook deploy_core.yml -e dagster_core_image={{ pushed.reference }}
"""

RETURN = r"""
reference:
  description: The image by its digest, C(repository@sha256:…); in check mode by its tag, if it is not there yet.
  returned: success
  type: str
digest:
  description: The digest in the registry; empty in check mode, if it is not there yet.
  returned: success
  type: str
  sample: sha256:0d2b…
tagged:
  description: The image by its tag, C(repository:tag).
  returned: success
  type: str
"""

import base64
import json
import os
import re
import tempfile
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import docker_cli, google_auth, google_resource
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_auth import GoogleAuthenticationError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.image_reference import Reference, split_reference
from ansible_collections.dataops.dagster_gce.plugins.module_utils.registry import Registry, RegistryError, is_secure

GOOGLE = re.compile(r"(?:[a-z0-9-]+\.)*(?:pkg\.dev|gcr\.io)")
DIGEST = re.compile(r"digest: (sha256:[0-9a-f]{64})")

# What engines and registries say, and what it means to the reader; the first that matches wins.
CAUSES = (
    (("immutab", "tag already exists", "cannot overwrite"), "the tag is there and may not be moved; leave out force"),
    (
        ("uploadartifacts", "downloadartifacts"),
        "the caller needs roles/artifactregistry.writer on the repository, which has to exist",
    ),
    (
        ("name unknown", "repository_not_found", 'repository "', "name_unknown"),
        "there is no such repository; playbooks/provision.yml makes it",
    ),
    (("unauthorized", "denied", "forbidden", "authentication required", "no basic auth"), "the login may not write"),
    (("does not exist", "no such image", "not exist locally"), "the local engine has no such image"),
    (
        ("no such host", "dial tcp", "i/o timeout", "connection refused", "connection reset", "x509", "eof",
         "tls handshake", "server gave http response", "awaiting headers"),
        "the engine has no connection to the registry: check its network, proxy and certificates",
    ),
)  # fmt: skip


def cause_of(said: str) -> str:
    """What went wrong, in one sentence."""
    lowered = said.lower()
    return next(
        (cause for needles, cause in CAUSES if any(each in lowered for each in needles)), "see what Docker said"
    )


class ImagePush:
    """The module's work; every method that fails ends the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.options: dict[str, Any] = module.params
        self.parts = self.split()
        self.tagged = f"{self.parts.repository}:{self.parts.tag}"
        self.host = self.parts.registry

    def split(self) -> Reference:
        """Registry, repository and tag."""
        tag = self.options["tag"]
        if tag is None:
            last = self.options["image"].rpartition("/")[2].partition("@")[0]
            tag = last.partition(":")[2]
            if not tag:
                self.fail(f"tag: found nothing, and image {self.options['image']!r} has none; expected a tag")
        try:
            parts = split_reference(f"{self.options['repository']}:{tag}")
        except ValueError as error:
            self.fail(f"repository: {error}")
        if parts.registry == "docker.io" and not parts.repository.startswith("docker.io/"):
            self.fail(
                f"repository: found {self.options['repository']!r}; expected one that begins with a registry's host"
            )
        return parts

    def run(self) -> None:
        """Ask the registry, push if needed, end the module."""
        try:
            login = self.login()
            before = self.registry(login).digest(self.path, self.parts.tag)
            if before and not self.options["force"]:
                self.done(before, changed=False)
            if self.module.check_mode:
                self.done(before if before else "", changed=True)
            pushed = self.push(login)
            after = self.registry(login).digest(self.path, self.parts.tag)
        except RegistryError as error:
            cause = cause_of(str(error)) if "artifactregistry." in str(error) else ""
            self.fail(f"{error}{cause and '. ' + cause[0].upper() + cause[1:]}")
        except (GoogleAuthenticationError, docker_cli.DockerError) as error:
            self.fail(str(error))
        if after != pushed:
            found = after or "nothing"
            self.fail(
                f"{self.tagged} names {found} after {pushed} was pushed; did somebody else push at the same time?"
            )
        self.done(after, changed=after != before)

    @property
    def path(self) -> str:
        """The repository without its registry."""
        return self.parts.repository.partition("/")[2]

    def registry(self, login: tuple[str, str] | None) -> Registry:
        """The registry as the engine sees it."""
        try:
            result = docker_cli.run(["info", "--format", "{{json .RegistryConfig}}"])
            engine = json.loads(result.stdout) or {}
        except (docker_cli.DockerMissingError, docker_cli.DockerUnreachableError, ValueError):
            # Whether the tag is there can be said without an engine.
            engine = {}
        return Registry(self.host, login, secure=is_secure(self.host, engine))

    def login(self) -> tuple[str, str] | None:
        """User and password; None to go without, or as Docker is logged in."""
        if self.options["username"]:
            return self.options["username"], self.options["password"] or ""
        if GOOGLE.fullmatch(self.host):
            return "oauth2accesstoken", google_auth.access_token(self.options)
        return None

    def push(self, login: tuple[str, str] | None) -> str:
        """Push; returns the digest that Docker tells."""
        docker_cli.run(["tag", self.options["image"], self.tagged])
        # In memory where that can be: a play that is killed leaves no login on a disk.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="image-push-", dir=memory) as folder:
            environment = {}
            if login:
                environment = self.own_configuration(folder, login)
            result = docker_cli.run(
                ["push", self.tagged], env=environment, timeout=self.options["push_timeout"], check=False
            )
        said = result.stdout + result.stderr
        found = DIGEST.search(result.stdout)
        if not result.ok or found is None:
            last = docker_cli.last_lines(result.stderr or said, 5)
            self.fail(f"cannot push {self.tagged}: {cause_of(said)}.\nDocker said: {last}")
        return found[1]

    def own_configuration(self, folder: str, login: tuple[str, str]) -> dict[str, str]:
        """A Docker configuration with this login only, as environment variables."""
        content = {"auths": {self.host: {"auth": base64.b64encode(":".join(login).encode()).decode()}}}
        path = os.path.join(folder, "config.json")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as stream:
            json.dump(content, stream)
        environment = {"DOCKER_CONFIG": folder}
        if not os.environ.get("DOCKER_HOST"):
            # Which engine is meant may stand in the configuration that is left out here.
            context = docker_cli.run(["context", "inspect", "--format", "{{.Endpoints.docker.Host}}"], check=False)
            if context.ok and context.stdout.strip():
                environment["DOCKER_HOST"] = context.stdout.strip()
        return environment

    def done(self, digest: str, *, changed: bool) -> NoReturn:
        """End the module."""
        reference = f"{self.parts.repository}@{digest}" if digest else self.tagged
        self.module.exit_json(
            changed=changed,
            reference=reference,
            digest=digest,
            tagged=self.tagged,
            diff={
                "before": "" if changed else f"{self.tagged} {digest}\n",
                "after": f"{self.tagged} {digest}".strip() + "\n",
            },
        )

    def fail(self, message: str) -> NoReturn:
        """End the module with an error."""
        self.module.fail_json(msg=message)


def main() -> None:
    """Run the module."""
    shared = google_auth.argument_spec()
    module = AnsibleModule(
        argument_spec={
            **shared,
            "project": {"type": "str"},
            "image": {"type": "str", "required": True},
            "repository": {"type": "str", "required": True},
            "tag": {"type": "str"},
            "force": {"type": "bool", "default": False},
            "username": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "push_timeout": {"type": "int", "default": 1800},
        },
        required_together=[("username", "password")],
        supports_check_mode=True,
    )
    google_resource.require_libraries(module)
    ImagePush(module).run()


if __name__ == "__main__":
    main()
