#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""A .env file whose generated secrets survive and whose values are never shown."""

from __future__ import annotations

DOCUMENTATION = r"""
module: env_file
short_description: A .env file with secrets that are made once, on the machine
description:
  - Writes a C(.env) file that Docker Compose reads back exactly, whatever characters the values hold.
  - Secrets that nobody has given are made on the machine with the system's random source; later runs keep them.
  - No value is ever returned or shown, neither in the result nor in the diff. That is why the task needs no C(no_log),
    which would hide its error messages too.
  - Names that are in the file and not in the options are removed.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment:
  - dataops.dagster_gce.attributes
  - dataops.dagster_gce.owned_file
attributes:
  diff_mode:
    details: Shows names, never values.
options:
  path:
    description: The file. Its folder is made (root, 0755) where it is missing.
    type: path
    required: true
  values:
    description: Values that are no secret.
    type: dict
    default: {}
  secrets:
    description: Values that are secret; they win over O(values). An empty one counts as not given.
    type: dict
    default: {}
  generate:
    description: Names that get a random value if neither the options nor the file have one.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The name.
        type: str
        required: true
      length:
        description: How many letters and digits.
        type: int
        default: 40
  initial:
    description:
      - Names whose value counts only when a Docker volume is first filled (PostgreSQL reads C(POSTGRES_PASSWORD) at
        C(initdb) and never again). Once the volume exists, another value is refused, since the file would no longer fit
        the database.
    type: dict
    suboptions:
      volume:
        description: The volume. Without it, the one that holds PostgreSQL's data, by the record of O(initial.root).
        type: str
      root:
        description: The folder in which everything lies.
        type: path
        default: /opt/dagster
      names:
        description: The names, with the Ansible variable that sets each, for the error message.
        type: dict
        required: true
  password_files:
    description:
      - Writes one of the values into a folder of its own, too, as C(pgpass) (libpq's form, 0400) and C(password) (the
        bare text, 0440 for the folder's group). Containers mount the folder and so see a new password while they run.
    type: dict
    suboptions:
      name:
        description: The name.
        type: str
        required: true
      folder:
        description: The folder (0750).
        type: path
        required: true
      uid:
        description: User and group that own folder and files.
        type: int
        required: true
  mode:
    default: "0600"
"""

EXAMPLES = r"""
- name: Write .env
  dataops.dagster_gce.env_file:
    path: /opt/dagster/.env
    values:
      POSTGRES_USER: dagster
      POSTGRES_DB: dagster
    secrets:
      POSTGRES_PASSWORD: "{{ dagster_postgres_password | default('') }}"
    generate:
      - name: POSTGRES_PASSWORD
    initial:
      root: /opt/dagster
      names:
        POSTGRES_PASSWORD: dagster_postgres_password
"""

RETURN = r"""
names:
  description: The names in the file.
  returned: success
  type: list
  elements: str
changed_names:
  description: Names that were added, removed or got another value.
  returned: success
  type: list
  elements: str
generated:
  description: Names whose value was made by this run.
  returned: success
  type: list
  elements: str
"""

import os
import secrets
import string
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    database_password,
    docker_cli,
    dotenv,
    file_task,
    files,
    postgres_volume,
)

# No character that any quoting could hurt; 40 of these 62 are 238 bits.
ALPHABET = string.ascii_letters + string.digits


