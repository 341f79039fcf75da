#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Hardens a machine in one remote task."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_hardening
short_description: Packages, files and settings that harden a machine, in one task
version_added: 1.0.0
description:
  - Brings each part to what the options say. A part that is not present loses its files and what they brought; values
    that the kernel has already got stay until the next boot.
  - sshd and nft check their new configuration before it is put in place. A new sshd configuration undoes itself unless
    O(confirm_ssh) follows within O(ssh_undo_seconds).
  - On a machine that shares its kernel (a container), settings of the whole kernel are left out.
  - The role host_hardening says what the parts hold.
author: dataops (@dataops)
extends_documentation_fragment:
  - dataops.dagster_gce.attributes
options:
  parts:
    description: The parts.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Which one.
        type: str
        required: true
        choices: [upgrades, ssh, sysctl, core_dumps, journal, firewall]
      present:
        description: Whether it has to be there.
        type: bool
        default: true
      packages:
        description: Packages of the distribution that it needs. They stay where the part goes.
        type: list
        elements: str
        default: []
      files:
        description: Its files, root's; folders are made.
        type: list
        elements: dict
        default: []
        suboptions:
          path:
            description: Where it stands.
            type: path
            required: true
          content:
            description: What it holds.
            type: str
            required: true
          mode:
            description: Its mode, quoted octal.
            type: str
            default: "0644"
  sysctl:
    description: The kernel's settings, of the part C(sysctl).
    type: dict
    default: {}
  sysctl_path:
    description: The file that holds them.
    type: path
    default: /etc/sysctl.d/90-dagster-gce.conf
  ports:
    description: TCP ports that stay open beside sshd's own, of the part C(firewall).
    type: list
    elements: int
    default: []
  peer_ports:
    description: TCP ports that the rules of the part C(firewall) leave open to some machines only.
    type: list
    elements: int
    default: []
  closes_ports:
    description:
      - Whether the firewall's rules close every other port. If so, a program that listens on another one is an error.
    type: bool
    default: false
  ssh_undo_seconds:
    description: How long a new sshd configuration waits for O(confirm_ssh).
    type: int
    default: 120
  confirm_ssh:
    description: Only say that a login works with the new sshd configuration.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: No core dumps
  dataops.dagster_gce.host_hardening:
    parts:
      - name: core_dumps
        files:
          - path: /etc/security/limits.d/90-dagster-gce.conf
            content: "* hard core 0\n"

- name: A login works
  dataops.dagster_gce.host_hardening:
    confirm_ssh: true
"""

RETURN = r"""
ssh_changed:
  description: Whether sshd has a new configuration that waits to be confirmed.
  returned: success
  type: bool
left_out:
  description: Settings that belong to a kernel which this machine shares with others.
  returned: success
  type: list
  elements: str
