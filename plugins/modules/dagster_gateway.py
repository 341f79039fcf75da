#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Puts nginx in front of Dagster's webserver in one remote task."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dagster_gateway
short_description: nginx with a certificate and a login in front of Dagster's webserver
version_added: 1.0.0
description:
  - Installs nginx from the distribution, and brings its configuration, certificate and users to what the options say.
  - nginx checks the new configuration before it serves it; if it refuses, the files are as they were.
  - A user whose password is still the same keeps the bcrypt hash, so a second run changes nothing.
  - The role dagster_gateway makes the texts and starts the service that nginx asks who may in.
author: dataops (@dataops)
extends_documentation_fragment:
  - dataops.dagster_gce.attributes
attributes:
  diff_mode:
    details: Of the key and the passwords only whether they change.
options:
  state:
    description:
      - V(absent) removes what this module has put there. Packages stay; nginx runs on only if it has other sites.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: The host name.
    type: str
    default: ""
  port:
    description: Port of HTTPS.
    type: int
    default: 443
  http_port:
    description: Port of HTTP, which only redirects.
    type: int
    default: 80
  packages:
    description: Packages of the distribution that it needs.
    type: list
    elements: str
    default: []
  site:
    description: nginx's configuration, for the level C(http).
    type: str
    default: ""
  first_site:
    description: What of it serves while there is no certificate by ACME yet.
    type: str
    default: ""
  top:
    description: nginx's configuration for its outermost level.
    type: str
    default: ""
  drop_in:
    description: More settings of nginx's unit.
    type: str
    default: ""
  certificate:
    description: The certificate's chain, as PEM text; empty with O(acme).
    type: str
    default: ""
  key:
    description: Its private key, as PEM text; empty with O(acme).
    type: str
    default: ""
  acme:
    description: How to get a certificate by ACME.
    type: dict
    suboptions:
      directory:
        description: URL of the authority's directory.
        type: str
        required: true
      mail:
        description: Where the authority writes to.
        type: str
        default: ""
      ca_file:
        description: File with the certificates to trust when the authority is asked; empty for the system's.
        type: str
        default: ""
  login:
    description: How the service judges who may in, for C(dagster-gce gateway).
    type: dict
    default: {}
  passwords:
    description: The users' passwords by their names.
    type: dict
    default: {}
  cost:
    description: bcrypt's cost; each step doubles the time that a guess takes.
    type: int
    default: 11
  prove:
    description: Only ask the gateway for a page without a login, and fail unless it answers with one of these statuses.
    type: list
    elements: int
    default: []
  prove_seconds:
    description: For how long O(prove) waits for that.
    type: int
    default: 20
"""

EXAMPLES = r"""
- name: Nobody in without a login
  dataops.dagster_gce.dagster_gateway:
    name: dagster.example.com
    prove: [401]

- name: No gateway
  dataops.dagster_gce.dagster_gateway:
    state: absent
"""

RETURN = r"""
login_checksum:
  description: SHA-256 of the file with O(login) and the users' hashes; empty in check mode if it would change.
  returned: success
  type: str
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files, gateway, hardening

ROOT_ONLY = files.Owner(0, 0, 0o600)
READABLE = files.Owner(0, 0, 0o644)
FOLDER = files.Owner(0, 0, 0o700)
HIDDEN = (gateway.KEY, gateway.LOGIN)