class EnvFile(file_task.FileTask):
    """The module's work; every method that fails ends the module."""

    def run(self) -> None:
        """Compare, write if needed, end the module."""
        owner = self.owner()
        old_bytes = files.read(self.path)
        try:
            old = dotenv.parse((old_bytes or b"").decode())
        except (dotenv.DotenvError, UnicodeDecodeError) as error:
            what = error if isinstance(error, dotenv.DotenvError) else "found bytes that are not UTF-8"
            self.fail(f"{self.path} on the machine cannot be read: {what}. Correct the line, or move the file away")
        secret = {*self.module.params["secrets"], *(each["name"] for each in self.module.params["generate"])}
        self.module.no_log_values.update(value for name, value in old.items() if name in secret and value)
        wanted, generated = self.wanted(old)
        self.refuse_new_initial_values(old if old_bytes is not None else None, wanted, generated)
        try:
            new_bytes = dotenv.render(wanted, dotenv.HEADER).encode()
        except dotenv.DotenvError as error:
            self.fail(str(error))
        changed_names = [name for name in {**old, **wanted} if old.get(name) != wanted.get(name)]
        rewrite = new_bytes != old_bytes
        changed = rewrite or files.differs(self.path, owner)
        if changed and not self.module.check_mode:
            self.write(new_bytes if rewrite else None, owner)
        self.end(
            self.export(wanted) or changed,
            before=shown(old, set()) if old_bytes is not None else "",
            after=shown(wanted, {name for name in changed_names if name in old}),
            names=list(wanted),
            changed_names=changed_names,
            generated=generated,
        )

    def export(self, wanted: Mapping[str, str]) -> bool:
        """Bring the files that hold one value alone in line with ``.env``; whether they were not."""
        export: dict[str, Any] | None = self.module.params["password_files"]
        if not export:
            return False
        place = (export["folder"], wanted[export["name"]], export["uid"])
        differs = database_password.differs(*place)
        if differs and not self.module.check_mode:
            try:
                database_password.write(*place)
            except OSError as error:
                self.fail(f"cannot write {export['folder']}: {error.strerror}")
        return differs

    def wanted(self, old: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
        """What the file has to hold, and the names whose value is new and random."""
        params: dict[str, Any] = self.module.params
        wanted = {name: self.text(name, value) for name, value in params["values"].items()}
        given = {name: self.text(name, value) for name, value in params["secrets"].items()}
        wanted |= {name: value for name, value in given.items() if value}
        generated = []
        for each in params["generate"]:
            if wanted.get(each["name"]):
                continue
            if old.get(each["name"]):
                wanted[each["name"]] = old[each["name"]]
                continue
            if each["length"] < 16:
                self.fail(f"generate: {each['name']}: found a length of {each['length']}; expected at least 16")
            value = "".join(secrets.choice(ALPHABET) for _ in range(each["length"]))
            self.module.no_log_values.add(value)
            wanted[each["name"]] = value
            generated.append(each["name"])
        return wanted, generated

    def text(self, name: str, value: Any) -> str:
        """A text and nothing else: YAML makes 0123 the number 83, and what was meant is no longer known."""
        if value is None:
            return ""
        if not isinstance(value, str):
            self.fail(f"{name}: found a {type(value).__name__}; expected a text (put the value in quotes)")
        return value

    def refuse_new_initial_values(
        self, old: Mapping[str, str] | None, wanted: Mapping[str, str], generated: list[str]
    ) -> None:
        """A database keeps what it was made with: a file that says otherwise would lock everyone out."""
        initial = self.module.params["initial"]
        if not initial:
            return
        names: dict[str, str] = initial["names"]
        try:
            volume = initial["volume"] or postgres_volume.name(initial["root"])
        except ValueError as error:
            self.fail(str(error))
        if old is None:
            lost = [name for name in names if name in generated]
            if lost and self.exists(volume):
                self.fail(
                    f"{self.path} is missing, but the database's volume {volume} exists: "
                    f"{', '.join(lost)} would be made anew and not fit the database. "
                    f"Put the file back, or set {', '.join(names[name] for name in lost)} to what the database has"
                )
            return
        differing = [name for name in names if name in wanted and old.get(name) != wanted[name]]
        if differing and self.exists(volume):
            told = "; ".join(f"{names[name]}: differs from {name} in {self.path}" for name in differing)
            self.fail(
                f"{told}. The database in the volume {volume} was made with the old value and keeps it. "
                f"Nothing was changed. Take {', '.join(names[name] for name in differing)} back to the old value "
                "(a generated password: leave the variable out); rotate_secrets.yml changes a password, not this play"
            )

    def exists(self, volume: str) -> bool:
        """Whether the volume is there; without Docker there is none."""
        try:
            return docker_cli.inspect("volume", volume) is not None
        except docker_cli.DockerMissingError:
            return False
        except docker_cli.DockerError as error:
            self.fail(f"cannot tell whether the database's volume {volume} exists: {error}")

    def write(self, content: bytes | None, owner: files.Owner) -> None:
        """Put the file there, and its folder if need be; without content only its owner and mode."""
        folder = os.path.dirname(os.path.abspath(self.path))
        try:
            if not os.path.isdir(folder):
                files.make_folder(folder, files.Owner(owner.uid, owner.gid, 0o755))
            if content is None:
                files.give(self.path, owner)
            else:
                files.replace(self.path, content, owner)
        except OSError as error:
            self.fail_to_write(error)


def shown(values: Mapping[str, str], changed: set[str]) -> str:
    """The names, one a line; two different values must not look alike, so a change says so."""
    return "".join(f"{name}=({'changed, ' if name in changed else ''}hidden)\n" for name in values)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "values": {"type": "dict", "default": {}},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "generate": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"name": {"type": "str", "required": True}, "length": {"type": "int", "default": 40}},
            },
            "initial": {
                "type": "dict",
                "options": {
                    "volume": {"type": "str"},
                    "root": {"type": "path", "default": "/opt/dagster"},
                    "names": {"type": "dict", "required": True},
                },
            },
            "password_files": {
                "type": "dict",
                "no_log": False,
                "options": {
                    "name": {"type": "str", "required": True},
                    "folder": {"type": "path", "required": True},
                    "uid": {"type": "int", "required": True},
                },
            },
            "owner": {"type": "int", "default": 0},
            "group": {"type": "int", "default": 0},
            "mode": {"type": "str", "default": "0600"},
        },
        supports_check_mode=True,
    )
    EnvFile(module).run()


if __name__ == "__main__":
    main()