"""

import contextlib
import os
from collections.abc import Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files, hardening
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import gateway_place

UPGRADE_TIMERS = ("apt-daily.timer", "apt-daily-upgrade.timer")


class Hardening:
    """The module's work."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.machine = hardening.Machine(self.run)
        self.changed = False
        self.ssh_changed = False
        self.left_out: list[str] = []
        self.diffs: list[dict[str, str]] = []

    def run(self, arguments: Sequence[str]) -> tuple[int, str, str]:
        """Run a program for `hardening.Machine`."""
        status, output, errors = self.module.run_command(list(arguments), handle_exceptions=False)
        return int(status), str(output), str(errors)

    def apply(self) -> None:
        """Bring every part to what it should be; nothing is touched before every check has passed."""
        parts = [self._part(each) for each in self.module.params["parts"]]
        missing = self.machine.missing([name for part in parts if part.present for name in part.packages])
        if missing:
            self.note("packages", "", "".join(f"{name}\n" for name in missing))
            if not self.module.check_mode:
                self.machine.install(missing)
        parts = [self._finished(each) for each in parts]
        work = [(part, part.differing()) for part in parts]
        for part, differing in work:
            self._check(part, differing, bool(missing))
        for part, differing in work:
            for each in differing:
                before = files.read(each.path)
                self.note(each.path, _text(before), _text(each.content) if part.present else "")
            getattr(self, f"_apply_{part.name}", self._apply_files)(part, differing)

    def _part(self, given: dict[str, Any]) -> hardening.Part:
        found = [
            hardening.File(each["path"], each["content"].encode(), int(each["mode"], 8)) for each in given["files"]
        ]
        return hardening.Part(given["name"], found, given["packages"], given["present"])

    def _finished(self, part: hardening.Part) -> hardening.Part:
        """The part with what only the machine knows."""
        if part.name == "sysctl":
            self.sysctl = {name: str(value) for name, value in self.module.params["sysctl"].items()}
            if self.machine.in_container():
                self.left_out = sorted(name for name in self.sysctl if not name.startswith(hardening.NAMESPACED))
                self.sysctl = {name: value for name, value in self.sysctl.items() if name not in self.left_out}
            text = "# Ansible managed: dataops.dagster_gce.host_hardening\n"
            text += "".join(f"{name} = {value}\n" for name, value in sorted(self.sysctl.items()))
            part.files = [hardening.File(self.module.params["sysctl_path"], text.encode())]
        if part.name == "firewall":
            self.open = sorted({*self.machine.sshd_ports(), *self.module.params["ports"]})
            ports = ", ".join(map(str, self.open))
            self.rules = "".join(
                each.content.decode() for each in part.files if each.path == hardening.FIREWALL_RULES
            ).replace("@PORTS@", ports)
            part.files = [
                hardening.File(each.path, hardening.stamped(self.rules).encode(), each.mode)
                if each.path == hardening.FIREWALL_RULES
                else each
                for each in part.files
            ]
        return part

    def _check(self, part: hardening.Part, differing: list[hardening.File], lacks_packages: bool) -> None:
        if not part.present or not differing:
            return
        if part.name == "ssh":
            for each in differing:
                self.machine.check_sshd(each)
            if not os.environ.get("SUDO_USER") and b"PermitRootLogin no" in differing[0].content:
                raise hardening.HardeningError(
                    "host_hardening_ssh: found a play that logs in as root; expected another user with sudo, since "
                    "PermitRootLogin no would lock this one out. Connect as another user, or set "
                    "host_hardening_ssh_permit_root: prohibit-password. Nothing was changed"
                )
        if part.name == "firewall" and not (lacks_packages and self.module.check_mode):
            self.machine.check_rules(hardening.stamped(self.rules))
            # A gateway that this play is about to take away is no surprise.
            gateway = [int(port) for port in gateway_place.state().get("ports", [])]
            known = [*self.open, *gateway, *self.module.params["peer_ports"]]
            others = self.machine.listeners(known) if self.module.params["closes_ports"] else []
            if others:
                raise hardening.HardeningError(
                    f"host_hardening_open_ports: found {', '.join(others)}, which the firewall would close; expected "
                    "its port in host_hardening_open_ports, or host_hardening_firewall: false. Nothing was changed"
                )

    def _apply_files(self, part: hardening.Part, differing: list[hardening.File]) -> None:
        for each in differing:
            self.changed = True
            if self.module.check_mode:
                continue
            if part.present:
                folder = os.path.dirname(each.path)
                if not os.path.isdir(folder):
                    files.make_folder(folder, files.Owner(0, 0, 0o755))
                files.replace(each.path, each.content, each.owner)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(each.path)

    def _apply_upgrades(self, part: hardening.Part, differing: list[hardening.File]) -> None:
        self._apply_files(part, differing)
        if differing and not self.module.check_mode:
            self.machine.systemctl("daemon-reload")
            self.machine.systemctl("try-restart", *UPGRADE_TIMERS)
        idle = [name for name in UPGRADE_TIMERS if part.present and not self.machine.enabled(name)]
        if idle:
            self.note("systemd", "", "".join(f"{name} runs\n" for name in idle))
            if not self.module.check_mode:
                self.machine.systemctl("enable", "--now", *idle)

    def _apply_ssh(self, part: hardening.Part, differing: list[hardening.File]) -> None:
        if not differing:
            return
        if not self.module.check_mode:
            self.machine.undo_ssh_later(differing[0].path, self.module.params["ssh_undo_seconds"])
        self._apply_files(part, differing)
        self.ssh_changed = True
        if not self.module.check_mode:
            self.machine.reload_sshd()

    def _apply_sysctl(self, part: hardening.Part, differing: list[hardening.File]) -> None:
        self._apply_files(part, differing)
        now = self.machine.sysctl_differs(self.sysctl) if part.present else {}
        if now:
            self.note(
                "kernel settings",
                "".join(f"{name} = {value}\n" for name, value in now.items()),
                "".join(f"{name} = {self.sysctl[name]}\n" for name in now),
            )
        if not self.module.check_mode:
            for name in now:
                self.machine.set_sysctl(name, self.sysctl[name])

    def _apply_core_dumps(self, part: hardening.Part, differing: list[hardening.File]) -> None:
        self._apply_files(part, differing)
        if differing and not self.module.check_mode:
            self.machine.systemctl("daemon-reload")

    def _apply_journal(self, part: hardening.Part, differing: list[hardening.File]) -> None:
        self._apply_files(part, differing)
        if differing and not self.module.check_mode:
            self.machine.systemctl("restart", "systemd-journald.service")
            self.machine.call("journalctl", "--flush")

    def _apply_firewall(self, part: hardening.Part, differing: list[hardening.File]) -> None:
        unit = hardening.FIREWALL_UNIT
        if not part.present:
            if differing and not self.module.check_mode:
                self.machine.succeeds("systemctl", "disable", "--now", unit)
            self._apply_files(part, differing)
            if differing and not self.module.check_mode:
                self.machine.systemctl("daemon-reload")
            return
        self._apply_files(part, differing)
        loaded = self.machine.rules_loaded(hardening.stamp(self.rules))
        enabled = self.machine.enabled(unit)
        if not loaded and not differing:
            self.note("nftables", "the rules are not loaded\n", "the rules are loaded\n")
        if loaded and enabled and not differing:
            return
        self.changed = True
        if not self.module.check_mode:
            self.machine.systemctl("daemon-reload")
            self.machine.systemctl("enable", unit)
            self.machine.systemctl("restart", unit)

    def note(self, what: str, before: str, after: str) -> None:
        """One change, for the diff."""
        self.changed = True
        self.diffs.append({"before_header": what, "after_header": what, "before": before, "after": after})