class Gateway:
    """The module's work."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.given: dict[str, Any] = module.params
        self.machine = gateway.Machine(self.run)
        self.diffs: list[dict[str, str]] = []
        self.login_checksum = ""

    def run(self, arguments: Sequence[str]) -> tuple[int, str, str]:
        """Run a program for `gateway.Machine`."""
        status, output, errors = self.module.run_command(list(arguments), handle_exceptions=False)
        return int(status), str(output), str(errors)

    # --- there ---

    def present(self) -> None:
        """Bring everything to what the options say; nothing is touched before the ports are known to be free."""
        ports = [self.given["port"], self.given["http_port"]]
        others = self.machine.foreign_listeners(ports)
        if others:
            raise gateway.GatewayError(
                f"dagster_gateway_port, dagster_gateway_http_port: found {', '.join(others)}; expected ports that"
                " nothing but nginx listens on. Nothing was changed"
            )
        known = gateway.state()
        missing = self.machine.missing(self.given["packages"])
        if missing:
            self.note("packages", "", "".join(f"{name}\n" for name in missing))
            if not self.module.check_mode:
                self.machine.install_quietly(missing)
        wanted = self._wanted(known, "nginx" in missing)
        differing = [path for path, (content, owner) in wanted.items() if _differs(path, content, owner)]
        for path in differing:
            self._note_file(path, wanted[path][0])
        welcome = os.path.islink(gateway.DEFAULT_SITE) or ("nginx" in missing and self.module.check_mode)
        if welcome:
            self.note(gateway.DEFAULT_SITE, "the distribution's welcome page\n", "")
        acme = self.given["acme"]
        same = (known.get("acme"), known.get("name")) == ((acme or {}).get("directory", ""), self.given["name"])
        first = bool(acme) and not (same and os.path.exists(gateway.ACME_LIVE))
        if first:
            self.note("certificate", "", f"from {acme['directory']}\n")
        renews = not acme or ("certbot" not in missing and self.machine.enabled(gateway.RENEWAL))
        if not renews:
            self.note(gateway.RENEWAL, "not started, or not enabled\n", "enabled and started\n")
        idle = "nginx" in missing or not self.machine.enabled(gateway.NGINX)
        if idle:
            self.note(gateway.NGINX, "not started, or not enabled\n", "enabled and started\n")
        if self.diffs and not self.module.check_mode:
            self._apply(wanted, differing, first, idle)
            if not renews:
                self.machine.systemctl("enable", "--now", gateway.RENEWAL)

    def _wanted(self, known: dict[str, Any], fresh: bool) -> dict[str, tuple[bytes, files.Owner]]:
        acme = self.given["acme"]
        state = {
            "name": self.given["name"],
            "ports": [self.given["port"], self.given["http_port"]],
            "acme": acme["directory"] if acme else "",
            "certificate": f"{gateway.ACME_LIVE}/fullchain.pem" if acme else gateway.CERTIFICATE,
            # For the way back: whether nginx ran before the gateway came, and whether with its welcome page.
            "ran": known.get("ran", not fresh and self.machine.enabled(gateway.NGINX)),
            "welcome": known.get("welcome", os.path.islink(gateway.DEFAULT_SITE) and not fresh),
        }
        wanted = {
            gateway.SITE: (gateway.with_ipv6(self.given["site"]).encode(), READABLE),
            gateway.TOP: (self.given["top"].encode(), READABLE),
            gateway.DROP_IN: (self.given["drop_in"].encode(), READABLE),
            gateway.LOGIN: (self._login(), ROOT_ONLY),
            gateway.STATE: ((json.dumps(state, indent=1, sort_keys=True) + "\n").encode(), READABLE),
        }
        if acme and acme["ca_file"]:
            text = f"# Ansible managed\n[Service]\nEnvironment=REQUESTS_CA_BUNDLE={acme['ca_file']}\n"
            wanted[gateway.RENEWAL_DROP_IN] = (text.encode(), READABLE)
        if not acme:
            wanted[gateway.CERTIFICATE] = (self.given["certificate"].strip().encode() + b"\n", READABLE)
            wanted[gateway.KEY] = (self.given["key"].strip().encode() + b"\n", ROOT_ONLY)
        return wanted

    def _login(self) -> bytes:
        """The file with the hashes, which in check mode are not known where there is no bcrypt yet."""
        old = _users(files.read(gateway.LOGIN))
        passwords = {str(name): str(word) for name, word in self.given["passwords"].items()}
        if self.module.check_mode and passwords and self.machine.missing(["python3-bcrypt"]):
            found = dict.fromkeys(passwords, "")
        else:
            found = self.machine.hashes(passwords, old, self.given["cost"])
        content = (json.dumps({**self.given["login"], "users": found}, indent=1, sort_keys=True) + "\n").encode()
        if not self.module.check_mode or files.read(gateway.LOGIN) == content:
            self.login_checksum = hashlib.sha256(content).hexdigest()
        return content

    def _apply(
        self, wanted: dict[str, tuple[bytes, files.Owner]], differing: list[str], first: bool, idle: bool
    ) -> None:
        link = os.readlink(gateway.DEFAULT_SITE) if os.path.islink(gateway.DEFAULT_SITE) else ""
        files.make_folder(os.path.dirname(gateway.FOLDER), files.Owner(0, 0, 0o755))
        files.make_folder(gateway.FOLDER, FOLDER)
        for path in wanted:
            if not os.path.isdir(os.path.dirname(path)):
                files.make_folder(os.path.dirname(path), files.Owner(0, 0, 0o755))
        try:
            with gateway.kept(list(wanted)):
                if link:
                    os.unlink(gateway.DEFAULT_SITE)
                for path in differing:
                    files.replace(path, *wanted[path])
                if first:
                    site = gateway.with_ipv6(self.given["first_site"]).encode()
                    files.replace(gateway.SITE, site, READABLE)
                    self.machine.check()
                    self._serve(idle)
                    self.machine.certify(gateway.Acme(name=self.given["name"], **self.given["acme"]))
                    files.replace(gateway.SITE, *wanted[gateway.SITE])
                self.machine.check()
        except BaseException:
            if link and not os.path.lexists(gateway.DEFAULT_SITE):
                os.symlink(link, gateway.DEFAULT_SITE)
            if first:
                # It serves what was taken back.
                self.machine.succeeds("systemctl", "stop" if idle else "reload", gateway.NGINX)
            raise
        # What the other kind of certificate has left.
        if not self.given["acme"]:
            self.machine.forget_certificate()
        for path in {gateway.CERTIFICATE, gateway.KEY, gateway.RENEWAL_DROP_IN} - wanted.keys():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self._serve(idle and not first)

    def _serve(self, idle: bool) -> None:
        self.machine.systemctl("daemon-reload")
        if idle:
            self.machine.systemctl("enable", gateway.NGINX)
        self.machine.systemctl("reload-or-restart", gateway.NGINX)

    # --- gone ---

    def absent(self) -> None:
        """Remove what `present` has put there."""
        known = gateway.state()
        ours = (gateway.SITE, gateway.TOP, gateway.DROP_IN, gateway.RENEWAL_DROP_IN)
        there = [path for path in ours if os.path.lexists(path)]
        for path in there:
            self.note(path, _text(files.read(path)), "")
        if os.path.isdir(gateway.FOLDER):
            self.note(gateway.FOLDER, "certificate, key and users\n", "")
        if not self.diffs or self.module.check_mode:
            return
        for path in there:
            os.unlink(path)
        for path in (gateway.DROP_IN, gateway.RENEWAL_DROP_IN):
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(path))
        if known.get("welcome") and not os.path.lexists(gateway.DEFAULT_SITE):
            os.symlink(gateway.DEFAULT_TARGET, gateway.DEFAULT_SITE)
        if shutil.which("nginx"):
            self.machine.systemctl("daemon-reload")
            if known.get("ran") or self.machine.serves_others():
                self.machine.systemctl("reload-or-restart", gateway.NGINX)
            else:
                self.machine.systemctl("disable", "--now", gateway.NGINX)
        self.machine.forget_certificate()
        shutil.rmtree(gateway.FOLDER, ignore_errors=True)

    # --- told ---

    def note(self, what: str, before: str, after: str) -> None:
        """One change, for the diff."""
        self.diffs.append({"before_header": what, "after_header": what, "before": before, "after": after})

    def _note_file(self, path: str, content: bytes) -> None:
        before = files.read(path)
        if path == gateway.LOGIN:
            self.note(path, _shown(before), _shown(content) + "(and hashes of passwords)\n")
        elif path in HIDDEN:
            self.note(path, "" if before is None else "(hidden)\n", "(hidden, another one)\n")
        else:
            self.note(path, _text(before), _text(content))


def _differs(path: str, content: bytes, owner: files.Owner) -> bool:
    return files.read(path) != content or files.differs(path, owner)


def _users(content: bytes | None) -> dict[str, str]:
    """The hashes in a file that may be anything."""
    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError):
        return {str(name): str(hashed) for name, hashed in json.loads(content or b"{}")["users"].items()}
    return {}


def _shown(content: bytes | None) -> str:
    """The file without its hashes."""
    try:
        found = json.loads(content) if content else None
    except ValueError:
        return "(not JSON)\n"
    if not isinstance(found, dict):
        return ""
    users = found.pop("users", {})
    names = sorted(users) if isinstance(users, dict) else []
    return json.dumps({**found, "users": names}, indent=1, sort_keys=True) + "\n"


def _text(content: bytes | None) -> str:
    return (content or b"").decode("utf-8", "replace")


def main() -> None:
    """Run the module."""
    acme = {
        "directory": {"type": "str", "required": True},
        "mail": {"type": "str", "default": ""},
        "ca_file": {"type": "str", "default": ""},
    }
    arguments: dict[str, Any] = {
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "name": {"type": "str", "default": ""},
        "port": {"type": "int", "default": 443},
        "http_port": {"type": "int", "default": 80},
        "packages": {"type": "list", "elements": "str", "default": []},
        "site": {"type": "str", "default": ""},
        "first_site": {"type": "str", "default": ""},
        "top": {"type": "str", "default": ""},
        "drop_in": {"type": "str", "default": ""},
        "certificate": {"type": "str", "default": ""},
        "key": {"type": "str", "default": "", "no_log": True},
        "acme": {"type": "dict", "options": acme},
        "login": {"type": "dict", "default": {}},
        "passwords": {"type": "dict", "default": {}, "no_log": True},
        "cost": {"type": "int", "default": 11},
        "prove": {"type": "list", "elements": "int", "default": []},
        "prove_seconds": {"type": "int", "default": 20},
    }
    module = AnsibleModule(arguments, supports_check_mode=True)
    given = module.params
    if given["prove"]:
        problem = (
            ""
            if module.check_mode
            else gateway.prove(given["name"], given["port"], given["prove"], given["prove_seconds"])
        )
        if problem:
            expected = ", ".join(map(str, given["prove"]))
            module.fail_json(
                msg=f"https://{given['name']}:{given['port']}/ without a login: {problem}; expected the status"
                f" {expected}. `journalctl -u nginx -u dagster-gce-gateway` and /var/log/nginx/error.log tell more"
            )
        module.exit_json(changed=False, login_checksum="")
    task = Gateway(module)
    try:
        getattr(task, given["state"])()
    except (gateway.GatewayError, hardening.HardeningError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(task.diffs), login_checksum=task.login_checksum, diff=task.diffs)


if __name__ == "__main__":
    main()
