#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""A host in an ssh_config and a known_hosts of their own."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_host
short_description: A host in an ssh_config and a known_hosts of their own
description:
  - Writes how a machine is reached into O(path)C(/ssh_config), and its host keys into O(path)C(/known_hosts), so that
    C(ssh -F PATH/ssh_config HOST) works and checks the machine's identity.
  - Runs on the controller. Blocks of other hosts stay as they are; several runs at once wait for each other.
  - The host keys stand under a name of their own (O(alias)), since addresses are given to other machines later.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: dataops.dagster_gce.attributes
attributes:
  check_mode:
    details: Also where the folder is not there yet.
options:
  path:
    description: The folder of the two files. It is made if it is missing, for its owner alone.
    type: path
    required: true
  name:
    description: The host's name in the inventory.
    type: str
    required: true
  state:
    description: Whether the host has to be in the files.
    type: str
    choices: [present, absent]
    default: present
  alias:
    description: The name of the host keys. Required for O(state=present).
    type: str
  host_keys:
    description:
      - The host keys, each C(TYPE BASE64). Required for O(state=present).
      - The file keeps those that it has while the machine still has every one of them; more keys are no change.
    type: list
    elements: str
  options:
    description: More options of ssh_config, as C(HostName) or C(ProxyCommand). Those with an empty value are left out.
    type: dict
    default: {}
  jump:
    description:
      - The hosts in between, as C(ssh -J) takes them.
      - How they are reached is read from the user's own C(~/.ssh/config).
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Reach the machine through its address
  dataops.dagster_gce.ssh_host:
    path: "{{ inventory_dir }}/.ssh"
    name: dagster-prod
    alias: gce-1234567890
    host_keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4"]
    options: {HostName: 203.0.113.7, User: ansible}
"""

RETURN = r"""
ssh_config:
  description: The file for C(ssh -F).
  returned: success
  type: str
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files

HEAD = "# Written by dataops.dagster_gce; blocks of hosts are replaced whole.\n"
KEY = re.compile(r"(ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,3}")


def with_block(text: str, name: str, lines: list[str]) -> str:
    """The text of a file with the host's block holding ``lines``; without one, if there are none."""
    begin, end = f"# BEGIN {name}", f"# END {name}"
    block = "\n".join([begin, *lines, end]) + "\n" if lines else ""
    pattern = re.compile(rf"^{re.escape(begin)}\n.*?^{re.escape(end)}\n?", re.MULTILINE | re.DOTALL)
    if pattern.search(text):
        return pattern.sub(lambda _match: block, text, count=1)
    return (text or (HEAD if block else "")) + block


def kept_keys(text: str, name: str, wanted: list[str]) -> list[str]:
    """The host's keys that the file has, as long as the machine has every one of them; else those that are wanted.

    A new machine makes its keys one after the other, and its RSA key takes seconds: one that comes later is no change.
    """
    found = re.search(rf"^# BEGIN {re.escape(name)}\n(.*?)^# END {re.escape(name)}$", text, re.MULTILINE | re.DOTALL)
    known = found[1].splitlines() if found else []
    return known if known and set(known) <= set(wanted) else wanted


def config_lines(name: str, alias: str, known_hosts: str, options: dict[str, str], jump: str) -> list[str]:
    """The host's part of ssh_config, and that of the hosts in between."""
    given = {key: value for key, value in options.items() if value not in (None, "")}
    fixed = {
        "HostKeyAlias": alias,
        "UserKnownHostsFile": quoted(known_hosts),
        "GlobalKnownHostsFile": "none",
        "StrictHostKeyChecking": "yes",
        # The name of the keys says which machine it is; an address beside it would only grow old.
        "CheckHostIP": "no",
        "UpdateHostKeys": "no",
        # Google's agent restarts sshd a moment after a new machine lets the first login in.
        "ConnectionAttempts": "3",
    }
    if jump:
        fixed["ProxyJump"] = jump
    # ssh -F forgets the user's own file, in which the hosts in between stand.
    hops = [re.sub(r"^.*@|:\d+$", "", hop.removeprefix("ssh://")) for hop in jump.split(",") if hop]
    between = [line for hop in hops for line in (f"Host {hop}", "  Include ~/.ssh/config")]
    return [f"Host {name}", *(f"  {key} {value}" for key, value in {**given, **fixed}.items()), *between]


def quoted(path: str) -> str:
    """A path as a word of ssh_config; percent signs would be tokens."""
    return '"' + path.replace("%", "%%") + '"'


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """Hold the folder's lock: forks of Ansible write for several hosts at once."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "alias": {"type": "str"},
            "host_keys": {"type": "list", "elements": "str", "no_log": False},
            "options": {"type": "dict", "default": {}},
            "jump": {"type": "str", "default": ""},
        },
        required_if=[("state", "present", ("alias", "host_keys"))],
        supports_check_mode=True,
    )
    params = module.params
    wrong = [key for key in params["host_keys"] or [] if not KEY.fullmatch(key)]
    if wrong or (params["state"] == "present" and not params["host_keys"]):
        found = repr(wrong[0]) if wrong else "an empty list"
        module.fail_json(msg=f"host_keys: found {found}; expected public keys as TYPE BASE64")
    if re.search(r"[\s#*?!]", params["name"]):
        module.fail_json(msg=f"name: found {params['name']!r}; expected a host's name without spaces and wildcards")

    folder = os.path.abspath(params["path"])
    config, known_hosts = os.path.join(folder, "ssh_config"), os.path.join(folder, "known_hosts")
    lines: dict[str, list[str]] = {config: [], known_hosts: []}
    if params["state"] == "present":
        options = {key: str(value) for key, value in params["options"].items() if value is not None}
        lines[config] = config_lines(params["name"], params["alias"], known_hosts, options, params["jump"])
        lines[known_hosts] = [f"{params['alias']} {key}" for key in sorted(params["host_keys"])]
    private = files.Owner(os.geteuid(), os.getegid(), 0o600)
    folder_owner = files.Owner(private.uid, private.gid, 0o700)

    changed = False
    diffs = []
    exists = os.path.isdir(folder)
    try:
        if not exists and params["state"] == "present":
            changed = True
            if not module.check_mode:
                files.make_folder(folder, folder_owner)
                exists = True
        with locked(folder) if exists and not module.check_mode else contextlib.nullcontext():
            for path, wanted in lines.items():
                before = (files.read(path) or b"").decode()
                keys = kept_keys(before, params["name"], wanted) if path == known_hosts else wanted
                after = with_block(before, params["name"], keys)
                differs = before != after or (bool(before) and files.differs(path, private))
                changed = changed or differs
                diffs.append({"before_header": path, "after_header": path, "before": before, "after": after})
                if differs and not module.check_mode:
                    files.replace(path, after.encode(), private)
    except OSError as error:
        module.fail_json(msg=f"cannot write {error.filename or folder}: {error.strerror}")
    module.exit_json(changed=changed, ssh_config=config, diff=diffs)


if __name__ == "__main__":
    main()
