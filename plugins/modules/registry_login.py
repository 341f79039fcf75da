#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""A credential helper of Docker, and the registries that it is asked for."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_login
short_description: Let Docker ask a credential helper for some registries
description:
  - Installs a credential helper and its settings, and names it for some hosts in a user's Docker configuration.
  - Everything else in that configuration stays as it is. Entries for other hosts that name this helper are taken away.
  - No credential passes through here; the helper fetches one when Docker asks.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: [dataops.dagster_gce.attributes]
options:
  hosts:
    description: Hosts of the registries, with a port if it is not 443.
    type: list
    elements: str
    required: true
  helper:
    description: The helper's name; its program is C(docker-credential-<helper>).
    type: str
    default: gce-metadata
  program:
    description: The program's text.
    type: str
    required: true
  folder:
    description: Folder for the program. It has to be on the PATH of whoever calls Docker.
    type: path
    default: /usr/local/bin
  settings:
    description: What the program reads, as a mapping. No secrets.
    type: dict
    default: {}
  settings_file:
    description: The file that takes the settings.
    type: path
    required: true
  config:
    description: The Docker configuration of the user who pulls.
    type: path
    default: /root/.docker/config.json
"""

EXAMPLES = r"""
- name: Pull from Artifact Registry with the machine's own service account
  dataops.dagster_gce.registry_login:
    hosts: [europe-west1-docker.pkg.dev]
    program: "{{ lookup('ansible.builtin.file', 'docker_credential_gce_metadata.py') }}"
    settings: {mode: attached}
    settings_file: /etc/docker/credential-gce-metadata.json
"""

RETURN = r"""
hosts:
  description: The hosts that the helper is asked for.
  returned: success
  type: list
  elements: str
"""

import json
import os
import re
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files

HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*(:[0-9]+)?")


class RegistryLogin:
    """The module's work; every method that fails ends the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.options: dict[str, Any] = module.params
        self.hosts = sorted(set(self.options["hosts"]))

    def run(self) -> None:
        """Compare three files, write those that differ, end the module."""
        for host in self.hosts:
            if not HOST.fullmatch(host):
                self.fail(
                    f"hosts: found {host!r}; expected a registry's host without scheme and path, with a port if any"
                )
        uid, gid = os.geteuid(), os.getegid()
        config = self.read_config()
        helpers = dict(config.get("credHelpers") or {})
        wanted = self.wanted_helpers(helpers)
        if wanted != helpers:
            config["credHelpers"] = wanted
            if not wanted:
                del config["credHelpers"]
        settings = {**self.options["settings"], "hosts": self.hosts}
        program = os.path.join(self.options["folder"], f"docker-credential-{self.options['helper']}")
        text = self.options["program"].rstrip("\n") + "\n"
        plan = [
            (program, text.encode(), files.Owner(uid, gid, 0o755), 0o755),
            (self.options["settings_file"], _json(settings), files.Owner(uid, gid, 0o644), 0o755),
        ]
        if wanted != helpers:
            # Logins may stand beside our entries, so nobody else reads it.
            plan.append((self.options["config"], _json(config), files.Owner(uid, gid, 0o600), 0o700))
        changes = [entry for entry in plan if files.read(entry[0]) != entry[1] or files.differs(entry[0], entry[2])]
        for path, content, owner, folder_mode in [] if self.module.check_mode else changes:
            try:
                folder = os.path.dirname(path)
                if not os.path.isdir(folder):
                    files.make_folder(folder, files.Owner(uid, gid, folder_mode))
                files.replace(path, content, owner)
            except OSError as error:
                self.fail(f"cannot write {path}: {error.strerror}")
        paths = [entry[0] for entry in changes]
        self.module.exit_json(
            changed=bool(changes),
            hosts=self.hosts,
            diff={
                "before_header": self.options["config"],
                "after_header": self.options["config"],
                "before": _lines(helpers, []),
                "after": _lines(wanted, [path for path in paths if path != self.options["config"]]),
            },
        )

    def wanted_helpers(self, helpers: dict[str, str]) -> dict[str, str]:
        """The table of hosts with ours in it, and without those of ours that are no longer asked for."""
        kept = {host: name for host, name in helpers.items() if name != self.options["helper"]}
        # In the order of before: a table that says the same is no change.
        ours = dict.fromkeys(self.hosts, self.options["helper"])
        return {host: {**kept, **ours}[host] for host in [*helpers, *ours] if host in kept or host in ours}

    def read_config(self) -> dict[str, Any]:
        """The user's Docker configuration; an unreadable one is never overwritten."""
        path = self.options["config"]
        try:
            content = files.read(path)
            config = json.loads(content) if content and content.strip() else {}
        except OSError as error:
            self.fail(f"cannot read {path}: {error.strerror}")
        except ValueError as error:
            self.fail(f"{path}: found a text that is not JSON ({error}); expected Docker's configuration; repair it")
        if not isinstance(config, dict) or not isinstance(config.get("credHelpers") or {}, dict):
            self.fail(f"{path}: expected a mapping with the mapping credHelpers; repair it")
        return config

    def fail(self, message: str) -> NoReturn:
        """End the module with an error."""
        self.module.fail_json(msg=message)


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def _lines(helpers: dict[str, str], written: list[str]) -> str:
    """The table as text, without anything else of the file, which may hold logins."""
    lines = [f"credHelpers {host}: {name}" for host, name in sorted(helpers.items())]
    return "".join(f"{line}\n" for line in [*lines, *(f"(new) {path}" for path in written)])


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "hosts": {"type": "list", "elements": "str", "required": True},
            "helper": {"type": "str", "default": "gce-metadata"},
            "program": {"type": "str", "required": True},
            "folder": {"type": "path", "default": "/usr/local/bin"},
            "settings": {"type": "dict", "default": {}},
            "settings_file": {"type": "path", "required": True},
            "config": {"type": "path", "default": "/root/.docker/config.json"},
        },
        supports_check_mode=True,
    )
    RegistryLogin(module).run()


if __name__ == "__main__":
    main()