def _text(content: bytes | None) -> str:
    return (content or b"").decode("utf-8", "replace")


def main() -> None:
    """Run the module."""
    file = {
        "path": {"type": "path", "required": True},
        "content": {"type": "str", "required": True},
        "mode": {"type": "str", "default": "0644"},
    }
    part = {
        "name": {
            "type": "str",
            "required": True,
            "choices": ["upgrades", "ssh", "sysctl", "core_dumps", "journal", "firewall"],
        },
        "present": {"type": "bool", "default": True},
        "packages": {"type": "list", "elements": "str", "default": []},
        "files": {"type": "list", "elements": "dict", "default": [], "options": file},
    }
    arguments: dict[str, Any] = {
        "parts": {"type": "list", "elements": "dict", "default": [], "options": part},
        "sysctl": {"type": "dict", "default": {}},
        "sysctl_path": {"type": "path", "default": "/etc/sysctl.d/90-dagster-gce.conf"},
        "ports": {"type": "list", "elements": "int", "default": []},
        "peer_ports": {"type": "list", "elements": "int", "default": []},
        "closes_ports": {"type": "bool", "default": False},
        "ssh_undo_seconds": {"type": "int", "default": 120},
        "confirm_ssh": {"type": "bool", "default": False},
    }
    module = AnsibleModule(arguments, supports_check_mode=True)
    task = Hardening(module)
    if module.params["confirm_ssh"]:
        # Nothing to undo any more is what was asked for, and no change of the machine.
        if not module.check_mode:
            task.machine.keep_ssh()
        module.exit_json(changed=False, ssh_changed=False, left_out=[])
    try:
        task.apply()
    except (hardening.HardeningError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=task.changed, ssh_changed=task.ssh_changed, left_out=task.left_out, diff=task.diffs)


if __name__ == "__main__":
    main()
