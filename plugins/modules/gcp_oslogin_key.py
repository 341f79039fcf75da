#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""A public SSH key in an OS Login profile."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gcp_oslogin_key
short_description: A public SSH key in an OS Login profile
description:
  - Has a public key in the OS Login profile of a user or a service account, for machines with C(enable-oslogin).
  - Tells the name by which that account logs in.
  - Other keys of the profile stay as they are.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: [dataops.dagster_gce.attributes, dataops.dagster_gce.google]
options:
  key:
    description: The public key, as it stands in its C(.pub) file.
    type: str
    required: true
  user:
    description:
      - Address of the account whose profile it is. Without it, the one that calls, where its credentials tell.
      - An account manages its own profile; another one's only as an administrator of the organisation.
    type: str
  expires_in:
    description:
      - How long the key is good, for example C(12h) (units s, m, h, d). A key that is good for less than half of it
        gets the whole time again.
      - Without it, the key is good until it is taken away.
    type: str
  state:
    description: Whether the key is in the profile.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Let CI in for as long as a deploy takes
  dataops.dagster_gce.gcp_oslogin_key:
    project: example-project
    key: "{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"
    expires_in: 1h
  register: login

- name: Log in by the name that Google gave
  ansible.builtin.set_fact:
    ansible_user: "{{ login.username }}"
"""

RETURN = r"""
username:
  description: Name of the account on machines; empty where Google has given none yet (check mode before the first key).
  returned: success
  type: str
  sample: sa_112233445566778899001
fingerprint:
  description: SHA-256 of the key in hexadecimal digits, Google's name for it.
  returned: success
  type: str
expires:
  description: When the key ends, in UTC; empty for never.
  returned: success
  type: str
  sample: "2026-11-23T12:00:00Z"
"""

import base64
import binascii
import hashlib
import re
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_auth, google_resource
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_client import Client
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
KEY = re.compile(r"(?P<type>(?:ssh|ecdsa|sk)-[A-Za-z0-9@.-]+)\s+(?P<blob>[A-Za-z0-9+/]+={0,2})(?:\s.*)?")


def blob_of(text: str) -> bytes | None:
    """What makes a key this key: neither its comment nor white space; None for a text that is no public key."""
    match = KEY.fullmatch(text.strip())
    if match is None:
        return None
    try:
        blob = base64.b64decode(match["blob"], validate=True)
    except (binascii.Error, ValueError):
        return None
    # The blob begins with the length and name of its type (RFC 4253, 6.6).
    kind = match["type"].encode()
    return blob if blob[: 4 + len(kind)] == len(kind).to_bytes(4, "big") + kind else None


def now() -> float:
    """Seconds since 1970."""
    return time.time()


def seconds(duration: str) -> int | None:
    """``12h`` in seconds; None for a text that is no duration."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", duration)
    return int(match[1]) * UNITS[match[2]] if match else None


class OsLoginKey:
    """The module's work; every method that fails ends the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.options: dict[str, Any] = module.params
        self.lifetime = seconds(self.options["expires_in"]) if self.options["expires_in"] else None
        self.blob = blob_of(self.options["key"]) or b""
        self.fingerprint = hashlib.sha256(self.blob).hexdigest()

    def run(self) -> None:
        """Read the profile, change it if needed, end the module."""
        try:
            self.client = Client(self.options)
        except GoogleError as error:
            google_resource.fail(self.module, error)
        try:
            self.user = self.options["user"] or self.caller()
            profile = self.read()
            name, found = self.find(profile)
            after = self.wanted(found)
            changed = after != found
            if changed and not self.module.check_mode:
                profile = self.change(name, found, after) or profile
        except GoogleError as error:
            google_resource.fail(self.module, error, self.client)
        self.module.exit_json(
            changed=changed,
            username=username(profile),
            fingerprint=self.fingerprint,
            expires=_time(after or ""),
            diff={
                "before_header": f"OS Login profile of {self.user}",
                "after_header": f"OS Login profile of {self.user}",
                "before": self.shown(found),
                "after": self.shown(after),
            },
        )

    def caller(self) -> str:
        """The account that the credentials belong to, where they say so."""
        # gcloud writes the account into a person's application default credentials.
        account = getattr(self.client.session.credentials, "account", "") or ""
        member = self.client.member or (f"user:{account}" if account else None)
        if not member:
            self.module.fail_json(
                msg="user: found nothing, and the credentials do not say whose they are; expected the account's address"
            )
        return str(member).partition(":")[2]

    @property
    def path(self) -> str:
        """The profile's."""
        return f"users/{quote(self.user, safe='@')}"

    def read(self) -> dict[str, Any]:
        """The login profile; an account that has never had a key may have none."""
        query = {"projectId": self.options["project"]}
        what = f"read the OS Login profile of {self.user}"
        return self.client.get("oslogin", f"{self.path}/loginProfile", query=query, what=what) or {}

    def find(self, profile: dict[str, Any]) -> tuple[str, str | None]:
        """The key's name in the profile and when it ends ("" for never); None for the latter where it is not there."""
        for fingerprint, entry in (profile.get("sshPublicKeys") or {}).items():
            if blob_of(str(entry.get("key") or "")) == self.blob:
                return entry.get("fingerprint") or fingerprint, str(entry.get("expirationTimeUsec") or "")
        return "", None

    def wanted(self, found: str | None) -> str | None:
        """When the key is to end, in Google's microseconds; what is found where that will do."""
        if self.options["state"] == "absent":
            return None
        if self.lifetime is None:
            return ""
        if found and int(found) / 1e6 - now() >= self.lifetime / 2:
            return found
        return str(int((now() + self.lifetime) * 1e6))

    def change(self, name: str, found: str | None, after: str | None) -> dict[str, Any] | None:
        """Add, change or take away; returns the profile where Google tells it."""
        path = f"{self.path}/sshPublicKeys/{quote(name, safe='')}"
        if after is None:
            self.client.call("oslogin", "DELETE", path, what=f"remove the SSH key from the profile of {self.user}")
            return None
        body = {"key": self.options["key"].strip(), **({"expirationTimeUsec": after} if after else {})}
        if found is not None:
            del body["key"]
            query = {"updateMask": "expirationTimeUsec"}
            what = f"change how long the SSH key of {self.user} is good"
            self.client.call("oslogin", "PATCH", path, body=body, query=query, what=what)
            return None
        answer = self.client.call(
            "oslogin",
            "POST",
            f"{self.path}:importSshPublicKey",
            body=body,
            query={"projectId": self.options["project"]},
            what=f"add the SSH key to the OS Login profile of {self.user}",
        )
        profile: dict[str, Any] | None = answer.get("loginProfile")
        return profile

    def shown(self, end: str | None) -> str:
        """The key in a diff."""
        return "" if end is None else f"{self.fingerprint} good until {_time(end) or 'it is removed'}\n"


def username(profile: dict[str, Any]) -> str:
    """The name on machines: the primary account's, or the only one's."""
    accounts = profile.get("posixAccounts") or []
    first = next((account for account in accounts if account.get("primary")), accounts[0] if accounts else {})
    return str(first.get("username") or "")


def _time(microseconds: str) -> str:
    if not microseconds:
        return ""
    return datetime.fromtimestamp(int(microseconds) / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def mistakes(options: dict[str, Any]) -> list[str]:
    """What is wrong with the options, before any call; a private key is never repeated."""
    found = []
    if "PRIVATE KEY" in options["key"]:
        found.append("key: found a private key; expected the public one, from the file that ends in .pub")
    elif blob_of(options["key"]) is None:
        found.append(
            "key: found a text that is no public SSH key; expected one line such as 'ssh-ed25519 AAAA… comment'"
        )
    if options["expires_in"] and seconds(options["expires_in"]) is None:
        found.append(f"expires_in: found {options['expires_in']!r}; expected a whole number and s, m, h or d, as 12h")
    if options["user"] and not re.fullmatch(r"[^@\s/]+@[^@\s/]+", options["user"]):
        found.append(f"user: found {options['user']!r}; expected the account's address")
    return found


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **google_auth.argument_spec(),
            "key": {"type": "str", "required": True, "no_log": False},
            "user": {"type": "str"},
            "expires_in": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    google_resource.require_libraries(module)
    if found := mistakes(module.params):
        module.fail_json(msg="\n".join(found))
    OsLoginKey(module).run()


if __name__ == "__main__":
    main()
